"""What a plan says: counts, seconds, memory and disk of what a run would do.

`planner.py` works it out.  Here is the result, what of it is known before a model is loaded, and
the plan of a run that has nothing left to do.  Measures nothing.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from traitscope.forecast import Amounts, Forecast, Lengths, Rates, forecast
from traitscope.prepare import Misfit
from traitscope.runner import Wanted
from traitscope.sizing import Sizing

__all__ = ["Plan", "known", "nothing"]


@dataclass(frozen=True)
class Plan:
    """What would happen.  `most` has every answer as long as it may be, `expected` as long as
    `lengths` says, and no phase less than `expected` has.

    `done` of `wanted` captures are there already; of `texts`, `written_texts` are made, and
    `misfits` are what is wrong with each that the model cannot take.  Memory in bytes, None where
    it is not known.  `others` is the share of the machine that other programs took while this was
    measured, `warning` a sentence where it was much.
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
    written_texts: int
    misfits: tuple[Misfit, ...]
    context: int
    opened: int
    lengths: Lengths
    most: Forecast
    expected: Forecast
    memory_free: int | None
    memory_all: int | None
    weights: int
    disk_free: int
    others: float
    warning: str
    seconds: float  # that planning took

    @property
    def refused(self) -> str:
        """What will fail and why, a sentence for each reason; "" where all texts fit."""
        return " ".join(
            f"{n:,} of {self.texts:,} {'text' if self.texts == 1 else 'texts'} "
            f"{_does(n, kind, self.context)} and will be recorded as failed."
            for kind in get_args(Misfit)
            if (n := self.misfits.count(kind))
        )

    def to_dict(self) -> dict[str, Any]:
        names = ("key", "resumed", "wanted", "done", "captures", "texts", "loads", "model")
        more = ("pair_texts", "pair_traits", "written_texts", "read_texts", "opened", "weights")
        machine = ("memory_free", "memory_all", "disk_free")
        return {
            "run": str(self.path),
            **{name: getattr(self, name) for name in (*names, *more)},
            "rows": self.sizing.rows,
            "sizing": self.sizing.to_dict(),
            "expected": self.expected.to_dict(),
            "most": self.most.to_dict(),
            "answers": {
                "from": self.lengths.source,
                "there": self.lengths.before,
                "tried": self.lengths.tried,
                "tried_prompts": self.lengths.tried_prompts,
                "ended": self.lengths.ended,
                "open": len(self.lengths.open),
                "tokens": self.lengths.tokens,
            },
            "refused": {"texts": len(self.misfits), "why": self.refused},
            **{name: getattr(self, name) for name in machine},
            "others": {"share": self.others, "warning": self.warning},
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
        written_texts=0,
        misfits=(),
        context=0,
        opened=0,
        lengths=Lengths(),
        most=none,
        expected=none,
        memory_free=None,
        memory_all=None,
        weights=0,
        others=0.0,
        warning="",
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


def _does(n: int, kind: Misfit, context: int) -> str:
    if kind == "context":
        return f"{'does' if n == 1 else 'do'} not fit the model's context of {context:,} tokens"
    return f"{'has' if n == 1 else 'have'} token ids that are not in the model's vocabulary"
