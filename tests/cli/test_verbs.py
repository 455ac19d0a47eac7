"""Every verb, through `main`'s frame, with a runner that makes runs out of thin air."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import traitscope.runner
from tests.report.planted import STATS, TRAITS, Text, planted
from traitscope.cli.frame import run as command
from traitscope.cli.progress import progress_on
from traitscope.cli.screen import Screen
from traitscope.errors import Interrupted, MachineError
from traitscope.runner import Outcome, Tick

SUITE = """
name = "two"
model = "pocket"
traits = ["sycophancy"]
[prompts.asked]
texts = ["Tea?", "Coffee?"]
"""
GOOD = [Text("Tea?", (" a",), z={TRAITS[0]: [2.0]}), Text("Coffee?", (" b",))]
BAD = Text("Milk?", error="Expected at most 512 tokens, got 900.")
EXPECT = [
    {"text": "tea over coffee", "trait": TRAITS[0], "higher": "Tea?", "lower": "Coffee?"},
    {"text": "tea over cocoa", "trait": TRAITS[0], "higher": "Tea?", "lower": "Cocoa?"},
]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TRAITSCOPE_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("suite.toml").write_text(SUITE)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the runner was asked; it makes the run that `texts` in the last call's dict says."""
    return runner(monkeypatch, lambda out: None)


def runner(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], None], texts: list[Text] | None = None
) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []

    def fake(suite: Any, *, out: Path | None = None, progress: Any, **more: Any) -> Outcome:
        asked.append({"suite": suite, "out": out, **more})
        print("a library that prints")
        progress(Tick("load", message="[bold]pocket[/]"))
        progress(Tick("generate", 1, 2, "texts", tokens=10))
        progress(Tick("generate", 2, 2, "texts", tokens=20))
        path = out or Path("runs/two-0123abcd")
        act(path)
        planted(path, texts or GOOD, expect=EXPECT)
        progress(Tick("done"))
        return Outcome(path, False, False, STATS)

    monkeypatch.setattr(traitscope.runner, "run_suite", fake)
    return asked


def error_of(text: str) -> dict[str, str]:
    (line,) = text.splitlines()
    found: dict[str, str] = json.loads(line)["error"]
    return found


# --- run -----------------------------------------------------------------------------------------


def test_run_json_is_one_line(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["run", "suite.toml", "--json"]) == 0
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    result = json.loads(line)
    counts = ("captures", "wanted", "trajectories", "internals", "failed")
    assert [result[name] for name in counts] == [2, 2, 2, 0, 0]
    assert (result["model_loads"], result["batches"], result["new_tokens"]) == (1, 2, 300)
    assert result["tokens_per_second"] == 150.0
    assert result["seconds"]["load"] == 1.5
    assert result["run"] == "runs/two-0123abcd"
    assert (result["already_done"], result["resumed"]) == (False, False)
    assert result["traits"] == list(TRAITS)
    assert result["model"]["name"] == "made-up"
    held, missing = result["expectations"]
    assert (held["held"], held["margin"], held["tested"]) == (True, 0.5, False)
    assert held["difference"] == pytest.approx(2.0, abs=1e-5)
    assert (missing["held"], missing["difference"]) == (None, None)
    lines = err.splitlines()
    assert "a library that prints" in lines
    phases = [json.loads(each)["phase"] for each in lines if each.startswith("{")]
    assert phases[0] == "load"
    assert phases[-1] == "done"


def test_run_shows_the_report(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["run", "suite.toml"]) == 0
    out, err = capsys.readouterr()
    assert "finished: all 2 captures are there" in out
    assert "library" not in out
    assert "Loading the model: [bold]pocket[/]" in err
    assert "2 of 2 texts" in err


def test_options_reach_the_suite(calls: list[Any]) -> None:
    options = "--max-new-tokens 7 --temperature 0 --top-p 0.5 --top-k 3 --seed 9 --samples 2"
    more = "--device cpu --dtype float32 --rows 4 --model pocket --fresh --retry-failed --out x"
    more += " --allow-unproven --no-prompt-logprobs"
    assert command(["run", "suite.toml", *options.split(), *more.split()]) == 0
    (asked,) = calls
    suite = asked["suite"]
    made = suite.generation.model_dump()
    assert list(made.values()) == [7, 0.0, 0.5, 3, 9, 2, False]
    assert (suite.device, suite.dtype, suite.rows) == ("cpu", "float32", 4)
    assert suite.allow_unproven
    assert (asked["fresh"], asked["retry_failed"], asked["out"]) == (True, True, Path("x"))


