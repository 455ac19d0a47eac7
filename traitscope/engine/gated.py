"""Gated MLPs on a CPU, whose products do the gating.

`down(act(gate(x)) * up(x))` writes and reads the widest arrays of a block twice more than it
needs.  Where the three weights are packed, the first product ends with the activation and the
second with the multiplication.  Which activation it is, is found by its numbers; an MLP that gives
others than its own forward, or whose parts somebody watches, keeps its own way.

Legend: B rows, T tokens, D model width, F width of the MLP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from traitscope.engine.laid import ENDS, Laid
from traitscope.engine.modeling import left_alone
from traitscope.engine.packing import ALLOWED
from traitscope.models import Model, is_anothers, is_watched, wrap_forward

__all__ = ["ending", "gated_products"]

_PARTS = ("gate_proj", "up_proj", "down_proj")
_INSIDE = (*_PARTS, "act_fn")
_SAME = 1e-5  # of activations, beside a size of 1 at least; the most alike differ by 4e-4


@dataclass(frozen=True)
class _Products:
    """The packed weights of an MLP, and how the first product ends."""

    gate: Laid
    up: Laid
    down: Laid
    end: tuple[str, str]


@dataclass(frozen=True)
class _Held:
    """Whether products of these weights gave what an MLP's own forward gave."""

    weights: tuple[ref[Laid], ...]
    own: object
    holds: bool

    def is_of(self, weights: tuple[Laid, ...], own: object) -> bool:
        same = (each() is weight for each, weight in zip(self.weights, weights, strict=True))
        return self.own is own and all(same)


_held: WeakKeyDictionary[nn.Module, _Held] = WeakKeyDictionary()


@contextmanager
def gated_products(model: Model, packed: Mapping[nn.Module, Laid]) -> Iterator[None]:
    """Within it, gated MLPs of which all weights are in `packed` take three calls, in inference."""
    with ExitStack() as undo:
        for block in model.anatomy.blocks:
            made = _products(block.mlp, packed)
            if made is not None and _holds(block.mlp, made):
                by = partial(_by, block.mlp, made)
                undo.callback(wrap_forward(block.mlp, by, instead=True))
        yield


def _products(mlp: Any, packed: Mapping[nn.Module, Laid]) -> _Products | None:
    parts = [getattr(mlp, name, None) for name in _PARTS]
    gate, up, down = (packed.get(p) if type(p) is nn.Linear else None for p in parts)
    act = getattr(mlp, "act_fn", None)
    if gate is None or up is None or down is None or not callable(act):
        return None
    if is_anothers(mlp) or mlp._parameters or not set(mlp.children()) <= {*parts, act}:
        return None
    if any(map(is_watched, mlp.children())):  # who watches need not see what is tried here
        return None
    end = ending(act)
    return None if end is None else _Products(gate, up, down, end)


@torch.inference_mode()
def ending(act: Callable[[Tensor], Tensor]) -> tuple[str, str] | None:
    """The name of an activation; None where no product can end with it."""
    x_F = torch.cat([torch.linspace(-8, 8, 257), torch.tensor([-1e3, -50.0, 50.0, 1e3])])
    try:
        wanted_F = act(x_F)
    except (RuntimeError, TypeError):  # it wants other arguments
        return None
    for end, known in ENDS.items():
        if bool(((known(x_F.clone()) - wanted_F).abs() <= _SAME * x_F.abs().clamp_min(1)).all()):
            return end
    return None


@torch.inference_mode()
def _holds(mlp: Any, made: _Products) -> bool:
    """Whether these products give what the MLP's own forward gives; asked once for weights."""
    weights, own = (made.gate, made.up, made.down), type(mlp).forward
    held = _held.get(mlp)
    if held is not None and held.is_of(weights, own):
        return held.holds
    dtype, size = mlp.gate_proj.weight.dtype, mlp.gate_proj.in_features
    x_BTD = torch.randn(1, 4, size, generator=torch.Generator().manual_seed(0))
    x_BTD[:, 2:] *= 30  # an MLP that clips shows there
    x_BTD = x_BTD.to(dtype)
    try:
        own_BTD, made_BTD = own(mlp, x_BTD).float(), _gated(mlp, made, x_BTD).float()
        apart_BT, most_BT = (part.abs().amax(dim=-1) for part in (own_BTD - made_BTD, own_BTD))
        holds = bool((apart_BT <= ALLOWED[dtype] * most_BT).all())
    except (RuntimeError, TypeError):  # a forward of other arguments, a build without these calls
        holds = False
    _held[mlp] = _Held(tuple(ref(weight) for weight in weights), own, holds)
    return holds


def _by(mlp: Any, made: _Products, own: Callable[..., Any]) -> Callable[..., Any]:
    known = [getattr(mlp, name) for name in _INSIDE]
    modules = [part for part in known if isinstance(part, nn.Module)]
    dtype = mlp.gate_proj.weight.dtype

    def forward(*args: Any, **kwargs: Any) -> Any:
        if left_alone() or kwargs or len(args) != 1:
            return own(*args, **kwargs)
        (x,) = args
        now = [getattr(mlp, name) for name in _INSIDE]
        changed = any(part is not before for part, before in zip(now, known, strict=True))
        if changed or x.dtype != dtype or not x.numel() or any(map(is_watched, modules)):
            return own(x)
        return _gated(mlp, made, x)

    return forward


def _gated(mlp: Any, made: _Products, x: Tensor) -> Tensor:
    wide = made.gate.dtype
    gate_bias, up_bias, down_bias = (_bias(getattr(mlp, name), wide) for name in _PARTS)
    x_BTD = x.to(wide)
    gate_BTF = made.gate.product(x_BTD, gate_bias, made.end)
    both_BTF = made.up.product(x_BTD, up_bias, times=gate_BTF)
    return made.down.product(both_BTF, down_bias).to(x.dtype)


def _bias(part: Any, wide: torch.dtype) -> Tensor | None:
    return None if part.bias is None else part.bias.to(wide)
