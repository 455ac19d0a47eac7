"""Is a run being made right now, how fast, and how long will it take?

From the run folder alone, without its lock: the lock's file says which process writes, the log says
whether it ended, and the manifest says when what was committed.  A rate is that of the last call.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from traitscope.runs import Run

__all__ = ["Live", "live_of"]

_BEGAN, _ENDED = ("created", "resumed"), ("finished", "interrupted")
QUIET = 600.0  # seconds without a commit after which a run on another machine counts as stopped


@dataclass(frozen=True)
class Live:
    """`going_on`: somebody writes to it.  Rates are None where nothing was committed yet.

    `seconds` since the last call began, until its last commit or now; `left` is an estimate.
    """

    going_on: bool
    began: str
    seconds: float
    captures_per_minute: float | None
    tokens_per_second: float | None
    left: float | None


def live_of(run: Run, events: Sequence[Mapping[str, Any]]) -> Live:
    """The last call's pace."""
    began, ended = _last_call(events)
    began = began or run.header.created
    commits = [commit for commit in run.commits() if commit.time >= began]
    last = commits[-1].time if commits else began
    going_on = not ended and run.state == "unfinished" and _written(run.path, last)
    worked = _seconds(began, last)
    captures = sum(commit.captures for commit in commits)
    tokens = sum(commit.new_tokens for commit in commits)
    rate = captures / worked if captures and worked > 0 else None
    left = len(run.missing()) / rate - _since(last) if rate and going_on else None
    return Live(
        going_on=going_on,
        began=began,
        seconds=_since(began) if going_on else worked,
        captures_per_minute=None if rate is None else 60 * rate,
        tokens_per_second=tokens / worked if tokens and worked > 0 else None,
        left=None if left is None else max(left, 0.0),
    )


def _last_call(events: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """When the last call began, and whether the log says that it ended."""
    began, ended = "", False
    for event in events:
        if event.get("kind") in _BEGAN:
            began, ended = str(event.get("time", "")), False
        elif event.get("kind") in _ENDED:
            ended = True
    return began, ended


def _written(path: Path, last: str) -> bool:
    """Whether the process that took the lock is there; elsewhere, whether it wrote lately."""
    try:
        said = (path / "lock").read_text("utf-8", "replace")
    except OSError:
        return False
    pid, _, host = said.strip().partition(" ")
    if host == socket.gethostname() and pid.isdecimal():
        return bool(psutil.pid_exists(int(pid)))
    return bool(pid) and _since(last) < QUIET


def _seconds(began: str, ended: str) -> float:
    first, last = _parsed(began), _parsed(ended)
    return max((last - first).total_seconds(), 0.0) if first and last else 0.0


def _since(time: str) -> float:
    then = _parsed(time)
    return max((datetime.now(UTC) - then).total_seconds(), 0.0) if then else 0.0


def _parsed(time: str) -> datetime | None:
    try:
        value = datetime.fromisoformat(time)
    except ValueError:
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