def test_some_failed_is_1_with_the_reasons(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runner(monkeypatch, lambda out: None, [*GOOD, BAD])
    assert command(["run", "suite.toml", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert (result["captures"], result["failed"]) == (2, 1)
    assert result["failures"][0]["reason"] == BAD.error
    assert result["failures"][0]["prompts"] == ["Milk?"]


def test_a_suites_mistakes_are_2(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    Path("suite.toml").write_text(SUITE.replace("sycophancy", "sycophany").replace("Tea", ""))
    assert command(["run", "suite.toml", "--rows", "many"]) == 2
    assert command(["run", "suite.toml", "--json"]) == 2
    out, err = capsys.readouterr()
    assert error_of(out)["type"] == "SuiteError"
    assert "Did you mean 'sycophancy'?" in error_of(out)["message"]
    assert all(line.startswith("traitscope: ") for line in err.splitlines())
    assert "expected a whole number >= 1 or 'auto', got 'many'" in err
    assert calls == []


def test_ctrl_c_is_3(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def act(out: Path) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            # a second one would kill at once
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
            raise Interrupted(f"1 of 2 captures are kept in {out}.") from None

    before = signal.getsignal(signal.SIGINT)
    runner(monkeypatch, act)
    assert command(["run", "suite.toml", "--json"]) == 3
    assert signal.getsignal(signal.SIGINT) is before
    out, err = capfd.readouterr()
    assert error_of(out) == {
        "type": "Interrupted",
        "message": "1 of 2 captures are kept in runs/two-0123abcd.",
    }
    assert "Ctrl-C again ends at once" in err
    assert "what is finished is being kept" in err


@pytest.mark.parametrize("json_too", [False, True])
@pytest.mark.parametrize(
    ("verb", "place"),
    [
        (["plan", "suite.toml"], "traitscope.planner.plan"),
        (["speedtest"], "traitscope.speedtest.speedtest"),
        (["doctor"], "traitscope.checkup.doctor"),
    ],
)
def test_ctrl_c_where_nothing_is_kept(
    verb: list[str],
    place: str,
    json_too: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr(place, stopped)
    assert command([*verb, *(["--json"] if json_too else [])]) == 3
    out, err = capfd.readouterr()
    assert "Stopping: nothing is kept. Ctrl-C again ends at once." in err
    assert "traitscope: Interrupted. Nothing was kept; the same command begins from" in err
    assert "being kept" not in err
    assert "\n\n" not in err
    assert not err.startswith("\n")
    if json_too:
        assert error_of(out)["message"].startswith("Interrupted. Nothing was kept")


@pytest.mark.parametrize("verb", ["report run", "verify run", "compare run run"])
def test_ctrl_c_while_reading(
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    planted(tmp_path / "run", GOOD)
    monkeypatch.setattr("traitscope.runs.Run.open", stopped)
    assert command(verb.split()) == 3
    assert "Nothing was kept" in capsys.readouterr().err


def test_ctrl_c_that_nobody_took_is_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(out: Path) -> None:
        raise KeyboardInterrupt

    runner(monkeypatch, act)
    assert command(["run", "suite.toml"]) == 3
    assert "the same command goes on" in capsys.readouterr().err


def test_a_failing_machine_is_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(out: Path) -> None:
        raise MachineError("Expected room on the disk, got none.")

    runner(monkeypatch, act)
    assert command(["run", "suite.toml"]) == 4
    out, err = capsys.readouterr()
    assert err.splitlines()[-1] == "traitscope: Expected room on the disk, got none."
    assert out == ""


@pytest.mark.parametrize("debug", [False, True])
def test_a_mistake_of_ours_is_4_and_its_traceback_is_kept(
    debug: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def act(out: Path) -> None:
        raise ZeroDivisionError("oh\x1b[31m no")

    runner(monkeypatch, act)
    monkeypatch.setenv("TRAITSCOPE_DEBUG", "1" if debug else "")
    assert command(["run", "suite.toml", "--json"]) == 4
    out, err = capsys.readouterr()
    assert error_of(out)["type"] == "ZeroDivisionError"
    (crash,) = (tmp_path / "home" / "crashes").iterdir()
    assert str(crash) in error_of(out)["message"]
    assert "ZeroDivisionError" in crash.read_text()
    assert ("Traceback" in err) is debug
    assert "oh␛[31m no" in err.splitlines()[-1]


# --- capture -------------------------------------------------------------------------------------


def test_capture_is_a_suite(calls: list[Any]) -> None:
    asked = ["--prompts", "Tea?", "--prompts", "[bold]Coffee[/]?", "--internals", "middle"]
    traits = ["--trait", "sycophancy", "--trait", "cognitive_load", "--internals", "1"]
    assert command(["capture", "--model", "pocket", *traits, *asked, "--seed", "5"]) == 0
    suite = calls[0]["suite"]
    assert suite.trait_names == ("sycophancy", "cognitive_load")
    assert [p.text for p in suite.prompt_sets()["prompts"]] == ["Tea?", "[bold]Coffee[/]?"]
    assert suite.prompts["internals"].kind == "internals"
    assert suite.prompts["internals"].blocks == (1, "middle")
    assert suite.generation.seed == 5


def test_capture_reads_a_file(calls: list[Any]) -> None:
    Path("asked.txt").write_text("Tea?\nCoffee?\n")
    args = ["capture", "--model", "pocket", "--trait", "sycophancy", "--prompts-file", "asked.txt"]
    assert command(args) == 0
    assert len(calls[0]["suite"].prompt_sets()["prompts"]) == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "Expected --prompts TEXT or --prompts-file FILE, got neither."),
        (("--prompts", "a", "--prompts-file", "b"), "got both."),
        (("--prompts", "a", "--internals", "last"), "expected a block's number from 0, or 'mid"),
        (("--prompts-file", "none.txt"), "none.txt"),
        (("--prompts", " "), "expected a prompt, got an empty one"),
        (("--prompts", "a", "--trait", "nope"), "unknown trait 'nope'"),
    ],
)
def test_captures_mistakes_are_2(
    more: tuple[str, ...], said: str, calls: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["capture", "--model", "pocket", "--trait", "sycophancy", *more]) == 2
    assert said in capsys.readouterr().err
    assert calls == []


# --- init, report, verify ------------------------------------------------------------------------


def test_init_copies_a_suite_that_loads(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["init", "mine"]) == 0
    assert "traitscope run mine" in capsys.readouterr().out
    from traitscope.suite import load_suite

    assert load_suite("mine").name == "overnight"
    assert command(["init", "mine", "--json"]) == 2
    assert error_of(capsys.readouterr().out)["type"] == "InputError"


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted(tmp_path / "run", [*GOOD, BAD], expect=EXPECT)
    assert command(["report", "run"]) == 0
    assert "What was expected: 1 of 2 held" in capsys.readouterr().out
    assert command(["report", "run", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    data = json.loads(line)
    assert data["counts"]["failed"] == 1
    assert data["traits"][0]["prompts"][0]["name"] == "Tea?"


def test_verify_says_what_was_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted(tmp_path / "run", GOOD)
    assert command(["verify", "run"]) == 0
    assert "2 texts with 10 tokens, 2 captures" in capsys.readouterr().out
    (tmp_path / "run" / "parts" / "left.tmp").write_text("x")
    assert command(["verify", "run", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["whole"] is True
    assert [problem["kind"] for problem in result["problems"]] == ["leftover"]


def test_verify_names_what_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted(tmp_path / "run", GOOD)
    part = tmp_path / "run" / "parts" / "00001.tokens.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    assert command(["verify", "run"]) == 2
    out, err = capsys.readouterr()
    assert "parts/00001.tokens.parquet" in err
    assert "is damaged" in out
    assert command(["verify", "run", "--json"]) == 2
    assert error_of(capsys.readouterr().out)["type"] == "RunError"


@pytest.mark.parametrize("verb", ["report", "verify"])
def test_no_run_there_is_2(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command([verb, "nowhere"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "Expected a run folder" in err


# --- the frame -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["runn"], "Did you mean 'run'?"),
        (["run"], "SUITE"),
        (["run", "suite.toml", "--seed", "x"], "--seed"),
        (["run", "suite.toml", "--sed", "1"], "--sed"),
        (["speedtest", "--promts", "3"], "--rows). See 'traitscope speedtest --help'."),
        (["capture", "--trait", "sycophancy", "--prompts", "a"], "--model"),
    ],
)
def test_usage_errors_are_2_and_one_line(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err
    assert "--help" in err
    assert command([*args, "--json"]) == 2
    assert error_of(capsys.readouterr().out)["type"] == "UsageError"


def test_help_is_there_for_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert command([]) == 0
    assert "overnight" in capsys.readouterr().out
    for verb in ("run", "capture", "init", "report", "verify"):
        assert command([verb, "--help"]) == 0
        assert f"traitscope {verb}" in capsys.readouterr().out
    assert command(["--version"]) == 0
    assert capsys.readouterr().out.startswith("traitscope ")


def in_process(code: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], text=True, timeout=60, **more)


def test_help_report_and_verify_load_no_torch(tmp_path: Path) -> None:
    planted(tmp_path / "run", GOOD)
    code = """
import sys
from traitscope.cli.frame import run
assert [run(args) for args in (["--help"], ["report", "run"], ["verify", "run"])] == [0, 0, 0]
assert not {"torch", "transformers"} & set(sys.modules)
"""
    done = in_process(code, cwd=tmp_path, capture_output=True, env=_env())
    assert done.returncode == 0, done.stderr


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    planted(tmp_path / "run", [Text(f"Prompt {i}?", (" a",)) for i in range(40)])
    for verb in ("report run --all", "run --help", "verify run"):
        line = f"{sys.executable} -m traitscope {verb} | true"
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, env=_env()
        )
        assert done.stderr == ""


@pytest.mark.parametrize(
    ("tick", "said"),
    [
        (Tick("generate", 1, 1, "texts"), "Writing and reading: 1 of 1 text"),
        (Tick("generate", 0, 2, "texts"), "Writing and reading: 0 of 2 texts"),
        (Tick("measure", 1200, 24000, "texts"), "Measuring: 1,200 of 24,000 texts"),
        (Tick("measure", 1, 1, "checks in float32"), "Measuring: 1 of 1 check in float32"),
        (Tick("export", 1, 1), "Exporting: 1 of 1"),
    ],
)
def test_progress_counts_in_words(
    tick: Tick, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_on(Screen.now(json=False)) as progress:
        progress(tick)
    assert capsys.readouterr().err.splitlines() == [said]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("buffered", ["", "1"])
def test_output_that_cannot_be_written_is_the_machines_failure(
    buffered: str, tmp_path: Path
) -> None:
    planted(tmp_path / "run", GOOD)
    env = {**_env(), "PYTHONUNBUFFERED": buffered, "TRAITSCOPE_HOME": str(tmp_path / "home")}
    said = "traitscope: Standard output cannot be written (No space left on device)."
    for verb in ("report run", "report run --json", "verify run", "run --help", "--version"):
        line = f"{sys.executable} -m traitscope {verb} > /dev/full"
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, stderr=-1, text=True, env=env)
        assert (done.returncode, done.stderr.count("\n")) == (4, 1), (verb, done.stderr)
        assert done.stderr.startswith(said)
    line = f"{sys.executable} -m traitscope report none --json > /dev/full"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, stderr=-1, text=True, env=env)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    line = f"{sys.executable} -m traitscope report run >&-"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, stderr=-1, text=True, env=env)
    assert done.returncode == 4
    assert done.stderr.startswith("traitscope: Standard output cannot be written (it is closed).")
    assert not (tmp_path / "home" / "crashes").exists()


def test_a_failed_write_elsewhere_is_no_failure_of_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(out: Path) -> None:
        raise OSError(28, "No space left on device")

    runner(monkeypatch, act)
    assert command(["run", "suite.toml"]) == 4
    assert "Something failed that should not have (OSError" in capsys.readouterr().err


def _env() -> dict[str, str]:
    root = str(Path(traitscope.runner.__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": root}
