"""How time is taken, compared and written down; the same for every script here.

Contestants run in turns (A B C, A B C, ...), so that what the machine does besides hits all alike,
and are compared within a round: a ratio is the median over rounds, with the smallest and the
largest beside it.  Wall seconds and CPU seconds (user + system, all threads) are both kept.  A full
run leaves `results/NAME.json`; a quick one prints only.  Knows nothing of models.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

__all__ = [
    "RESULTS",
    "Busy",
    "Contestant",
    "Options",
    "Ratio",
    "Table",
    "Took",
    "clocked",
    "finish",
    "options",
    "ratio",
    "rounds",
    "timed",
]

HERE = Path(__file__).parent
RESULTS = HERE / "results"
OTHERS = 0.06
_MADE = "Made earlier"


# --- taking time ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Took:
    """Seconds of one turn."""

    wall: float
    cpu: float

    def __add__(self, other: Took) -> Took:
        return Took(self.wall + other.wall, self.cpu + other.cpu)

    def times(self, factor: float) -> Took:
        return Took(self.wall * factor, self.cpu * factor)


@dataclass(frozen=True)
class Contestant:
    """A name and what is done in its turn; it says itself how long that took."""

    name: str
    turn: Callable[[], Took]


def clocked(work: Callable[[], Any]) -> tuple[Took, Any]:
    """Seconds of a piece of work in this process, and what it gave."""
    before, began = psutil.Process().cpu_times(), time.perf_counter()
    made = work()
    wall, after = time.perf_counter() - began, psutil.Process().cpu_times()
    return Took(wall, after.user + after.system - before.user - before.system), made


def timed(name: str, work: Callable[[], Any]) -> Contestant:
    """A contestant that works in this process."""
    return Contestant(name, lambda: clocked(work)[0])


def child(work: Callable[[], Any]) -> Took:
    """Seconds of work that processes do which are started and waited for in it."""
    before, began = psutil.Process().cpu_times(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - began, psutil.Process().cpu_times()
    spent = after.children_user + after.children_system
    return Took(wall, spent - before.children_user - before.children_system)


Times = dict[str, list[Took]]


class Busy(Exception):
    """The machine was never quiet enough to measure on."""


def rounds(contestants: Sequence[Contestant], asked: Options) -> Times:
    """Everyone's turns, round after round; each on a machine that is quiet.

    A turn in which other processes took more than a few hundredths of the machine says little
    (threads that wait for each other are slowed many times over): it is made again.
    """
    times: Times = {contestant.name: [] for contestant in contestants}
    for count in range(asked.rounds):
        for contestant in contestants:
            times[contestant.name].append(quiet_turn(contestant, asked))
        say(f"round {count + 1} of {asked.rounds}")
    return times


def quiet_turn(contestant: Contestant, asked: Options) -> Took:
    if not asked.shared:
        return contestant.turn()
    began = time.monotonic()
    while time.monotonic() - began < asked.patience * 60:
        with alone(asked.lock):
            took, others = None, share_of_others(lambda: time.sleep(1))
            if others <= OTHERS or asked.quick:
                took, others = watched(contestant)
        if took is not None and (others <= OTHERS or asked.quick):
            return took
        time.sleep(2)
    raise Busy(
        f"Expected a quiet machine, got one of which others took {others:.0%} for "
        f"{asked.patience} minutes. Try again later, or with more --patience."
    )


def measured(title: str, work: Callable[..., tuple[Table, Any]], *given: Any) -> tuple[Table, Any]:
    """A table and its figures; where the machine stayed busy, one that says so."""
    try:
        return work(*given)
    except Busy as problem:
        say(f"{title}: {problem}")
        return Table(title, ("result",), [[f"not measured: {problem}"]]), {"measured": False}


def watched(contestant: Contestant) -> tuple[Took, float]:
    """Seconds of a turn, and the share of the machine that others had meanwhile.

    What a turn says of itself may be a part of what it took (a process's imports are not timed):
    all that this process and those that it waited for have spent is its own.
    """
    found: list[Took] = []
    before = _spent()
    share = share_of_others(
        lambda: found.append(contestant.turn()), lambda: max(found[0].cpu, _spent() - before)
    )
    return found[0], share


def _spent() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    times = psutil.Process().cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def share_of_others(work: Callable[[], Any], own: Callable[[], float] = lambda: 0.0) -> float:
    before, began = busy_seconds(), time.perf_counter()
    work()
    wall, busy = time.perf_counter() - began, busy_seconds() - before
    # the clocks tick in hundredths: what is less than a few ticks is nothing
    return max(0.0, busy - own() - 0.04) / (wall * (psutil.cpu_count() or 1))


def busy_seconds() -> float:
    """Seconds that the machine's cores have worked, for anyone."""
    spent = psutil.cpu_times()
    return float(sum(spent) - spent.idle - getattr(spent, "iowait", 0.0))


@contextlib.contextmanager
def alone(lock: Path | None) -> Iterator[None]:
    """While a lock file is held, where one was named: two timings on one machine never meet."""
    if lock is None:
        yield
        return
    import fcntl

    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


# --- comparing -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ratio:
    """The time of one contestant as a multiple of another's, over paired rounds."""

    median: float
    low: float
    high: float
    cpu: float  # the median, of CPU seconds

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(times: Times, name: str, base: str) -> Ratio:
    pairs = list(zip(times[name], times[base], strict=True))
    wall = [a.wall / b.wall for a, b in pairs]
    # the clock of CPU seconds ticks in hundredths
    cpu = [a.cpu / max(b.cpu, 0.01) for a, b in pairs]
    return Ratio(statistics.median(wall), min(wall), max(wall), statistics.median(cpu))


def middle(took: Sequence[Took]) -> Took:
    return Took(statistics.median(t.wall for t in took), statistics.median(t.cpu for t in took))


def medians(times: Times) -> dict[str, Took]:
    return {name: middle(took) for name, took in times.items()}


def spread(times: Times, name: str) -> str:
    walls = [took.wall for took in times[name]]
    return f"{statistics.median(walls):.3g} ({min(walls):.3g}-{max(walls):.3g})"


def against(times: Times, base: str) -> list[list[str]]:
    """Table rows: name, wall seconds, CPU seconds, time as a multiple of the base's, the CPU's."""
    rows = []
    for name in times:
        ours = ratio(times, name, base)
        cpu = f"{middle(times[name]).cpu:.3g}"
        rows.append([name, spread(times, name), cpu, str(ours), f"{ours.cpu:.2f}"])
    return rows


COLUMNS = ("way", "wall s (least-most)", "CPU s", "x base (least-most)", "CPU x")


# --- what was asked, what is left ----------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """What every script can be asked."""

    quick: bool
    rounds: int
    threads: int
    lock: Path | None
    out: Path | None
    no_peers: bool = False
    patience: float = 10.0  # minutes to wait for a quiet turn
    only: tuple[str, ...] = ()  # beginnings of the titles that are measured; () for all
    shared: bool = True  # whether other processes may take what is timed, and are looked for

    def wants(self, title: str) -> bool:
        return not self.only or title.startswith(self.only)


def options(what: str, rounds: int, argv: Sequence[str] | None = None) -> Options:
    """Read the command line, and set the number of threads."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--quick", action="store_true", help="tiny shapes, nothing written")
    parser.add_argument("--rounds", type=int, help=f"turns of each contestant ({rounds})")
    parser.add_argument("--threads", type=int, help="torch's threads (2; quick: 1)")
    parser.add_argument("--no-peers", action="store_true", help="leave other libraries out")
    parser.add_argument("--patience", type=float, default=10, help="minutes to wait for quiet (10)")
    parser.add_argument("--lock", type=Path, help="a file to lock while something is timed")
    parser.add_argument("--out", type=Path, help="where results go, of a quick run too")
    parser.add_argument(
        "--only", action="append", default=[], help="a title's beginning; results of others stay"
    )
    given = parser.parse_args(argv)
    threads = given.threads or (1 if given.quick else 2)
    torch.set_num_threads(threads)
    asked_rounds = given.rounds or (1 if given.quick else rounds)
    out = given.out or (None if given.quick else RESULTS)
    return Options(
        given.quick,
        asked_rounds,
        threads,
        given.lock,
        out,
        given.no_peers,
        given.patience,
        tuple(given.only),
    )


@dataclass(frozen=True)
class Table:
    """One table for people: its title names the shape, `notes` say what is worth knowing."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = field(default_factory=list)


def finish(name: str, asked: Options, tables: Sequence[Table], figures: dict[str, Any]) -> None:
    """Print the tables, and the result as one JSON line; write it where a full run does."""
    result = save(name, asked, tables, figures)
    for table in tables:
        print(text_of(table))
    print(json.dumps(result, default=_plain), flush=True)


def save(
    name: str, asked: Options, tables: Sequence[Table], figures: dict[str, Any]
) -> dict[str, Any]:
    """Write the result where a full run does; what is written is returned.

    What was not asked for this time keeps the result it had, with the command that made it.
    """
    result = {
        "benchmark": name,
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *_what(sys.argv[1:])]),
        "when": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(asked.threads),
        "rounds": asked.rounds,
        "figures": figures,
        "tables": [asdict(table) for table in tables],
    }
    if asked.out is not None:
        asked.out.mkdir(parents=True, exist_ok=True)
        path = asked.out / f"{name}.json"
        if asked.only and path.exists():
            result = _beside(json.loads(path.read_text(encoding="utf-8")), result)
        written = json.dumps(result, indent=1, default=_plain)
        path.write_text(written + "\n", encoding="utf-8")
    return result


