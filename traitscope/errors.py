"""The exception tree.

Every mistake that a user can make ends in one of these, with a message of three parts: what was
expected, what came, what to do.  The command line turns them into one line and an exit status;
it knows nothing else about them.

    TraitscopeError
    ├── InputError             what the user gave is wrong          exit 2
    │   ├── SuiteError         a suite file: key, value, allowed values
    │   ├── PromptError        a prompts file or a prompt
    │   ├── TraitError         a trait, its pairs or its directions
    │   ├── ModelError         a model: not found, not supported, not exact
    │   └── RunError           a run folder: another suite's, damaged, unreadable
    ├── CaptureFailed          some captures failed, the rest are there   exit 1
    ├── Interrupted            Ctrl-C; the same command goes on      exit 3
    └── MachineError           disk full, out of memory, no such device   exit 4
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

__all__ = [
    "CaptureFailed",
    "InputError",
    "Interrupted",
    "MachineError",
    "ModelError",
    "PromptError",
    "RunError",
    "SuiteError",
    "TraitError",
    "TraitscopeError",
    "did_you_mean",
    "memory_errors",
]


class TraitscopeError(Exception):
    """Root of all errors that are meant to be read by a person."""

    exit_status = 4


class InputError(TraitscopeError):
    """What the user gave is wrong; nothing was written."""

    exit_status = 2


class SuiteError(InputError):
    """A suite file names an unknown key, or a value that is not allowed."""


class PromptError(InputError):
    """A prompts file cannot be read, or holds no prompt."""


class TraitError(InputError):
    """A trait is unknown, its data are wrong, or its directions belong to another model."""


class ModelError(InputError):
    """A model cannot be found, is not supported, or does not prove exact at load."""


class RunError(InputError):
    """A run folder is damaged, unreadable, or belongs to another suite."""


class CaptureFailed(TraitscopeError):
    """Some captures failed; the others are committed and whole."""

    exit_status = 1


class Interrupted(TraitscopeError):
    """The user pressed Ctrl-C; what was committed is whole, the same command goes on."""

    exit_status = 3


class MachineError(TraitscopeError):
    """The machine failed: disk full, out of memory, device gone."""

    exit_status = 4


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest of `known`, or an empty string."""
    near = get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Within it, a device without memory left raises torch.OutOfMemoryError, whatever it is.

    CUDA's allocator does so by itself; MPS and CUDA's own calls raise a RuntimeError instead.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if "out of memory" in str(error):
            raise torch.OutOfMemoryError(str(error)) from error
        raise
