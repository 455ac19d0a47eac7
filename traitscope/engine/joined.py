"""Projections of one input on a CPU, in one product.

Query, key and value read the same states, so do gate and up.  Where weights are small a call costs
more than its product, and one for all of them is cheaper.  The first of a group multiplies for the
others, which hand out their part when they are given the same input; else each goes its own way.
Large weights are packed instead (`packing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from traitscope.engine import packing
from traitscope.engine.modeling import left_alone
from traitscope.models import Model, is_anothers, wrap_forward

__all__ = ["MOST", "joined_projections"]

MOST = 1 << 16  # numbers of an input: above it the product is what costs
_GROUPS = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("gate_proj", "up_proj"))


@contextmanager
def joined_projections(model: Model) -> Iterator[None]:
    """Within it, small projections of the same few tokens are made together, in inference."""
    with ExitStack() as undo:
        for group in _groups(model):
            product = _Product(group)
            for place, module in enumerate(group):
                undo.callback(wrap_forward(module, partial(product.part, place), instead=True))
        yield


def _groups(model: Model) -> Iterator[list[Any]]:
    for block in model.anatomy.blocks:
        for parent in (block.attention, block.mlp):
            for names in _GROUPS:
                group: list[Any] = [getattr(parent, name, None) for name in names]
                if all(map(_small, group)) and len({m.in_features for m in group}) == 1:
                    yield group


def _small(module: Any) -> bool:
    if type(module) is not nn.Linear or is_anothers(module):
        return False
    weight = module.weight
    plain = type(weight.data) is Tensor and weight.device.type == "cpu"
    return plain and weight.is_floating_point() and weight.numel() < packing.LEAST


class _Product:
    """The weights of a group under one another, and the last product with its input."""

    def __init__(self, group: Sequence[Any]) -> None:
        self._sizes = [module.out_features for module in group]
        self._weight = torch.cat([module.weight.detach() for module in group])
        self._bias: Tensor | None = None
        if any(module.bias is not None for module in group):
            nothing = [self._weight.new_zeros(size) for size in self._sizes]
            self._bias = torch.cat(
                [
                    none if module.bias is None else module.bias.detach()
                    for module, none in zip(group, nothing, strict=True)
                ]
            )
        self._input: Tensor | None = None
        self._parts: tuple[Tensor, ...] = ()

    def part(self, place: int, own: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
        """The forward of the group's module at `place`."""

        def first(x: Tensor) -> Tensor:
            if left_alone() or x.numel() > MOST or x.dtype != self._weight.dtype:
                return own(x)  # type: ignore[no-any-return]
            self._input = x
            made = functional.linear(x, self._weight, self._bias)
            self._parts = torch.split(made, self._sizes, dim=-1)
            return self._parts[0]

        def other(x: Tensor) -> Tensor:
            if left_alone() or x is not self._input:
                return own(x)  # type: ignore[no-any-return]
            part = self._parts[place]
            if place == len(self._sizes) - 1:  # nobody else will ask
                self._input, self._parts = None, ()
            return part

        return other if place else first
