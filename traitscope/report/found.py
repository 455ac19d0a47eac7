"""Every prompt on every trait: its readings from columns, its words where they are asked for.

z at each trait's read site: before a word is written and over the answer, means over a prompt's
samples, ordered by the answer's.  Numbers are read many texts at a time (`columns`); only for
words is a text opened.  Knows nothing of suites, failures or screens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from traitscope.core import mean_or_nan
from traitscope.report.columns import Columns, joined, read_columns, to_z
from traitscope.report.readings import (
    NO_STRIP,
    RESPONSE,
    Place,
    Strip,
    Strongest,
    place_of,
    strip_of,
    strongest_of,
)
from traitscope.runs import GenerationRow, Run

__all__ = ["PromptRow", "TraitSummary", "name_of", "read_traits"]

AT_ONCE = 64  # parts read in one go, so that memory does not grow with the run


@dataclass(frozen=True)
class PromptRow:
    """One prompt on one trait: means over its samples, and their spread (None for one sample).

    `values` are the samples' z over the answer; `ids` name the samples' texts.  `strip` is the
    first sample's answer, `strongest` the strongest token of all; both empty where not asked for.
    """

    name: str
    text: str
    samples: int
    before: float
    response: float
    spread: float | None
    embed: float
    strongest: Strongest | None
    values: tuple[float, ...]
    strip: Strip
    ids: tuple[str, ...]


@dataclass(frozen=True)
class TraitSummary:
    """One trait: where it is read, how far neutral answers lie apart (z), and all prompts.

    `prompts` are ordered by the answer's z, highest first; those without an answer come last.
    """

    trait: str
    positive: str
    negative: str
    site: str
    window: str
    neutral_spread: float | None
    prompts: tuple[PromptRow, ...]
    warning: str = ""  # what is to be known of its directions

    def split(self, ends: int) -> tuple[Rows, Rows, Rows]:
        """The `ends` highest prompts, those between, the `ends` lowest that have an answer.

        All are the highest where they are few.
        """
        if len(self.prompts) <= 2 * ends + 1:
            return self.prompts, (), ()
        read = sum(not math.isnan(row.response) for row in self.prompts)
        low = max(read - ends, ends)
        rows = self.prompts
        return rows[:ends], (*rows[ends:low], *rows[max(read, ends) :]), rows[low : max(read, ends)]

    @property
    def contrast(self) -> float:
        """z of the highest prompt minus that of the lowest; NaN with fewer than two."""
        read = [row.response for row in self.prompts if not math.isnan(row.response)]
        return read[0] - read[-1] if len(read) > 1 else math.nan


Rows = tuple[PromptRow, ...]
Samples = Mapping[str, Sequence[GenerationRow]]  # the done texts of each prompt, by its id
Words = tuple[Strip, Strongest | None]
Float64 = NDArray[np.float64]


def name_of(row: GenerationRow) -> str:
    """A text's prompt as a person would call it."""
    return row.prompt.label or row.prompt.text


def read_traits(
    run: Run, rows: Sequence[GenerationRow], columns: Columns | None, ends: int
) -> tuple[TraitSummary, ...]:
    """All traits of the run over these texts; words for `ends` prompts at either end of each.

    `columns` are those of all texts of the run, read here where they are not given.
    """
    places = [place_of(run, trait) for trait in run.traits]
    columns = _columns(run, places) if columns is None else columns
    if columns is None:
        return tuple(_trait(run, place, ()) for place in places)
    samples: dict[str, list[GenerationRow]] = {}
    for row in rows:
        if row.status == "done":
            samples.setdefault(row.generation.prompt_id, []).append(row)
    traits = [
        _trait(run, place, prompts)
        for place, prompts in zip(places, _prompts(run, places, samples, columns), strict=True)
    ]
    return tuple(_with_words(run, places, samples, traits, ends)) if ends else tuple(traits)


