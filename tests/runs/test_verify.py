"""One flipped byte anywhere is seen; so is a file too many, too few, or one that does not fit."""

from __future__ import annotations

import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

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
from traitscope.core import Capture
from traitscope.errors import RunError, TraitscopeError
from traitscope.runs import Run, RunWriter, verify
from traitscope.runs.files import FileEntry, sha256
from traitscope.runs.lines import FIRST, parse_manifest, scan_manifest, seal, seal_part, unseal
from traitscope.runs.tables import tokens_bytes, tokens_schema
from traitscope.runs.tensors import internals_bytes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    with RunWriter.create(path, header_of(), directions()) as writer:
        record = text_record(0)
        writer.commit([record, text_record(1)], [capture(0), capture(1)], [internals_of(record)])
        writer.event("batch", rows=2)
        writer.commit([text_record(2), failed_record(3)], [capture(2), capture(3)])
    assert verify(path) == []
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def record_files(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file() and f.name != "lock")


def test_one_flipped_byte_in_any_file_is_seen(path: Path) -> None:
    rng = random.Random(0)
    for file in record_files(path):
        data = file.read_bytes()
        ends = [0, 1, 7, 8, len(data) - 2, len(data) - 1]
        for position in {*ends, *rng.sample(range(len(data)), 12)}:
            damaged = bytearray(data)
            damaged[position] ^= 1 << rng.randrange(8)
            file.write_bytes(damaged)
            problems = verify(path)
            name = file.relative_to(path).as_posix()
            assert name in [problem.file for problem in problems], (name, position)
        file.write_bytes(data)
    assert verify(path) == []


def test_a_flipped_byte_is_never_read_as_a_number(path: Path) -> None:
    before = Run.open(path)
    texts = [before.text(generation(i)) for i in range(3)]
    rng = random.Random(1)
    for file in sorted((path / "parts").iterdir()):
        data = file.read_bytes()
        for position in rng.sample(range(len(data)), 6):
            damaged = bytearray(data)
            damaged[position] ^= 0x41
            file.write_bytes(damaged)
            refused = 0
            for i, text in enumerate(texts):
                try:
                    again = Run.open(path).text(generation(i))
                except RunError:
                    refused += 1
                else:
                    np.testing.assert_array_equal(again.score, text.score)
            assert refused, (file.name, position)
        file.write_bytes(data)


def test_every_flipped_byte_of_the_manifest_is_seen(whole: Path) -> None:
    data = (whole / "manifest.jsonl").read_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x04
        manifest, wrong = scan_manifest(bytes(damaged))
        assert wrong or manifest.torn, position
    lines = data.splitlines(keepends=True)
    for exchanged in (lines[1:], lines[::-1], [lines[0], lines[0]]):
        assert scan_manifest(b"".join(exchanged))[1]


def test_a_flipped_byte_of_the_header_is_seen(path: Path) -> None:
    file = path / "run.json"
    data = file.read_bytes()
    for position in {*range(0, len(data), 3), *range(len(data) - 90, len(data))}:
        damaged = bytearray(data)
        damaged[position] ^= 0x01
        file.write_bytes(damaged)
        with pytest.raises(RunError, match="checksum"):
            Run.open(path)


def test_missing_and_extra_files(path: Path) -> None:
    (path / "parts" / "00002.tokens.parquet").unlink()
    (path / "internals" / f"{generation(1).id}.0.safetensors").write_bytes(b"x")
    (path / "parts" / "00003.tokens.parquet.tmp").write_bytes(b"x")
    shutil.copy(path / "directions" / "alpha.safetensors", path / "directions" / "c.safetensors")
    (path / "notes.txt").touch()  # the user's own
    (path / "parts" / ".DS_Store").touch()
    found = {(problem.file, problem.kind) for problem in verify(path)}
    assert found == {
        ("parts/00002.tokens.parquet", "damaged"),
        (f"internals/{generation(1).id}.0.safetensors", "leftover"),
        ("parts/00003.tokens.parquet.tmp", "leftover"),
        ("directions/c.safetensors", "leftover"),
    }


@pytest.mark.parametrize("name", ["manifest.jsonl", "events.jsonl", "directions/beta.safetensors"])
def test_a_missing_file_is_said(path: Path, name: str) -> None:
    (path / name).unlink()
    assert name in [problem.file for problem in verify(path)]


def test_torn_journals_are_left_overs(path: Path) -> None:
    for name in ("manifest.jsonl", "events.jsonl"):
        with open(path / name, "ab") as file:
            file.write(b'{"kind":"tex')
    assert {(p.file, p.kind) for p in verify(path)} == {
        ("manifest.jsonl", "leftover"),
        ("events.jsonl", "leftover"),
    }
    assert len(Run.open(path).generations()) == 4


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Expected a run folder"):
        verify(tmp_path)


def test_a_damaged_manifest_is_refused_and_nothing_removed(path: Path) -> None:
    file = path / "manifest.jsonl"
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data)
    before = record_files(path)
    for opening in (lambda: Run.open(path), lambda: RunWriter.resume(path, header_of())):
        with pytest.raises(RunError, match="line 1 does not match its checksum"):
            opening()
    assert record_files(path) == before


def test_parts_of_an_unknown_kind_are_refused(path: Path) -> None:
    file = path / "manifest.jsonl"
    last = parse_manifest(file.read_bytes(), file).last
    newer = {"kind": "scores", "part": 3, "time": "", "files": [], "previous": last, "new": 1}
    with open(file, "ab") as journal:
        journal.write(seal(newer))
    for opening in (Run.open, verify, lambda p: RunWriter.resume(p, header_of())):
        with pytest.raises(RunError, match="made by a newer version"):
            opening(path)


