"""`plan` on a tiny model: what it says, that it does nothing, and how near the run comes to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runner.small import few_neutral_chats, save_model, save_traits, tree
from traitscope import planner
from traitscope.cli.frame import run as command
from traitscope.runs import Run

SUITE = """
name = "small"
model = "./model"
device = "cpu"
traits = ["./hedged", "./loud"]
rows = 4
keep = ["1.post"]
[generation]
max_new_tokens = 12
seed = 3
[prompts.asks]
texts = ["Is it so?", "Why is the sky blue at noon?", "Say a word.", "No.", "Who asks, and why?"]
[prompts.inside]
texts = ["Is it so?"]
kind = "internals"
blocks = [0, 1]
"""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("home")
    save_model(folder / "model")
    save_traits(folder)
    (folder / "suite.toml").write_text(SUITE)
    more = SUITE.replace('"Say a word.", ', '"Say a word.", "Say more.", ')
    (folder / "more.toml").write_text(more)
    with pytest.MonkeyPatch.context() as patch:
        few_neutral_chats(patch)
        yield folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def said(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert command([*args, "--json"]) == 0
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    for progress in err.splitlines():
        json.loads(progress)
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_plan_says_what_the_run_then_does(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = str(home / "suite.toml")
    plan = said(capsys, "plan", suite)
    assert list(Path().iterdir()) == []  # nothing was made
    assert (plan["wanted"], plan["done"], plan["captures"], plan["texts"]) == (6, 0, 6, 5)
    assert (plan["loads"], plan["rows"], plan["opened"]) == (1, 4, 2)
    assert plan["pair_traits"] == ["hedged", "loud"]
    assert plan["pair_texts"] == 2 * 3 * 2 + 3
    assert plan["most"]["new_tokens"] == 60
    assert set(plan["expected"]["seconds"]) >= {"load", "directions", "write", "total"}
    made = said(capsys, "run", suite)
    assert plan["run"] == made["run"]
    assert plan["most"]["new_tokens"] >= made["new_tokens"]
    used, planned = made["usage"], made["planned"]
    assert planned == plan["expected"]
    for name in ("batches", "steps"):
        assert planned[name] == pytest.approx(made[name], abs=2)
    assert planned["disk"] == pytest.approx(used["disk"], rel=0.25)
    assert planned["memory"] == pytest.approx(used["memory"]["peak"], rel=0.25)
    assert command(["report", made["run"]]) == 0
    assert "planned " in capsys.readouterr().out


def test_what_is_there_is_left_out(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = said(capsys, "run", str(home / "suite.toml"))
    before = tree(Path())
    none = said(capsys, "plan", str(home / "suite.toml"))
    assert (none["loads"], none["captures"], none["done"]) == (0, 0, 6)
    assert none["expected"]["seconds"]["total"] == 0
    more = said(capsys, "plan", str(home / "more.toml"))
    assert (more["run"], more["resumed"]) == (first["run"], True)
    assert (more["texts"], more["captures"], more["done"]) == (1, 1, 6)
    assert (more["pair_traits"], more["opened"]) == ([], 0)
    assert more["answers"]["from"] in ("run", "")
    assert tree(Path()) == before
    assert command(["plan", str(home / "suite.toml")]) == 0
    assert "all of it is there" in capsys.readouterr().out
    again = said(capsys, "run", str(home / "more.toml"))
    assert again["planned"] == more["expected"]
    assert again["planned"]["disk"] == pytest.approx(again["usage"]["disk"], rel=0.25)


@pytest.mark.parametrize("samples", [1, 8])
def test_many_texts_take_the_disk_that_was_planned(
    home: Path, samples: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Most of it is their numbers, of which no text has another's but those of its prompt."""
    texts = [f"{'Say it again. ' * (n % 5)}Say {n}." for n in range(24)]
    Path("suite.toml").write_text(
        f'name = "many"\nmodel = "{home}/model"\ntraits = ["{home}/loud", "{home}/hedged"]\n'
        f"[generation]\nmax_new_tokens = 40\nsamples = {samples}\n"
        f"[prompts.said]\ntexts = {json.dumps(texts)}\n"
    )
    said(capsys, "plan", "suite.toml")
    made = said(capsys, "run", "suite.toml")
    assert made["usage"]["disk"] > 100_000
    assert made["planned"]["disk"] == pytest.approx(made["usage"]["disk"], rel=0.25)


def test_rows_are_halved_where_memory_ends(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the run would go on; of one row it is the machine's failure."""
    real, least = planner.steps_of, 1

    def steps_of(model: Any, prompts: Any, rows: int, *rest: Any) -> Any:
        if rows > least:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(model, prompts, rows, *rest)

    monkeypatch.setattr(planner, "steps_of", steps_of)
    found = said(capsys, "plan", str(home / "suite.toml"))
    assert (found["rows"], found["sizing"]["limit"]) == (1, "memory")
    least = 0
    assert command(["plan", str(home / "suite.toml")]) == 4
    assert "Out of memory on 'cpu'" in capsys.readouterr().err


def test_a_plan_of_other_work_is_not_held_against_a_run(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys, "plan", str(home / "suite.toml"))
    made = said(capsys, "run", str(home / "more.toml"))
    assert made["planned"] is None
    events = Run.open(made["run"]).events()
    assert "planned" not in events[-1]


def test_texts_that_exist_are_planned(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chats = [{"prompt": f"What of {n}?", "response": "It is so. " * n} for n in range(1, 6)]
    Path("chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    Path("suite.toml").write_text(
        f'name = "read"\nmodel = "{home}/model"\ntraits = ["{home}/loud"]\n'
        '[prompts.chats]\nconversations = "chats.jsonl"\n'
    )
    plan = said(capsys, "plan", "suite.toml")
    assert (plan["read_texts"], plan["texts"]) == (5, 5)
    assert plan["expected"]["batches"] == 0
    made = said(capsys, "run", "suite.toml")
    assert plan["expected"]["tokens"] >= made["tokens"]  # padding is counted
    assert made["planned"]["disk"] == pytest.approx(made["usage"]["disk"], rel=0.25)


def test_the_page_names_its_assumption(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["plan", str(home / "suite.toml"), "--rows", "2"]) == 0
    page = capsys.readouterr().out
    assert "would be new" in page
    assert "1 model load" in page
    assert "directions of hedged, loud, from 15 texts" in page
    assert "time in all" in page
    assert "every answer is as long as it may be" in page


def test_bad_input_is_one_sentence(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, words in (
        (["plan", "./nothing"], "./nothing"),
        (["plan", str(home / "suite.toml"), "--rows", "0"], "whole number >= 1 or 'auto'"),
        (["plan", str(home / "suite.toml"), "--model", "./none"], "Unknown model"),
    ):
        assert command(args) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert words in err
