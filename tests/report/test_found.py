"""Prompts from columns: numbers as of each text read alone, words where they are asked for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.report.planted import TRAITS, Text, planted
from traitscope.core import mean_or_nan
from traitscope.report import summarise, summary
from traitscope.report.readings import place_of, read_text
from traitscope.runs import Run


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def drawn(count: int, samples: int = 1) -> list[Text]:
    rng = np.random.default_rng(7)
    return [
        Text(
            f"Prompt {i}?",
            tuple(f" w{n}" for n in range(rng.integers(0, 6))),
            z={trait: [] for trait in TRAITS},
            sample=sample,
        )
        for i in range(count)
        for sample in range(samples)
    ]


def with_z(texts: list[Text]) -> list[Text]:
    rng = np.random.default_rng(8)
    for text in texts:
        for trait in TRAITS:
            text.z[trait][:] = rng.normal(size=len(text.words)).tolist()  # type: ignore[index]  # an array
    return texts


def test_numbers_are_those_of_each_text_read_alone(tmp_path: Path) -> None:
    run = planted(tmp_path / "run", with_z(drawn(30, samples=3)))
    for trait in summarise(run).traits:
        place = place_of(run, trait.trait)
        assert [row.name for row in trait.prompts] != [f"Prompt {i}?" for i in range(30)]
        for row in trait.prompts:
            alone = [read_text(run, run.text(name), place) for name in row.ids]
            values = [reading.response for reading in alone]
            assert row.values == pytest.approx(tuple(values), abs=1e-5, nan_ok=True)
            assert row.before == pytest.approx(np.mean([r.before for r in alone]), abs=1e-5)
            said = mean_or_nan(v for v in values if not math.isnan(v))
            assert row.response == pytest.approx(said, abs=1e-5, nan_ok=True)
            best = max((r.strongest for r in alone if r.strongest), key=lambda s: s.z, default=None)
            assert row.strongest == best


def test_of_a_large_run_only_the_ends_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planted(tmp_path / "run", with_z(drawn(60)))
    monkeypatch.setattr(summary, "MANY", 50)
    monkeypatch.setattr(summary, "ENDS", 2)
    opened: list[str] = []
    read = Run.text
    monkeypatch.setattr(
        Run, "text", lambda self, name: opened.append(str(name)) or read(self, name)
    )
    few = summarise(run)
    assert len(opened) <= 2 * 2 * len(TRAITS)
    for trait in few.traits:
        high, between, low = trait.split(2)
        assert (len(high), len(between), len(low)) == (2, 56, 2)
        assert all(row.strongest is not None and row.strip.pieces for row in (*high, *low))
        worded = {name for other in few.traits for end in other.split(2)[::2] for name in end}
        assert any(row.strongest is None for row in between) and worded
    every = summarise(run, full=True)
    for trait, same in zip(every.traits, few.traits, strict=True):
        assert [row.response for row in trait.prompts] == pytest.approx(
            [row.response for row in same.prompts], nan_ok=True
        )
        assert all(row.strongest for row in trait.prompts if not math.isnan(row.response))


@pytest.mark.parametrize(
    ("read", "blank", "ends", "sizes"),
    [
        (20, 0, 3, (3, 14, 3)),
        (20, 5, 3, (3, 19, 3)),
        (7, 0, 3, (7, 0, 0)),
        (4, 6, 3, (3, 6, 1)),
        (2, 9, 3, (3, 8, 0)),
        (0, 9, 3, (3, 6, 0)),
        (0, 0, 3, (0, 0, 0)),
    ],
)
def test_the_lowest_have_an_answer(
    tmp_path: Path, read: int, blank: int, ends: int, sizes: tuple[int, int, int]
) -> None:
    texts = [Text(f"Said {i}?", (" a",), z={TRAITS[0]: [i]}) for i in range(read)]
    texts += [Text(f"Silent {i}?", ()) for i in range(blank)]
    (trait, _) = summarise(planted(tmp_path / "run", texts)).traits
    parts = trait.split(ends)
    assert tuple(map(len, parts)) == sizes
    assert sorted(row.name for part in parts for row in part) == sorted(t.prompt for t in texts)
    assert not any(math.isnan(row.response) for row in parts[2])
