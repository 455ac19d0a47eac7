"""traitscope: how strongly a language model expresses a trait, at every token, at every layer.

This is the front door; its names are loaded when they are first used, so that importing it takes
no time and no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from traitscope.lazy import when_used

if TYPE_CHECKING:
    from traitscope.checkup import doctor
    from traitscope.core import Generation, GenerationConfig, Message, Prompt, Site, Window
    from traitscope.errors import InputError, TraitscopeError
    from traitscope.models import Model, load
    from traitscope.prompts import load_prompts
    from traitscope.replays import replay
    from traitscope.runner import capture, run_suite
    from traitscope.runs import Run, compare
    from traitscope.suite import Suite, init_folder, load_suite

__version__ = "0.1.0"

__all__ = [
    "Generation",
    "GenerationConfig",
    "InputError",
    "Message",
    "Model",
    "Prompt",
    "Run",
    "Site",
    "Suite",
    "TraitscopeError",
    "Window",
    "capture",
    "compare",
    "doctor",
    "init_folder",
    "load",
    "load_prompts",
    "load_suite",
    "replay",
    "run_suite",
]

_HOME = {
    "checkup": ("doctor",),
    "core": ("Generation", "GenerationConfig", "Message", "Prompt", "Site", "Window"),
    "errors": ("InputError", "TraitscopeError"),
    "models": ("Model", "load"),
    "prompts": ("load_prompts",),
    "replays": ("replay",),
    "runner": ("capture", "run_suite"),
    "runs": ("Run", "compare"),
    "suite": ("Suite", "init_folder", "load_suite"),
}

__getattr__ = when_used(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
