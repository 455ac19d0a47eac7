"""Small projections of one input on a CPU, in one product.

Where weights are small a call costs more than its product, and one for all that read the same input
is cheaper.  Large weights are packed instead (`packing.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from traitscope.engine import packing
from traitscope.engine.siblings import biases, by_one_product, siblings
from traitscope.models import Model

__all__ = ["MOST", "joined_projections"]

MOST = 1 << 16  # numbers of an input: above it the product is what costs


@contextmanager
def joined_projections(model: Model) -> Iterator[None]:
    """Within it, small projections of the same few tokens are made together, in inference."""
    with ExitStack() as undo:
        for block in model.anatomy.blocks:
            for parent in (block.attention, block.mlp):
                for group in siblings(parent):
                    if all(map(_small, group)):
                        weight = torch.cat([module.weight.detach() for module in group])
                        by = partial(functional.linear, weight=weight, bias=biases(group))
                        undo.enter_context(by_one_product(group, by, MOST))
        yield


def _small(module: Any) -> bool:
    weight = module.weight
    plain = type(weight.data) is Tensor and weight.device.type == "cpu"
    return plain and weight.is_floating_point() and weight.numel() < packing.LEAST
