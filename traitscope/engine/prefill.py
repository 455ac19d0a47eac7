"""Prompts' tokens on their way through the model, and their numbers to their texts.

A piece of some prompts is read by a forward of its own, padded, or together with a decode step
(`ragged.py`).  Who is read when is the loop's business (`decode.py`).

Legend: B rows of a step, P prompts, T columns of a piece, M its tokens, X tokens of a forward,
padding included, D model width, W numbers per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from traitscope.core import GenerationConfig
from traitscope.engine import outbox
from traitscope.engine.logprob import own_logprob
from traitscope.engine.numbers import Numbers
from traitscope.engine.ragged import Part, Prompts
from traitscope.engine.slots import Slots
from traitscope.engine.step import Step
from traitscope.models import Model

__all__ = ["Piece", "Prefill"]


class Row(outbox.Row, Protocol):
    """A text's numbers, and its tokens so far."""

    ids: list[int]


@dataclass(frozen=True)
class Piece:
    """Columns `offset` to `end` of some prompts in rows `first`, ...; `id_PT` are their ids from
    column 0 on, padded, with the one that comes after the last column."""

    rows: Sequence[Row]
    first: int
    id_PT: Tensor
    offset: int
    end: int

    @property
    def lengths(self) -> list[int]:
        """Tokens of each prompt; its last one is a step's."""
        return [max(0, min(len(row.ids) - 1, self.end) - self.offset) for row in self.rows]


class Prefill:
    def __init__(
        self, model: Model, slots: Slots, step: Step, numbers: Numbers, config: GenerationConfig
    ) -> None:
        self._model, self._slots, self._step = model, slots, step
        self._numbers, self._own = numbers, config.prompt_logprobs

    @torch.inference_mode()
    def read(self, piece: Piece) -> None:
        """Read it by a forward of its own."""
        rows, width = size = len(piece.rows), piece.end - piece.offset
        device, columns = self._model.device, slice(piece.offset, piece.end)
        self._slots.prefill(piece.first, rows, piece.offset, width)
        # on their way before the forward, which a device works at while more is asked of it
        place_M, next_M = (x.to(device) for x in _real(piece))
        position_T = torch.arange(piece.offset, piece.end, device=device)
        id_PT = piece.id_PT[:, columns].to(device)
        h_PTD = self._step.forward(id_PT, position_T.expand(size), piece.end)
        logprob_X = torch.full((rows * width,), torch.nan, device=device)
        if self._own:
            h_MD = h_PTD.flatten(0, 1)[place_M]
            logprob_X[place_M] = own_logprob(self._model.anatomy, h_MD, next_M)
        parts = self._numbers.of_forward(logprob_X.view(size))
        here = [part.flatten(0, 1).cpu().numpy() for part in parts]
        _handed_out(piece, here, range(0, rows * width, width))

    @torch.inference_mode()
    def beside(
        self, piece: Piece, parts: Sequence[Part] = ()
    ) -> tuple[Tensor, NDArray[np.float32]]:
        """Read it together with a step of rows, in these parts: their next tokens [B] and numbers
        [B, W]."""
        lengths, n = piece.lengths, parts[-1][0] if parts else 0
        prompts = Prompts(piece.first, piece.offset, lengths)
        rows, columns = prompts.row_M - piece.first, prompts.position_M
        id_M, next_M = piece.id_PT[rows, columns], piece.id_PT[rows, columns + 1]
        wanted = next_M if self._own else None
        token_B, logprob_N = self._step.beside(parts, prompts, id_M, wanted)
        here = [part[0].numpy() for part in self._numbers.of_forward(logprob_N[None])]
        starts = n + np.cumsum([0, *lengths[:-1]])
        _handed_out(piece, here, starts.tolist())
        return token_B, np.concatenate([part_NX[:n] for part_NX in here], axis=1)


def _real(piece: Piece) -> tuple[Tensor, Tensor]:
    """The places [M] of a padded piece's tokens that are no padding, and what comes after each."""
    next_PT = piece.id_PT[:, piece.offset + 1 : piece.end + 1]
    real_PT = torch.arange(next_PT.shape[1]) < torch.tensor(piece.lengths)[:, None]
    return real_PT.flatten().nonzero()[:, 0], next_PT[real_PT]


def _handed_out(piece: Piece, parts: Sequence[NDArray[np.float32]], starts: Sequence[int]) -> None:
    """Give each row its numbers, from where they start in the parts [X, ...]."""
    for row, n, start in zip(piece.rows, piece.lengths, starts, strict=True):
        if n:
            here_TW = row.numbers[piece.offset : piece.offset + n]
            np.concatenate([part_XW[start : start + n] for part_XW in parts], axis=1, out=here_TW)
            row.stored = piece.offset + n
