"""Rotary embeddings of queries and keys, in few operations.

Models turn queries, and then keys, in five to seven operations each, which write as many arrays;
where heads are small, or an operation is a launch, those are a good part of a decode step.  What
the halves of a head give to each other is one sum here: q cos + roll(q) (-sin, sin) (Su et al.
2021, arXiv 2104.09864, as Llama pairs its numbers); where only the first numbers of a head are
turned (Pythia), of those.  Off the CPU both lie in one tensor, so that there are fewer launches.
Each file's own function is held against it at the first call, and goes on where the two differ.

Legend: B rows, H heads, G key-value heads, T tokens, dh head width, R <= dh of it turned.
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

__all__ = ["lean_rotary"]

Turn = Callable[..., Any]

_NAME = "apply_rotary_pos_emb"
# by whether the whole of a head is turned, and by the kind of device
_same: dict[tuple[Turn, bool, str, torch.dtype], bool] = {}


@contextmanager
def lean_rotary(model: Model) -> Iterator[None]:
    """Within it, queries and keys are turned in few operations."""
    with replaced(model, _NAME, _in_few):
        yield


def _in_few(own: Turn) -> Turn:
    signed = _Signed()

    def turn(*args: Any, **options: Any) -> Any:
        if left_alone() or options or not _fits(*args):
            return own(*args, **options)
        q, whole = args[0], args[0].shape[-1] == args[2].shape[-1]
        kind = (own, whole, q.device.type, q.dtype)
        if kind not in _same:
            # of numbers without meaning: at a text's first position nothing is turned at all
            dice = torch.Generator().manual_seed(0)
            drawn = [torch.randn(x[:1].shape, generator=dice).to(x.device, x.dtype) for x in args]
            pairs = zip(_turned(_Signed(), *drawn), own(*drawn), strict=True)
            _same[kind] = all(_alike(made, wanted) for made, wanted in pairs)
        return _turned(signed, *args) if _same[kind] else own(*args)

    return turn


def _fits(*args: Any) -> bool:
    """Queries [B, H, T, dh] and keys [B, G, T, dh], cosines and sines [B or 1, T, R <= dh]."""
    if len(args) != 4:  # GPT-J's, for one, takes one tensor at a time
        return False
    for x in args:
        if not isinstance(x, Tensor) or x.dtype != args[0].dtype or x.device != args[0].device:
            return False
    q, k, cos, sin = args
    if (q.dim(), k.dim(), cos.dim(), sin.dim()) != (4, 4, 3, 3) or q.dtype not in ALLOWED:
        return False
    tokens, width = q.shape[2:]
    if k.shape[2:] != (tokens, width) or cos.shape[1] != tokens or sin.shape != cos.shape:
        return False
    turned: int = cos.shape[2]
    return turned <= width and turned % 2 == 0


def _turned(signed: _Signed, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Sequence[Tensor]:
    straight, crossed = cos.unsqueeze(1), signed.of(sin)
    if q.device.type == "cpu":
        return _turn(q, straight, crossed), _turn(k, straight, crossed)
    qk = torch.cat((q, k), 1)
    return torch.split(_turn(qk, straight, crossed), [q.shape[1], k.shape[1]], 1)


def _turn(x: Tensor, straight: Tensor, crossed: Tensor) -> Tensor:
    """[B, H, T, dh] by the angles [B, 1, T, R]."""
    some = straight.shape[-1]
    if some < x.shape[-1]:  # of each head only the first numbers are turned
        return torch.cat((_turn(x[..., :some], straight, crossed), x[..., some:]), -1)
    made = x.roll(some // 2, -1).mul_(crossed)
    if x.dtype != torch.float32 and x.device.type == "cpu":  # rounded where models round
        return made.add_(x * straight)
    return made.addcmul_(x, straight)


def _alike(made: Tensor, wanted: Tensor) -> bool:
    apart = float((made - wanted).abs().max())
    return apart <= ALLOWED[wanted.dtype] * float(wanted.abs().max())


class _Signed:
    """(-sin, sin) of a step, made once for all of its blocks."""

    def __init__(self) -> None:
        self._known: tuple[Tensor, Tensor] | None = None  # one thing: threads may share this

    def of(self, sin: Tensor) -> Tensor:
        """[B, T, dh] to [B, 1, T, dh], the first half negated."""
        known = self._known
        if known is None or known[0] is not sin:
            first, second = sin.chunk(2, -1)
            self._known = known = (sin, torch.cat((-first, second), -1).unsqueeze(1))
        return known[1]
