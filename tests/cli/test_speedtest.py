"""`speedtest` on a tiny model: what it says, what its numbers add up to, and bad input."""

from __future__ import annotations

import json
import os
import signal
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
        Way("batch", 1, 2.0, 4.0, 10, 10, 50),
    )
    assert loads.suite(100) == pytest.approx(300)
    assert alone.suite(100) == pytest.approx(102)
    assert batch.suite(100) == pytest.approx(42)
    assert (alone.suite(5), batch.suite(5)) == (7.0, 6.0)  # half a batch is no faster


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
            neighbours.generate(1)


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
