"""On a GPU: tokens per second, and a decode step against the two ceilings of the machine.

Gemma-2-2B's and Llama-3-8B's real shapes in bfloat16, at 1 to 512 rows: traitscope with capture on
and off, and with its steps compiled, `generate`, and each peer.  A step is the difference of two
lengths of answers over the steps between them, so that prefill is not in it; both lengths end in
the same 128 columns, and what either took for making steps ready is taken off.  Its floor is the
larger of (weights and keys and values read) over bandwidth and of FLOPs over the peak, both
measured here.  What was measured is written after each number of rows.  Without a GPU the full run
says "not measured"; the quick one goes the same way with tiny shapes on the CPU, and compiles
nothing.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks import common, ours, plain
from benchmarks.common import Contestant, Options, Table, Took, clocked, finish, options
from benchmarks.peers.client import listed, peers
from benchmarks.peers.roster import PEERS
from benchmarks.shapes import SHAPES, Shape, build, folder, prompts, wrapped
from traitscope.engine import Batching, Clock
from traitscope.machine import let_go

TRAITS, PROMPT, SHORT, LONG = 8, 8, 16, 112
TEMPERATURE = 0.7
COMPILED_ROWS = (1, 24)  # which take a minute each to compile
COLUMNS = ("rows", "way", "tokens/s", "step ms", "floor ms", "step x floor", "speed x generate")
BASE = "generate, no capture"
COMPILED = "compiled, all sites"
SAMPLED = f"ours, temperature {TEMPERATURE}"


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """Bytes and floating point operations a second that this device reached."""

    bandwidth: float
    flops: float


@dataclasses.dataclass(frozen=True)
class Asked:
    """A shape on a device, and how long answers are."""

    shape: Shape
    device: str
    dtype: str
    rows: tuple[int, ...]
    new: tuple[int, int]


def main() -> None:
    asked = options(__doc__.splitlines()[0], rounds=3)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not asked.quick:
        table = Table("GPU", ("result",), [["not measured: no GPU here"]])
        finish("gpu", asked, [table], {"measured": False})
        return
    works = [
        Asked(SHAPES[name], device, "bfloat16", (1, 8, 24, 128, 512), (SHORT, LONG))
        for name in ("gemma-2-2b", "llama-3-8b")
    ]
    if asked.quick:
        works = [
            Asked(SHAPES[name], device, "float32", (1, 3), (4, 8))
            for name in ("tiny", "tiny-llama")
        ]
    ceilings = measure(device, small=asked.quick)
    asked = dataclasses.replace(asked, shared=device == "cpu")  # a GPU is ours alone
    tables: list[Table] = []
    figures: dict[str, Any] = {"ceilings": dataclasses.asdict(ceilings)}
    figures["measured"] = device == "cuda"
    for work in works:
        if not asked.wants(work.shape.name):
            continue
        tables.append(Table(work.shape.name, COLUMNS, []))
        for tables[-1], found in measured(work, ceilings, asked):
            figures[work.shape.name] = found
            common.save("gpu", asked, tables, figures)
    finish("gpu", asked, tables, figures)


# --- the machine ---------------------------------------------------------------------------------


def measure(device: str, small: bool) -> Ceilings:
    """Reads of a large tensor, and a large product in bfloat16."""
    size, side = (1 << 22, 256) if small else (1 << 30, 8192)
    whole = torch.ones(size, dtype=torch.bfloat16, device=device)
    factor = torch.randn(side, side, dtype=torch.bfloat16, device=device)
    read = best(lambda: whole.sum(), device)
    product = best(lambda: factor @ factor, device)
    return Ceilings(2 * size / read, 2 * side**3 / product)


def best(work: Callable[[], Any], device: str, times: int = 10) -> float:
    """The fewest seconds of a piece of work."""
    taken = []
    for _ in range(times):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        taken.append(time.perf_counter() - began)
    return min(taken)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def floor(work: Asked, hf: Any, rows: int, ceilings: Ceilings) -> float:
    """The least seconds of a decode step: what must be read, or computed."""
    shape, size = work.shape, hf.dtype.itemsize
    # the embedding is read a row at a time, the head whole: one of the two counts
    weights = sum(p.numel() for p in hf.parameters())
    if not hf.config.tie_word_embeddings:
        weights -= shape.vocabulary * shape.d_model
    columns = PROMPT + sum(work.new) / 2
    kept = 2 * shape.blocks * shape.kv_heads * shape.head * columns * rows
    return max((weights + kept) * size / ceilings.bandwidth, 2 * weights * rows / ceilings.flops)


# --- contestants ---------------------------------------------------------------------------------


def measured(
    work: Asked, ceilings: Ceilings, asked: Options
) -> Iterator[tuple[Table, dict[str, Any]]]:
    """The table and its figures, longer with each number of rows."""
    hf = build(work.shape, getattr(torch, work.dtype), work.device)
    model = wrapped(work.shape, hf)
    direction_SDK = ours.directions(model, TRAITS)
    rows_of_table: list[list[str]] = []
    figures: dict[str, Any] = {}
    notes_of_rows: list[str] = []
    reached = f"bandwidth {ceilings.bandwidth / 1e9:.0f} GB/s, {ceilings.flops / 1e12:.1f} TFLOP/s"
    title = f"{work.shape.name}'s shape, {work.dtype}, {work.device}, {TRAITS} traits at all sites"
    with TemporaryDirectory() as place, beside(work, hf, place, direction_SDK, asked) as others:
        for rows in work.rows:
            try:
                found, said = at_rows(work, model, rows, direction_SDK, others, asked)
            except RuntimeError as error:  # memory that ends, a peer that does
                notes_of_rows.append(f"{rows} rows: not measured, {str(error).splitlines()[0]}")
                let_go()
                continue
            notes_of_rows += said
            least = floor(work, hf, rows, ceilings)
            key = "1 row" if rows == 1 else f"{rows} rows"
            figures[key] = {"floor": least, "steps": {way: at[0] for way, at in found.items()}}
            figures[key]["times the floor"] = {way: at[0] / least for way, at in found.items()}
            figures[key] |= {way: at[1] / found[BASE][1] for way, at in found.items()}
            for way, (step, speed) in found.items():
                against = speed / found[BASE][1]
                rows_of_table.append(line(rows, way, speed, step, least, against))
            notes = [f"Reached here: {reached}; prompts of {PROMPT} tokens.", *notes_of_rows]
            notes += listed(others.missing, others.workers)
            yield Table(title, COLUMNS, rows_of_table, notes), figures


def line(rows: int, way: str, speed: float, step: float, least: float, against: float) -> list[str]:
    cells = (f"{speed:.0f}", f"{step * 1e3:.2f}", f"{least * 1e3:.2f}", f"{step / least:.1f}")
    return [str(rows), way, *cells, f"{against:.2f}"]


@dataclasses.dataclass
class Others:
    """Peers that run, and why each of the others does not."""

    workers: list[Any]
    missing: dict[str, str]


@contextmanager
def beside(
    work: Asked, hf: Any, place: str, direction_SDK: Any, asked: Options
) -> Iterator[Others]:
    wanted = not asked.no_peers and any(peer.python.exists() for peer in PEERS)
    saved = folder(work.shape, hf, Path(place) / "model") if wanted else Path(place)
    blocks = work.shape.blocks
    with peers(saved, work.dtype, blocks, direction_SDK, asked, device=work.device) as found:
        yield Others(*found)


def at_rows(
    work: Asked, model: Any, rows: int, direction_SDK: Any, others: Others, asked: Options
) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Seconds of a decode step and tokens a second of each way, at one number of rows; and what
    is worth saying of them."""
    asks, batching = prompts(work.shape, rows, PROMPT, PROMPT), Batching(rows, join=rows)
    short, long = work.new
    notes: list[str] = []

    ready: dict[str, list[float]] = {}  # seconds of making steps ready, by contestant

    def mine(
        name: str, batching: Batching, temperature: float = 0, capture: bool = True
    ) -> Callable[[int], Any]:
        def answer(new: int) -> Any:
            clock, directions = Clock(), direction_SDK if capture else None
            made = ours.answers(
                model, asks, directions, new, batching, clock, temperature=temperature
            )
            ready.setdefault(f"{name}|{new}", []).append(clock.preparing)
            return made

        return answer

    ways: dict[str, Callable[[int], Any]] = {
        BASE: lambda new: plain.generated(model.hf, asks, new),
        "ours": mine("ours", batching),
        SAMPLED: mine(SAMPLED, batching, TEMPERATURE),
        "ours, capture off": mine("ours, capture off", batching, capture=False),
    }
    kinds = {"ours": batching}
    if work.device == "cuda" and rows in COMPILED_ROWS:  # elsewhere it costs minutes
        kinds[COMPILED] = dataclasses.replace(batching, steps="compiled")
        ways[COMPILED] = mine(COMPILED, kinds[COMPILED])
        torch._dynamo.reset()  # the first shape gets a program of its own, as in a run of its own
    for do in ways.values():  # whatever is made at a first use
        do(long)
    for way, kind in kinds.items():
        clock = Clock()
        ours.answers(model, asks, direction_SDK, long, kind, clock)
        if clock.shapes:
            notes.append(
                f"{rows} rows, {way}: {clock.shapes} shapes of steps were made ready in "
                f"{clock.preparing:.1f} s, which is in tokens/s and not in a step. "
                f"{clock.plain_steps}".strip()
            )
    made = ways["ours"](long)
    if work.dtype == "float32" and ways[BASE](long) != made.texts:
        raise AssertionError(f"ours and generate made other texts at {rows} rows")
    contestants = [
        Contestant(f"{way}|{new}", lambda do=do, new=new: waited(work.device, lambda: do(new)))
        for way, do in ways.items()
        for new in work.new
    ]
    for worker in others.workers:
        if wrong := worker.check("generate", [asks], {"new": long}, made):
            others.missing[worker.peer.name] = wrong
            continue
        contestants += [
            dataclasses.replace(
                worker.contestant("generate", [asks], {"new": new}), name=f"{worker.label}|{new}"
            )
            for new in work.new
        ]
    ready.clear()
    seconds = common.medians(common.rounds(contestants, asked))
    names = {name.rpartition("|")[0]: None for name in seconds}
    walls = {name: took.wall for name, took in seconds.items()}
    beside = {name: statistics.median(each) for name, each in ready.items()}
    return {name: step_and_speed(walls, beside, name, rows, short, long) for name in names}, notes


def step_and_speed(
    seconds: dict[str, float],
    ready: dict[str, float],
    name: str,
    rows: int,
    short: int,
    long: int,
) -> tuple[float, float]:
    """Seconds of a step, without those of making steps ready, and tokens a second, with them."""
    brief, whole = (
        seconds[f"{name}|{new}"] - ready.get(f"{name}|{new}", 0.0) for new in (short, long)
    )
    step = (whole - brief) / (long - short)
    return max(step, 1e-9), rows * long / seconds[f"{name}|{long}"]


def waited(device: str, work: Callable[[], Any]) -> Took:
    def done() -> None:
        work()
        wait(device)

    return clocked(done)[0]


if __name__ == "__main__":
    main()
