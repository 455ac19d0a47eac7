"""A model's own forward, made cheaper on a CPU: the same numbers up to rounding.

Four things that a model does in every call and need not: lay its weights out for the
multiplication (`packing.py`), repeat keys and values for each head of a group (`grouped.py`), write
an RMS norm out in eight operations (`norms.py`), and call small projections of one input one by one
(`joined.py`).  Elsewhere than on a CPU this changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from traitscope.engine.grouped import grouped_attention
from traitscope.engine.joined import joined_projections
from traitscope.engine.norms import fused_norms
from traitscope.engine.packing import has_products, packed_weights
from traitscope.models import Model

__all__ = ["lean"]


@contextmanager
def lean(model: Model, *, steps: bool = True) -> Iterator[None]:
    """Within it, forwards of `model` in inference are cheaper.

    Without `steps` all of them have many tokens: weights are then packed only where the processor
    has no products in their dtype, since else it would save little and take as much memory again.
    """
    pack = steps or not has_products(model.dtype)
    packed = packed_weights(model) if pack else nullcontext()
    with packed, joined_projections(model), grouped_attention(model), fused_norms(model):
        yield
