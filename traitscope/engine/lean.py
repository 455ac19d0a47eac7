"""A model's own forward, made cheaper: the same numbers up to rounding.

What a model does in every call and need not on a CPU: lay its weights out for the multiplication
(`packing.py`, `experts.py`), write an MLP's gate and its activation out before they are multiplied
(`gated.py`), copy what heads share or take them for texts (`grouped.py`), write an RMS norm or a
GELU out in eight operations (`norms.py`, `gelus.py`), call small projections of one input one by
one (`joined.py`), and turn queries and keys apart (`rotary.py`).  On other devices every operation
is a launch, and so norms, rotary embeddings and plain attention take fewer there too; on CUDA
attention keeps to kernels that take any shape at once.  Products in float32 are of float32,
whatever the process has allowed (TF32, bfloat16): a batch would not be its texts alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from traitscope.engine.experts import packed_experts
from traitscope.engine.gated import gated_products
from traitscope.engine.gelus import fused_gelus
from traitscope.engine.grouped import grouped_attention
from traitscope.engine.joined import joined_projections
from traitscope.engine.norms import fused_norms
from traitscope.engine.packing import has_products, packed_weights
from traitscope.engine.rotary import joint_rotary
from traitscope.errors import InputError
from traitscope.models import Model

__all__ = ["lean"]


@contextmanager
def lean(model: Model, *, steps: bool = True, own: bool = False) -> Iterator[None]:
    """Within it, forwards of `model` in inference are cheaper.

    Without `steps` all of them have many tokens: weights are then packed only where the processor
    has no products in their dtype, since else it would save little and take as much memory again.
    With `own` nothing is cheaper: it is what the others are held against.  InputError where what
    the process has set would change what the model computes.
    """
    _check_as_usual(model.device)
    with ExitStack() as cheaper:
        cheaper.enter_context(_whole_float32)
        cheaper.enter_context(_at_rest(model))
        if own:
            yield
            return
        if model.device.type != "cpu":
            cheaper.enter_context(_known_kernels(model.device))
            for way in (grouped_attention, fused_norms, joint_rotary):
                cheaper.enter_context(way(model))
            yield
            return
        if steps or not has_products(model.dtype):
            packed = cheaper.enter_context(packed_weights(model))
            cheaper.enter_context(gated_products(model, packed))
            cheaper.enter_context(packed_experts(model))
        for way in (joined_projections, grouped_attention, fused_norms, fused_gelus, joint_rotary):
            cheaper.enter_context(way(model))
        yield


def _check_as_usual(device: torch.device) -> None:
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


@contextmanager
def _at_rest(model: Model) -> Iterator[None]:
    """Without dropout, whoever has called `train()` meanwhile."""
    training = [module for module in model.hf.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


class _WholeFloat32:
    """Entered and left in any order by those whose forwards are under way: the first one changes
    what the process allows, the last one puts it back."""

    def __init__(self) -> None:
        self._inside, self._before = 0, list[tuple[Any, str]]()

    def __enter__(self) -> None:
        if not self._inside:
            # where torch (2.9 and newer) is told what products in float32 may be made of
            every: list[Any] = [torch.backends.cuda.matmul]
            every.append(getattr(torch.backends.mkldnn, "matmul", None))
            known = [products for products in every if hasattr(products, "fp32_precision")]
            self._before = [(products, products.fp32_precision) for products in known]
            for products in known:
                products.fp32_precision = "ieee"
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside:
            for products, allowed in self._before:
                products.fp32_precision = allowed


_whole_float32 = _WholeFloat32()


@contextmanager
def _known_kernels(device: torch.device) -> Iterator[None]:
    """On CUDA without cuDNN's attention, which makes a plan for every shape that it first meets."""
    was: bool = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
    torch.backends.cuda.enable_cudnn_sdp(was and device.type != "cuda")
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(was)
