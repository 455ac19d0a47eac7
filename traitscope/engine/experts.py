"""Mixtures of experts on a CPU, by packed weights.

A decode step's few tokens go to many experts, a few each, and plain products lay every expert's
weight out anew for them: nine tenths of a step's time.  transformers sorts tokens by their expert
and takes one product for each of those ("grouped_mm"), in one function for all architectures.  That
function is replaced; which expert a token goes to, and what is done with what it gives, is the
model's own business.

Legend: N tokens, each once for every expert that it goes to, sorted by expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor
from transformers.integrations import moe

from traitscope.engine.laid import Laid
from traitscope.engine.modeling import exchanged, left_alone
from traitscope.engine.packing import packed_stacks, product
from traitscope.models import Model

__all__ = ["packed_experts"]

_NAME = "_grouped_linear"


@contextmanager
def packed_experts(model: Model) -> Iterator[None]:
    """Within it, large experts on a CPU multiply by their packed weights, in inference."""
    place = vars(moe)
    packed = packed_stacks(model) if callable(place.get(_NAME)) else {}
    if not packed:
        yield
        return
    with exchanged(place, _NAME, partial(_by, packed)):
        yield


def _by(
    packed: Mapping[int, tuple[Tensor, tuple[Laid, ...]]], own: Callable[..., Any]
) -> Callable[..., Any]:
    def grouped(
        x_NI: Tensor, weight: Tensor, offs: Tensor, bias: Tensor | None = None, **options: Any
    ) -> Any:
        _, weights = packed.get(id(weight), (weight, ()))
        if not weights or left_alone() or x_NI.dtype != weight.dtype:
            return own(x_NI, weight, offs, bias=bias, **options)
        width = weights[0].size[0]
        made_NO = x_NI.new_empty(x_NI.shape[0], width)
        start = 0
        for expert, end in zip(weights, offs.tolist(), strict=True):
            if end > start:
                made_NO[start:end] = product(x_NI[start:end], expert)
                start = end
        return made_NO if bias is None else made_NO.add_(bias)

    return grouped
