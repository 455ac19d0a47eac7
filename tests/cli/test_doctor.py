"""`traitscope doctor`: one line of JSON, a page, and the exit status; no process is started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from traitscope.cli.frame import run as command


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sound model, and one whose template writes two BOS."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("sound", "double"):
        tiny.hf_model("llama").save_pretrained(folder / name)
        tokenizer = tiny.tokenizer.__wrapped__()
        if name == "double":
            tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
        tokenizer.save_pretrained(folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def ask(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    status = command(["doctor", *args])
    return status, *capsys.readouterr()


def test_json_is_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dtypes = ("--dtype", "auto", "--dtype", "bfloat16")
    status, out, err = ask(capsys, "--model", "./sound", *dtypes, "--device", "cpu", "--json")
    assert status == 0
    (line,) = out.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert set(found) == {"machine", "model", "checks", "held"}
    assert found["held"] is True
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory"] > found["machine"]["memory_free"] > 0
    assert {"torch", "transformers", "python"} <= set(found["machine"]["versions"])
    assert (found["model"]["name"], found["model"]["device"]) == ("./sound", "cpu")
    assert found["model"]["dtypes"] == ["float32", "bfloat16"]
    for check in found["checks"]:
        keys = {"name", "dtype", "difference", "allowed", "held", "detail", "unit", "seconds"}
        assert set(check) == keys
        assert check["held"] is (check["difference"] <= check["allowed"]) is True
    assert sum(check["seconds"] for check in found["checks"]) > 0
    phases = [json.loads(said)["phase"] for said in err.splitlines()]
    assert {"load", "check", "done"} <= set(phases)


def test_the_page_says_what_it_means(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dtypes = ("--dtype", "bfloat16", "--dtype", "float32")
    status, out, _ = ask(capsys, "--model", "./sound", *dtypes)
    assert status == 0
    narrow, wide = out.index("bfloat16 ─"), out.index("\nfloat32 ─")
    assert "smaller differences are noise" in " ".join(out[narrow:wide].split())
    assert "as if each prompt had been run alone" in out[wide:]
    assert out.count("✓") == 2 * 12
    assert "✗" not in out
    (batched,) = (line for line in out[wide:].splitlines() if "batched = alone" in line)
    assert "1.0e-05  |h|" in batched
    assert "6 of 6 texts equal" in batched


def test_a_check_that_fails_is_1(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ask(capsys, "--model", "./double", "--json")
    assert status == 1
    found = json.loads(out)
    assert found["held"] is False
    assert [c["name"] for c in found["checks"] if not c["held"]] == ["no double BOS"]
    status, out, _ = ask(capsys, "--model", "./double")
    assert status == 1
    (line,) = (line for line in out.splitlines() if "✗" in line)
    assert "no double BOS" in line
    said = " ".join(out.split())
    assert "cannot be trusted here; what did not hold: no double BOS." in said
    assert "as if each prompt" not in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--model", "./none"), "Unknown model './none'"),
        (("--model", "./sound", "--dtype", "int8"), "Unknown dtype 'int8'"),
        (("--model", "./sound", "--device", "abacus"), "Unknown device 'abacus'"),
        (("./sound",), "unexpected extra argument"),
    ],
)
def test_bad_input_is_2(
    home: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], words: str
) -> None:
    status, out, _ = ask(capsys, *args, "--json")
    assert status == 2
    assert words in json.loads(out)["error"]["message"]


def test_deep_shows_the_hash(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = ask(capsys, "--model", "./sound", "--deep")
    assert status == 0
    assert "12 of 12 texts equal" in out
    (line,) = (line for line in out.splitlines() if line.startswith("sha256 float32"))
    assert len(line.split()[-1]) == 64
    assert "Hashing tensors" in err
