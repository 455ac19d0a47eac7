"""RMS norms on a CPU, in four operations instead of eight.

Models write an RMS norm out in elementary operations, on which small models spend a good part of
a decode step and large ones memory that is fetched anew every time; torch's own function does no
less inside.  A vector's length is one operation, though, and needs no squares to be stored.
Whether a class of norms multiplies by its weight or by one more than that is found by its numbers,
and what is neither keeps its own way.

Legend: B rows, T tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.engine.modeling import left_alone
from traitscope.models import Model, is_anothers, wrap_forward

__all__ = ["fused_norms"]

_ALLOWED = 1e-5  # of the largest: rounding in float32
# what a class adds to its weight; None: it is another kind of norm
_plus: dict[type[nn.Module], float | None] = {}


@contextmanager
def fused_norms(model: Model) -> Iterator[None]:
    """Within it, RMS norms of a float32 model on a CPU take half the operations."""
    with ExitStack() as undo:
        for module in _norms(model):
            plus = _added(module)
            if plus is not None:
                undo.callback(wrap_forward(module, partial(_fused, module, plus), instead=True))
        yield


def _norms(model: Model) -> Iterator[Any]:
    for module in model.hf.modules():
        weight = getattr(module, "weight", None)
        if "RMSNorm" not in type(module).__name__ or not isinstance(weight, Tensor):
            continue
        here = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.dim() == 1
        if here and _eps(module) is not None and not is_anothers(module):
            yield module


def _eps(module: Any) -> float | None:
    eps = getattr(module, "eps", getattr(module, "variance_epsilon", None))
    return eps if isinstance(eps, float) else None


@torch.inference_mode()
def _added(module: Any) -> float | None:
    """0 where the class multiplies by its weight, 1 where by one more; None where by neither."""
    kind = type(module)
    if kind not in _plus:
        _plus[kind] = None
        drawn = torch.Generator().manual_seed(0)
        size = module.weight.shape[0]
        # small ones too: there epsilon matters
        x_TD = torch.randn(3, size, generator=drawn) * torch.tensor([[1.0], [30.0], [1e-3]])
        try:
            own_TD = module.forward(x_TD)
        except (RuntimeError, TypeError):  # it wants other shapes, or more than its input
            return None
        for plus in (0.0, 1.0):
            made_TD = _normed(x_TD, *_gain(module, plus))
            if float((made_TD - own_TD).abs().max()) <= _ALLOWED * float(own_TD.abs().max()):
                _plus[kind] = plus
    return _plus[kind]


def _fused(module: Any, plus: float, own: Callable[..., Any]) -> Callable[..., Any]:
    gain_D, least = _gain(module, plus)

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if left_alone() or args or kwargs:
            return own(x, *args, **kwargs)
        if x.dtype != torch.float32 or x.shape[-1:] != gain_D.shape:
            return own(x)
        return _normed(x, gain_D, least)

    return forward


def _gain(module: Any, plus: float) -> tuple[Tensor, Tensor]:
    """What a unit vector is multiplied by [D], and the length that epsilon stands for."""
    gain_D = module.weight.detach() + plus
    size = gain_D.shape[0]
    return gain_D * size**0.5, gain_D.new_tensor((size * _eps(module)) ** 0.5)


def _normed(x: Tensor, gain_D: Tensor, least: Tensor) -> Tensor:
    """x gain / sqrt(mean(x^2) + eps): with |x| the length, sqrt(D) x gain / hypot(|x|, least)."""
    return (x * gain_D).div_(torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(least))
