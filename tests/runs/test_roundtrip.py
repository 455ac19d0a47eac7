"""What is committed is what is read, to the last bit and the oddest character."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runs.build import (
    SITES,
    TRAITS,
    capture,
    directions,
    failed_record,
    generation,
    header_of,
    internals_of,
    text_record,
)
from traitscope.core import Capture, Generation, Message, Prompt, TextRecord
from traitscope.errors import RunError
from traitscope.runs import Run, RunWriter, TextData, verify
from traitscope.runs.tables import ROW_GROUP

ODD = [
    ("<s>", "日本", "語", "?", "שלום", "!"),
    ("<s>", "👩‍🔬", "e\u0301", "\u200f", "", "\x00"),
    ("<s>", "\n", "Ġthe", "▁a", "<0xE2>", "\ufffd"),
]


def check_equal(read: TextData, record: TextRecord) -> None:
    trace, tokens = record.trace, record.tokens
    assert trace is not None
    assert tokens is not None
    np.testing.assert_array_equal(read.score, trace.score)
    np.testing.assert_array_equal(read.norm, trace.norm)
    np.testing.assert_array_equal(read.logprob, trace.logprob)
    for name in ("token_id", "role", "part", "special", "turn", "start", "end"):
        np.testing.assert_array_equal(getattr(read.tokens, name), getattr(tokens, name), name)
    assert (read.tokens.piece, read.tokens.text) == (tokens.piece, tokens.text)
    assert (read.score.dtype, read.norm.dtype, read.logprob.dtype) == (np.float32,) * 3


def commit(path: Path, *records: TextRecord) -> Run:
    with RunWriter.create(path, header_of(), directions()) as writer:
        writer.commit(records, [Capture(record.generation, "greetings") for record in records])
    return Run.open(path)


def test_texts_come_back_bit_for_bit(tmp_path: Path) -> None:
    records = [text_record(i, pieces=pieces) for i, pieces in enumerate(ODD)]
    run = commit(tmp_path / "run", *records)
    for record in records:
        check_equal(run.text(record.generation), record)
        check_equal(run.text(record.generation.id), record)
    assert verify(run.path) == []
    assert (run.sites, run.traits) == (SITES, TRAITS)


def test_rows_come_back(tmp_path: Path) -> None:
    odd = replace(
        text_record(0, label="größe"),
        prompt=Prompt(
            (Message("system", "Be brief."), Message("user", "Wie groß?\n\n👩‍🔬")),
            "größe",
            {"schwer": "nein", "a": ""},
        ),
        response="",
    )
    run = commit(tmp_path / "run", odd, failed_record(1, "Expected room, got none."))
    done, failed = run.generations()
    assert (done.prompt, done.response) == (odd.prompt, "")
    assert (done.n_prompt, done.n_tokens, done.finish, done.seconds) == (4, 6, "stop", 0.25)
    assert (failed.status, failed.error) == ("failed", "Expected room, got none.")
    assert (failed.n_tokens, failed.finish, failed.seconds) == (0, None, None)
    assert [row.status for row in run.captures()] == ["done", "failed"]
    with pytest.raises(RunError, match="failed: Expected room"):
        run.text(generation(1))


def test_an_empty_response(tmp_path: Path) -> None:
    record = text_record(0, pieces=("<s>", "Hi"), n_prompt=2)
    run = commit(tmp_path / "run", record)
    check_equal(run.text(record.generation), record)
    assert verify(run.path) == []


def test_a_lone_surrogate_is_replaced_and_moves_nothing(tmp_path: Path) -> None:
    record = text_record(0, pieces=("<s>", "a\ud83db", "\udc00", "?", "x", "y"))
    odd = replace(record, response="\ud800!", prompt=Prompt.of("what is \udfff?"))
    run = commit(tmp_path / "run", odd)
    tokens = run.text(record.generation).tokens
    assert tokens.piece[1:3] == ("a\ufffdb", "\ufffd")
    assert tokens.text[tokens.start[1] : tokens.end[1]] == "a\ufffdb"
    assert run.generations()[0].response == "\ufffd!"
    assert run.generations()[0].prompt.text == "what is \ufffd?"


def test_texts_in_several_parts_and_row_groups(tmp_path: Path) -> None:
    lengths = [ROW_GROUP + 7, ROW_GROUP - 5, 10, 3, 1, 2]
    records = [
        text_record(i, pieces=[str(j % 7) for j in range(n)], n_prompt=1)
        for i, n in enumerate(lengths)
    ]
    with RunWriter.create(tmp_path / "run", header_of(range(6)), directions()) as writer:
        writer.commit(records[:4], [])
        writer.commit(records[4:], [])
    file = pq.ParquetFile(tmp_path / "run" / "parts" / "00001.tokens.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [ROW_GROUP + 7, ROW_GROUP - 5, 13]
    run = Run.open(tmp_path / "run")
    for record in reversed(records):
        check_equal(run.text(record.generation), record)


def test_internals_come_back(tmp_path: Path) -> None:
    record = text_record(0)
    kept = internals_of(record, block=1)
    with RunWriter.create(tmp_path / "run", header_of(), directions()) as writer:
        writer.commit([record], [capture(0)])
        wanted = Capture(generation(0), "inside", "internals")
        writer.commit([], [wanted], [kept])
        again = replace(kept, tensors={"neurons": np.zeros((6, 6), dtype=np.float32)})
        writer.commit([], [Capture(generation(0), "again", "internals")], [again])
    run = Run.open(tmp_path / "run")
    assert run.internal_blocks(generation(0)) == [1]
    read = run.internals(generation(0), 1)
    assert (read.generation, read.block, read.traits) == (generation(0), 1, TRAITS)
    assert read.metadata == kept.metadata
    assert read.tensors.keys() == kept.tensors.keys()
    for name, array in kept.tensors.items():  # those committed first
        np.testing.assert_array_equal(read.tensors[name], array)
        assert read.tensors[name].dtype == array.dtype
    assert verify(run.path) == []
    with pytest.raises(RunError, match="at block 0, but the run has 1"):
        run.internals(generation(0), 0)


def test_scores_as_a_labelled_array(tmp_path: Path) -> None:
    record = text_record(0)
    run = commit(tmp_path / "run", record)
    raw = run.scores(generation(0))
    trace = record.trace
    assert trace is not None
    assert raw.dims == ("token", "site", "trait")
    assert list(raw.site.values) == ["embed", "0.mid", "0.post", "1.mid", "1.post"]
    assert float(raw.sel(token=3, site="1.mid", trait="beta")) == float(trace.score[3, 3, 1])
    assert list(raw.piece.values) == ["<s>", "Hé", "llo", "?", "Yes", "."]
    assert list(raw.part.values[3:5]) == ["prompt", "response"]
    assert raw.attrs["generation"] == generation(0).id
    cosine = run.scores(generation(0), as_="cosine")
    np.testing.assert_allclose(cosine, trace.score / trace.norm[:, :, None], rtol=1e-6)
    z = run.scores(generation(0), as_="z")
    beta = directions()["beta"]
    expected = (trace.score[3, 3, 1] - beta.neutral_mean[3]) / beta.neutral_std[3]
    assert float(z.sel(token=3, site="1.mid", trait="beta")) == pytest.approx(expected, rel=1e-5)


def test_directions_in_a_run(tmp_path: Path) -> None:
    run = commit(tmp_path / "run", text_record(0))
    assert list(run.directions) == ["alpha", "beta"]
    assert run.directions["beta"].hash == directions()["beta"].hash


def test_unknown_texts(tmp_path: Path) -> None:
    run = commit(tmp_path / "run", text_record(0))
    with pytest.raises(RunError, match="Expected one of the 1 texts"):
        run.text(Generation("0" * 16, 0))
    with pytest.raises(RunError, match="Expected a text's id"):
        run.text("../../etc/passwd")


NUMBER = st.floats(-(2.0**100), 2.0**100, width=32)


@st.composite
def any_record(draw: st.DrawFn) -> TextRecord:
    pieces = draw(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), min_size=1))
    n = len(pieces)
    record = text_record(draw(st.integers(0, 99)), pieces=pieces, n_prompt=draw(st.integers(0, n)))
    trace, tokens = record.trace, record.tokens
    assert trace is not None
    assert tokens is not None
    score = np.full(trace.score.shape, draw(NUMBER), dtype=np.float32)
    logprob = np.array(draw(st.lists(NUMBER | st.just(np.nan), min_size=n, max_size=n)), np.float32)
    roles = st.sampled_from(["template", "system", "user", "assistant", "thinking", "tool"])
    tokens = replace(
        tokens,
        role=np.array(draw(st.lists(roles, min_size=n, max_size=n))),
        special=np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n))),
        turn=np.array(draw(st.lists(st.integers(0, 999), min_size=n, max_size=n)), np.int32),
    )
    return replace(record, trace=replace(trace, score=score, logprob=logprob), tokens=tokens)


@given(st.lists(any_record(), min_size=1, max_size=3, unique_by=lambda r: r.generation))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_texts_come_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[TextRecord]
) -> None:
    run = commit(tmp_path_factory.mktemp("any") / "run", *records)
    for record in records:
        check_equal(run.text(record.generation), record)
