"""Weights on a CPU, laid out once for the kernels that multiply by them.

A weight lies row by row, and the library that multiplies lays it out anew in every call: with the
few rows of a decode step that costs about as much as the product.  Here large weights are laid out
once (`laid.py`): those of linear layers, which then multiply by that (`packed_weights`), and those
of experts (`packed_stacks`, for `experts.py`).  A dtype that the processor has no products for is
laid out in float32: nothing is lost, since sums are float32 either way and results are rounded to
the model's dtype.  This module knows weights and memory; nothing of tokens, taps or runs.

Each weight's product is held against the plain one when it is packed, and the plain one goes on
where the two differ; a weight that has changed is packed anew.  The packed weights take memory of
their own: of what is free, `SHARE` at most, and those for which none is left stay as they are.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from traitscope.engine.laid import Laid, lay
from traitscope.engine.modeling import left_alone
from traitscope.engine.siblings import biases, by_one_product, siblings
from traitscope.machine import free_memory
from traitscope.models import Model, is_anothers, wrap_forward

__all__ = [
    "ALLOWED",
    "LEAST",
    "SHARE",
    "has_products",
    "has_tiles",
    "memory_for_texts",
    "packed_bytes",
    "packed_stacks",
    "packed_weights",
    "product",
]

LEAST = 1 << 18  # numbers: calls of smaller products cost more by oneDNN than they save
SHARE = 0.6  # of the free memory
# largest difference allowed, relative to the largest output: rounding is inside, a mix-up is not
ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}
_TYPES = {nn.Linear, Conv1D}
_X86 = ("x86_64", "amd64")
_ALSO = {"transformers.models.falcon.modeling_falcon.FalconLinear"}  # one in all but name
_STACKS = {"gate_up_proj", "up_proj", "down_proj"}


@dataclass(frozen=True)
class _Part:
    """A parameter that products are taken of: a linear layer's weight, or experts'; or the weights
    of layers that read one input, laid under one another."""

    modules: tuple[Any, ...]
    name: str = "weight"

    @property
    def module(self) -> Any:
        return self.modules[0]

    @property
    def weights(self) -> list[Tensor]:
        return [getattr(module, self.name) for module in self.modules]  # if pruned no parameters

    def matrices(self) -> list[Tensor]:
        """Each [out, in]: of layers one, of experts one each."""
        weights = [weight.detach() for weight in self.weights]
        if len(weights) > 1:
            return [torch.cat(weights)]
        (weight,) = weights
        if weight.dim() == 3:
            return list((weight.mT if self.module.is_transposed else weight).unbind())
        return [weight.t() if type(self.module) is Conv1D else weight]

    @property
    def mark(self) -> tuple[object, ...]:
        return tuple(map(_mark, self.weights))

    @property
    def dtype(self) -> torch.dtype:
        return self.weights[0].dtype

    @property
    def size(self) -> int:
        """Bytes that it takes when it is packed."""
        return sum(weight.numel() for weight in self.weights) * _wide(self.dtype).itemsize


@dataclass
class _Packed:
    """A part's matrices as they are multiplied by; `mark` says of which values they were made."""

    weights: tuple[Laid, ...]  # none: the plain products go on
    mark: tuple[object, ...]

    @property
    def size(self) -> int:
        return sum(weight.nbytes for weight in self.weights)


_known: WeakKeyDictionary[nn.Module, dict[str, _Packed]] = WeakKeyDictionary()
_one_at_a_time = RLock()  # models of several threads share what is free


@contextmanager
def packed_weights(model: Model) -> Iterator[dict[nn.Module, Laid]]:
    """Within it, large linear layers on a CPU multiply by their packed weights, which it gives.

    Those of layers that read one input are one product, and are not in it.  They do so in inference
    alone, in the model's dtype.  May be entered again while it is in use.
    """
    packed = dict[nn.Module, Laid]()
    with ExitStack() as undo:
        for part in _layers(model):
            for weight in () if any(map(is_anothers, part.modules)) else _packed(part):
                if len(part.modules) > 1:
                    by = partial(_together, part.modules, weight)
                    undo.enter_context(by_one_product(part.modules, by))
                    continue
                packed[part.module] = weight
                forward = partial(_by, part.module, weight)
                undo.callback(wrap_forward(part.module, forward, instead=True))
        yield packed


def packed_stacks(model: Model) -> dict[int, tuple[Tensor, tuple[Laid, ...]]]:
    """By its `id`, each parameter that holds experts' weights, and those of each expert packed."""
    found = ((part.weights[0], _packed(part)) for part in _stacks(model))
    return {id(weight): (weight, weights) for weight, weights in found if weights}


def _parts(model: Model) -> Iterator[_Part]:
    yield from _layers(model)
    yield from _stacks(model)


def _layers(model: Model) -> Iterator[_Part]:
    """Linear layers that gain: large, on a CPU, as torch or transformers wrote them.

    Query, key and value go together, in 0.9 to 1 of the time in float32 and 0.7 to 0.9 in bfloat16
    (2 Xeon cores, 1 to 900 rows).  Gate and up (`gated.py`) do not: what both give is so large that
    with many rows fetching the memory for it cost more.
    """
    together = set[nn.Module]()
    for block in model.anatomy.blocks:
        for group in siblings(block.attention):
            if all(_gains(module.weight) for module in group):
                together.update(group)
                yield _Part(group)
    for module in model.hf.modules():
        kind = type(module)
        known = kind in _TYPES or f"{kind.__module__}.{kind.__qualname__}" in _ALSO
        if known and module not in together and module.weight.dim() == 2 and _gains(module.weight):
            yield _Part((module,))


