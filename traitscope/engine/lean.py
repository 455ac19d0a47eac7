"""A model's own forward, made cheaper on a CPU: the same numbers up to rounding.

Three things that a model does in every call and need not: lay its weights out for the
multiplication (`packing.py`), repeat keys and values for each head of a group (`grouped.py`), and
write an RMS norm out in eight operations (`norms.py`).  Each is held against the model's own way
before it is used.  Elsewhere than on a CPU this changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from traitscope.engine.grouped import grouped_attention
from traitscope.engine.norms import fused_norms
from traitscope.engine.packing import packed_weights
from traitscope.models import Model

__all__ = ["lean"]


@contextmanager
def lean(model: Model) -> Iterator[None]:
    """Within it, forwards of `model` in inference are cheaper.  Enter it before `Taps`."""
    with packed_weights(model), grouped_attention(model), fused_norms(model):
        yield
