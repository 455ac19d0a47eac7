"""Gated MLPs on a CPU, whose products do the gating.

`down(act(gate(x)) * up(x))` writes and reads the widest arrays of a block twice more than it
needs.  Where the three weights are packed, the first product ends with the activation and the
second with the multiplication.  Which activation it is, is found by its numbers; an MLP that gives
others than its own forward, or whose parts somebody watches, keeps its own way.

Legend: B rows, T tokens, D model width, F width of the MLP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from traitscope.engine.modeling import left_alone
from traitscope.engine.packing import ALLOWED, packed_weight
from traitscope.models import Model, is_anothers, is_watched, wrap_forward

__all__ = ["gated_products"]

_PARTS = ("gate_proj", "up_proj", "down_proj")
# what oneDNN can do at the end of a product, by its names
_ENDS = {("swish", ""): nn.SiLU(), ("gelu", "none"): nn.GELU(), ("relu", ""): nn.ReLU()} | {
    ("gelu", "tanh"): nn.GELU(approximate="tanh")
}
_SAME = 1e-5  # of activations between -8 and 8, which differ by 4e-4 where they are most alike


@dataclass(frozen=True)
class _Products:
    """The packed weights of an MLP, and how the first product ends."""

    gate: Tensor
    up: Tensor
    down: Tensor
    end: tuple[str, str]


_held: WeakKeyDictionary[nn.Module, tuple[list[ref[Tensor]], bool]] = WeakKeyDictionary()


@contextmanager
def gated_products(model: Model) -> Iterator[None]:
    """Within it, and within `packed_weights`, gated MLPs take three calls, in inference."""
    with ExitStack() as undo:
        for block in model.anatomy.blocks:
            made = _products(block.mlp)
            if made is not None and _holds(block.mlp, made):
                by = partial(_by, block.mlp, made)
                undo.callback(wrap_forward(block.mlp, by, instead=True))
        yield


@torch.inference_mode()
def _products(mlp: Any) -> _Products | None:
    parts = [getattr(mlp, name, None) for name in _PARTS]
    gate, up, down = (packed_weight(p) if isinstance(p, nn.Module) else None for p in parts)
    act = getattr(mlp, "act_fn", None)
    if gate is None or up is None or down is None or is_anothers(mlp) or not callable(act):
        return None
    if any(map(is_watched, _inside(mlp))):  # who watches need not see what is tried here
        return None
    x_F = torch.linspace(-8, 8, 257)
    try:
        wanted_F = act(x_F)
    except (RuntimeError, TypeError):  # it wants other arguments
        return None
    for end, known in _ENDS.items():
        if float((known(x_F) - wanted_F).abs().max()) <= _SAME:
            return _Products(gate, up, down, end)
    return None


@torch.inference_mode()
def _holds(mlp: Any, made: _Products) -> bool:
    """Whether these products give what the MLP's own forward gives; asked once."""
    weights, (of, holds) = (made.gate, made.up, made.down), _held.get(mlp, ([], False))
    if of and all(each() is weight for each, weight in zip(of, weights, strict=True)):
        return holds
    gate = mlp.gate_proj
    x_BTD = torch.randn(1, 2, gate.in_features, generator=torch.Generator().manual_seed(0))
    x_BTD = x_BTD.to(gate.weight.dtype)
    try:
        own_BTD = type(mlp).forward(mlp, x_BTD).float()
        apart = float((own_BTD - _gated(mlp, made, x_BTD).float()).abs().max())
        holds = apart <= ALLOWED[x_BTD.dtype] * float(own_BTD.abs().max())
    except (RuntimeError, TypeError):  # a forward of other arguments, a build without these calls
        holds = False
    _held[mlp] = [ref(weight) for weight in weights], holds
    return holds


def _by(mlp: Any, made: _Products, own: Callable[..., Any]) -> Callable[..., Any]:
    inside, dtype = _inside(mlp), mlp.gate_proj.weight.dtype

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if left_alone() or args or kwargs or x.dtype != dtype or not x.numel():
            return own(x, *args, **kwargs)
        if any(map(is_watched, inside)):
            return own(x)
        return _gated(mlp, made, x)

    return forward


def _inside(mlp: Any) -> list[nn.Module]:
    """The modules that an MLP whose products gate does not call."""
    modules = [getattr(mlp, name) for name in (*_PARTS, "act_fn")]
    return [module for module in modules if isinstance(module, nn.Module)]


def _gated(mlp: Any, made: _Products, x: Tensor) -> Tensor:
    linear = torch.ops.mkldnn._linear_pointwise
    wide = made.gate.dtype
    gate_bias, up_bias, down_bias = (_bias(getattr(mlp, name), wide) for name in _PARTS)
    x_BTD = x.to(wide)
    gate_BTF = linear.default(x_BTD, made.gate, gate_bias, made.end[0], [], made.end[1])
    both_BTF = linear.binary(x_BTD, gate_BTF, made.up, up_bias, "mul")
    return linear.default(both_BTF, made.down, down_bias, "none", [], "").to(x.dtype)  # type: ignore[no-any-return]  # operators have no types


def _bias(part: Any, wide: torch.dtype) -> Tensor | None:
    return None if part.bias is None else part.bias.to(wide)