def _stacks(model: Model) -> Iterator[_Part]:
    """Weights of experts, one beside the other [experts, out, in], that gain."""
    for module in model.hf.modules():
        if isinstance(getattr(module, "is_transposed", None), bool):  # transformers' experts
            for name, weight in module._parameters.items():
                if name in _STACKS and weight is not None and weight.dim() == 3 and _gains(weight):
                    yield _Part((module,), name)


def _gains(weight: Tensor) -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    plain = type(weight.data) is Tensor and weight.layout == torch.strided
    here = plain and weight.device.type == "cpu" and weight.dtype in ALLOWED
    return here and weight.shape[-2] * weight.shape[-1] >= LEAST


def _packed(part: _Part) -> tuple[Laid, ...]:
    """A part's packed weights, of the values that it has now."""
    with _one_at_a_time:
        for module in part.modules[1:]:  # what was packed while they were no group
            _known.get(module, {}).pop(part.name, None)
        there, mark = _held(part), part.mark
        if there is None or there.mark != mark:
            there = _known.setdefault(part.module, {})[part.name] = _Packed(_pack(part), mark)
        return there.weights


def _held(part: _Part) -> _Packed | None:
    return _known.get(part.module, {}).get(part.name)


def _by(module: Any, packed: Laid, own: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    """The layer's `forward` by its packed weight; `own` is the way it has."""
    dtype = module.weight.dtype

    def forward(x: Tensor) -> Tensor:
        if left_alone() or x.dtype != dtype or not x.numel():
            return own(x)  # type: ignore[no-any-return]
        return product(x, packed, module.bias)

    return forward


def _together(group: tuple[Any, ...], packed: Laid, x: Tensor) -> Tensor:
    return product(x, packed, biases(group))


def product(x: Tensor, packed: Laid, bias: Tensor | None = None) -> Tensor:
    """x [..., in] by a packed weight, [..., out] in the dtype of x."""
    wide = packed.dtype
    bias = None if bias is None else bias.to(wide)
    return packed.product(x.to(wide), bias).to(x.dtype)


@torch.inference_mode()
def _pack(part: _Part) -> tuple[Laid, ...]:
    """Its matrices laid out anew; none where there is no memory for it or a product differs."""
    if part.size > _may_take(free_memory(torch.device("cpu")) or 0):
        return ()
    made, dtype = list[Laid](), part.dtype
    for matrix_OI in part.matrices():
        try:
            packed = lay(matrix_OI.to(_wide(dtype)).contiguous())
            drawn = torch.Generator().manual_seed(0)
            x_NI = torch.randn(2, matrix_OI.shape[1], generator=drawn).to(dtype)
            own_NO = functional.linear(x_NI, matrix_OI).float()
            apart = float((own_NO - product(x_NI, packed).float()).abs().max())
        except (RuntimeError, NotImplementedError):  # a build of torch without these products
            return ()
        if not apart <= ALLOWED[dtype] * float(own_NO.abs().max()):
            return ()
        made.append(packed)
    return tuple(made)


def memory_for_texts(model: Model) -> int | None:
    """Bytes that are free on the model's device when its weights are packed; None: not known."""
    free = free_memory(model.device)
    if free is None:
        return None
    left = sum(part.size for part in _parts(model) if _held(part) is None)
    with _one_at_a_time:
        return free - min(left, max(0, _may_take(free)))


def packed_bytes(model: Model) -> int:
    """What the packed weights of a model take."""
    return sum(held.size for held in map(_held, _parts(model)) if held is not None)


def _may_take(free: int) -> int:
    """Bytes that may still be packed: a share of what was free before anything was."""
    taken = sum(held.size for parts in _known.values() for held in parts.values())
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
    if platform.machine().lower() not in _X86:
        return True
    if has_tiles():
        return True
    return torch.cpu._is_avx512_bf16_supported() and not has_products(torch.float16)


def has_tiles() -> bool:
    """Whether the processor has AMX: only x86 is asked."""
    x86 = platform.machine().lower() in _X86
    return x86 and bool(torch.cpu._is_amx_tile_supported())


def _mark(weight: Tensor) -> tuple[object, ...]:
    """Changes when the weight does: its place, torch's count of changes, and, since changes by way
    of `.data` are not counted, a number of every row and column, and the sum of all bits.

    That sum is read at the memory's speed: 130M numbers in 20 ms on 2 cores.
    """
    some_RC = weight.detach().flatten(0, -2)
    rows, columns = some_RC.shape
    at = torch.arange(max(rows, columns))
    some = some_RC[at % rows, at % columns].float().numpy().tobytes()
    version = None if weight.is_inference() else weight._version
    return weight.data_ptr(), version, weight.dtype, hash(some), _bits(some_RC)


@torch.inference_mode()
def _bits(some_RC: Tensor) -> int:
    """The sum of a matrix' memory, in whole numbers that wrap: no change is rounded away."""
    flat = some_RC.flatten()
    words = flat.numel() * flat.itemsize % 8 == 0 and flat.data_ptr() % 8 == 0
    narrow = torch.int32 if flat.itemsize == 4 else torch.int16
    return int(flat.view(torch.int64 if words else narrow).sum())
