"""`speedtest` on a tiny model: what it says, what its numbers add up to, and bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny
from traitscope import sidebyside
from traitscope import speedtest as module
from traitscope.cli.frame import run as command
from traitscope.errors import MachineError
from traitscope.models import locate
from traitscope.speedtest import SUITES, Asked, Speed, Way, speedtest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    tiny.hf_model("llama").save_pretrained(place)
    tiny.tokenizer().save_pretrained(place)
    return place


def error_of(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert command(["speedtest", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_json_has_seconds_and_ratio_for_each_way(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", str(folder), "--prompts", "4", "--max-new-tokens", "3", "--quick"]
    assert command(["speedtest", *args, "--processes", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    found: dict[str, Any] = json.loads(line)
    for said in err.splitlines():
        json.loads(said)
    assert list(found["ways"]) == ["load_per_prompt", "one_by_one", "batch", "side_by_side"]
    assert (found["texts_compared"], found["texts_equal"]) == (4, 4)
    first = found["ways"]["load_per_prompt"]
    assert [way["loads"] for way in found["ways"].values()] == [4, 1, 1, 2]
    assert [way["prompts_measured"] for way in found["ways"].values()] == [3, 3, 4, 4]
    for way in found["ways"].values():
        assert way["seconds"] == pytest.approx(way["load"] + way["generation"])
        assert way["ratio"] == pytest.approx(first["seconds"] / way["seconds"])
        assert way["saves"] == pytest.approx(1 - 1 / way["ratio"])
        assert set(way["suite_seconds"]) == {str(count) for count in SUITES}
        assert 4 <= way["tokens"] <= 12


def test_the_page_states_ratios_that_cannot_be_misread(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ways = (Way("load_per_prompt", 4, 6.0, 3.0, 4, 3, 12), Way("batch", 1, 3.0, 1.0, 4, 4, 12))
    about = {"name": "m", "dtype": "float32", "device": "cpu"}
    made = Speed(about, {"cores": 2}, 4, 4, 3, 1, 4, 3, "", ways)
    monkeypatch.setattr(module, "speedtest", lambda *_: made)
    assert command(["speedtest", "--model", str(folder)]) == 1  # a text differs
    page = capsys.readouterr().out
    assert "true batch: 2.25x as fast as a load per prompt, saves 56% of its time" in page
    assert "3 of 4 texts" in page
    assert "3 prompts, scaled up" in page


def test_a_suite_is_scaled_from_what_was_measured() -> None:
    loads, alone, batch = (
        Way("load_per_prompt", 10, 20.0, 10.0, 10, 10, 50),
        Way("one_by_one", 1, 2.0, 10.0, 10, 10, 50),
        Way("batch", 1, 2.0, 4.0, 10, 10, 50, rows=10),
    )
    assert loads.suite(100) == pytest.approx(300)
    assert alone.suite(100) == pytest.approx(102)
    assert batch.suite(100) == pytest.approx(42)
    assert (alone.suite(5), batch.suite(5)) == (7.0, 6.0)  # half a batch is no faster


def test_fewer_than_were_asked_take_fewer_batches() -> None:
    in_eights = Way("batch", 1, 1.0, 48.0, 144, 144, 700, rows=8)  # 18 batches
    assert in_eights.suite(24) == pytest.approx(1 + 3 * 48 / 18)
    assert in_eights.suite(4) == pytest.approx(1 + 48 / 18)
    assert in_eights.suite(288) == pytest.approx(1 + 96)
    at_once = Way("batch", 1, 1.0, 48.0, 144, 144, 700, rows=144, few=9.0)
    assert at_once.suite(24) == pytest.approx(10)
    assert at_once.suite(12) == pytest.approx(49)


def test_a_part_of_a_batch_is_measured_where_the_suite_is_one(folder: Path) -> None:
    checkpoint = locate(str(folder))
    asked = Asked(checkpoint, prompts=26, max_new_tokens=2, rows=26, processes=2, quick=True)
    found = speedtest(asked)
    few = [way.few for way in found.ways]
    assert few[:2] == [None, None]
    assert all(seconds is not None and seconds > 0 for seconds in few[2:])
    for way in found.ways[2:]:
        assert way.suite(SUITES[0]) == way.load + (way.few or 0)
    whole = speedtest(Asked(checkpoint, prompts=25, max_new_tokens=2, rows=8, quick=True))
    assert [way.few for way in whole.ways] == [None] * 3
    assert whole.ways[2].rows == 8


def test_texts_that_differ_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sidebyside.ask

    def broken(model: Any, requests: Any, *others: Any) -> Any:
        texts, took = whole(model, requests, *others)
        if len(requests) == 1:  # alone the first text is another one
            texts = {n: (*t, 1) if n.prompt_id.endswith("0") else t for n, t in texts.items()}
        return texts, took

    monkeypatch.setattr(module, "ask", broken)
    found = speedtest(Asked(locate(str(folder)), prompts=3, max_new_tokens=2, dtype="float32"))
    assert (found.compared, found.equal) == (3, 2)


def test_narrow_dtypes_are_compared_in_float32(folder: Path) -> None:
    asked = Asked(locate(str(folder)), prompts=2, max_new_tokens=2, dtype="bfloat16")
    found = speedtest(asked)
    assert found.model["dtype"] == "bfloat16"
    assert (found.compared, found.equal, found.note) == (2, 2, "")


def test_a_neighbour_that_dies_is_said(folder: Path) -> None:
    asked = Asked(locate(str(folder)), processes=1)
    nothing = np.zeros((7, 48, 1), dtype=np.float32)
    with sidebyside.Neighbours(asked, [[]], nothing) as neighbours:
        neighbours.load()
        os.kill(neighbours._processes[0][0].pid, signal.SIGKILL)
        with pytest.raises(MachineError, match="ended by itself"):
            neighbours.generate(1, 1)


# --- beside other programs -----------------------------------------------------------------------


def made(*others: float | None, first: float | None = None) -> Speed:
    """Ways that took 6197 and 100 seconds, or as the second one was disturbed."""
    ways = [Way("load_per_prompt", 4, 6000.0, 197.0, 4, 4, 12, others=first)]
    ways += [Way("batch", 1, 60.0, 40.0, 4, 4, 12, rows=4, others=share) for share in others]
    about = {"name": "m", "dtype": "float32", "device": "cpu"}
    return Speed(about, {"cores": 2}, 4, 4, 3, 1, 4, 4, "", tuple(ways))


@pytest.mark.parametrize(
    ("found", "said", "unsaid"),
    [
        (made(0.05), "61.97x as fast as a load per prompt, saves 98% of its time", "Other prog"),
        (made(None), "61.97x as fast", "Other programs"),
        (made(0.62), "~60x as fast as a load per prompt, as far as that can be told", "61.97"),
        (made(0.62), "Other programs took much of this machine's processors meanwhile (tru", "98%"),
        (made(0.0, first=0.4), "meanwhile (load per prompt 40%): on a quiet one", "61.97"),
    ],
)
def test_ratios_say_no_more_than_was_measured(
    found: Speed,
    said: str,
    unsaid: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "speedtest", lambda *_: found)
    assert command(["speedtest", "--model", str(folder)]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert said in page
    assert unsaid not in page
    assert command(["speedtest", "--model", str(folder), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [way["others"] for way in result["ways"].values()] == [w.others for w in found.ways]
    assert result["warning"] == found.warning


def test_processes_that_work_for_a_way_are_no_other_programs() -> None:
    busy = "import time; end = time.process_time() + 0.8\nwhile time.process_time() < end: pass"
    children = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(2)]
    with sidebyside.watched([child.pid for child in children]) as ours:
        alive = sidebyside.watched()
        with alive as theirs:
            time.sleep(0.6)
    for child in children:
        assert child.wait() == 0
    assert ours.seconds >= 0.6
    assert theirs.others - ours.others > 0.3 / (os.cpu_count() or 1)


def test_a_way_that_is_too_short_has_the_share_of_all() -> None:
    brief, long = [module.Took(0.1, 0.9)], [module.Took(0.6, 0.2), module.Took(0.4, 0.7)]
    assert module._others(brief) is None
    assert module._others(long) == pytest.approx(0.4)
    turns = module._Turns(load=brief, batch=long)
    assert module._others(*vars(turns).values()) == pytest.approx((0.09 + 0.4) / 1.1)


# --- what a person sees --------------------------------------------------------------------------


def test_numbers_and_nouns(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"name": "m", "dtype": "float32", "device": "cpu"}
    one = Way("load_per_prompt", 1, 1.0, 1.0, 1, 1, 1)
    many = Way("load_per_prompt", 1000, 1.0, 1.0, 1000, 1000, 21688)
    pages = []
    for way, processes in ((one, 1), (many, 4)):
        found = Speed(about, {"cores": 1}, 24, way.prompts, 3, processes, 0, 0, "why", (way,))
        monkeypatch.setattr(module, "speedtest", lambda *_, found=found: found)
        assert command(["speedtest", "--model", str(folder)]) == 0
        pages.append(capsys.readouterr().out)
    assert "1 prompt · 1 token written · batches of up to 24\n" in pages[0]
    assert "1 core\n" in pages[0]
    assert "1,000 prompts · 21,688 tokens written" in pages[1]
    assert "batches of up to 24, in 4 processes of up to 6 each" in pages[1]


def test_processes_load_only_where_they_are_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", str(folder), "--prompts", "1", "--max-new-tokens", "2"]
    assert command(["speedtest", *args]) == 0
    out, err = capsys.readouterr()
    assert "each process its own" not in err
    assert "Measuring: 1 of 1 load\n" in err
    assert "1 of 1 text.\n" in out


@pytest.mark.parametrize(("context", "advice"), [(16, "Take a model of a longer one."), (60, "")])
def test_a_short_context_gets_advice_that_helps(
    context: int, advice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.hf_model("llama", max_position_embeddings=context).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert command(["speedtest", "--model", str(tmp_path), "--max-new-tokens", "1"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"holds {context} tokens" in said
    if advice:
        assert said.endswith(advice)
    else:
        count = said.rsplit("Ask for ", 1)[1].split()[0]
        args = ["--model", str(tmp_path), "--max-new-tokens", "1", "--quick", "--prompts", count]
        assert command(["speedtest", *args]) == 0


def test_a_damaged_file_is_called_so(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert command(["speedtest", "--model", str(tmp_path)]) == 2
    assert "model.safetensors' is damaged or cut off" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--prompts", "0"], "--prompts: expected a number from 1 to"),
        (["--prompts", "9999"], "--prompts: expected a number from 1 to"),
        (["--rows", "0"], "--rows: expected a whole number >= 1 or 'auto', got '0'"),
        (["--rows", "many"], "--rows: expected a whole number >= 1 or 'auto', got 'many'"),
        (["--max-new-tokens", "0"], "--max-new-tokens: expected a whole number >= 1, got 0"),
        (["--processes", "99"], "--processes: expected a number from 1 to 16, got 99"),
        (["--dtype", "float8"], "float8"),
        (["--model", "./none"], "./none"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_bad_input_is_one_sentence(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in error_of(capsys, *args)
