"""Processes side by side, each with the model loaded for itself and a share of the texts.

The parent says when to load and when to generate, and measures from the outside: what is timed is
the wall time until the last one is done, and what other programs took meanwhile.  Processes share
the threads among them.  A process that fails or disappears is a MachineError.  Knows nothing of the
other ways.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

import psutil
import torch

from traitscope.core import Float32, Generation, GenerationConfig
from traitscope.engine import Batching, Request, generate, join_rule
from traitscope.errors import MachineError
from traitscope.models import Checkpoint, Model, load_checkpoint
from traitscope.others import Others
from traitscope.sizing import DEFAULT_ROWS

__all__ = ["Asked", "Neighbours", "Texts", "Took", "ask", "watched"]

Texts = dict[Generation, tuple[int, ...]]


@dataclass(frozen=True)
class Asked:
    """What is to be measured: `prompts` of them, answers of at most `max_new_tokens`, how."""

    checkpoint: Checkpoint
    device: str = "auto"
    dtype: str = "auto"
    prompts: int = DEFAULT_ROWS
    max_new_tokens: int = 50
    rows: int | str = "auto"
    processes: int = 1
    quick: bool = False


def ask(
    model: Model,
    requests: Sequence[Request],
    direction_SDK: Float32,
    config: GenerationConfig,
    rows: int,
) -> tuple[Texts, Took]:
    """The new tokens of each text, and what all of them took."""
    batching = Batching(rows, join_rule(model, rows))
    with watched() as took:
        traces = list(generate(model, requests, direction_SDK, config, batching))
    return {t.generation: tuple(t.token_ids[t.n_prompt :].tolist()) for t in traces}, took


@dataclass
class Took:
    """Seconds of one thing, and of them the share of the machine that other programs had."""

    seconds: float = 0.0
    others: float = 0.0


@contextmanager
def watched(processes: Sequence[int] = ()) -> Iterator[Took]:
    """Measures what is done within it; `processes` are the ids of those that work for it.

    Their time is this process's own only once they have ended, and is looked up while they live.
    """
    took, before = Took(), _worked(processes)
    watch, began = Others(), time.perf_counter()
    yield took
    took.seconds = time.perf_counter() - began
    ours = (_worked(processes) - before) / (took.seconds * (psutil.cpu_count() or 1))
    took.others = max(0.0, watch.share() - ours)


def _worked(processes: Sequence[int]) -> float:
    """Seconds of processor time so far."""
    total = 0.0
    for pid in processes:
        with suppress(psutil.Error):  # of one that has gone
            total += sum(psutil.Process(pid).cpu_times()[:2])  # user and system
    return total


class Neighbours:
    """As many processes as there are shares (none for no shares); a context manager."""

    def __init__(
        self, asked: Asked, shares: Sequence[Sequence[Request]], direction_SDK: Float32
    ) -> None:
        self._processes: list[tuple[Any, Connection]] = []
        start = multiprocessing.get_context("spawn")
        threads = max(1, torch.get_num_threads() // max(len(shares), 1))
        for share in shares:
            here, there = start.Pipe()
            job = (there, asked, list(share), direction_SDK, threads)
            process = start.Process(target=_work, args=job, daemon=True)
            process.start()
            there.close()  # so that the end of the process is the end of the pipe
            self._processes.append((process, here))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process, here in self._processes:
            here.close()
            process.terminate()
            process.join()

    def load(self) -> Took:
        """Load in all of them at once; until the last one has its model."""
        self._answers()  # all are up and have loaded once: starting Python is no part of it
        return self._together(["load"] * len(self._processes))

    def generate(self, rows: int, texts: int) -> Took:
        """Write the first `texts` of all shares together, `rows` at once over all processes."""
        count = max(1, len(self._processes))
        each = max(1, rows // count)
        return self._together([(each, len(range(i, texts, count))) for i in range(count)])

    def _together(self, orders: Sequence[str | tuple[int, int]]) -> Took:
        with watched([process.pid for process, _ in self._processes]) as took:
            for (_, here), order in zip(self._processes, orders, strict=False):
                with suppress(ConnectionError):  # the answers say so
                    here.send(order)
            self._answers()
        return took

    def _answers(self) -> None:
        for _, here in self._processes:
            try:
                said = here.recv()
            except (EOFError, ConnectionError):
                said = "it ended by itself, perhaps for lack of memory"
            if said != "done":
                raise MachineError(
                    f"Expected {len(self._processes)} processes side by side to load and write, "
                    f"but one failed: {said}. Use fewer --processes."
                )


def _work(
    parent: Connection,
    asked: Asked,
    requests: list[Request],
    direction_SDK: Float32,
    threads: int,
) -> None:
    """What a process does: load when told so, then write each time it is told rows and texts."""
    torch.set_num_threads(threads)
    config = GenerationConfig(max_new_tokens=asked.max_new_tokens)
    model: Model | None = None
    order: str | tuple[int, int] = "load"  # a first time, for what only the first time takes
    try:
        while True:
            if isinstance(order, str):
                model = None  # never two at once
                model = load_checkpoint(
                    asked.checkpoint, device=asked.device, dtype=asked.dtype, allow_unproven=True
                )
            else:
                assert model is not None
                rows, texts = order
                ask(model, requests[:texts], direction_SDK, config, rows)
            parent.send("done")
            order = parent.recv()
    except (torch.OutOfMemoryError, MachineError) as error:
        parent.send(str(error).splitlines()[0])
    except (EOFError, KeyboardInterrupt):
        return  # the parent has gone, or says so to all of us