def test_names_that_lead_out_of_the_folder_are_refused(path: Path) -> None:
    for name in (
        "../run.json",
        "/etc/passwd",
        "parts/../run.json",
        "internals/../x-0.1.safetensors",
    ):
        line = seal(
            {
                "kind": "texts",
                "part": 1,
                "time": "",
                "files": [{"name": name, "bytes": 1, "sha256": "", "rows": 1}],
                "previous": FIRST,
            }
        )
        (path / "manifest.jsonl").write_bytes(line)
        with pytest.raises(RunError, match="Expected the name of a part"):
            Run.open(path)


# --- files that are whole and do not fit together ------------------------------------------------


def forge(path: Path, name: str, data: bytes, rows: int) -> list[str]:
    """Exchange a file and make every checksum fit; what verify then says."""
    (path / name).write_bytes(data)
    file = path / "manifest.jsonl"
    previous, journal = FIRST, b""
    for line in file.read_bytes().splitlines():
        members = unseal(line)
        assert members is not None
        entries = [FileEntry(**entry) for entry in members["files"]]
        new = FileEntry(name, len(data), sha256(data), rows)
        entries = [new if entry.name == name else entry for entry in entries]
        assert [asdict(entry) for entry in entries]
        sealed, _, previous = seal_part(members["part"], entries, previous)
        journal += sealed
    file.write_bytes(journal)
    return [str(problem) for problem in verify(path)]


def forge_tokens(path: Path, column: str, values: object) -> list[str]:
    name = "parts/00001.tokens.parquet"
    table = pq.ParquetFile(path / name).read()
    place = table.column_names.index(column)
    table = table.set_column(place, table.schema.field(column), values)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return forge(path, name, sink.getvalue().to_pybytes(), len(table))


def test_positions_are_0_to_the_end_once(path: Path) -> None:
    wrong = pa.array([0, 1, 2, 2, 4, 5, *range(6)], pa.int32())
    (problem,) = forge_tokens(path, "position", wrong)
    assert problem.endswith("positions are not 0 to 5, each once")
    assert generation(0).id in problem


def test_scores_are_finite_and_below_the_norm(path: Path) -> None:
    kind = tokens_schema(len(SITES), TRAITS).field("norm").type
    for value, message in ((np.nan, "not finite"), (1e9, "larger than the norm")):
        flat = np.zeros((12, len(SITES)), dtype=np.float32)
        flat[7, 2] = value
        column = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), type=kind)
        (problem,) = forge_tokens(path, "score.beta", column)
        assert message in problem
        assert generation(1).id in problem


def test_tokens_belong_to_their_text(path: Path) -> None:
    table = pq.ParquetFile(path / "parts" / "00001.tokens.parquet").read()
    ids = pc.cast(table["generation"], pa.string()).to_pylist()
    column = pa.array([ids[6], *ids[1:]]).dictionary_encode()
    (problem,) = forge_tokens(path, "generation", column)
    assert "not together" in problem


def test_the_prompt_comes_first(path: Path) -> None:
    column = pa.array((["prompt"] * 5 + ["response"]) * 2).dictionary_encode()
    first, _ = forge_tokens(path, "part", column)
    assert "the prompt is not its first 4 tokens" in first


def test_tokens_end_within_the_text(path: Path) -> None:
    column = pa.array([3, 5, 8, 9, 12, 14, 3, 5, 8, 9, 12, 13], pa.int32())
    (problem,) = forge_tokens(path, "end", column)
    assert "behind the end of the text" in problem
    column = pa.array([3, 5, 8, 9, 12, 13, 3, 2, 8, 9, 12, 13], pa.int32())
    (problem,) = forge_tokens(path, "end", column)
    assert "ends before it starts" in problem


def test_every_done_text_has_its_tokens(path: Path) -> None:
    data, rows = tokens_bytes([text_record(0)], len(SITES), TRAITS)
    (problem,) = forge(path, "parts/00001.tokens.parquet", bytes(data), rows)
    assert "has 6 tokens, expected 12" in problem


def test_captures_have_texts_and_internals(path: Path) -> None:
    from traitscope.runs.tables import captures_bytes

    captures = {
        capture(0): "",
        capture(9): "",
        capture(3): "",
        Capture(generation(2), "inside", "internals"): "",
    }
    data, rows = captures_bytes(captures)
    problems = forge(path, "parts/00002.captures.parquet", bytes(data), rows)
    assert [problem.split(": ")[1] for problem in problems] == [
        f"{generation(9).id} has a capture and no text",
        f"{generation(3).id} failed and has a done capture",
        f"{generation(2).id} has no internals",
    ]


def test_internals_are_those_of_their_name(path: Path) -> None:
    name = f"internals/{generation(0).id}.1.safetensors"
    other = internals_of(text_record(0), block=0)
    (problem,) = forge(path, name, internals_bytes(other), 1)
    assert "holds" in problem
    longer = replace(internals_of(text_record(1, pieces="abcdefg")), generation=generation(0))
    (problem,) = forge(path, name, internals_bytes(longer), 1)
    assert "has not one row for each of 6 tokens" in problem


def test_errors_are_all_of_the_tree(path: Path) -> None:
    """Whatever is cut off, opening and reading end in numbers or in an error for people."""
    for file in record_files(path):
        data = file.read_bytes()
        for length in (0, 1, 8, len(data) // 2, len(data) - 1):
            file.write_bytes(data[:length])
            verify(path)
            try:
                run = Run.open(path)
                run.events()
                for row in run.generations():
                    if row.status == "done":
                        run.scores(row.generation, as_="z")
                run.internals(generation(0), 1)
            except TraitscopeError:
                pass
        file.write_bytes(data)
