"""Every text of a run -> its readings as columns, many texts at a time.

What `readings` reads of one text, for thousands: at each trait's read site the score at
`prompt[-1]`, and over the answer's content tokens the mean, the largest and the last; the mean at
`embed` beside them.  Raw scores, float64; `to_z` puts them on the scale of neutral text.  NaN
where a window is empty.  No text is opened by itself, and nothing is known of suites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from traitscope.core import Float32
from traitscope.report.readings import BEFORE, RESPONSE, Place
from traitscope.runs import Run

__all__ = ["STATISTICS", "Columns", "joined", "read_columns", "to_z"]

Float64 = NDArray[np.float64]
STATISTICS = ("before", "mean", "max", "last", "embed")


@dataclass(frozen=True)
class Columns:
    """N texts, K traits: their ids [N], and raw scores [N, K]; `strongest` is the token of `max`.

    `strongest` counts tokens from the text's first, -1 where the answer has no content token.
    """

    generations: tuple[str, ...]
    before: Float64
    mean: Float64
    max: Float64
    last: Float64
    embed: Float64
    strongest: NDArray[np.int64]


def read_columns(run: Run, parts: Sequence[int], places: Sequence[Place]) -> Columns:
    """The texts of some parts (`Run.parts`), at least one."""
    sites = {p.trait: [p.site] if p.embed is None else [p.site, p.embed] for p in places}
    block = run.block(parts, sites)
    segments = _Segments.of(block.begin, block.content & block.response)
    prompt = block.begin[:-1] + np.array([row.n_prompt for row in block.texts]) - 1
    columns = [_trait(block.score[p.trait], segments, prompt, p.embed is not None) for p in places]
    names = tuple(row.generation.id for row in block.texts)
    return Columns(names, *(np.stack(column, axis=1) for column in zip(*columns, strict=True)))


def joined(parts: Sequence[Columns]) -> Columns:
    """The texts of several parts, in their order; at least one part."""
    names = tuple(name for part in parts for name in part.generations)
    arrays = [f.name for f in fields(Columns)][1:]
    return Columns(names, *(np.concatenate([getattr(p, name) for p in parts]) for name in arrays))


def to_z(run: Run, places: Sequence[Place], statistic: str, score_NK: Float64) -> Float64:
    """One of `STATISTICS` as z (`core.TraitDirections.z`)."""
    z = np.empty_like(score_NK)
    for k, place in enumerate(places):
        site = place.embed if statistic == "embed" else place.site
        window = BEFORE if statistic == "before" else RESPONSE
        if site is not None:
            score = score_NK[:, k].astype(np.float32)
            z[:, k] = run.directions[place.trait].z(score, site, window)
        else:
            z[:, k] = np.nan
    return z


# --- inside --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Segments:
    """Texts within columns of tokens: where each begins, and which tokens are read [T].

    `count` [N] tokens are read of each; `last` [N] is the last of them, -1 where there is none.
    """

    begin: NDArray[np.int64]
    length: NDArray[np.int64]
    read: NDArray[np.bool_]
    count: NDArray[np.int64]
    last: NDArray[np.int64]

    @classmethod
    def of(cls, begin: NDArray[np.int64], read: NDArray[np.bool_]) -> _Segments:
        place = np.where(read, np.arange(len(read)), -1)
        return cls(
            begin=begin[:-1],
            length=np.diff(begin),
            read=read,
            count=np.add.reduceat(read, begin[:-1], dtype=np.int64),
            last=np.maximum.reduceat(place, begin[:-1]),
        )

    def mean(self, values_T: Float32) -> Float64:
        total = np.add.reduceat(np.where(self.read, values_T, 0.0), self.begin, dtype=np.float64)
        return np.where(self.count > 0, total / np.maximum(self.count, 1), np.nan)

    def largest(self, values_T: Float32) -> tuple[Float64, NDArray[np.int64]]:
        """The largest value read of each text, and the first token (of the text) that has it."""
        read = np.where(self.read, values_T, -np.inf)
        largest = np.maximum.reduceat(read, self.begin)
        here = read == np.repeat(largest, self.length)
        token = np.where(here, np.arange(len(read)), len(read))
        first = np.minimum.reduceat(token, self.begin) - self.begin
        some = (self.count > 0) & ~np.isnan(largest)
        return np.where(self.count > 0, largest, np.nan), np.where(some, first, -1)


def _trait(
    score_TX: Float32, segments: _Segments, prompt: NDArray[np.int64], embed: bool
) -> tuple[NDArray[np.generic], ...]:
    """The columns of one trait, in the order of `Columns`; X is the read site, then `embed`."""
    score_T = score_TX[:, 0]
    largest, strongest = segments.largest(score_T)
    mean = segments.mean(score_T)
    some = segments.count > 0
    return (
        np.where(prompt >= segments.begin, score_T[prompt], np.nan),
        mean,
        largest,
        np.where(some, score_T[segments.last], np.nan),
        segments.mean(score_TX[:, 1]) if embed else np.full_like(mean, np.nan),
        strongest,
    )
