"""Progress on standard error: a bar on a terminal, plain lines elsewhere, JSON lines with `--json`.

Each kind takes the runner's ticks (`phase`, `done` of `total` in `unit`, `message`, `tokens`).
A tick's text may hold names of files and models: it is shown as text, never as markup.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from traitscope.cli.screen import Screen, json_line
from traitscope.cli.units import count, duration
from traitscope.report.plain import one_line

if TYPE_CHECKING:
    from traitscope.ticks import Tick

__all__ = ["progress_on"]

EVERY_LINE = 5.0  # seconds between plain lines of one phase
EVERY_JSON = 1.0
TITLES = {
    "load": "Loading the model",
    "directions": "Making directions",
    "generate": "Writing and reading",
    "replay": "Reading again",
    "internals": "Opening blocks",
    "export": "Exporting",
    "write": "Saving",
    "check": "Checking",
    "measure": "Measuring",
    "hash": "Hashing tensors",
    "done": "Done",
}

OnTick = Callable[["Tick"], None]


@contextmanager
def progress_on(screen: Screen) -> Iterator[OnTick]:
    """The kind of progress that fits the stream."""
    if screen.json:
        yield _Json(screen.err).tick
    elif screen.err.isatty():
        with _Bars(screen.err) as bars:
            yield bars.tick
    else:
        yield _Lines(screen.err).tick


class _Pace:
    """When a phase began and when something was last said about it."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.phase = ""
        self.began = self.said = 0.0

    def due(self, tick: Tick) -> bool:
        """Whether to say this tick: a new phase, a phase's end, or enough time gone by."""
        now = time.monotonic()
        new = tick.phase != self.phase
        if new:
            self.phase, self.began = tick.phase, now
        over = 0 < tick.total <= tick.done
        if new or over or now - self.said >= self.every:
            self.said = now
            return True
        return False

    def rate(self, tick: Tick) -> float | None:
        """Generated tokens a second since the phase began."""
        elapsed = time.monotonic() - self.began
        return tick.tokens / elapsed if tick.tokens and elapsed > 0.05 else None

    def left(self, tick: Tick) -> float | None:
        elapsed = time.monotonic() - self.began
        known = 0 < tick.done < tick.total
        return elapsed / tick.done * (tick.total - tick.done) if known else None


class _Json:
    """A JSON object a line, at most about one a second within a phase."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pace = _Pace(EVERY_JSON)

    def tick(self, tick: Tick) -> None:
        if not self._pace.due(tick):
            return
        fields = {name: getattr(tick, name) for name in ("phase", "done", "total", "unit")}
        rate, left = self._pace.rate(tick), self._pace.left(tick)
        fields |= {"tokens": tick.tokens, "message": tick.message}
        fields |= {"tokens_per_second": rate and round(rate, 1), "seconds_left": left}
        self._stream.write(json_line(fields) + "\n")
        self._stream.flush()


class _Lines:
    """A plain line every few seconds, and at the beginning and the end of a phase."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pace = _Pace(EVERY_LINE)
        self._message = ""

    def tick(self, tick: Tick) -> None:
        if self._pace.due(tick) and tick.phase != "done":
            self._stream.write(one_line(self._line(tick)) + "\n")
            self._stream.flush()

    def _line(self, tick: Tick) -> str:
        title = TITLES.get(tick.phase, tick.phase)
        said = [_counted(tick, " of ")] if tick.total else []
        rate, left = self._pace.rate(tick), self._pace.left(tick)
        said += [f"{count(tick.tokens, 'token')}, {rate:,.0f} a second"] if rate else []
        said += [f"about {duration(left)} left"] if left and left >= 1 else []
        if tick.message and tick.message != self._message:  # once is enough
            said.append(tick.message)
            self._message = tick.message
        return f"{title}: {', '.join(said)}" if said else title


class _Bars:
    """A bar for each phase; a phase that is over stays on the screen."""

    def __init__(self, stream: TextIO) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=stream, markup=False, highlight=False, emoji=False),
        )
        self._pace = _Pace(0.0)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tick(self, tick: Tick) -> None:
        if tick.phase != self._pace.phase:
            self._over(self._pace.phase)
        self._pace.due(tick)
        if tick.phase == "done":
            return
        if tick.phase not in self._tasks:
            title = TITLES.get(tick.phase, tick.phase)
            self._tasks[tick.phase] = self._progress.add_task(f"{title:<20}", total=None, said="")
        self._progress.update(
            self._tasks[tick.phase],
            completed=tick.done,
            total=tick.total or None,
            said=self._said(tick),
        )

    def _over(self, phase: str) -> None:
        """A phase that counted nothing is done when the next one begins."""
        if phase in self._tasks and self._progress.tasks[self._tasks[phase]].total is None:
            self._progress.update(self._tasks[phase], completed=1, total=1, said="")

    def _said(self, tick: Tick) -> str:
        said = _counted(tick, "/") if tick.total else ""
        rate = self._pace.rate(tick)
        return f"{said}  {rate:,.0f} tokens/s" if rate else said


def _counted(tick: Tick, of: str) -> str:
    """How much of how many; a unit is told in the plural ("texts", "checks in float32")."""
    noun, *others = tick.unit.split(" ") if tick.unit else [""]
    unit = " ".join([noun.removesuffix("s") if tick.total == 1 else noun, *others])
    return f"{tick.done:,}{of}{tick.total:,} {unit}".rstrip()
