"""`traitscope compare`: two models on the same texts, as a page and as one line of JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.runner.small import few_neutral_chats, save_model, save_traits
from traitscope.cli.frame import run as command
from traitscope.core import Window
from traitscope.replays import replay
from traitscope.report.compared import _tested, compared
from traitscope.runs import Run, compare

TEXTS = [
    {"id": f"n{n}", "prompt": f"Is it {n}?", "response": f"It is {n * n}, I think."}
    for n in range(7)
]
TEXTS.append({"id": "silent", "prompt": "Is it?", "response": ""})
WORDS = Window.parse("response[:]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One file of conversations through two models of one tokenizer."""
    home = tmp_path_factory.mktemp("home")
    save_traits(home)
    traits = [f"{home}/hedged", f"{home}/loud"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAITSCOPE_HOME", str(home / "cache"))
        few_neutral_chats(patch)
        made = [
            replay(str(save_model(home / name, seed=seed)), TEXTS, traits, out=home / f"of-{name}")
            for seed, name in enumerate(("base", "tuned"))
        ]
    return made[0].path, made[1].path


def test_the_numbers_are_the_runs_own(runs: tuple[Path, Path]) -> None:
    a, b = map(Run.open, runs)
    found = compared(a, b)
    assert (found.pairs, found.window) == (8, "response[:]")
    for trait in found.traits:
        by_name = {moved.name: moved for moved in trait.texts}
        changes = []
        for row in a.generations():
            picked = WORDS.pick(a.text(row.generation).tokens)
            moved = by_name[str(row.prompt.label)]
            if not picked.any():
                assert np.isnan(moved.change)
                assert trait.texts[-1] is moved, "what cannot be read comes last"
                continue
            z = compare(a, b).difference(row.generation, as_="z").sel(trait=trait.trait)
            expected = float(z.sel(site=trait.site_a).values[picked].mean())
            assert moved.change == pytest.approx(expected, abs=1e-4)
            changes.append(moved.change)
        assert trait.change == pytest.approx(np.mean(changes))
        assert trait.higher == sum(change > 0 for change in changes)
        order = [m.change for m in trait.texts[:-1]]
        assert order == sorted(order, reverse=True)
    assert [t.change for t in compared(b, a).traits] == pytest.approx(
        [-t.change for t in found.traits]
    )


def test_a_page_and_a_line(runs: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    a, b = map(str, runs)
    assert command(["compare", a, b]) == 0
    page = capfd.readouterr().out
    for words in ("8 texts in both", "hedged", "B - A", "of 7", "sign flips", "1 more"):
        assert words in page
    assert max(map(len, page.splitlines())) <= 110
    assert command(["compare", a, b, "--window", "prompt[-1]", "--site", "0.post", "--json"]) == 0
    (line,) = capfd.readouterr().out.splitlines()
    found = json.loads(line)
    assert (found["pairs"], found["window"]) == (8, "prompt[-1]")
    assert {trait["site_b"] for trait in found["traits"]} == {"0.post"}
    assert len(found["traits"][0]["texts"]) == 8


def test_one_sentence_where_nothing_can_be_compared(
    runs: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    a, b = map(str, runs)
    for args, words in (
        ([a, str(tmp_path)], "Expected a run folder"),
        ([a, b, "--window", "answer"], "Expected a window"),
        ([a, b, "--site", "9.post"], "Expected one of this model's sites"),
    ):
        assert command(["compare", *args]) == 2
        assert words in capfd.readouterr().err


def test_p_is_small_for_a_shift_and_level_without_one() -> None:
    noise = np.random.default_rng(0)
    shifted = 1 + 0.1 * noise.normal(size=8)
    assert _tested([shifted, noise.normal(size=8)])[0] == 2 / 2**8
    assert _tested([shifted[:5]]) == _tested([np.zeros(9)]) == [None]
    small = sum(
        min(p for p in _tested(list(noise.normal(size=(3, 10)))) if p is not None) <= 0.05
        for _ in range(300)
    )
    assert small <= 28  # of 300 at a level of 5%, over three traits: 15 expected


def test_exported_texts_are_read_by_another_model(
    runs: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    a, _ = runs
    out = tmp_path / "out"
    assert command(["export", str(a), "--to", "jsonl", "--out", str(out)]) == 0
    with pytest.MonkeyPatch.context() as patch:
        few_neutral_chats(patch)
        model = str(a.parent / "tuned")
        again = replay(model, out / "texts.jsonl", [f"{a.parent}/loud"], out=tmp_path / "again")
    found = compared(Run.open(a), again)
    assert (found.pairs, [trait.trait for trait in found.traits]) == (8, ["loud"])
    labels = {row.prompt.label for row in again.generations()}
    assert labels == {row.prompt.label for row in Run.open(a).generations()}
    capfd.readouterr()
