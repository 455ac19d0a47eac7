"""Readings of all texts at once are those of each text read by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.report.planted import READ, TRAITS, Text
from tests.runs.build import directions, directions_of, header_of, text_record
from tests.runs.test_further import further
from tests.viewer.captures import FEW, Asked, run_of, varied
from traitscope.report import summarise
from traitscope.report.columns import STATISTICS, Columns, joined, read_columns, to_z
from traitscope.report.readings import RESPONSE, place_of, read_text
from traitscope.runs import Run, RunWriter


def columns_of(run: Run) -> Columns:
    places = [place_of(run, trait) for trait in run.traits]
    parts = run.parts()
    return joined([read_columns(run, parts[:1], places), read_columns(run, parts[1:], places)])


def alone(run: Run, generation: str, trait: str) -> dict[str, float]:
    """The same numbers from one text, in plain words."""
    text, place = run.text(generation), place_of(run, trait)
    reading = read_text(run, text, place)
    z = run.directions[trait].z(text.score[:, place.site, place.number], place.site, RESPONSE)
    inside = z[RESPONSE.pick(text.tokens)]
    return {
        "before": reading.before,
        "mean": reading.response,
        "max": reading.strongest.z if reading.strongest else np.nan,
        "last": inside[-1] if inside.size else np.nan,
        "embed": reading.embed,
    }


def test_columns_are_the_readings_of_each_text(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [*FEW, *(varied(n) for n in range(10, 30))])
    columns, places = columns_of(run), [place_of(run, trait) for trait in run.traits]
    done = [row.generation.id for row in run.generations() if row.status == "done"]
    assert sorted(columns.generations) == sorted(done)
    for name in STATISTICS:
        z = to_z(run, places, name, getattr(columns, name))
        for i, generation in enumerate(columns.generations):
            for k, trait in enumerate(run.traits):
                np.testing.assert_allclose(
                    z[i, k], alone(run, generation, trait)[name], rtol=1e-5, atol=1e-6
                )


def test_the_strongest_token_is_the_one_of_the_largest_score(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run")
    columns = columns_of(run)
    for i, generation in enumerate(columns.generations):
        text = run.text(generation)
        for k in range(len(TRAITS)):
            inside = np.flatnonzero(RESPONSE.pick(text.tokens))
            best = inside[np.argmax(text.score[inside, READ, k])] if inside.size else -1
            assert columns.strongest[i, k] == best


def test_an_answer_after_thoughts_is_read_without_them(tmp_path: Path) -> None:
    asked = Asked(Text("Tea?", (" hm", " so", " Yes"), z={TRAITS[0]: [9.0, 9.0, 2.0]}))
    record = asked.record
    assert record.tokens is not None
    role = record.tokens.role.astype("<U9")
    role[3:5] = "thinking"
    thought = replace(record, tokens=replace(record.tokens, role=role))
    wordless = replace(
        varied(1).record, tokens=replace(varied(1).record.tokens, role=np.array(["thinking"] * 6))
    )
    run_of(tmp_path / "run", [varied(0)])
    with RunWriter.resume(tmp_path / "run", Run.open(tmp_path / "run").header) as writer:
        writer.commit([thought, wordless], [])
    run = Run.open(tmp_path / "run")
    columns = columns_of(run)
    for generation in (thought.generation.id, wordless.generation.id):
        i = columns.generations.index(generation)
        z = to_z(run, [place_of(run, t) for t in run.traits], "mean", columns.mean)
        np.testing.assert_allclose(z[i, 0], alone(run, generation, TRAITS[0])["mean"], rtol=1e-5)


def test_a_trait_that_came_later_is_read_where_it_is_scored(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunWriter.create(path, header_of(range(3)), directions()) as writer:
        writer.commit([text_record(0), text_record(1)], [])
        writer.commit([text_record(2)], [])
        writer.add_traits({"gamma": directions_of("gamma")})
        # in another order than the texts', and not all of them
        writer.commit([], further=[further(2, "gamma"), further(0, "gamma")])
    run = Run.open(path)
    columns = columns_of(run)
    for n in (0, 2):
        text = run.text(text_record(n).generation)
        read = text.score[RESPONSE.pick(text.tokens), place_of(run, "gamma").site, 2]
        at = columns.generations.index(text.generation.id)
        np.testing.assert_allclose(columns.mean[at, 2], read.mean(), rtol=1e-5)
    assert np.isnan(columns.mean[columns.generations.index(text_record(1).generation.id), 2])


def test_a_summary_from_columns_says_what_one_from_texts_says(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", missing=[varied(99)])
    slow, fast = summarise(run), summarise(run, columns_of(run))
    assert fast.counts == slow.counts
    for quick, whole in zip(fast.traits, slow.traits, strict=True):
        assert quick.trait == whole.trait
        for a, b in zip(quick.prompts, whole.prompts, strict=True):
            assert (a.name, a.samples, a.strip.pieces, a.strongest) == (b.name, b.samples, (), None)
            np.testing.assert_allclose(
                [a.before, a.response, a.embed, *a.values],
                [b.before, b.response, b.embed, *b.values],
                rtol=1e-5,
                atol=1e-6,
            )


def test_a_grown_run_is_read_on_from_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    run = run_of(path, [varied(0), varied(1)])
    before = [row.generation for row in run.generations()]
    assert run.again() is run
    with RunWriter.resume(path, run.header) as writer:
        writer.commit([varied(2).record], [])
    opened: list[str] = []
    from traitscope.runs import index

    real = index.read_generations
    monkeypatch.setattr(
        index, "read_generations", lambda place: opened.append(place.name) or real(place)
    )
    newer = run.again()
    assert [row.generation for row in newer.generations()] == [*before, varied(2).text.generation]
    assert len(opened) == 1  # the new part's table alone
    assert [row.generation for row in run.generations()] == before  # the old one stays as it was
