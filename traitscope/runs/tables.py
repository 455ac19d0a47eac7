"""The three Parquet tables of a part, built from numpy and read back into it.

tokens: a row per token, S numbers for `norm` and for each trait's `score.TRAIT`; generations: a
row per text, done or failed; captures: a row per capture.  Columns and types are those of
docs/format.md.  No loop runs over tokens here.  Knows bytes and rows, no folders.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from traitscope.core import (
    Capture,
    Float32,
    Generation,
    Int32,
    Kind,
    Message,
    Prompt,
    TextRecord,
    TokenTable,
    Trace,
)
from traitscope.errors import RunError
from traitscope.runs.lines import clean

__all__ = [
    "CaptureRow",
    "GenerationRow",
    "captures_bytes",
    "dictionary_words",
    "generations_bytes",
    "open_table",
    "parquet_bytes",
    "per_site",
    "read_captures",
    "read_generations",
    "read_lists",
    "read_numbers",
    "read_tokens",
    "row_groups",
    "site_lists",
    "tokens_bytes",
]

ROW_GROUP = 2048  # tokens; a text is never split, so reading one text reads little else
_WORD = pa.dictionary(pa.int32(), pa.string())
_MESSAGE = pa.struct(
    [pa.field(name, pa.string(), nullable=False) for name in ("role", "content", "thinking")]
)

GENERATIONS_SCHEMA = pa.schema(
    [
        pa.field("generation", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("tags", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("messages", pa.list_(_MESSAGE), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        pa.field("n_prompt", pa.int32(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("finish", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("thinking", pa.string(), nullable=False),
    ]
)

CAPTURES_SCHEMA = pa.schema(
    [
        pa.field("generation", pa.string(), nullable=False),
        pa.field("set", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class GenerationRow:
    """One text without its tokens.  `in_suite`: some wanted capture is of this text.

    A failed text has `status` "failed", the reason in `error`, no tokens and no `finish`.
    """

    generation: Generation
    prompt: Prompt
    response: str
    n_prompt: int
    n_tokens: int
    finish: str | None
    seconds: float | None
    status: str
    error: str
    in_suite: bool = True
    thinking: str = ""


@dataclass(frozen=True)
class CaptureRow:
    """One recorded capture; `in_suite` is False where the suite no longer asks for it."""

    capture: Capture
    status: str
    error: str
    in_suite: bool = True


@dataclass(frozen=True)
class Numbers:
    """The numbers of T tokens: score [T, S, K], norm [T, S], logprob [T] (NaN where unknown)."""

    score: Float32
    norm: Float32
    logprob: Float32


# --- writing -------------------------------------------------------------------------------------


def tokens_schema(n_sites: int, traits: Sequence[str]) -> Any:
    numbers = per_site(n_sites)
    columns = [
        ("generation", _WORD),
        ("position", pa.int32()),
        ("role", _WORD),
        ("part", _WORD),
        ("special", pa.bool_()),
        ("turn", pa.int16()),
        ("token_id", pa.int32()),
        ("token", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("logprob", pa.float32()),
        ("norm", numbers),
        *((f"score.{trait}", numbers) for trait in traits),
    ]
    return pa.schema([pa.field(n, t, nullable=n == "logprob") for n, t in columns])


def tokens_bytes(
    records: Sequence[TextRecord], n_sites: int, traits: Sequence[str]
) -> tuple[memoryview, int]:
    """The tokens of done texts, one text after the other, as a Parquet file; and its rows."""
    tables = [cast(TokenTable, record.tokens) for record in records]
    traces = [cast(Trace, record.trace) for record in records]
    lengths = np.array([len(trace.token_ids) for trace in traces], dtype=np.int64)
    ids = np.array([record.generation.id for record in records], dtype=np.str_)
    score = np.concatenate([trace.score for trace in traces])
    logprob = np.concatenate([trace.logprob for trace in traces])
    columns = [
        dictionary_words(np.repeat(ids, lengths)),
        pa.array(np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])),
        dictionary_words(np.concatenate([table.role for table in tables])),
        dictionary_words(np.concatenate([table.part for table in tables])),
        pa.array(np.concatenate([table.special for table in tables])),
        pa.array(np.concatenate([table.turn for table in tables]).astype(np.int16)),
        pa.array(np.concatenate([trace.token_ids for trace in traces]).astype(np.int32)),
        _strings([piece for table in tables for piece in table.piece]),
        pa.array(np.concatenate([table.start for table in tables]).astype(np.int32)),
        pa.array(np.concatenate([table.end for table in tables]).astype(np.int32)),
        pa.array(logprob.astype(np.float32), mask=np.isnan(logprob)),
        site_lists(np.concatenate([trace.norm for trace in traces]), n_sites),
        *(site_lists(score[:, :, k], n_sites) for k in range(len(traits))),
    ]
    schema = tokens_schema(n_sites, traits)
    table = pa.Table.from_arrays(columns, schema=schema)
    return parquet_bytes(table, list(row_groups(lengths))), len(table)


def generations_bytes(records: Sequence[TextRecord]) -> tuple[memoryview, int]:
    rows = [_generation_row(record) for record in records]
    table = pa.Table.from_pylist(rows, schema=GENERATIONS_SCHEMA)
    return parquet_bytes(table, [len(rows)]), len(rows)


def captures_bytes(captures: Mapping[Capture, str]) -> tuple[memoryview, int]:
    """Captures with the reason for which they failed, "" where they are done."""
    rows = [
        {
            "generation": capture.generation.id,
            "set": clean(capture.prompt_set),
            "kind": capture.kind,
            "status": "failed" if error else "done",
            "error": clean(error),
        }
        for capture, error in captures.items()
    ]
    table = pa.Table.from_pylist(rows, schema=CAPTURES_SCHEMA)
    return parquet_bytes(table, [len(rows)]), len(rows)


def parquet_bytes(table: Any, groups: Sequence[int]) -> memoryview:
    words = [f.name for f in table.schema if f.type in (pa.string(), _WORD)]
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", use_dictionary=words) as writer:
        start = 0
        for length in groups:
            writer.write_table(table.slice(start, length), row_group_size=max(length, 1))
            start += length
    return memoryview(sink.getvalue())


def row_groups(lengths: NDArray[np.int64]) -> Iterator[int]:
    """Lengths of row groups: whole texts, together at most ROW_GROUP tokens (or one text)."""
    held = 0
    for length in lengths.tolist():
        if held and held + length > ROW_GROUP:
            yield held
            held = 0
        held += length
    yield held


def _generation_row(record: TextRecord) -> dict[str, object]:
    trace, tokens, prompt = record.trace, record.tokens, record.prompt
    return {
        "generation": record.generation.id,
        "prompt_id": record.generation.prompt_id,
        "sample": record.generation.sample,
        "label": None if prompt.label is None else clean(prompt.label),
        "tags": [(clean(k), clean(v)) for k, v in prompt.tags.items()],
        "messages": [
            {"role": clean(m.role), "content": clean(m.content), "thinking": clean(m.thinking)}
            for m in prompt.messages
        ],
        "text": "" if tokens is None else clean(tokens.text),
        "response": clean(record.response),
        "n_prompt": 0 if trace is None else trace.n_prompt,
        "n_tokens": 0 if trace is None else len(trace.token_ids),
        "finish": None if trace is None else trace.finish,
        "seconds": None if trace is None else float(trace.seconds),
        "status": record.status,
        "error": clean(record.error),
        "thinking": clean(record.thinking),
    }


def per_site(n_sites: int) -> Any:
    return pa.list_(pa.field("element", pa.float32(), nullable=False), n_sites)


def site_lists(array_TS: Float32, n_sites: int) -> Any:
    flat = np.ascontiguousarray(array_TS, dtype=np.float32).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=per_site(n_sites))


def dictionary_words(array: NDArray[np.str_]) -> Any:
    values, indices = np.unique(array, return_inverse=True)
    return pa.DictionaryArray.from_arrays(
        pa.array(indices.astype(np.int32)), pa.array(values.tolist(), type=pa.string())
    )


def _strings(values: list[str]) -> Any:
    try:
        return pa.array(values, type=pa.string())
    except UnicodeEncodeError:  # a lone surrogate; rare, so it is not looked for
        return pa.array([clean(value) for value in values], type=pa.string())


# --- reading -------------------------------------------------------------------------------------


def open_table(path: Path) -> Any:
    """A ParquetFile, for a `with` block; RunError where it is none."""
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"Expected a Parquet table in {path}, got '{reason}'. "
            "'traitscope verify' lists what is whole."
        ) from error


def read_generations(path: Path) -> list[GenerationRow]:
    with open_table(path) as file:
        there = set(file.schema_arrow.names) - {"text"}  # an older writer knew fewer columns
        columns = [name for name in GENERATIONS_SCHEMA.names if name in there]
        rows = file.read(columns, use_threads=False).to_pylist()
    return [_as_generation(row) for row in rows]


def read_texts(path: Path) -> dict[str, str]:
    """The decoded text of each generation of one part, by its id."""
    with open_table(path) as file:
        table = file.read(["generation", "text"], use_threads=False)
    return dict(zip(table["generation"].to_pylist(), table["text"].to_pylist(), strict=True))


def read_captures(path: Path) -> list[CaptureRow]:
    with open_table(path) as file:
        rows = file.read(use_threads=False).to_pylist()
    return [
        CaptureRow(
            Capture(Generation.parse(row["generation"]), row["set"], cast(Kind, row["kind"])),
            row["status"],
            row["error"],
        )
        for row in rows
    ]


def read_tokens(table: Any, text: str) -> TokenTable:
    """A TokenTable from the rows of one text."""
    return TokenTable(
        token_id=_ints(table["token_id"]),
        role=_read_words(table["role"]),
        part=_read_words(table["part"]),
        special=table["special"].to_numpy().astype(np.bool_),
        turn=_ints(table["turn"]),
        piece=tuple(table["token"].to_pylist()),
        start=_ints(table["start"]),
        end=_ints(table["end"]),
        text=text,
    )


def read_numbers(table: Any, n_sites: int, traits: Sequence[str]) -> Numbers:
    score = np.empty((len(table), n_sites, len(traits)), dtype=np.float32)
    for k, trait in enumerate(traits):
        score[:, :, k] = read_lists(table[f"score.{trait}"], n_sites)
    logprob = table["logprob"].to_numpy().astype(np.float32)
    return Numbers(score, read_lists(table["norm"], n_sites), logprob)


def _as_generation(row: Mapping[str, Any]) -> GenerationRow:
    messages = tuple(
        Message(m["role"], m["content"], m.get("thinking") or "") for m in row["messages"]
    )
    return GenerationRow(
        generation=Generation(row["prompt_id"], row["sample"]),
        prompt=Prompt(messages, row["label"], dict(row["tags"])),
        response=row["response"],
        n_prompt=row["n_prompt"],
        n_tokens=row["n_tokens"],
        finish=row["finish"],
        seconds=row["seconds"],
        status=row["status"],
        error=row["error"],
        thinking=row.get("thinking") or "",
    )


def _ints(column: Any) -> Int32:
    return cast(Int32, column.to_numpy().astype(np.int32))


def _read_words(column: Any) -> NDArray[np.str_]:
    return np.array(column.cast(pa.string()).to_pylist(), dtype=np.str_)


def read_lists(column: Any, n_sites: int) -> Float32:
    array = column.combine_chunks()
    flat = array.flatten().to_numpy()
    if flat.size != len(array) * n_sites:
        raise RunError(f"Expected {n_sites} numbers per token, got lists of another length.")
    return np.asarray(flat.reshape(len(array), n_sites), dtype=np.float32)
