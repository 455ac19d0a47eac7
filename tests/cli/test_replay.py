"""The verb replay, through `main`'s frame, on a tiny model from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runner.small import few_neutral_chats, save_model, save_traits
from traitscope.cli.frame import run as command
from traitscope.runs import Run, verify

CHAT = {"prompt": "Tea?", "response": "Perhaps.", "id": "tea"}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path / "home"))
    few_neutral_chats(monkeypatch)
    monkeypatch.chdir(tmp_path)
    save_model(Path("model"))
    save_traits(Path())
    Path("chats.jsonl").write_text(json.dumps(CHAT) + "\n")


def test_a_file_then_its_run(capfd: pytest.CaptureFixture[str]) -> None:
    of_file = ["replay", "chats.jsonl", "--model", "./model", "--trait", "./hedged"]
    assert command([*of_file, "--keep", "1.post", "--internals", "1", "--json"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    result = json.loads(line)
    assert (result["captures"], result["internals"], result["new_tokens"]) == (2, 1, 0)
    place = result["run"]
    assert command(["replay", place, "--trait", "./loud", "--keep", "0.post"]) == 0
    assert "loud" in capfd.readouterr().out
    run = Run.open(place)
    assert (run.traits, verify(place), run.state) == (("hedged", "loud"), [], "complete")
    assert [k.sites[0] for k in run.kept(run.generations()[0].generation)] == ["1.post", "0.post"]
    assert command(["replay", place, "--trait", "./loud"]) == 0
    assert "Nothing to make" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["chats.jsonl", "--trait", "./hedged"], "got no --model"),
        (["chats.jsonl", "--model", "./model"], "got no --trait"),
        (["none.jsonl", "--model", "./model", "--trait", "./hedged"], "no such file"),
        ([".", "--trait", "./hedged"], "Expected a run folder"),
        ([".", "--trait", "./hedged", "--out", "x"], "--out only with a file of conversations"),
        (["."], "got neither"),
    ],
)
def test_one_sentence_and_status_2(
    args: list[str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(["replay", *args]) == 2
    said = capfd.readouterr()
    assert words in said.err
    assert (said.out, len(said.err.splitlines())) == ("", 1)
