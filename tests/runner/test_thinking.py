"""A model that thinks, end to end on a tiny one: the switch, the role, the windows, the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models.thinkers import thinker
from tests.runner.small import save_model, small_suite
from traitscope.core import Prompt, Window
from traitscope.errors import ModelError, RunError
from traitscope.models import Model, load
from traitscope.replays import replay, replay_run
from traitscope.report import night, summarise
from traitscope.runner import capture, run_suite
from traitscope.runs import Run, verify
from traitscope.traits import extract
from traitscope.traits.pairs import load_trait

CHATS: list[dict[str, Any]] = [
    {
        "id": "late",
        "messages": [
            {"role": "user", "content": "Is it so?"},
            {"role": "assistant", "content": "It is.", "reasoning_content": "Hm, is it?"},
        ],
    },
    {"id": "plain", "prompt": "Is it so?", "response": "It is."},
]


def saved(home: Path, name: str) -> Path:
    """A tiny model beside a tokenizer of that shape."""
    folder = home / name
    if not folder.exists():
        made = thinker(name)
        save_model(folder, vocab_size=len(made))
        made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def traits(home: Path) -> list[str]:
    return [f"{home}/hedged", f"{home}/loud"]


def suite(home: Path, name: str, **changes: Any) -> Any:
    model = str(saved(home, name))
    prompts = {"asks": {"texts": ["Is it so?", "Why?"]}}
    return small_suite(home, **{"model": model, "prompts": prompts, **changes})


def whole(path: Path) -> Run:
    run = Run.open(path)
    assert (verify(path), run.state) == ([], "complete")
    return run


def test_the_switch_changes_the_prompt_and_the_run(home: Path, tmp_path: Path) -> None:
    off = whole(run_suite(suite(home, "switched", thinking=False)).path)
    on = whole(run_suite(suite(home, "switched", template={"enable_thinking": True})).path)
    silent = whole(run_suite(suite(home, "switched")).path)
    assert len({run.path for run in (off, on, silent)}) == 3
    assert off.header.generation["template"] == {"enable_thinking": False}
    assert "template" not in silent.header.generation
    first = [run.text(run.generations()[0].generation).tokens for run in (off, on, silent)]
    assert first[0].text.startswith(first[1].text[: len("<|im_start|>user\nIs it so?")])
    assert "<think>\n\n</think>" in first[0].text
    assert "<think>" not in first[1].text[: int(first[1].end[first[1].n_prompt - 1])]
    np.testing.assert_array_equal(
        first[1].token_id[: first[1].n_prompt], first[2].token_id[: first[2].n_prompt]
    )
    with pytest.raises(RunError, match=r"told nothing instead of \{'enable_thinking': False\}"):
        run_suite(suite(home, "switched", thinking=False), out=silent.path)
    with pytest.raises(ModelError, match="never reads 'effort'"):
        run_suite(suite(home, "switched", template={"effort": 1}), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_thought_is_a_column_a_role_and_a_window(home: Path, traits: list[str]) -> None:
    run = replay(str(saved(home, "switched")), CHATS, traits)
    whole(run.path)
    late, plain = run.generations()
    assert (late.thinking, late.response) == ("Hm, is it?", "It is.")
    assert (plain.thinking, plain.response) == ("", "It is.")
    text = run.text(late.generation)
    thought = Window.parse("thinking[:]").pick(text.tokens)
    answer = Window.parse("response[:]").pick(text.tokens)
    assert text.tokens.role[thought].tolist() == ["thinking"] * 10
    assert (text.tokens.role[answer] == "assistant").all()
    assert not (thought & answer).any()
    trait = next(iter(summarise(run).traits))
    rows = {row.name: row for row in trait.prompts}
    z = run.scores(late.generation, as_="z").sel(site=trait.site, trait=trait.trait).values
    assert rows["late"].response == pytest.approx(z[answer].mean(), abs=1e-4)
    assert "".join(rows["late"].strip.pieces) == "It is."


def test_expectations_read_thoughts(home: Path, traits: list[str]) -> None:
    from traitscope.suite import suite_from_dict

    expect = {"trait": "loud", "higher": "late", "lower": "other", "margin": 0}
    other = {**CHATS[0], "id": "other"}
    other["messages"] = [
        *other["messages"][:1],
        {**other["messages"][1], "reasoning_content": "NO"},
    ]
    table = {
        "name": "thoughts",
        "model": str(saved(home, "switched")),
        "traits": traits,
        "prompts": {"given": {"conversations": [*CHATS, other]}},
        "expect": [
            {"text": "In thought.", "window": "thinking[:]", **expect},
            {"text": "In word.", **expect},
            {"text": "None.", "window": "thinking[:]", **expect, "lower": "plain"},
        ],
    }
    run = Run.open(run_suite(suite_from_dict(table, root=Path())).path)
    thought, word, none = summarise(run).expectations
    assert thought.difference != word.difference
    assert not np.isnan(thought.difference)
    assert none.held is None


def test_a_text_that_ends_in_its_thoughts_says_so(home: Path, traits: list[str]) -> None:
    run = capture(
        str(saved(home, "opened")), ["Why?", "Is it so?"], traits, max_new_tokens=4, seed=2
    )
    whole(run.path)
    rows = run.generations()
    assert [row.response for row in rows] == ["", ""]
    assert all(row.thinking for row in rows)
    summary = summarise(run)
    assert summary.counts.unanswered == 2
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=100)
    console.print(night(summary, width=100))
    assert "2 of 2 texts ended in their thoughts" in console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "without a word" not in console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_directions_are_read_in_answers_that_follow_an_empty_thought(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs have no thoughts: what is read is as the model answers after one, and not thought."""
    monkeypatch.setenv("TRAITSCOPE_HOME", str(tmp_path))
    model = load(str(saved(home, "opened")), device="cpu")
    seen: list[tuple[str, str]] = []
    means = extract.mean_states

    def spied(model: Model, texts: Any, chosen: Any, **more: Any) -> Any:
        for ids, mask in zip(texts, chosen, strict=True):
            read = [i for i, wanted in zip(ids, mask, strict=True) if wanted]
            seen.append((model.speller.decode(list(ids)), model.speller.decode(read)))
        return means(model, texts, chosen, **more)

    monkeypatch.setattr(extract, "mean_states", spied)
    extract.extract(model, [load_trait(home / "hedged")])
    assert seen[0] == (
        "<bos><|User|>How 0?<|Assistant|><think>\n\n</think>\n\nperhaps so",
        "perhaps so",
    )
    told = load(str(saved(home, "closed")), device="cpu").told({"thinking": True})
    asked = told.render(Prompt.of("How 0?"))
    assert told.frame(Prompt.of("How 0?"), asked) == "\n</think>\n\n"
    trait = load_trait(home / "hedged")
    assert extract.cached(told, trait) is None
    quiet, loud = (extract.extract(m, [trait])["hedged"] for m in (told.told({}), told))
    assert quiet.hash != loud.hash, "what the template is told is in every text that is read"


def test_further_traits_are_made_as_the_run_was_told(home: Path, traits: list[str]) -> None:
    model = str(saved(home, "closed"))
    run = replay(model, CHATS[1:], traits[:1], thinking=True)
    again = replay(model, CHATS[1:], traits, thinking=True, out="both")
    replay_run(run.path, traits[1:])
    assert Run.open(run.path).directions["loud"].hash == again.directions["loud"].hash
