"""Progress as it is reported: a value and a callback.  Whoever shows it is somewhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "Tick"]


@dataclass(frozen=True)
class Tick:
    """Progress: `done` of `total` in `unit`; `tokens` generated so far; `message` for a person."""

    phase: str  # load, directions, generate, replay, internals, export, done
    done: int = 0
    total: int = 0
    unit: str = ""
    message: str = ""
    tokens: int = 0


Progress = Callable[[Tick], None]
