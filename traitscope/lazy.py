"""A package's names, loaded when they are first used: importing it then costs next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["when_used"]


def when_used(package: str, homes: Mapping[str, tuple[str, ...]]) -> Callable[[str], object]:
    """The package's `__getattr__`; `homes` says in which of its modules each name is."""
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> object:
        if name not in home_of:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        vars(sys.modules[package])[name] = value
        return value

    return get
