"""The scores of all texts of one run, read when they are first needed and kept.

A page of the table needs a few parts, sorting by a score needs all.  What was read of a part is
kept while the run grows: committed parts do not change.  Only traits that come later make what was
read too little; then it is read again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from traitscope.report.columns import STATISTICS, Columns, joined, read_columns, to_z
from traitscope.report.readings import Place, place_of
from traitscope.runs import Run

__all__ = ["AS", "Scores", "places_of", "scaled"]

AS = ("z", "raw")
AT_ONCE = 64  # parts read in one go: a page of the table never waits for more
Float64 = NDArray[np.float64]


def places_of(run: Run) -> list[Place]:
    """Where each trait of the run is read, in the run's order."""
    return [place_of(run, trait) for trait in run.traits]


class Scores:
    """Columns of one run's texts, part by part; may be asked from several threads."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._known: tuple[object, ...] = ()
        self._read: set[int] = set()
        self._columns: list[Columns] = []

    def all(self, run: Run) -> Columns | None:
        """Of every text, in the order in which they were read; None where there is none."""
        return self.of(run, run.parts())

    def of(self, run: Run, parts: Iterable[int]) -> Columns | None:
        """Of all that was read until now, these parts among them."""
        wanted = sorted(set(parts))
        for first in range(0, len(wanted), AT_ONCE):
            with self._turn:
                self._read_more(run, wanted[first : first + AT_ONCE])
        with self._turn:
            self._columns = [joined(self._columns)] if len(self._columns) > 1 else self._columns
            return self._columns[0] if self._columns else None

    def _read_more(self, run: Run, parts: Iterable[int]) -> None:
        later = run.header.further_traits
        known = (run.traits, sum(map(len, run.unscored().values())) if later else 0)
        if known != self._known:
            self._known, self._read, self._columns = known, set(), []
        missing = [part for part in parts if part not in self._read]
        if missing:
            self._columns.append(read_columns(run, missing, places_of(run)))
            self._read.update(missing)


def scaled(run: Run, columns: Columns, how: str) -> dict[str, Float64]:
    """Each statistic [N, K], raw or as z."""
    places = places_of(run)
    raw = {name: getattr(columns, name) for name in STATISTICS}
    return raw if how == "raw" else {n: to_z(run, places, n, raw[n]) for n in raw}
