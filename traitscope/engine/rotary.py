"""Rotary embeddings of few tokens on a CPU, of queries and keys together.

Models turn queries, and then keys, in seven operations each; where heads are small those are a good
part of a decode step.  Here both lie in one tensor, and what a half of it gives to the other is one
sum: q cos + roll(q) (-sin, sin) (Su et al. 2021, arXiv 2104.09864, as Llama pairs its numbers).
Each file's own function is held against it at the first call, and goes on where the two differ.

Legend: B rows, H heads, G key-value heads, T tokens, dh head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from traitscope.engine.modeling import replaced
from traitscope.engine.packing import ALLOWED
from traitscope.models import Model

__all__ = ["MOST", "joint_rotary"]

Turn = Callable[..., Any]

MOST = 1 << 15  # numbers of the queries: above it the operations cost more than their calls
_NAME = "apply_rotary_pos_emb"
_same: dict[Turn, bool] = {}


@contextmanager
def joint_rotary(model: Model) -> Iterator[None]:
    """Within it, queries and keys of few tokens are turned together."""
    with replaced(model, _NAME, _together):
        yield


def _together(own: Turn) -> Turn:
    signed = _Signed()

    def turn(*args: Any, **options: Any) -> Any:
        if options or not _fits(args) or not _same.get(own, True):
            return own(*args, **options)
        q, k, cos, sin = args
        qk = torch.cat((q, k), 1)
        made = torch.addcmul(qk * cos.unsqueeze(1), qk.roll(q.shape[-1] // 2, -1), signed.of(sin))
        parts = torch.split(made, [q.shape[1], k.shape[1]], 1)
        if own not in _same:
            wanted = own(q, k, cos, sin)
            _same[own] = all(map(_alike, parts, wanted))
            if not _same[own]:
                return wanted
        return parts

    return turn


def _fits(args: tuple[Any, ...]) -> bool:
    """Few queries [B, H, T, dh] and keys, cosines and sines [B or 1, T, dh], on a CPU."""
    if len(args) != 4 or not all(isinstance(each, Tensor) for each in args):
        return False  # GPT-J's, for one, takes one tensor at a time
    q, _, cos, sin = args
    here = q.device.type == "cpu" and not torch.is_grad_enabled()
    alike = all(x.dtype == torch.float32 and x.shape[-1] == q.shape[-1] for x in args)
    few = q.dim() == 4 and q.numel() <= MOST and q.shape[-1] % 2 == 0
    return here and alike and few and cos.dim() == sin.dim() == 3


def _alike(made: Tensor, wanted: Tensor) -> bool:
    apart = float((made - wanted).abs().max())
    return apart <= ALLOWED[wanted.dtype] * float(wanted.abs().max())


class _Signed:
    """(-sin, sin) of a step, made once for all of its blocks."""

    def __init__(self) -> None:
        self._sin, self._signed = torch.empty(0), torch.empty(0)

    def of(self, sin: Tensor) -> Tensor:
        """[B, T, dh] to [B, 1, T, dh], the first half negated."""
        if self._sin is not sin:
            width = sin.shape[-1]
            sign = torch.ones(width)
            sign[: width // 2] = -1
            self._sin, self._signed = sin, (sin * sign).unsqueeze(1)
        return self._signed
