"""What the process around a forward has set, and what a forward needs instead.

Products in float32 are of float32, whatever the process has allowed (TF32, bfloat16): a batch would
not be its texts alone.  Dropout is off, whoever has called `train()` meanwhile.  On CUDA attention
keeps to kernels that take any shape at once.  All of it is as it was afterwards; what cannot be
mended without surprising somebody (autocast, another default dtype) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from traitscope.errors import InputError
from traitscope.models import Model

__all__ = ["undisturbed"]

Undo = Callable[[], None]


@contextmanager
def undisturbed(model: Model) -> Iterator[None]:
    """Within it, the model's forwards compute what its dtype says.  InputError where that is not
    to be had."""
    _check(model.device)
    with ExitStack() as inside:
        inside.enter_context(_whole_float32.inside())
        inside.enter_context(_resting.setdefault(model.hf, _Shared(_at_rest)).inside(model.hf))
        if model.device.type == "cuda":
            inside.enter_context(_any_shape.inside())
        yield


def _check(device: torch.device) -> None:
    """Both are the process's own, and would make other numbers than the model's dtype does."""
    if torch.is_autocast_enabled(device.type):
        raise InputError(
            f"Expected no torch.autocast on '{device.type}', got one: states are taken as the "
            "model's own dtype makes them. Leave it before, or load the model in that dtype."
        )
    if torch.get_default_dtype() != torch.float32:
        raise InputError(
            f"Expected torch's default dtype to be float32, got {torch.get_default_dtype()}. "
            "Set it back with torch.set_default_dtype(torch.float32) once the model is loaded."
        )


# --- what the first of several changes and the last takes back ------------------------------------


class _Shared:
    """A change for as long as anybody is inside: generators and threads leave in any order."""

    def __init__(self, change: Callable[..., Undo]) -> None:
        self._change, self._inside, self._lock = change, 0, Lock()
        self._undo: Undo = lambda: None

    @contextmanager
    def inside(self, *of: Any) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._undo = self._change(*of)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._undo()
                    self._undo = lambda: None


def _float32_is_float32() -> Undo:
    """Products in float32 are made of nothing narrower, on any device."""
    # where torch (2.9 and newer) is told of it
    every: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    known = [products for products in every if hasattr(products, "fp32_precision")]
    before = [(products, products.fp32_precision) for products in known]
    for products in known:
        products.fp32_precision = "ieee"

    def undo() -> None:
        for products, allowed in before:
            products.fp32_precision = allowed

    return undo


def _at_rest(hf: nn.Module) -> Undo:
    """Without dropout, whoever has called `train()` meanwhile."""
    training = [module for module in hf.modules() if module.training]
    for module in training:
        module.training = False

    def undo() -> None:
        for module in training:
            module.training = True

    return undo


def _known_kernels() -> Undo:
    """On CUDA without cuDNN's attention, which makes a plan for every shape that it first meets."""
    was: bool = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(False)
    return partial(torch.backends.cuda.enable_cudnn_sdp, was)


_any_shape = _Shared(_known_kernels)
_whole_float32 = _Shared(_float32_is_float32)
_resting: WeakKeyDictionary[nn.Module, _Shared] = WeakKeyDictionary()
