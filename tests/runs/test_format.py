"""Format 1 stays readable, and docs/format.md says the truth about it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.runs.build import SITES, TRAITS, generation, internals_of, text_record
from traitscope.core import Capture
from traitscope.runs import Run, RunHeader, verify
from traitscope.runs.further import FURTHER_SCHEMA, scores_schema
from traitscope.runs.tables import CAPTURES_SCHEMA, GENERATIONS_SCHEMA, tokens_schema

FORMAT_1 = Path(__file__).parent / "format-1"
DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")


def test_a_run_of_format_1_reads() -> None:
    assert verify(FORMAT_1) == []
    run = Run.open(FORMAT_1)
    assert (run.state, run.sites, run.traits) == ("complete", SITES, TRAITS)
    done, failed = run.generations()
    assert (done.prompt.label, done.response, failed.status) == ("hello", "Yes.", "failed")
    text, expected = run.text(done.generation), text_record(0).trace
    assert expected is not None
    np.testing.assert_array_equal(text.tokens.token_id, expected.token_ids)
    np.testing.assert_allclose(text.score, expected.score, rtol=1e-5)
    assert (
        run.internals(generation(0), 1).tensors.keys()
        == internals_of(text_record(0)).tensors.keys()
    )
    assert run.captures()[-1].capture == Capture(generation(0), "inside", "internals")
    assert [event["kind"] for event in run.events()] == ["created", "batch"]


def test_what_is_written_today_has_the_columns_of_format_1() -> None:
    """A change of types here is a change of the format; a column more is not."""
    parts = FORMAT_1 / "parts"
    since = {"generations": {"thinking", "messages.thinking"}}
    for name, schema in (
        ("tokens", tokens_schema(len(SITES), TRAITS)),
        ("generations", GENERATIONS_SCHEMA),
        ("captures", CAPTURES_SCHEMA),
    ):
        there = _columns(pq.read_schema(parts / f"00001.{name}.parquet"))
        here = _columns(_as_written(schema))
        assert {name: here.get(name) for name in there} == there
        assert here.keys() - there.keys() == since.get(name, set())


def _as_written(schema: pa.Schema) -> pa.Schema:
    """As a file says it: Parquet has names of its own for what is inside a map."""
    file = io.BytesIO()
    pq.write_table(schema.empty_table(), file)
    return pq.read_schema(file)


def _columns(schema: Any) -> dict[str, tuple[str, bool]]:
    """Types by name; of lists of structs, those within."""
    found = {}
    for field in schema:
        inner = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_struct(inner):
            found |= {f"{field.name}.{f.name}": (str(f.type), f.nullable) for f in inner}
        else:
            found[field.name] = (str(field.type), field.nullable)
    return found


def test_the_document_names_every_column_and_member() -> None:
    names = {*GENERATIONS_SCHEMA.names, *CAPTURES_SCHEMA.names, *RunHeader.__dataclass_fields__}
    names |= set(tokens_schema(1, ["TRAIT"]).names)
    named = set(re.findall(r"`([\w.]+)`", DOCUMENT))
    assert names - {"extra"} <= named


def test_the_document_shows_the_manifest_of_the_example() -> None:
    assert (FORMAT_1 / "manifest.jsonl").read_text() in DOCUMENT


@pytest.mark.parametrize("damage", [False, True])
def test_the_reader_in_the_document_reads(tmp_path: Path, damage: bool) -> None:
    code = DOCUMENT.split("```python\n")[1].split("```")[0]
    (tmp_path / "reader.py").write_text(code, encoding="utf-8")
    run = tmp_path / "run"
    for file in FORMAT_1.rglob("*.*"):
        target = run / file.relative_to(FORMAT_1)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    if damage:
        data = bytearray((run / "parts" / "00001.tokens.parquet").read_bytes())
        data[1000] ^= 1
        (run / "parts" / "00001.tokens.parquet").write_bytes(data)
    command = [sys.executable, "-X", "utf8", str(tmp_path / "reader.py"), str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if damage:
        assert "00001.tokens.parquet is damaged" in done.stderr
    else:
        first, *others = done.stdout.splitlines()
        assert first.startswith(f"{generation(0).id} 0 <s> None {{'alpha': ")
        assert len(others) == 5


def test_the_document_names_what_can_be_added() -> None:
    named = set(re.findall(r"`([\w.]+)`", DOCUMENT))
    assert {*FURTHER_SCHEMA.names, *scores_schema(1, ["TRAIT"]).names} <= named
