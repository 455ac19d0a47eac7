"""A matrix on a CPU, laid out once for the library that multiplies by it.

oneDNN's products can end with an activation or a multiplication.  MKL's, where the processor is
Intel's with AVX-512 and the dtype float32, take 0.8 to 0.9 of the time all the same (64 to 320
rows; 0.9 at 24 and at 960, 2 Xeon cores).  MKL lays a matrix out for a number of rows.  The layout
says of itself how it is to be read, but nobody promises that it may be multiplied by other numbers
of rows, which is tried out once in a process.  This module knows matrices; nothing of layers.

Legend: N rows, I and O numbers that go in and come out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional

from traitscope.engine.pages import in_large_pages
from traitscope.machine import is_intel

__all__ = ["ENDS", "NO_END", "Laid", "lay"]

NO_END = ("none", "")
# what a product can end with, by oneDNN's names, and the same in place
ENDS: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {
    ("swish", ""): partial(functional.silu, inplace=True),
    ("gelu", "none"): torch.ops.aten.gelu_,
    ("gelu", "tanh"): partial(torch.ops.aten.gelu_, approximate="tanh"),
    ("relu", ""): torch.relu_,
}

_ROWS_ONEDNN = 24  # that a layout is made for; others work as well
_ROWS_MKL = 256  # 96 to 448 differ by some 5%; 24 and 1,024 were up to a half slower
_TRIED = (1, 2, 3, 8, 24, 63, 130, 300, 1030)  # rows
_SHAPES = ((512, 1536), (1000, 770), (300, 1024))
_NEAR = 1e-5  # of the largest number: rounding of sums is a tenth of it


@dataclass(frozen=True, eq=False)
class Laid:
    """An [O, I] matrix as it is multiplied by, in `dtype`."""

    packed: Tensor
    size: tuple[int, int]
    dtype: torch.dtype
    like: Tensor | None = None  # MKL's products ask it for the matrix' size; None: oneDNN's

    @property
    def by_mkl(self) -> bool:
        return self.like is not None

    @property
    def nbytes(self) -> int:
        """Bytes that it takes: of what MKL asks for, up to nine times as much, the rest is never
        touched."""
        return self.size[0] * self.size[1] * self.dtype.itemsize

    def product(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        end: tuple[str, str] = NO_END,
        times: Tensor | None = None,
    ) -> Tensor:
        """x [..., I] to [..., O], in the matrix' dtype: with an activation of `ENDS`, or multiplied
        by `times` [..., O]."""
        if self.like is None:
            linear = torch.ops.mkldnn._linear_pointwise
            made: Tensor
            if times is not None:
                made = linear.binary(x, times, self.packed, bias, "mul")
            else:
                made = linear.default(x, self.packed, bias, end[0], [], end[1])
            return made
        made = _by_mkl(x, self.packed, self.like, bias)
        if times is not None:
            return made.mul_(times)
        return made if end == NO_END else ENDS[end](made)


def lay(matrix_OI: Tensor) -> Laid:
    """Lay a contiguous matrix out; RuntimeError where this build of torch has no such products."""
    size = (matrix_OI.shape[0], matrix_OI.shape[1])
    if _takes_mkl(matrix_OI.dtype):
        packed = torch.ops.mkl._mkl_reorder_linear_weight(matrix_OI, _ROWS_MKL)
        laid = Laid(packed, size, matrix_OI.dtype, _like(size))
    else:
        packed = torch.ops.mkldnn._reorder_linear_weight(matrix_OI, _ROWS_ONEDNN)
        laid = Laid(packed, size, matrix_OI.dtype)
    with suppress(AttributeError):  # a build of torch that does not say where it is
        in_large_pages(torch.ops.mkldnn.data_ptr(packed), laid.nbytes)
    return laid


def _takes_mkl(dtype: torch.dtype) -> bool:
    return dtype == torch.float32 and _mkl_is_better()


@cache
def _mkl_is_better() -> bool:
    """Where it was measured to be; and where it gives right numbers for other numbers of rows than
    a layout is made for, which MKL does not promise."""
    if not (is_intel() and torch.backends.mkl.is_available()):  # type: ignore[no-untyped-call]
        return False
    if not torch.cpu._is_avx512_supported():
        return False
    try:
        return all(map(_holds, _SHAPES))
    except (AttributeError, RuntimeError):  # a build of torch without these products
        return False


@torch.inference_mode()
def _holds(size: tuple[int, int]) -> bool:
    drawn = torch.Generator().manual_seed(0)
    matrix_OI, bias_O = (torch.randn(s, generator=drawn) for s in (size, size[:1]))
    packed, like = torch.ops.mkl._mkl_reorder_linear_weight(matrix_OI, _ROWS_MKL), _like(size)
    for rows in _TRIED:
        x_NI = torch.randn(rows, size[1], generator=drawn)
        wanted_NO = functional.linear(x_NI, matrix_OI, bias_O)
        apart = float((_by_mkl(x_NI, packed, like, bias_O) - wanted_NO).abs().max())
        if not apart <= _NEAR * float(wanted_NO.abs().max()):
            return False
    return True


def _like(size: tuple[int, int]) -> Tensor:
    return torch.zeros(()).expand(size)


def _by_mkl(x: Tensor, packed: Tensor, like: Tensor, bias: Tensor | None) -> Tensor:
    rows = x.numel() // like.shape[1]
    made: Tensor = torch.ops.mkl._mkl_linear(x, packed, like, bias, rows)
    return made
