"""The two streams and what goes where.

Standard output carries results: a report for people, or with `--json` exactly one line.  Standard
error carries progress, warnings and errors.  While work is done everything that prints, whoever
it is, goes to standard error.  Nothing here knows what a result means.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from rich.console import Console, RenderableType

from traitscope.errors import Interrupted, MachineError
from traitscope.report.plain import one_line

__all__ = ["Screen", "hush", "json_line", "keeping_nothing"]

PIPED_WIDTH = 100  # columns where there is no terminal to ask

_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
_KEPT = "Stopping: what is finished is being kept. Ctrl-C again ends at once."
_NOT_KEPT = "Stopping: nothing is kept. Ctrl-C again ends at once."
_stopping = ContextVar("_stopping", default=_KEPT)


def hush() -> None:
    """Ask the libraries to keep quiet; what a user set stays as it is."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


@contextlib.contextmanager
def keeping_nothing() -> Iterator[None]:
    """For a verb that begins anew each time: a Ctrl-C within it is said to leave nothing."""
    before = _stopping.set(_NOT_KEPT)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted. Nothing was kept; the same command begins from the start."
        ) from None
    finally:
        _stopping.reset(before)


def json_line(value: Mapping[str, Any]) -> str:
    """One line of plain ASCII JSON; NaN and infinities are null."""
    return json.dumps(_plain(value), ensure_ascii=True, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _unwritable(why: str) -> MachineError:
    return MachineError(
        f"Standard output cannot be written ({why}). Send it to a place that has room."
    )


@dataclass(frozen=True)
class Screen:
    """Where one command writes; `json` for a single line of JSON."""

    json: bool
    out: TextIO
    err: TextIO

    @classmethod
    def of(cls, args: Sequence[str]) -> Screen:
        """The process's streams, made to take any character; `--json` is looked for in `args`.

        Raises MachineError where there is no standard output.
        """
        closed = sys.stdout is None  # so Python has it where a shell closed it
        sys.stderr, sys.stdout = sys.stderr or _nowhere(), sys.stdout or _nowhere()
        if closed:
            raise _unwritable("it is closed")
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        options = args[: args.index("--")] if "--" in args else args
        return cls("--json" in options, sys.stdout, sys.stderr)

    @classmethod
    def now(cls, *, json: bool) -> Screen:
        return cls(json, sys.stdout, sys.stderr)

    # --- results -----------------------------------------------------------------------------

    def result(self, value: Mapping[str, Any]) -> None:
        """The one line of `--json`."""
        self._write(json_line(value) + "\n")

    def show(self, renderable: RenderableType) -> None:
        """A renderable on standard output; text in it is never read as markup."""
        console = self.console()
        with self._passing():  # a capture writes too: nothing, which some devices refuse
            with console.capture() as captured:
                console.print(renderable, crop=False)
            lines = captured.get().splitlines()
            self._write("".join(f"{line.rstrip()}\n" for line in lines))

    def show_line(self, message: str) -> None:
        """A sentence on standard output, however long; nothing with `--json`."""
        if not self.json:
            self._write(f"{one_line(message)}\n")

    def show_as_is(self, text: str) -> None:
        """Text that is a file's content, on standard output."""
        self._write(text)

    def console(self) -> Console:
        """A console on standard output, for drawing and for asking what it can do."""
        width = None
        if not self.out.isatty() and not os.environ.get("COLUMNS"):
            width = PIPED_WIDTH
        return Console(file=self.out, width=width, markup=False, highlight=False, emoji=False)

    @property
    def unicode(self) -> bool:
        return "utf" in (self.out.encoding or "utf-8").lower()

    def _write(self, text: str) -> None:
        with self._passing():
            self.out.write(text)
            self.out.flush()

    @contextlib.contextmanager
    def _passing(self) -> Iterator[None]:
        """What is written within it passes, or has no reader any more; else a MachineError."""
        try:
            yield
        except BrokenPipeError:  # the reader has seen enough
            self.silence()
        except OSError as error:
            self.silence()  # what it still holds would fail once more as the process ends
            raise _unwritable(error.strerror or str(error)) from error

    # --- everything else ---------------------------------------------------------------------

    def say(self, message: str) -> None:
        """A line for a person on standard error; nothing with `--json`."""
        if not self.json:
            self.err.write(f"{one_line(message)}\n")
            self.err.flush()

    def error(self, kind: str, message: str, **beside: Any) -> None:
        """How a failed command ends: one line on standard error, with `--json` on output too."""
        self.complain(*(message.splitlines() or [kind]))
        if self.json:
            with contextlib.suppress(MachineError):  # the sentence above is all that can be said
                self.result({"error": {"type": kind, "message": message}, **beside})

    def complain(self, *lines: str) -> None:
        """Lines on standard error that say whose they are."""
        for line in lines:
            self.err.write(f"traitscope: {one_line(line)}\n")
        self.err.flush()

    def blocked(self) -> MachineError | None:
        """The error of standard output, where it takes nothing, not even a blank line.

        With `--json` nobody but this writes to it, and who does has said so.
        """
        try:
            if not self.json:
                self._write("\n")
        except MachineError as error:
            return error
        return None

    def silence(self) -> None:
        """Nobody reads standard output any more: send what is left of it nowhere."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.out.fileno())
            os.close(nowhere)

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """While models run: prints go to standard error, warnings nowhere, Ctrl-C is orderly."""
        with (
            contextlib.redirect_stdout(self.err),
            warnings.catch_warnings(),
            self._stoppable(),
        ):
            if not os.environ.get("TRAITSCOPE_DEBUG"):
                warnings.simplefilter("ignore")
            yield

    @contextlib.contextmanager
    def _stoppable(self) -> Iterator[None]:
        """The first Ctrl-C (or SIGTERM) is a KeyboardInterrupt, the second one kills."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)

        def stop(number: int, frame: FrameType | None) -> None:
            for each in signals:
                signal.signal(each, signal.SIG_DFL)
            self._say_at_once(_stopping.get())
            raise KeyboardInterrupt

        before = [signal.signal(each, stop) for each in signals]
        try:
            yield
        finally:
            for each, handler in zip(signals, before, strict=True):
                signal.signal(each, handler)

    def _say_at_once(self, message: str) -> None:
        """From within a signal handler, where a buffered stream may be in the middle of a write."""
        if self.json:
            message = json_line({"phase": "stopping", "message": message})
        elif self.err.isatty():  # which has just shown "^C"
            message = f"\n{message}"
        with contextlib.suppress(OSError, ValueError):
            os.write(self.err.fileno(), f"{message}\n".encode())