def _what(argv: Sequence[str]) -> list[str]:
    """The arguments that say what is measured; a lock's place is this machine's own."""
    at = argv.index("--lock") if "--lock" in argv else len(argv)
    return [*argv[:at], *argv[at + 2 :]]


def _beside(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Figures and tables of now, and those of before that were not made again."""
    again = {table["title"] for table in now["tables"]}
    kept = [table for table in before["tables"] if table["title"] not in again]
    if before["machine"] != now["machine"]:
        kept = [_dated(table, before) for table in kept]
    commands = [*before["command"].split("; "), now["command"]]
    return {
        **now,
        "command": "; ".join(dict.fromkeys(commands)),
        "rounds": min(before["rounds"], now["rounds"]),
        "figures": {**before["figures"], **now["figures"]},
        "tables": [*kept, *now["tables"]],
    }


def _dated(table: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """A table that says when and where it was made, beside those of another machine."""
    if any(note.startswith(_MADE) for note in table["notes"]):
        return table
    here = result["machine"]
    note = f"{_MADE} on {result['when']}: {here['processor']}, {here['cores']} cores."
    return {**table, "notes": [*table["notes"], note]}


def machine(threads: int) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    packages = ("torch", "transformers", "tokenizers", "numpy", "traitscope")
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "threads": threads,
        "memory_GB": round(psutil.virtual_memory().total / 1e9),
        "gpu": gpu,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _plain(value: object) -> Any:
    if isinstance(value, Ratio | Took):
        return {key: round(number, 4) for key, number in asdict(value).items()}
    raise TypeError(f"not for JSON: {value!r}")


def text_of(table: Table) -> str:
    """A table in Markdown, readable in a terminal as well."""
    cells = [list(table.columns), *([str(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [f"\n{note}" for note in table.notes]
    return "\n".join([f"\n### {table.title}\n", *lines, *notes])


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
