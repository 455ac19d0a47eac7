"""Processes side by side, each with the model loaded for itself and a share of the texts.

The parent says when to load and when to generate, and measures from the outside: what is timed is
the wall time until the last one is done.  Processes share the threads among them.  A process that
fails or disappears is a MachineError.  Knows nothing of the other ways.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Self

import torch

from traitscope.core import Float32, Generation, GenerationConfig
from traitscope.engine import Batching, Request, generate, join_rule
from traitscope.errors import MachineError
from traitscope.models import Checkpoint, Model, load_checkpoint
from traitscope.sizing import DEFAULT_ROWS

__all__ = ["Asked", "Neighbours", "Texts", "ask"]

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
) -> tuple[Texts, float]:
    """The new tokens of each text, and the seconds that all of them took."""
    began = time.perf_counter()
    batching = Batching(rows, join_rule(model, rows))
    traces = list(generate(model, requests, direction_SDK, config, batching))
    took = time.perf_counter() - began
    return {t.generation: tuple(t.token_ids[t.n_prompt :].tolist()) for t in traces}, took


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

    def load(self) -> float:
        """Load in all of them at once; the seconds until the last one has its model."""
        self._answers()  # all are up and have loaded once: starting Python is no part of it
        return self._together("load")

    def generate(self, rows: int) -> float:
        """Write all shares, `rows` texts at once over all processes; the seconds it took."""
        return self._together(max(1, rows // max(len(self._processes), 1)))

    def _together(self, order: str | int) -> float:
        began = time.perf_counter()
        for _, here in self._processes:
            here.send(order)
        self._answers()
        return time.perf_counter() - began

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
    """What a process does: load when told so, then write its texts each time it is told rows."""
    torch.set_num_threads(threads)
    config = GenerationConfig(max_new_tokens=asked.max_new_tokens)
    model: Model | None = None
    order: str | int = "load"  # a first time, for what only the first time takes
    try:
        while True:
            if order == "load":
                model = None  # never two at once
                model = load_checkpoint(
                    asked.checkpoint, device=asked.device, dtype=asked.dtype, allow_unproven=True
                )
            else:
                assert model is not None
                ask(model, requests, direction_SDK, config, int(order))
            parent.send("done")
            order = parent.recv()
    except (torch.OutOfMemoryError, MachineError) as error:
        parent.send(str(error).splitlines()[0])
    except (EOFError, KeyboardInterrupt):
        return  # the parent has gone, or says so to all of us