def _columns(run: Run, places: Sequence[Place]) -> Columns | None:
    parts = run.parts()
    read = [
        read_columns(run, parts[first : first + AT_ONCE], places)
        for first in range(0, len(parts), AT_ONCE)
    ]
    return joined(read) if read else None


def _prompts(
    run: Run, places: Sequence[Place], samples: Samples, columns: Columns
) -> list[list[PromptRow]]:
    """The rows of each trait, without words."""
    at = {name: i for i, name in enumerate(columns.generations)}
    before, answer, embed = (
        to_z(run, places, name, getattr(columns, name)) for name in ("before", "mean", "embed")
    )
    texts = [[at[row.generation.id] for row in rows] for rows in samples.values()]
    return [
        [
            _row(rows, before[i, k], answer[i, k], embed[i, k])
            for rows, i in zip(samples.values(), texts, strict=True)
        ]
        for k in range(len(places))
    ]


def _row(
    rows: Sequence[GenerationRow], before: Float64, answer: Float64, embed: Float64
) -> PromptRow:
    """One prompt on one trait from the z of its samples, each [samples]."""
    there = ~np.isnan(answer)
    values = answer[there].tolist()
    return PromptRow(
        name=name_of(rows[0]),
        text=rows[0].prompt.text,
        samples=len(rows),
        before=mean_or_nan(before.tolist()),
        response=mean_or_nan(values),
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        embed=mean_or_nan(embed[there].tolist()),
        strongest=None,
        values=tuple(answer.tolist()),
        strip=NO_STRIP,
        ids=tuple(row.generation.id for row in rows),
    )


def _trait(run: Run, place: Place, prompts: Sequence[PromptRow]) -> TraitSummary:
    directions = run.directions[place.trait]
    std = float(directions.neutral_std[place.site])
    spread = float(directions.neutral_response_std[place.site]) / std if std > 0 else None
    return TraitSummary(
        trait=place.trait,
        positive=directions.metadata.get("positive", ""),
        negative=directions.metadata.get("negative", ""),
        site=run.sites[place.site].name,
        window=str(RESPONSE),
        neutral_spread=spread,
        prompts=tuple(sorted(prompts, key=_order)),
        warning=directions.metadata.get("warning", ""),
    )


def _order(row: PromptRow) -> tuple[bool, float]:
    nothing = math.isnan(row.response)
    return nothing, 0.0 if nothing else -row.response


# --- words ---------------------------------------------------------------------------------------


def _with_words(
    run: Run,
    places: Sequence[Place],
    samples: Samples,
    traits: Sequence[TraitSummary],
    ends: int,
) -> Iterable[TraitSummary]:
    """The traits with the words of the prompts at their ends; each text is opened once."""
    wanted: dict[str, list[Place]] = {}
    for place, trait in zip(places, traits, strict=True):
        high, _, low = trait.split(ends)
        for row in (*high, *low):
            wanted.setdefault(row.ids[0], []).append(place)
    words: dict[tuple[str, str], Words] = {}
    for rows in samples.values():
        name = rows[0].generation.id
        for place, found in _words(run, rows, wanted.get(name, ())):
            words[name, place.trait] = found
    for trait in traits:
        prompts = tuple(_worded(row, words.get((row.ids[0], trait.trait))) for row in trait.prompts)
        yield replace(trait, prompts=prompts)


def _words(
    run: Run, rows: Sequence[GenerationRow], places: Sequence[Place]
) -> Iterable[tuple[Place, Words]]:
    """The first sample's answer, and the strongest token of all samples."""
    if not places:
        return
    texts = [run.text(row.generation) for row in rows]
    for place in places:
        found = [strongest_of(run, text, place) for text in texts]
        known = [token for token in found if token is not None and not math.isnan(token.z)]
        best = max(known, key=lambda token: token.z, default=None)
        yield place, (strip_of(run, texts[0], place), best)


def _worded(row: PromptRow, words: Words | None) -> PromptRow:
    return row if words is None else replace(row, strip=words[0], strongest=words[1])
