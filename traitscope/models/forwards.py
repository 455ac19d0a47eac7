"""Forwards around a module's own, put on and taken off in any order.

Taps and cheaper ways of the same product each want a `forward` of their own on a module, and those
of two generations on one model may be open at once, the one begun first ending first.  So a
module's forward is made anew from what is left whenever one comes or goes.  This module does not
know what any of them does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.modules import module as every

__all__ = ["is_anothers", "is_hooked", "is_watched", "wrap_forward"]

_CAPTURING = "transformers.utils.output_capturing"

Forward = Callable[..., Any]
Make = Callable[[Forward], Forward]


@dataclass(eq=False)
class _Layer:
    make: Make
    instead: bool


@dataclass(eq=False)
class _Wrapped:
    before: Forward | None  # what the module itself had in place of its class's, if anything
    layers: list[_Layer] = field(default_factory=list)
    now: Forward | None = None


_wrapped: WeakKeyDictionary[nn.Module, _Wrapped] = WeakKeyDictionary()


def wrap_forward(module: nn.Module, make: Make, *, instead: bool = False) -> Callable[[], None]:
    """Let `make(forward)` be the module's forward; what is returned takes it off again.

    `instead` is for those that do the module's own work, which stay within all that watch it.
    """
    state = _wrapped.get(module)
    if state is None:
        state = _wrapped[module] = _Wrapped(vars(module).get("forward"))
    layer = _Layer(make, instead)
    within = sum(each.instead for each in state.layers)
    state.layers.insert(within if instead else len(state.layers), layer)
    _apply(module, state)

    def undo() -> None:
        state.layers.remove(layer)
        _apply(module, state)

    return undo


def is_anothers(module: nn.Module) -> bool:
    """Whether the module has a forward that is neither its class's nor of this room."""
    own = vars(module).get("forward")
    state = _wrapped.get(module)
    if state is not None:
        return state.before is not None or own is not state.now
    return own is not None


def is_hooked(module: nn.Module) -> bool:
    """Whether somebody's hook is called with the module's inputs or outputs.

    Not counted are those that transformers puts on its own models at their first call, for
    `output_hidden_states` and the like.
    """
    if every._global_forward_hooks or every._global_forward_pre_hooks:
        return True
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return any(getattr(hook, "__module__", None) != _CAPTURING for hook in hooks)


def is_watched(module: nn.Module) -> bool:
    """Whether somebody looks at the module's calls, or changes them: by a hook, or by a forward
    that does not do the module's own work."""
    if is_hooked(module) or is_anothers(module):
        return True
    state = _wrapped.get(module)
    return state is not None and not all(layer.instead for layer in state.layers)


def _apply(module: nn.Module, state: _Wrapped) -> None:
    vars(module).pop("forward", None)
    if state.before is not None:
        module.forward = state.before
    for layer in state.layers:
        module.forward = layer.make(module.forward)
    state.now = vars(module).get("forward")
    if not state.layers:
        _wrapped.pop(module, None)
