"""`plan` on a tiny model: what it says, that it does nothing, and how near the run comes to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.runner.small import few_neutral_chats, save_model, save_traits, tree
from traitscope import planner
from traitscope.cli.frame import run as command
from traitscope.cli.plan import _notes
from traitscope.forecast import Lengths
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
    assert planned == {**plan["expected"], "others": plan["others"]["share"]}
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
    assert (none["memory_free"], none["memory_all"]) == (None, None)
    assert none["expected"]["seconds"]["total"] == 0
    more = said(capsys, "plan", str(home / "more.toml"))
    assert (more["run"], more["resumed"]) == (first["run"], True)
    assert (more["texts"], more["captures"], more["done"]) == (1, 1, 6)
    assert (more["pair_traits"], more["opened"]) == ([], 0)
    answers = more["answers"]  # the text is of a prompt that the run says nothing of
    assert (answers["from"] in ("both", ""), answers["there"], answers["tried"]) == (True, 5, 1)
    assert tree(Path()) == before
    assert command(["plan", str(home / "suite.toml")]) == 0
    page = capsys.readouterr().out
    assert "is finished" in page
    assert "goes on" not in page
    assert "all of it is there" in page
    again = said(capsys, "run", str(home / "more.toml"))
    assert again["planned"] == {**more["expected"], "others": more["others"]["share"]}
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
    assert "batches of up to 2 rows" in page


def one_text(home: Path, **changes: Any) -> Path:
    """A suite of one set of prompts; "text" and "rows" may be given, and the most new tokens."""
    texts, rows, new = changes.get("texts", ["Is it so?"]), changes.get("rows", 4), 8
    Path("one.toml").write_text(
        f'name = "one"\nmodel = "{home}/model"\ntraits = ["{home}/loud"]\nrows = {rows}\n'
        f"[generation]\nmax_new_tokens = {new}\n[prompts.asks]\ntexts = {json.dumps(texts)}\n"
    )
    return Path("one.toml")


def test_one_is_said_as_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["plan", str(one_text(home)), "--rows", "1"]) == 0
    page = capsys.readouterr().out
    assert "batches of up to 1 row\n" in page
    assert "1 text to be written, in 1 batch and" in page
    assert re.search(r"\b1 (rows|prompts|answers|texts|batches|steps)\b", page) is None


@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        (
            Lengths({0: 3, 1: 4}, 2, (), 7, {0: "a", 1: "a"}),
            "the 2 answers that were tried, to 1 prompt.",
        ),
        (
            Lengths({0: 3, 1: 4}, 2, (2,), 9, {0: "a", 1: "b", 2: "a"}),
            "the 3 answers that were tried, to 2 prompts; 1 had not ended yet, and was guessed.",
        ),
        (Lengths({0: 3}, 1, (), 3), "the one answer that was tried."),
        (
            Lengths({-1: 3, 0: 4}, 2, (), 7),
            "the 1 answer of this run and the one answer that was tried.",
        ),
        (Lengths({-1: 3, -2: 3}, 2, (), 6), "the 2 answers of this run."),
    ],
)
def test_the_page_says_whose_lengths_are_expected(lengths: Lengths, said: str) -> None:
    made: Any = SimpleNamespace(lengths=lengths, written_texts=3)
    assert list(_notes(made))[1:] == [f"Expected: answers as long as {said}"]


def test_nothing_is_said_of_lengths_where_none_ended() -> None:
    made: Any = SimpleNamespace(lengths=Lengths({}, 0, (0,), 1), written_texts=1)
    assert "No answer ended within 1 token of a trial" in list(_notes(made))[1]


@pytest.mark.parametrize("columns", [40, 28])
def test_a_narrow_page_folds_words_and_cuts_no_number(
    home: Path, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert command(["plan", str(one_text(home))]) == 0
    page = capsys.readouterr().out
    assert "…" not in page
    assert "..." not in page
    assert re.search(r"[0-9.]+ [MG]B", page.split("peak")[1]) is not None


# --- what does not fit ---------------------------------------------------------------------------

LONG = "Say it again. " * 40  # the model's context is 96 tokens


def test_texts_that_do_not_fit_are_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = str(one_text(home, texts=["Is it so?", "No.", LONG]))
    why = "1 of 3 texts does not fit the model's context of 96 tokens and will be recorded as"
    plan = said(capsys, "plan", suite)
    assert plan["refused"] == {"texts": 1, "why": f"{why} failed."}
    assert (plan["texts"], plan["written_texts"]) == (3, 2)
    assert plan["most"]["new_tokens"] == 2 * 8
    assert command(["plan", suite]) == 0
    page = capsys.readouterr().out
    assert why in " ".join(page.split())
    assert "2 texts to be written" in page
    assert command(["run", suite, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == 1


def test_nothing_is_said_to_be_tried_where_no_text_fits(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = str(one_text(home, texts=[LONG, LONG + "So."]))
    assert command(["plan", suite]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "2 of 2 texts do not fit the model's context of 96 tokens" in page
    assert "to be written" not in page
    assert "No answer ended" not in page


def test_what_a_model_cannot_take_is_counted_once_and_costs_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Texts that exist: too long, of ids that the model does not have, and one that fits; also
    where internals of it were asked for."""
    ids = [[*range(90), *range(20)], [1, 2, 10**6], [1, 2, 3, 4]]
    chats = [{"token_ids": some, "n_prompt": 2} for some in ids]
    Path("chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    Path("suite.toml").write_text(
        f'name = "read"\nmodel = "{home}/model"\ntraits = ["{home}/loud"]\n'
        '[prompts.chats]\nconversations = "chats.jsonl"\nkind = "internals"\nblocks = [0]\n'
    )
    plan = said(capsys, "plan", "suite.toml")
    assert plan["refused"]["why"] == (
        "1 of 3 texts does not fit the model's context of 96 tokens and will be recorded as failed."
        " 1 of 3 texts has token ids that are not in the model's vocabulary and will be recorded as"
        " failed."
    )
    assert (plan["read_texts"], plan["opened"], plan["expected"]["tokens"]) == (1, 1, 4)
    assert command(["run", "suite.toml", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == 2


# --- places --------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize("place", ["foreign", "file", "file/below/it", "n" * 300])
def test_a_place_that_cannot_be_is_refused_before_a_model_is_loaded(
    home: Path, verb: str, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("foreign").mkdir()
    Path("foreign/notes.txt").write_text("mine")
    Path("file").write_text("mine")
    before = tree(Path())
    assert command([verb, str(home / "suite.toml"), "--out", place]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Loading" not in err
    words = "holds 'notes.txt'" if place == "foreign" else "no run was made"
    assert words in err.splitlines()[-1]
    assert tree(Path()) == before


def test_a_place_that_a_killed_run_has_left_is_none(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("left/parts").mkdir(parents=True)
    Path("left/lock").write_text("")
    assert said(capsys, "plan", str(home / "suite.toml"), "--out", "left")["resumed"] is False
    assert sorted(path.name for path in Path("left").iterdir()) == ["lock", "parts"]


# --- other programs ------------------------------------------------------------------------------


def test_a_plan_that_was_measured_beside_others_says_so(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    share = 0.25
    monkeypatch.setattr(planner.Others, "share", lambda self: share)
    plan = said(capsys, "plan", str(one_text(home)))
    assert plan["others"]["share"] == 0.25
    assert plan["others"]["warning"].startswith("Other programs took 25%")
    assert command(["plan", str(one_text(home))]) == 0
    assert "Other programs took 25%" in capsys.readouterr().out
    made = said(capsys, "run", str(one_text(home)))
    assert Run.open(made["run"]).events()[-1]["planned"]["others"] == 0.25
    share = 0.0
    assert command(["plan", str(one_text(home)), "--fresh"]) == 0
    assert "Other programs" not in capsys.readouterr().out


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
