"""RMS norms in few operations instead of eight or ten.

Models write an RMS norm out in elementary operations, on which small models spend a good part of
a decode step and large ones memory that is fetched anew every time.  On a CPU torch's own function
does no less inside.  A vector's length is one operation there, though, and needs no squares to be
stored.  Elsewhere torch's function is one kernel.  Whether a class of norms multiplies by its
weight or by one more than that, and in a narrow dtype before it rounds or after, is found by its
numbers; what is neither keeps its own way.

Legend: N vectors, D their width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.engine.modeling import left_alone
from traitscope.engine.packing import ALLOWED
from traitscope.models import Model, is_anothers, wrap_forward

__all__ = ["fused_norms"]

Norm = Callable[[Tensor], Tensor]
Way = Callable[[Tensor, float], Norm]  # of a weight [D] and an epsilon

_TIGHT = 1e-5  # of the largest: rounding in float32
_Kind = tuple[type[nn.Module], str, torch.dtype]  # a class on a kind of device, in a dtype
_known: dict[_Kind, Way | None] = {}


@contextmanager
def fused_norms(model: Model) -> Iterator[None]:
    """Within it, RMS norms take half the operations or fewer."""
    with ExitStack() as undo:
        for module in _norms(model):
            way = _way(module)
            if way is not None:
                norm = way(module.weight.detach(), _eps(module))
                undo.callback(wrap_forward(module, partial(_fused, norm, module), instead=True))
        yield


def _norms(model: Model) -> Iterator[Any]:
    for module in model.hf.modules():
        weight = getattr(module, "weight", None)
        if "RMSNorm" not in type(module).__name__ or not isinstance(weight, Tensor):
            continue
        here = weight.dim() == 1 and weight.dtype in ALLOWED and isinstance(_eps(module), float)
        if here and not is_anothers(module):
            yield module


def _eps(module: Any) -> Any:
    return getattr(module, "eps", getattr(module, "variance_epsilon", None))


def _fused(norm: Norm, module: Any, own: Callable[..., Any]) -> Callable[..., Any]:
    weight = module.weight

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if left_alone() or args or kwargs:
            return own(x, *args, **kwargs)
        if x.dtype != weight.dtype or x.shape[-1:] != weight.shape:
            return own(x)
        return norm(x)

    return forward


# --- which way a class has -----------------------------------------------------------------------


def _way(module: Any) -> Way | None:
    """The one whose numbers are nearest to the class's own, if they are near at all."""
    weight = module.weight
    kind = (type(module), weight.device.type, weight.dtype)
    if kind not in _known:
        _known[kind] = _found(module, list(_ways(weight)))
    return _known[kind]


def _ways(weight: Tensor) -> Iterator[Way]:
    here = weight.device.type == "cpu"
    last, first = (_by_length, _weighted_after_length) if here else (_by_torch, _weighted_by_torch)
    yield from (partial(last, plus) for plus in (0.0, 1.0))
    if weight.dtype != torch.float32:
        yield first


@torch.inference_mode()
def _found(module: Any, ways: list[Way]) -> Way | None:
    weight, drawn = module.weight, torch.Generator().manual_seed(0)
    # a weight that says when it is multiplied by; small numbers too: there epsilon matters
    line_4D = torch.randn(4, len(weight), generator=drawn)
    line_4D *= torch.tensor([[1.0], [1.0], [30.0], [1e-3]])
    line_4D = line_4D.to(weight.device, weight.dtype)
    weight_D, x_ND = line_4D[0], line_4D[1:]
    try:
        own_ND = type(module).forward(_with(module, weight_D), x_ND).float()
        apart = [(way(weight_D, _eps(module))(x_ND).float() - own_ND).abs() for way in ways]
    except (RuntimeError, TypeError):  # it wants other shapes, or more than its input
        return None
    nearest = min(range(len(ways)), key=lambda i: float(apart[i].sum()))
    allowed = _TIGHT if weight.dtype == torch.float32 else ALLOWED[weight.dtype]
    near = float(apart[nearest].max()) <= allowed * float(own_ND.abs().max())
    return ways[nearest] if near else None


def _with(module: Any, weight: Tensor) -> Any:
    """The module with another weight; the one that is there is not touched."""
    other = copy(module)
    other._parameters = {"weight": nn.Parameter(weight, requires_grad=False)}
    return other


# --- ways ----------------------------------------------------------------------------------------


def _by_length(plus: float, weight_D: Tensor, eps: float) -> Norm:
    """x gain / sqrt(mean(x^2) + eps): with |x| the length, sqrt(D) x gain / hypot(|x|, least)."""
    gain_D, least = (weight_D.float() + plus) * len(weight_D) ** 0.5, _least(weight_D, eps)

    def norm(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        made: Tensor = (x * gain_D).div_(length.hypot_(least))
        return made

    def narrow(x: Tensor) -> Tensor:
        return norm(x.float()).to(x.dtype)

    return norm if weight_D.dtype == torch.float32 else narrow


def _weighted_after_length(weight_D: Tensor, eps: float) -> Norm:
    """The same, rounded before the weight, as Llama has it."""
    root, least = len(weight_D) ** 0.5, _least(weight_D, eps)

    def norm(x: Tensor) -> Tensor:
        x_ND = x.float()
        length = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True)
        made: Tensor = (x_ND * (root / length.hypot_(least))).to(x.dtype)
        return made.mul_(weight_D)

    return norm


def _least(weight_D: Tensor, eps: float) -> Tensor:
    """The length that epsilon stands for."""
    return torch.tensor((len(weight_D) * eps) ** 0.5, device=weight_D.device)


def _by_torch(plus: float, weight_D: Tensor, eps: float) -> Norm:
    """All of it in float32, rounded last."""
    gain_D = weight_D.float() + plus

    def norm(x: Tensor) -> Tensor:
        made: Tensor = nn.functional.rms_norm(x.float(), gain_D.shape, gain_D, eps)
        return made.to(x.dtype)

    return norm


def _weighted_by_torch(weight_D: Tensor, eps: float) -> Norm:
    """Rounded before the weight."""

    def norm(x: Tensor) -> Tensor:
        made: Tensor = nn.functional.rms_norm(x, weight_D.shape, None, eps)
        return made.mul_(weight_D)

    return norm
