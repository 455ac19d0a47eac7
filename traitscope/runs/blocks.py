"""Many texts at once: the tokens of whole parts as columns, for means over thousands of texts.

A block is the done texts of some committed parts, one after the other: T tokens of N texts.  Only
the sites that are asked for are kept, and no text becomes an object of its own.  Knows tables and
the index, nothing of windows or of what is made of the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from traitscope.core import Float32
from traitscope.runs.files import FileEntry
from traitscope.runs.index import READERS, Index
from traitscope.runs.tables import GenerationRow, read_lists

__all__ = ["Block", "read_block"]

Sites = Mapping[str, Sequence[int]]  # trait -> the sites at which it is read
Read = Callable[[FileEntry, list[str]], Any]  # a committed table's columns


@dataclass(frozen=True)
class Block:
    """The done texts of some parts: `texts` [N], where their tokens begin [N + 1], columns [T].

    `content` and `response` are those of core.TokenTable (`content`, `within`).  `score` has
    [T, sites asked for] for each trait, NaN where one that came later is not scored on a text yet.
    """

    texts: tuple[GenerationRow, ...]
    begin: NDArray[np.int64]
    content: NDArray[np.bool_]
    response: NDArray[np.bool_]
    score: Mapping[str, Float32]


def read_block(
    index: Index, numbers: Sequence[int], sites: Sites, n_sites: int, read: Read
) -> Block:
    """The texts of the parts with these numbers, at least one; RunError where one is damaged."""
    one = partial(_part, index, sites=sites, n_sites=n_sites, read=read)
    with ThreadPoolExecutor(READERS) as readers:  # most of it is Arrow's, outside Python's lock
        parts = list(readers.map(one, numbers))
    texts = tuple(row for number in numbers for row in index.texts[number])
    return Block(
        texts=texts,
        begin=np.concatenate([[0], np.cumsum([row.n_tokens for row in texts])]).astype(np.int64),
        content=np.concatenate([part.content for part in parts]),
        response=np.concatenate([part.response for part in parts]),
        score={trait: np.concatenate([part.score[trait] for part in parts]) for trait in sites},
    )


@dataclass(frozen=True)
class _Part:
    content: NDArray[np.bool_]
    response: NDArray[np.bool_]
    score: Mapping[str, Float32]


def _part(index: Index, number: int, *, sites: Sites, n_sites: int, read: Read) -> _Part:
    texts = index.texts[number]
    entry = index.places[texts[0].generation].part.file("tokens")
    assert entry is not None  # the part has texts
    names = ["position", "role", "part", "special", *(f"score.{trait}" for trait in sites)]
    table = read(entry, names)  # without those of traits that came later
    score: dict[str, Float32] = {}
    for trait, wanted in sites.items():
        name = f"score.{trait}"
        there = name in table.column_names
        score_TS = (
            read_lists(table[name], n_sites)
            if there
            else _further(index, texts, trait, n_sites, read)
        )
        score[trait] = score_TS[:, list(wanted)]
    role, position = table["role"], table["position"].to_numpy()
    special = table["special"].to_numpy().astype(np.bool_)
    content = ~_is(role, "template") & ~special & (position > 0)
    begin = np.cumsum([0, *(row.n_tokens for row in texts)])
    return _Part(content, _answers(_is(table["part"], "response"), role, begin), score)


def _answers(written: NDArray[np.bool_], role: Any, begin: NDArray[np.int64]) -> NDArray[np.bool_]:
    """`TokenTable.within("response")` of each text."""
    thought, spoken = written & _is(role, "thinking"), written & _is(role, "assistant")
    place = np.arange(len(written))
    first = np.minimum.reduceat(np.where(spoken, place, len(place)), begin[:-1])
    wordless = (first == len(place)) & ~np.logical_or.reduceat(thought, begin[:-1])
    first = np.where(wordless, begin[:-1], first)
    return written & ~thought & (place >= np.repeat(first, np.diff(begin)))


def _further(
    index: Index, texts: Sequence[GenerationRow], trait: str, n_sites: int, read: Read
) -> Float32:
    """Scores [T, S] that came later: from other parts, in another order."""
    tables: dict[str, Float32] = {}
    pieces: list[Float32] = []
    for row in texts:
        place = index.further.get((row.generation, trait))
        if place is None:
            pieces.append(np.full((row.n_tokens, n_sites), np.nan, dtype=np.float32))
            continue
        entry = place.part.file("scores")
        assert entry is not None  # the index found the text in this part
        if entry.name not in tables:
            name = f"score.{trait}"
            tables[entry.name] = read_lists(read(entry, [name])[name], n_sites)
        pieces.append(tables[entry.name][place.offset : place.offset + row.n_tokens])
    return np.concatenate(pieces)


def _is(words: Any, word: str) -> NDArray[np.bool_]:
    same = pc.equal(words.cast(pa.string()), word)
    return np.asarray(same.to_numpy(), dtype=np.bool_)
