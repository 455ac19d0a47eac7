"""Functions of transformers' modeling files, replaced for a while.

Blocks call plain attention and the rotary embedding as functions of the file that they are written
in, not as modules, and so it is the file's name that has to mean another function.  All models of
one file then use it.  This module does not know what the functions do.

Whoever has a cheaper way of what a model does asks `left_alone` first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch

from traitscope.models import Model

__all__ = ["exchanged", "left_alone", "replaced"]

Function = Callable[..., Any]


@dataclass(eq=False)
class _Use:
    """A function in the place of another, and for how many."""

    own: Function
    changed: Function
    users: int = 0


_uses = dict[tuple[int, str], _Use]()  # by the place and the name there
_one_at_a_time = RLock()


def left_alone() -> bool:
    """Whether a forward is made as the model's own code has it: where gradients are wanted, and
    where it is compiled, which does all that the cheaper ways do."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


@contextmanager
def replaced(model: Model, name: str, make: Callable[[Function], Function]) -> Iterator[None]:
    """Within it, `name` means `make(own)` in every file that has it and that the model's attention
    is written in."""
    with ExitStack() as undo:
        for place in _files(model):
            if callable(place.get(name)):
                undo.enter_context(exchanged(place, name, make))
        yield


@contextmanager
def exchanged(
    registry: MutableMapping[str, Function], name: str, make: Callable[[Function], Function]
) -> Iterator[None]:
    """Within it, `name` means `make(own)` in a registry that models look their functions up in.

    Whoever comes while another has it so uses the same; it goes with the last of them.
    """
    key = (id(registry), name)
    with _one_at_a_time:
        use = _uses.get(key)
        if use is None or registry[name] is not use.changed:
            own = registry[name]
            if any(own is other.changed for other in _uses.values()):  # taken from another file
                use = None
            else:
                use = _uses[key] = _Use(own, make(own))
                registry[name] = use.changed
        if use is not None:
            use.users += 1
    try:
        yield
    finally:
        with _one_at_a_time:
            if use is not None:
                use.users -= 1
                if not use.users:
                    _end(registry, key, use)


def _end(registry: MutableMapping[str, Function], key: tuple[int, str], use: _Use) -> None:
    if _uses.get(key) is use:
        del _uses[key]
    _, name = key
    if registry.get(name) is use.changed:  # else somebody has put something else there meanwhile
        registry[name] = use.own
        if not isinstance(registry, dict):  # one that falls back on what all of its kind have
            del registry[name]
            if registry.get(name) is not use.own:
                registry[name] = use.own


def _files(model: Model) -> Iterator[dict[str, Any]]:
    seen = set[str]()
    for block in model.anatomy.blocks:
        for kind in type(block.attention).__mro__:
            if kind.__module__ not in seen:
                seen.add(kind.__module__)
                yield vars(sys.modules[kind.__module__])
