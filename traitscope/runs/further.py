"""Scores that came after their texts: two Parquet tables of a part, and reading them back.

further: a row per text with the traits that it was scored on; scores: a row per token with a
column `score.TRAIT` for each of them, texts in the order of the first table.  All texts of a part
have the same traits.  Columns and types are those of docs/format.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from traitscope.core import FurtherScores, Generation
from traitscope.runs.tables import (
    dictionary_words,
    open_table,
    parquet_bytes,
    per_site,
    row_groups,
    site_lists,
)

__all__ = ["FURTHER_SCHEMA", "FurtherRow", "further_bytes", "read_further", "scores_schema"]

FURTHER_SCHEMA = pa.schema(
    [
        pa.field("generation", pa.string(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("traits", pa.list_(pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True)
class FurtherRow:
    """One text that was scored on further traits."""

    generation: Generation
    n_tokens: int
    traits: tuple[str, ...]


def scores_schema(n_sites: int, traits: Sequence[str]) -> Any:
    columns = [
        ("generation", pa.dictionary(pa.int32(), pa.string())),
        ("position", pa.int32()),
        *((f"score.{trait}", per_site(n_sites)) for trait in traits),
    ]
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns])


def further_bytes(
    texts: Sequence[FurtherScores], n_sites: int
) -> dict[str, tuple[memoryview, int]]:
    """The two tables by name, each with its rows; ValueError for texts of different traits."""
    traits = texts[0].traits
    if any(text.traits != traits for text in texts):
        raise ValueError("expected further scores of the same traits in one part")
    rows = [
        {"generation": t.generation.id, "n_tokens": len(t.score), "traits": list(traits)}
        for t in texts
    ]
    lengths = np.array([len(text.score) for text in texts], dtype=np.int64)
    ids = np.array([text.generation.id for text in texts], dtype=np.str_)
    score = np.concatenate([text.score for text in texts])
    columns = [
        dictionary_words(np.repeat(ids, lengths)),
        pa.array(np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])),
        *(site_lists(score[:, :, k], n_sites) for k in range(len(traits))),
    ]
    scores = pa.Table.from_arrays(columns, schema=scores_schema(n_sites, traits))
    further = pa.Table.from_pylist(rows, schema=FURTHER_SCHEMA)
    return {
        "scores": (parquet_bytes(scores, list(row_groups(lengths))), len(scores)),
        "further": (parquet_bytes(further, [len(further)]), len(further)),
    }


def read_further(path: Path) -> list[FurtherRow]:
    with open_table(path) as file:
        rows = file.read(use_threads=False).to_pylist()
    return [
        FurtherRow(Generation.parse(row["generation"]), row["n_tokens"], tuple(row["traits"]))
        for row in rows
    ]
