"""Linear layers that read one input, and one product for all of them.

Query, key and value read the same states, so do gate and up.  The first of them multiplies for the
others, which hand out their part when they are given the same input; else each goes its own way.
So do all where somebody's hook is called before the last of them has its input, which the hook may
change in its place.  By what is multiplied is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every

from traitscope.engine.modeling import left_alone
from traitscope.models import is_anothers, wrap_forward

__all__ = ["biases", "by_one_product", "siblings"]

_GROUPS = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("gate_proj", "up_proj"))

Group = tuple[Any, ...]  # of linear layers


def siblings(parent: nn.Module) -> Iterator[Group]:
    """Groups of its layers that read one input, as torch wrote them."""
    for names in _GROUPS:
        group: Group = tuple(getattr(parent, name, None) for name in names)
        plain = all(type(module) is nn.Linear and not is_anothers(module) for module in group)
        if plain and len({(m.in_features, m.weight.dtype, m.weight.device) for m in group}) == 1:
            yield group


def biases(group: Group) -> Tensor | None:
    """Under one another, zeros for a layer that has none; None where none has one."""
    if all(module.bias is None for module in group):
        return None
    parts = [
        module.weight.new_zeros(module.out_features) if module.bias is None else module.bias
        for module in group
    ]
    return torch.cat([part.detach() for part in parts])


def by_one_product(
    group: Group, multiply: Callable[[Tensor], Tensor], most: int | None = None
) -> ExitStack:
    """Let `multiply` of an input make what all layers of a group give, side by side, in inference
    and for inputs of up to `most` numbers; what is returned ends it."""
    product, undo = _Product(group, multiply, most), ExitStack()
    for place, module in enumerate(group):
        undo.callback(wrap_forward(module, partial(product.part, place), instead=True))
    return undo


class _Product:
    """The last product of a group, with its input."""

    def __init__(
        self, group: Group, multiply: Callable[[Tensor], Tensor], most: int | None
    ) -> None:
        self._sizes = [module.out_features for module in group]
        self._dtype = group[0].weight.dtype
        self._multiply, self._most = multiply, most
        self._between = [
            every._global_forward_pre_hooks,
            every._global_forward_hooks,
            *(module._forward_pre_hooks for module in group[1:]),
            *(module._forward_hooks for module in group[:-1]),
        ]
        self._last: tuple[Tensor, tuple[Tensor, ...]] | None = None  # one: threads may share this

    def part(self, place: int, own: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
        """The forward of the group's module at `place`."""

        def first(x: Tensor) -> Tensor:
            large = self._most is not None and x.numel() > self._most
            odd = left_alone() or large or x.dtype != self._dtype or not x.numel()
            if odd or any(self._between):
                self._last = None
                return own(x)  # type: ignore[no-any-return]  # a module's forward
            parts = torch.split(self._multiply(x), self._sizes, dim=-1)
            self._last = (x, parts)
            return parts[0]

        def other(x: Tensor) -> Tensor:
            last = self._last
            if left_alone() or last is None or x is not last[0]:
                return own(x)  # type: ignore[no-any-return]  # as above
            if place == len(self._sizes) - 1:  # nobody else will ask
                self._last = None
            return last[1][place]

        return other if place else first
