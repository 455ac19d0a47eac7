"""The runs that the viewer has open, by number; a growing run is followed.

`runs[i]` is the i-th run as the disk has it now.  Committed parts never change, so a run that grew
is read on from where it was.  `memo` keeps what is worked out of a run until it changes.  Numbers
are given once and stay; runs that appear later under a watched folder get the next ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar, cast

from starlette.requests import Request

from traitscope.errors import InputError, RunError
from traitscope.runs import Run
from traitscope.runs.folder import MANIFEST
from traitscope.runs.header import HEADER_NAME

__all__ = ["OpenRuns", "asked_run", "open_runs"]

T = TypeVar("T")
Stamp = tuple[tuple[int, int], ...]


class _Once:
    """A value that one thread works out while others wait for it."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.done = False
        self.value: object = None


class _Opened:
    """One run: the folder, the newest `Run` of it, and what was worked out of that one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, object] = {}  # what outlives a change of the run
        self._turn = threading.Lock()
        self._stamp: Stamp = ()
        self._run: Run | None = None
        self._memo: dict[str, _Once] = {}

    def run(self) -> Run:
        with self._turn:
            stamp = self._now()
            if self._run is None or stamp != self._stamp:
                run = Run.open(self.path) if self._run is None else self._run.again()
                if run is not self._run:
                    self._run, self._memo = run, {}
                self._stamp = stamp
            return self._run

    def memo(self, name: str, make: Callable[[Run], T]) -> T:
        run = self.run()
        with self._turn:
            once = self._memo.setdefault(name, _Once())
        with once.turn:  # worked out once, however many ask; others may ask for other things
            if not once.done:
                once.value, once.done = make(run), True
            return cast(T, once.value)

    def _now(self) -> Stamp:
        try:
            stats = [(self.path / name).stat() for name in (HEADER_NAME, MANIFEST)]
        except OSError as error:
            raise RunError(
                f"Expected the run in {self.path}, got '{error.strerror}'. It was moved or removed."
            ) from error
        return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)


class OpenRuns:
    """The opened runs; made by `open_runs`.  May be asked from several threads."""

    def __init__(self, paths: Sequence[Path], watched: Sequence[Path] = ()) -> None:
        self._opened = [_Opened(path) for path in paths]
        self._watched = tuple(watched)
        self._turn = threading.Lock()

    def __len__(self) -> int:
        return len(self._opened)

    def __getitem__(self, number: int) -> Run:
        return self._at(number).run()

    def path(self, number: int) -> Path:
        return self._at(number).path

    def memo(self, number: int, name: str, make: Callable[[Run], T]) -> T:
        """`make(run)`, worked out once for each state of the run."""
        return self._at(number).memo(name, make)

    def keep(self, number: int, name: str, make: Callable[[], T]) -> T:
        """One object for each run as long as it is open, however it grows."""
        return cast(T, self._at(number).kept.setdefault(name, make()))

    def look_again(self) -> None:
        """Take in the runs that have appeared under watched folders."""
        with self._turn:
            known = {opened.path for opened in self._opened}
            found = [path for folder in self._watched for path in _runs_under(folder)]
            self._opened += [_Opened(path) for path in found if path not in known]

    def _at(self, number: int) -> _Opened:
        if not 0 <= number < len(self._opened):
            raise RunError(
                f"Expected the number of one of the {len(self._opened)} open runs, from 0, got "
                f"{number}. The first page lists them."
            )
        return self._opened[number]


def open_runs(names: Sequence[str | Path], *, default: str | Path = "runs") -> OpenRuns:
    """The runs named; a folder that holds runs stands for all of them, none for those in `default`.

    InputError where a name is no run and holds none.
    """
    paths: list[Path] = []
    watched: list[Path] = []
    for name in names or [default]:
        folder = Path(name).expanduser().resolve()
        inside = [] if (folder / HEADER_NAME).is_file() else list(_runs_under(folder))
        if inside:
            watched.append(folder)
        elif not names:
            raise InputError(
                f"Expected runs in ./{default}, got none. Name a run's folder, or make one: "
                "'traitscope run overnight'."
            )
        else:
            Run.open(folder)  # says what is wrong with it
        paths += inside or [folder]
    return OpenRuns(list(dict.fromkeys(paths)), watched)


def asked_run(request: Request) -> int:
    """The number of the run that a request's path names; RunError where it is none."""
    number = request.path_params["run"]
    if not (number.isdecimal() and number.isascii() and len(number) < 7):
        raise RunError(f"Expected the number of a run, got '{number}'. The first page lists them.")
    return int(number)


def _runs_under(folder: Path) -> Iterator[Path]:
    """Run folders right below one, newest first."""
    try:
        entries = [entry for entry in folder.iterdir() if (entry / HEADER_NAME).is_file()]
    except OSError:
        return
    yield from sorted(entries, key=lambda path: (path / HEADER_NAME).stat().st_mtime, reverse=True)
