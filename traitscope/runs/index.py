"""What the committed parts hold: every text and capture once, and where a text's tokens are.

Built from the generations' and captures' tables; token tables are not opened.  A text or capture
that failed may appear again in a later part: the later row counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

from traitscope.core import Capture, Generation, Keep
from traitscope.runs.files import FileEntry, whole
from traitscope.runs.further import FurtherRow, read_further
from traitscope.runs.lines import PartEntry
from traitscope.runs.states import states_key
from traitscope.runs.tables import CaptureRow, GenerationRow, read_captures, read_generations

__all__ = ["READERS", "Index", "Place", "block_of", "generation_of", "read_index"]

READERS = 2  # threads: more of them cost more than they bring


@dataclass(frozen=True)
class Place:
    """Where a text is: its part, and the row of its first token in the part's table."""

    part: PartEntry
    offset: int


@dataclass
class Index:
    """Rows in the order in which they were first committed."""

    generations: dict[Generation, GenerationRow] = field(default_factory=dict)
    places: dict[Generation, Place] = field(default_factory=dict)
    captures: dict[Capture, CaptureRow] = field(default_factory=dict)
    internals: dict[tuple[Generation, int], FileEntry] = field(default_factory=dict)
    further: dict[tuple[Generation, str], Place] = field(default_factory=dict)  # by trait
    states: dict[tuple[Generation, Keep], FileEntry] = field(default_factory=dict)
    texts: dict[int, list[GenerationRow]] = field(default_factory=dict)  # done ones, by part

    def add(
        self,
        part: PartEntry,
        texts: Sequence[GenerationRow],
        captures: Sequence[CaptureRow],
        further: Sequence[FurtherRow] = (),
    ) -> None:
        offset = 0
        for row in texts:
            self.generations[row.generation] = row
            if row.status == "done":
                self.places[row.generation] = Place(part, offset)
                self.texts.setdefault(part.number, []).append(row)
                offset += row.n_tokens
        self.captures.update((row.capture, row) for row in captures)
        for entry in part.files:
            if entry.name.startswith("internals/"):
                self.internals[generation_of(entry.name), block_of(entry.name)] = entry
            elif entry.name.startswith("states/"):
                self.states[states_key(entry.name)] = entry
        offset = 0
        for scored in further:
            for trait in scored.traits:
                self.further[scored.generation, trait] = Place(part, offset)
            offset += scored.n_tokens

    def grown(self, folder: Path, parts: Sequence[PartEntry]) -> Index:
        """A copy that holds these parts too; RunError where a table is missing or damaged."""
        index = Index(*(dict(getattr(self, f.name)) for f in fields(self)))
        with ThreadPoolExecutor(READERS) as readers:  # most of it is Arrow's, outside Python's lock
            for part, rows in zip(parts, readers.map(partial(_rows, folder), parts), strict=True):
                index.add(part, *rows)
        return index


Rows = tuple[Sequence[GenerationRow], Sequence[CaptureRow], Sequence[FurtherRow]]


def _rows(folder: Path, part: PartEntry) -> Rows:
    texts, captures = part.file("generations"), part.file("captures")
    further = part.file("further")
    return (
        read_generations(whole(folder, texts)) if texts else (),
        read_captures(whole(folder, captures)) if captures else (),
        read_further(whole(folder, further)) if further else (),
    )


def read_index(folder: Path, parts: Sequence[PartEntry]) -> Index:
    """RunError where a committed table is missing or damaged."""
    return Index().grown(folder, parts)


def generation_of(internals_file: str) -> Generation:
    return Generation.parse(internals_file.removeprefix("internals/").split(".")[0])


def block_of(internals_file: str) -> int:
    return int(internals_file.split(".")[1])
