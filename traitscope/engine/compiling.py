"""A decode step compiled as one program, by torch's own compiler.

A model calls some thirty operations a block and most of them are small: norms, rotary embeddings,
the soft cap and the mask, the taps' copies, the sampler.  Each costs a launch on a GPU and a call
on a CPU.  The compiler sees the whole step, taps and sampler with it, and makes few of many
(Ansel et al. 2024, "PyTorch 2").  It takes a minute or so before the first step, for each of a few
shapes, and sums in another order.  This module does not know what is compiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["Compiled", "NotCompiled"]

BACKEND = "inductor"
SHAPES = 64  # programs that are kept at most: of shapes, of windows that begin to matter, of models


class NotCompiled(RuntimeError):
    """Why not, in one line."""


class Compiled:
    """`compute`, compiled for a shape when it is first called with it.

    Raises NotCompiled where that cannot be.  A shape whose program does not fit any more, and that
    cannot be compiled again, is computed as it is.
    """

    def __init__(self, compute: Callable[..., Any]) -> None:
        self._own, self._known = compute, set[tuple[int, ...]]()
        self._fast: Callable[..., Any] | None = None

    def __call__(self, *shape: int) -> Any:
        try:
            with warnings.catch_warnings(), torch._dynamo.config.patch(recompile_limit=SHAPES):
                warnings.simplefilter("ignore")  # the compiler's advice to who wrote the model
                if self._fast is None:
                    # the first shape as it is, those that come later by one program for all
                    self._fast = torch.compile(
                        self._own, backend=BACKEND, fullgraph=True, dynamic=None
                    )
                made = self._fast(*shape)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of the model's code, of the compiler's, of its own compilers
            if _recorded_now():
                raise  # whoever records must know of it
            if shape in self._known:
                return self._own(*shape)
            raise NotCompiled(f"a step could not be compiled: {_one_line(error)}") from error
        self._known.add(shape)
        return made


def _recorded_now() -> bool:
    """Whether a capture is under way, or its warm-up."""
    if not torch.cuda.is_available():
        return False
    return torch.cuda.is_current_stream_capturing() or bool(torch.cuda.get_sync_debug_mode())


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
