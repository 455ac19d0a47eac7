"""A model's own forward, made cheaper: the same numbers up to rounding.

What a model does in every call and need not on a CPU: lay its weights out for the multiplication
(`packing.py`, `experts.py`), write an MLP's gate and its activation out before they are multiplied
(`gated.py`), copy what heads share or take them for texts (`grouped.py`), write an RMS norm or a
GELU out in eight operations (`norms.py`, `gelus.py`), call small projections of one input one by
one (`joined.py`), and write a rotary embedding out in ten (`rotary.py`).  On other devices every
operation is a launch, and so norms, rotary embeddings and plain attention take fewer there too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from traitscope.engine.experts import packed_experts
from traitscope.engine.gated import gated_products
from traitscope.engine.gelus import fused_gelus
from traitscope.engine.grouped import grouped_attention
from traitscope.engine.joined import joined_projections
from traitscope.engine.norms import fused_norms
from traitscope.engine.packing import has_products, packed_weights
from traitscope.engine.rotary import lean_rotary
from traitscope.engine.undisturbed import undisturbed
from traitscope.models import Model

__all__ = ["lean"]


@contextmanager
def lean(model: Model, *, steps: bool = True) -> Iterator[None]:
    """Within it, forwards of `model` in inference are cheaper.

    Without `steps` all of them have many tokens: weights are then packed only where the processor
    has no products in their dtype, since else it would save little and take as much memory again.
    InputError where what the process has set would change what the model computes.
    """
    here = model.device.type == "cpu"
    ways = [fused_norms, lean_rotary, grouped_attention]
    ways += [joined_projections, fused_gelus] if here else []
    with ExitStack() as cheaper:
        cheaper.enter_context(undisturbed(model))
        if here and (steps or not has_products(model.dtype)):
            packed = cheaper.enter_context(packed_weights(model))
            cheaper.enter_context(gated_products(model, packed))
            cheaper.enter_context(packed_experts(model))
        for way in ways:
            cheaper.enter_context(way(model))
        yield
