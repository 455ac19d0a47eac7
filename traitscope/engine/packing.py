"""Linear layers on a CPU, with weights laid out once for its kernels.

A weight lies row by row, and the library that multiplies lays it out anew in every call: with the
few rows of a decode step that costs about as much as the product.  `packed_weights` lays large
weights out once, in oneDNN's own format, and lets their layers multiply by that.  A dtype that the
processor has no products for is laid out in float32: nothing is lost, since sums are float32
either way and results are rounded to the model's dtype.  This module knows linear layers and
memory; nothing of tokens, taps or runs.

Each layer is held against itself when it is packed, and keeps its own way where the two differ;
a weight that has changed is packed anew.  The packed weights take memory of their own: of what is
free, `SHARE` at most, and layers for which none is left keep their own way too.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from traitscope.engine.modeling import left_alone
from traitscope.machine import free_memory
from traitscope.models import Model, is_anothers, wrap_forward

__all__ = [
    "ALLOWED",
    "LEAST",
    "SHARE",
    "has_products",
    "memory_for_texts",
    "packed_bytes",
    "packed_weights",
]

LEAST = 1 << 18  # numbers: calls of smaller products cost more by oneDNN than they save
SHARE = 0.6  # of the free memory
_ROWS = 24  # of the products that the layout is made for; others work as well
# largest difference allowed, relative to the largest output: rounding is inside, a mix-up is not
ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
_TYPES = {nn.Linear, Conv1D}
_ALSO = {"transformers.models.falcon.modeling_falcon.FalconLinear"}  # one in all but name


@dataclass
class _Packed:
    """A weight as it is multiplied by; `mark` says of which values it was made."""

    weight: Tensor | None  # None: the layer keeps its own way
    mark: tuple[object, ...]

    @property
    def size(self) -> int:
        return 0 if self.weight is None else self.weight.numel() * self.weight.itemsize


_known: WeakKeyDictionary[nn.Module, _Packed] = WeakKeyDictionary()


@contextmanager
def packed_weights(model: Model) -> Iterator[dict[nn.Module, Tensor]]:
    """Within it, large linear layers on a CPU multiply by their packed weights, which it gives.

    They do so in inference alone, in the model's dtype.  May be entered again while it is in use.
    """
    packed = dict[nn.Module, Tensor]()
    with ExitStack() as undo:
        for module in _layers(model):
            weight = None if is_anothers(module) else _packed(module)
            if weight is not None:
                packed[module] = weight
                undo.callback(wrap_forward(module, partial(_by, module, weight), instead=True))
        yield packed


def _layers(model: Model) -> Iterator[Any]:
    """Those that gain: large, on a CPU, as torch or transformers wrote them."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return
    for module in model.hf.modules():
        kind = type(module)
        if kind not in _TYPES and f"{kind.__module__}.{kind.__qualname__}" not in _ALSO:
            continue
        weight = module.weight
        plain = type(weight.data) is Tensor and weight.layout == torch.strided
        here = plain and weight.device.type == "cpu" and weight.dtype in ALLOWED
        if here and weight.dim() == 2 and weight.numel() >= LEAST:
            yield module


def _packed(module: Any) -> Tensor | None:
    """The layer's packed weight, of the values that it has now."""
    there, mark = _known.get(module), _mark(module.weight)
    if there is None or there.mark != mark:
        there = _known[module] = _Packed(_pack(module), mark)
    return there.weight


def _by(module: Any, packed: Tensor, own: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """The layer's `forward` by its packed weight; `own` is the way it has."""
    multiply = torch.ops.mkldnn._linear_pointwise.default
    dtype, wide = module.weight.dtype, packed.dtype

    def forward(x: Tensor) -> Tensor:
        if left_alone() or x.dtype != dtype or not x.numel():
            return own(x)  # type: ignore[no-any-return]
        bias = module.bias
        if dtype == wide:
            return multiply(x, packed, bias, "none", [], "")  # type: ignore[no-any-return]
        bias = None if bias is None else bias.to(wide)
        made: Tensor = multiply(x.to(wide), packed, bias, "none", [], "")
        return made.to(dtype)

    return forward


@torch.inference_mode()
def _pack(module: Any) -> Tensor | None:
    """The weight laid out anew; None where there is no memory for it or the product differs."""
    weight = module.weight.detach()
    if _size(module) > _may_take(free_memory(torch.device("cpu")) or 0):
        return None
    if type(module) is Conv1D:  # [in, out]
        weight = weight.t()
    try:
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(
            weight.to(_wide(weight.dtype)).contiguous(), _ROWS
        )
        x_ND = torch.randn(2, weight.shape[1], generator=torch.Generator().manual_seed(0))
        x_ND = x_ND.to(weight.dtype)
        own_NO, made_NO = (
            module.forward(x_ND).float(),
            _by(module, packed, module.forward)(x_ND).float(),
        )
    except (RuntimeError, NotImplementedError):  # a build of torch without these products
        return None
    apart = float((own_NO - made_NO).abs().max())
    return packed if apart <= ALLOWED[weight.dtype] * float(own_NO.abs().max()) else None


def memory_for_texts(model: Model) -> int | None:
    """Bytes that are free on the model's device when its weights are packed; None: not known."""
    free = free_memory(model.device)
    if free is None:
        return None
    left = sum(_size(module) for module in _layers(model) if module not in _known)
    return free - min(left, max(0, _may_take(free)))


def packed_bytes(model: Model) -> int:
    """What the packed weights of a model take."""
    return sum(_known[module].size for module in _layers(model) if module in _known)


def _size(module: Any) -> int:
    """Bytes that a layer's packed weight takes."""
    weight = module.weight
    return int(weight.numel() * _wide(weight.dtype).itemsize)


def _may_take(free: int) -> int:
    """Bytes that may still be packed: a share of what was free before anything was."""
    taken = sum(p.size for p in _known.values())
    return int(SHARE * (free + taken)) - taken


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What a weight of this dtype is packed in."""
    return dtype if has_products(dtype) else torch.float32


def has_products(dtype: torch.dtype) -> bool:
    """Whether the processor multiplies in this dtype itself, and no slower than in float32.

    oneDNN takes bfloat16 wherever there is AVX-512.  Without AVX512_BF16 it widens every number on
    the way, which takes two to three times as long as in float32.  With AVX512_BF16 but without
    AMX, which a virtual machine may hide, Intel's processors from Sapphire Rapids on take 1.6 times
    as long (128 rows and more; as long at 24, less below).  They are told from others by
    AVX512_FP16, which no other x86 processor has so far.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        return True
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False  # on a Mac's CPU
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    if torch.cpu._is_amx_tile_supported():
        return True
    return torch.cpu._is_avx512_bf16_supported() and not has_products(torch.float16)


def _mark(weight: Tensor) -> tuple[object, ...]:
    """Changes when the weight does: its place, torch's count of changes, and a number of every row
    and column, since changes by way of `.data` are not counted."""
    rows, columns = weight.shape
    at = torch.arange(max(rows, columns))
    some = weight.detach()[at % rows, at % columns]
    version = None if weight.is_inference() else weight._version
    return weight.data_ptr(), version, weight.dtype, some.float().numpy().tobytes()
