"""Rotary embeddings of few tokens on a CPU, of queries and keys together.

Models turn queries, and then keys, in seven operations each; where heads are small those are a good
part of a decode step.  Here both lie in one tensor, and what a half of it gives to the other is one
sum: q cos + roll(q) (-sin, sin) (Su et al. 2021, arXiv 2104.09864, as Llama pairs its numbers).
Each file's own function is held against it at the first call, and goes on where the two differ.

Legend: B rows, H heads, G key-value heads, T tokens, dh head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from traitscope.engine.modeling import left_alone, replaced
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
        if left_alone() or options or not _fits(*args):
            return own(*args, **options)
        if own not in _same:
            pairs = zip(_turned(signed, *args), own(*args), strict=True)
            _same[own] = all(_alike(made, wanted) for made, wanted in pairs)
        return _turned(signed, *args) if _same[own] else own(*args)

    return turn


def _fits(*args: Any) -> bool:
    """Few queries [B, H, T, dh] and keys [B, G, T, dh], cosines and sines [B or 1, T, dh]."""
    if len(args) != 4 or not all(isinstance(each, Tensor) for each in args):
        return False  # GPT-J's, for one, takes one tensor at a time
    q, k, cos, sin = args
    if (q.dim(), k.dim(), cos.dim(), sin.dim()) != (4, 4, 3, 3):
        return False
    here = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in args)
    tokens, width = q.shape[2:]
    alike = k.shape[2:] == (tokens, width) == cos.shape[1:] == sin.shape[1:]
    return here and alike and width % 2 == 0 and q.numel() <= MOST


def _turned(signed: _Signed, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Sequence[Tensor]:
    qk = torch.cat((q, k), 1)
    made = torch.addcmul(qk * cos.unsqueeze(1), qk.roll(q.shape[-1] // 2, -1), signed.of(sin))
    return torch.split(made, [q.shape[1], k.shape[1]], 1)


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
