"""What a plan says: counts, seconds, memory and disk of what a run would do.

`planner.py` works it out.  Here is the result, what of it is known before a model is loaded, and
the plan of a run that has nothing left to do.  Measures nothing.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitscope.forecast import Amounts, Forecast, Lengths, Rates, forecast
from traitscope.runner import Wanted
from traitscope.sizing import Sizing

__all__ = ["Plan", "known", "nothing"]


@dataclass(frozen=True)
class Plan:
    """What would happen.  `most` has every answer as long as it may be, `expected` as long as
    `lengths` (from `source`: "run", "trial", or "" where nothing is known) says.

    `done` of `wanted` captures are there already; memory in bytes, None where it is not known.
    """

    path: Path
    key: str
    resumed: bool
    wanted: int
    done: int
    captures: int
    texts: int
    loads: int
    sizing: Sizing
    model: dict[str, Any]
    pair_texts: int
    pair_traits: tuple[str, ...]
    read_texts: int
    opened: int
    lengths: Lengths
    source: str
    most: Forecast
    expected: Forecast
    memory_free: int | None
    memory_all: int
    weights: int
    disk_free: int
    seconds: float  # that planning took

    def to_dict(self) -> dict[str, Any]:
        names = ("key", "resumed", "wanted", "done", "captures", "texts", "loads", "model")
        more = ("pair_texts", "pair_traits", "read_texts", "opened", "weights")
        machine = ("memory_free", "memory_all", "disk_free")
        return {
            "run": str(self.path),
            **{name: getattr(self, name) for name in (*names, *more)},
            "rows": self.sizing.rows,
            "sizing": self.sizing.to_dict(),
            "expected": self.expected.to_dict(),
            "most": self.most.to_dict(),
            "answers": {
                "from": self.source,
                "tried": self.lengths.tried,
                "ended": self.lengths.ended,
                "open": self.lengths.open,
                "tokens": self.lengths.tokens,
            },
            **{name: getattr(self, name) for name in machine},
            "planning_seconds": self.seconds,
        }


def nothing(want: Wanted, began: float) -> Plan:
    """The plan where all is there: nothing is loaded."""
    none = forecast(Amounts(0, (), 1, 1, 1, 0, 0, 0, 0, ()), Rates(), Lengths())
    assert want.there is not None  # or something would be to do
    return Plan(
        **known(want),
        loads=0,
        sizing=Sizing(want.there.header.rows, "asked"),
        model=dict(want.there.header.model),
        pair_texts=0,
        pair_traits=(),
        read_texts=0,
        opened=0,
        lengths=Lengths(),
        source="",
        most=none,
        expected=none,
        memory_free=None,
        memory_all=0,
        weights=0,
        seconds=time.perf_counter() - began,
    )


def known(want: Wanted) -> dict[str, Any]:
    """What is known without the model."""
    place = want.path.absolute()
    while not place.exists():
        place = place.parent
    return {
        "path": want.path,
        "key": want.work.key,
        "resumed": want.there is not None,
        "wanted": len(want.work.captures),
        "done": len(want.work.captures) - len(want.todo.captures),
        "captures": len(want.todo.captures),
        "texts": len(want.todo.texts),
        "disk_free": shutil.disk_usage(place).free,
    }
