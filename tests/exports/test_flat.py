"""csv, jsonl, npz: every number and the oddest text come back as they were committed."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.runs.build import SITES, TRAITS, capture, directions, failed_record, text_record
from tests.runs.build import header_of as header
from traitscope.core import Generation, TextRecord, TraitDirections
from traitscope.errors import InputError, MachineError, RunError
from traitscope.exports.flat import FLAT, export_flat, guarded
from traitscope.runs import Run, RunWriter

ODD = [
    ("<s>", "日本", "語", "?", "שלום", "=1+1"),
    ("<s>", "👩‍🔬", "e\u0301", "\u200f", "\u2028\x85", "\x00"),
    ("<s>", "\r\n", "a,\"b';", "?", "'=x", "+\t"),
    ("<s>", "<0xE2>", "\ufffd", "?", "@SUM(A1)", "\n"),
]
NO_DIRECTION = SITES.index(SITES[3])


def one_site_only() -> dict[str, TraitDirections]:
    """beta has no direction at one site, as the directions file says it: all zero."""
    made = directions()
    beta = made["beta"]
    for name in ("direction", "neutral_mean", "neutral_std"):
        array = getattr(beta, name).copy()
        array[NO_DIRECTION] = 0
        beta = replace(beta, **{name: array})
    return {**made, "beta": beta}


def records() -> list[TextRecord]:
    made = [text_record(i, pieces=pieces, label=f"=label {i}\n") for i, pieces in enumerate(ODD)]
    for record in made:
        assert record.trace is not None
        record.trace.score[:, NO_DIRECTION, 1] = 0
    return [*made, failed_record(4, "-expected room")]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    with RunWriter.create(tmp_path / "run", header(range(5)), one_site_only()) as writer:
        for number, record in enumerate(records()):
            writer.commit([record], [capture(number)])
    return Run.open(tmp_path / "run")


def expected_z(run: Run, record: TextRecord, site: int, trait: int) -> np.ndarray:
    assert record.trace is not None
    about = run.directions[TRAITS[trait]]
    return (record.trace.score[:, site, trait] - about.neutral_mean[site]) / about.neutral_std[site]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") else cell


def floats(cells: Sequence[str]) -> np.ndarray:
    return np.array([np.float32(cell) if cell else np.nan for cell in cells], dtype=np.float32)


def test_csv_has_a_row_per_token_site_and_trait(run: Run, tmp_path: Path) -> None:
    made = export_flat(run, "csv", tmp_path / "out")
    assert (made.texts, made.failed, made.files) == (4, 1, 2)
    rows = rows_of(tmp_path / "out" / "tokens.csv")
    assert list(rows[0]) == [
        *("generation", "label", "position", "role", "part", "token", "site", "trait"),
        *("score", "norm", "z", "logprob"),
    ]
    assert len(rows) == 4 * 6 * len(SITES) * len(TRAITS)
    for record in records()[:4]:
        trace, tokens = record.trace, record.tokens
        assert trace is not None and tokens is not None
        mine = [row for row in rows if row["generation"] == record.generation.id]
        for s, site in enumerate(SITES):
            for k, trait in enumerate(TRAITS):
                here = [r for r in mine if (r["site"], r["trait"]) == (site.name, trait)]
                assert [int(r["position"]) for r in here] == list(range(6))
                assert [unguarded(r["token"]) for r in here] == list(tokens.piece)
                assert [r["role"] for r in here] == tokens.role.tolist()
                assert [r["part"] for r in here] == tokens.part.tolist()
                assert {unguarded(r["label"]) for r in here} == {record.prompt.label}
                np.testing.assert_array_equal(
                    floats([r["score"] for r in here]), trace.score[:, s, k]
                )
                np.testing.assert_array_equal(floats([r["norm"] for r in here]), trace.norm[:, s])
                np.testing.assert_array_equal(floats([r["logprob"] for r in here]), trace.logprob)
                if (s, k) == (NO_DIRECTION, 1):
                    assert {r["z"] for r in here} == {""}
                else:
                    expected = expected_z(run, record, s, k)
                    np.testing.assert_allclose(floats([r["z"] for r in here]), expected, rtol=1e-6)


def test_csv_lists_every_text_failed_ones_too(run: Run, tmp_path: Path) -> None:
    export_flat(run, "csv", tmp_path / "out")
    rows = rows_of(tmp_path / "out" / "generations.csv")
    assert [row["generation"] for row in rows] == [r.generation.id for r in records()]
    assert [row["status"] for row in rows] == ["done"] * 4 + ["failed"]
    assert rows[4]["error"] == "'-expected room"
    assert [unguarded(row["response"]) for row in rows] == [r.response for r in records()]
    assert json.loads(rows[0]["messages"]) == [{"role": "user", "content": "Héllo?"}]
    assert json.loads(rows[0]["tags"]) == {"topic": "greeting"}


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "＝1", "'x", "a", ""]
)
def test_a_cell_never_begins_a_formula_and_comes_back(text: str) -> None:
    cell = guarded(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))
    assert unguarded(cell) == text


def test_no_text_of_a_csv_begins_a_formula(run: Run, tmp_path: Path) -> None:
    export_flat(run, "csv", tmp_path / "out")
    texts = {"label", "token", "response", "error", "messages", "tags"}
    for name in ("tokens.csv", "generations.csv"):
        for row in rows_of(tmp_path / "out" / name):
            cells = [cell for column, cell in row.items() if column in texts]
            assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_jsonl_is_a_line_per_text_at_the_read_site(run: Run, tmp_path: Path) -> None:
    export_flat(run, "jsonl", tmp_path / "out")
    whole = (tmp_path / "out" / "texts.jsonl").read_text(encoding="utf-8")
    lines = whole.splitlines()  # at U+2028 too, so none may be there
    assert len(lines) == 5
    for line, record in zip(lines[:4], records(), strict=False):
        found, trace, tokens = json.loads(line), record.trace, record.tokens
        assert trace is not None and tokens is not None
        assert found["generation"] == record.generation.id
        assert (found["tokens"], found["text"]) == (list(tokens.piece), tokens.text)
        assert (found["label"], found["response"]) == (record.prompt.label, record.response)
        assert found["token_ids"] == tokens.token_id.tolist()
        assert found["logprobs"][0] is None
        assert list(found["norms"]) == ["0.post"]  # the depth 0.5 of two blocks
        for k, trait in enumerate(TRAITS):
            assert list(found["scores"][trait]) == ["0.post"]
            scores = np.array(found["scores"][trait]["0.post"], dtype=np.float32)
            np.testing.assert_array_equal(scores, trace.score[:, 2, k])
            z = np.array(found["z"][trait]["0.post"])
            np.testing.assert_allclose(z, expected_z(run, record, 2, k), rtol=1e-6)
    failed = json.loads(lines[4])
    assert (failed["status"], failed["error"]) == ("failed", "-expected room")
    assert "tokens" not in failed


def test_jsonl_keeps_letters_readable(run: Run, tmp_path: Path) -> None:
    export_flat(run, "jsonl", tmp_path / "out")
    whole = (tmp_path / "out" / "texts.jsonl").read_text(encoding="utf-8")
    assert "日本" in whole and "👩‍🔬" in whole
    assert "\u2028" not in whole and "\x85" not in whole


def test_npz_opens_without_pickle(run: Run, tmp_path: Path) -> None:
    export_flat(run, "npz", tmp_path / "out")
    done = records()[:4]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        f"{record.generation.id}.npz" for record in done
    )
    for record in done:
        trace, tokens = record.trace, record.tokens
        assert trace is not None and tokens is not None
        with np.load(tmp_path / "out" / f"{record.generation.id}.npz", allow_pickle=False) as found:
            np.testing.assert_array_equal(found["score"], trace.score)
            np.testing.assert_array_equal(found["norm"], trace.norm)
            np.testing.assert_array_equal(found["logprob"], trace.logprob)
            assert found["score"].dtype == np.float32
            assert found["sites"].tolist() == [site.name for site in SITES]
            assert found["traits"].tolist() == list(TRAITS)
            assert found["token"].tolist() == [p.replace("\0", "\u2400") for p in tokens.piece]
            assert str(found["text"]) == tokens.text.replace("\0", "\u2400")
            for name in ("role", "part", "special", "turn", "start", "end", "token_id"):
                np.testing.assert_array_equal(found[name], getattr(tokens, name))
            assert json.loads(str(found["about"]))["label"] == record.prompt.label
            assert np.isnan(found["z"][:, NO_DIRECTION, 1]).all()


def test_sites_are_chosen(run: Run, tmp_path: Path) -> None:
    export_flat(run, "csv", tmp_path / "a", sites=["read", "embed"])
    rows = rows_of(tmp_path / "a" / "tokens.csv")
    assert {row["site"] for row in rows} == {"embed", "0.post"}
    export_flat(run, "npz", tmp_path / "b", sites=["1.mid"])
    name = records()[0].generation.id
    trace = records()[0].trace
    assert trace is not None
    with np.load(tmp_path / "b" / f"{name}.npz") as found:
        np.testing.assert_array_equal(found["score"], trace.score[:, [3]])
    with pytest.raises(InputError, match=r"this model's sites .* got '9\.post'"):
        export_flat(run, "csv", tmp_path / "c", sites=["9.post"])
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("to", FLAT)
def test_what_is_there_is_replaced_only_by_force(to: str, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_flat(run, to, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    first = min(before)
    (out / first).write_text("mine")
    with pytest.raises(InputError, match=r"exists already.*--force"):
        export_flat(run, to, out)
    assert (out / first).read_text() == "mine"
    export_flat(run, to, out, force=True)
    assert sorted(path.name for path in out.iterdir()) == sorted(before)
    assert (out / first).read_bytes() != b"mine"


def test_a_run_or_a_file_is_no_place_for_it(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got the run"):
        export_flat(run, "csv", run.path, force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="got the file"):
        export_flat(run, "csv", tmp_path / "file", force=True)


def test_no_id_of_a_stranger_leads_out_of_the_folder(tmp_path: Path) -> None:
    record = text_record(0)
    assert record.trace is not None
    evil = Generation("../../evil", 0)
    record = replace(record, generation=evil, trace=replace(record.trace, generation=evil))
    with RunWriter.create(tmp_path / "run", header(range(1)), one_site_only()) as writer:
        writer.commit([record], [])
    run = Run.open(tmp_path / "run")
    with pytest.raises(RunError, match="no safe file name"):
        export_flat(run, "npz", tmp_path / "a" / "b" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("to", FLAT)
def test_a_full_disk_leaves_no_half_file(
    to: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match="room on the disk"):
        export_flat(run, to, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_one_text_is_in_memory_at_a_time(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time a text is read, the line of the one before is in the file."""
    sizes = []
    real = Run.text

    def text(self: Run, generation: object) -> object:
        file = next(tmp_path.glob("out/texts.jsonl.tmp"))
        sizes.append(file.stat().st_size)
        return real(self, generation)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(Run, "text", text)
    monkeypatch.setattr("traitscope.exports.flat._write_line", _flushing)
    export_flat(run, "jsonl", tmp_path / "out")
    assert sizes == sorted(set(sizes)) and len(sizes) == 4


def _flushing(file: object, value: object) -> None:
    file.write(json.dumps(value) + "\n")  # type: ignore[attr-defined]  # an open file
    file.flush()  # type: ignore[attr-defined]  # an open file
