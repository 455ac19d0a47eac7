"""The table of captures: filtered, sorted and cut into pages here, so that a page sends a page.

A row is a capture: those of the suite in its order, then those not in it any more; what is wanted
and not there yet has a row too.  Scores are those of `report.columns` at each trait's read site.
Rows without the number that is asked for come last, whichever way the table is sorted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traitscope.core import Capture
from traitscope.errors import InputError, did_you_mean
from traitscope.report.columns import STATISTICS
from traitscope.runs import GenerationRow, Run
from traitscope.viewer.scores import Float64, Scores, scaled

__all__ = ["Row", "Table", "Threshold", "Wanted"]

_THRESHOLD = re.compile(r"([a-z0-9_]{1,64})\.([a-z]+)(>=|<=)(-?\d{1,9}(?:\.\d{0,9})?)")


@dataclass(frozen=True)
class Row:
    """One capture; `text` is None as long as nothing is known but its id."""

    number: int
    capture: Capture
    status: str
    error: str
    in_suite: bool
    text: GenerationRow | None

    @property
    def name(self) -> str:
        return "" if self.text is None else self.text.prompt.text

    @cached_property
    def searched(self) -> str:
        """Everything that a search looks into."""
        parts = [self.capture.prompt_set, self.error]
        if self.text is not None:
            prompt = self.text.prompt
            parts += [prompt.label or "", self.text.response]
            parts += [message.content for message in prompt.messages]
            parts += [f"{key}={value}" for key, value in prompt.tags.items()]
        return "\n".join(parts).casefold()


@dataclass(frozen=True)
class Threshold:
    """TRAIT.STATISTIC>=NUMBER, or <=."""

    trait: str
    statistic: str
    least: bool
    value: float

    @classmethod
    def parse(cls, text: str) -> Threshold:
        match = _THRESHOLD.fullmatch(text)
        if match is None or match[2] not in STATISTICS:
            raise InputError(
                f"where: expected TRAIT.{'|'.join(STATISTICS)}>=NUMBER (or <=), got '{text}'."
            )
        return cls(match[1], match[2], match[3] == ">=", float(match[4]))


@dataclass(frozen=True)
class Wanted:
    """Which rows are wanted and in which order; empty words ask for nothing."""

    search: str = ""
    prompt_set: str = ""
    kind: str = ""
    status: str = ""
    tag: str = ""
    where: tuple[Threshold, ...] = ()
    sort: str = "order"
    falling: bool = False
    how: str = "z"


class Table:
    """All rows of one state of a run."""

    def __init__(self, run: Run, scores: Scores) -> None:
        self.run, self._scores = run, scores
        self.rows = tuple(_rows(run))

    def pick(self, wanted: Wanted) -> list[Row]:
        """The rows wanted, in order."""
        rows = [row for row in self.rows if _fits(row, wanted)]
        for threshold in wanted.where:
            values = self._values(rows, threshold.trait, threshold.statistic, wanted.how)
            limit = threshold.value if threshold.least else -threshold.value
            keep = (values if threshold.least else -values) >= limit  # NaN never is
            rows = [row for row, kept in zip(rows, keep.tolist(), strict=True) if kept]
        return self._sorted(rows, wanted)

    def scores(self, rows: Sequence[Row], how: str) -> dict[str, Float64]:
        """Each statistic of these rows: [rows, K], NaN where there is none; reads what it needs."""
        done = [row.text for row in rows if row.text is not None and row.text.status == "done"]
        columns = self._scores.of(self.run, {self.run.part_of(t.generation) for t in done})
        if columns is None:
            nothing = np.full((len(rows), len(self.run.traits)), np.nan)
            return dict.fromkeys(STATISTICS, nothing)
        place = {name: i for i, name in enumerate(columns.generations)}
        at = np.array([place.get(row.capture.generation.id, -1) for row in rows], dtype=np.int64)
        return {
            name: np.where((at >= 0)[:, None], values[at], np.nan)
            for name, values in scaled(self.run, columns, how).items()
        }

    # --- inside ----------------------------------------------------------------------------------

    def _values(self, rows: Sequence[Row], trait: str, statistic: str, how: str) -> Float64:
        if trait not in self.run.traits:
            known = ", ".join(self.run.traits)
            raise InputError(
                f"Expected a trait of the run ({known}), got '{trait}'."
                f"{did_you_mean(trait, self.run.traits)}"
            )
        return self.scores(rows, how)[statistic][:, self.run.traits.index(trait)]

    def _sorted(self, rows: list[Row], wanted: Wanted) -> list[Row]:
        trait, dot, statistic = wanted.sort.rpartition(".")
        if dot and statistic in STATISTICS:
            values = self._values(rows, trait, statistic, wanted.how)
            return [rows[i] for i in _order(values, falling=wanted.falling)]
        if wanted.sort not in _KEYS:
            raise InputError(
                f"sort: expected one of {', '.join(_KEYS)}, or TRAIT.{'|'.join(STATISTICS)}, got "
                f"'{wanted.sort}'."
            )
        told = [row for row in rows if row.text is not None or wanted.sort not in _OF_THE_TEXT]
        untold = [row for row in rows if row.text is None and wanted.sort in _OF_THE_TEXT]
        return sorted(told, key=_KEYS[wanted.sort], reverse=wanted.falling) + untold


def _rows(run: Run) -> Iterable[Row]:
    texts = {row.generation: row for row in run.generations()}
    there = {row.capture: row for row in run.captures()}
    every = dict.fromkeys([*run.header.captures, *there])
    for number, capture in enumerate(every):
        text, found = texts.get(capture.generation), there.get(capture)
        if found is not None:
            status, error, inside = found.status, found.error, found.in_suite
        elif text is not None and text.status == "failed":
            status, error, inside = "failed", text.error, True
        else:
            status, error, inside = "missing", "", True
        yield Row(number, capture, status, error, inside, text)


def _fits(row: Row, wanted: Wanted) -> bool:
    return (
        wanted.prompt_set in ("", row.capture.prompt_set)
        and wanted.kind in ("", row.capture.kind)
        and wanted.status in ("", row.status)
        and (not wanted.tag or _tagged(row, wanted.tag))
        and all(_has(row, word) for word in wanted.search.casefold().split())
    )


def _has(row: Row, word: str) -> bool:
    """In its words, or the beginning of its id (not within: any digit is somewhere in an id)."""
    return word in row.searched or (len(word) > 5 and row.capture.generation.id.startswith(word))


def _tagged(row: Row, tag: str) -> bool:
    """`key=value`; a key alone fits every value."""
    tags = {} if row.text is None else row.text.prompt.tags
    return tag in tags or any(tag == f"{key}={value}" for key, value in tags.items())


def _order(values: Float64, *, falling: bool) -> list[int]:
    """Stable, NaN last."""
    key = -values if falling else values
    order: NDArray[np.intp] = np.argsort(key, kind="stable")  # numpy sorts NaN to the end
    return list(map(int, order))


_OF_THE_TEXT = ("prompt", "response", "tokens")
_KEYS: Mapping[str, Callable[[Row], Any]] = {
    "order": lambda row: row.number,
    "prompt": lambda row: row.name.casefold(),
    "response": lambda row: "" if row.text is None else row.text.response.casefold(),
    "set": lambda row: row.capture.prompt_set.casefold(),
    "kind": lambda row: row.capture.kind,
    "status": lambda row: row.status,
    "tokens": lambda row: -1 if row.text is None else row.text.n_tokens - row.text.n_prompt,
}
