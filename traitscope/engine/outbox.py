"""Numbers on their way from the device to the host, without anybody waiting for them.

`HostCopy` is one copy under way.  `Outbox` gathers the numbers of several steps, finishes and sends
them as one block, and gives each row its own when the block has arrived.  On a CPU nothing travels
and the same code only spares the steps a copy each.  This module does not know what the numbers
mean, nor what may still be to do to them.

Legend: B rows of a step, N rows of all steps of a block, W numbers per row and step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["HostCopy", "Outbox", "block_steps"]

STEPS = 16  # of one block
BYTES = 64 << 20  # the most that waits on the device


def block_steps(rows: int, wide: int, at_once: int | None) -> int:
    """How many steps of `rows` rows, each `wide` float32 numbers, leave together.

    `at_once`: the most lines that are finished together, None where each step is by itself.
    """
    most = STEPS if at_once is None else min(STEPS, at_once // rows)
    return max(1, min(most, BYTES // (4 * rows * wide)))


class Row(Protocol):
    """What numbers are for: [T, W], of which the first `stored` are there."""

    numbers: NDArray[np.float32]
    stored: int


class HostCopy:
    """A tensor's copy on the host: begun now, read later."""

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if tensor.device.type != "cuda":
            self._host = tensor.cpu()
            return
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._host.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(tensor.device))

    @property
    def there(self) -> bool:
        """Whether nothing had to travel."""
        return self._event is None

    def read(self) -> Tensor:
        if self._event is not None:
            self._event.synchronize()
        return self._host


@dataclass
class _Block:
    rows: list[Row] = field(default_factory=list)  # [N]: whose numbers stand in which line
    steps: list[Tensor] = field(default_factory=list)  # each [B, W] once it is finished
    copy: HostCopy | None = None


class Outbox:
    """Blocks of steps; `width` is W, `rows` the most of one step.

    `finish` makes [N, W] of what a block's steps gave, of which it wants no more than
    `at_once` lines.
    """

    def __init__(
        self,
        rows: int,
        width: int,
        finish: Callable[[Tensor], Tensor] = lambda number_NW: number_NW,
        at_once: int | None = None,
    ) -> None:
        self._rows, self._width, self._finish = rows, width, finish
        self._at_once = at_once
        self._open, self._sent = _Block(), _Block()

    def add(self, rows: Sequence[Row], numbers_BW: Tensor) -> None:
        """A step's numbers, of as many rows, one line each: [B, W], or what `finish` takes."""
        self._open.rows.extend(rows)
        self._open.steps.append(numbers_BW)
        wide = max(self._width, numbers_BW.shape[1])  # as it waits, or as it will be
        if len(self._open.steps) >= block_steps(self._rows, wide, self._at_once):
            self._send()

    def hurry(self) -> None:
        """Somebody waits for what was added: it leaves now, and is there now or with the next."""
        self._send()
        if self._sent.copy is not None and self._sent.copy.there:
            self._send()

    def flush(self) -> None:
        """Everything that was added is with its rows when this returns."""
        self._send()
        self._send()

    @torch.inference_mode()
    def _send(self) -> None:
        """The open block leaves, the one that left before is handed out."""
        arrived, self._sent, self._open = self._sent, self._open, _Block()
        if self._sent.steps:
            self._sent.copy = HostCopy(self._finish(torch.cat(self._sent.steps)))
            self._sent.steps.clear()
        if arrived.copy is not None:
            _hand_out(arrived.rows, arrived.copy.read().numpy())


def _hand_out(rows: Sequence[Row], numbers_NW: NDArray[np.float32]) -> None:
    lines: dict[int, list[int]] = {}
    for line, row in enumerate(rows):
        lines.setdefault(id(row), []).append(line)
    for mine in lines.values():
        row = rows[mine[0]]
        end = row.stored + len(mine)
        # "clip": else numpy makes a copy first, to leave nothing half done at a wrong index
        np.take(numbers_NW, mine, axis=0, out=row.numbers[row.stored : end], mode="clip")
        row.stored = end
