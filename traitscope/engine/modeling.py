"""Functions of transformers' modeling files, replaced for a while.

Blocks call plain attention and the rotary embedding as functions of the file that they are written
in, not as modules, and so it is the file's name that has to mean another function.  All models of
one file then use it.  This module does not know what the functions do.

Whoever has a cheaper way of what a model does asks `left_alone` first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch

from traitscope.models import Model

__all__ = ["exchanged", "left_alone", "replaced"]

Function = Callable[..., Any]

_in_use = set[Function]()


def left_alone() -> bool:
    """Whether a forward is made as the model's own code has it: where gradients are wanted, and
    where it is compiled, which does all that the cheaper ways do."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


@contextmanager
def replaced(model: Model, name: str, make: Callable[[Function], Function]) -> Iterator[None]:
    """Within it, `name` means `make(own)` in every file that has it and that the model's attention
    is written in."""
    changed = []
    for place in _files(model):
        own = place.get(name)
        if callable(own) and own not in _in_use:  # else somebody further out has done it
            place[name] = make(own)
            _in_use.add(place[name])
            changed.append((place, own))
    try:
        yield
    finally:
        for place, own in changed:
            _in_use.discard(place[name])
            place[name] = own


@contextmanager
def exchanged(
    registry: MutableMapping[str, Function], name: str, make: Callable[[Function], Function]
) -> Iterator[None]:
    """Within it, `name` means `make(own)` in a registry that models look their functions up in."""
    own = registry[name]
    if own in _in_use:
        yield
        return
    registry[name] = changed = make(own)
    _in_use.add(changed)
    try:
        yield
    finally:
        _in_use.discard(changed)
        if registry.get(name) is changed:  # else somebody has put something else there meanwhile
            registry[name] = own
            if not isinstance(registry, dict):  # one that falls back on what all of its kind have
                del registry[name]
                if registry.get(name) is not own:
                    registry[name] = own


def _files(model: Model) -> Iterator[dict[str, Any]]:
    seen = set[str]()
    for block in model.anatomy.blocks:
        for kind in type(block.attention).__mro__:
            if kind.__module__ not in seen:
                seen.add(kind.__module__)
                yield vars(sys.modules[kind.__module__])
