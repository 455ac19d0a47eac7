"""GELUs on a CPU, in one operation instead of eight.

Some models write the tanh approximation of the GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415)
out in elementary operations; torch has it as one.  A class is known for it by its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.engine.modeling import left_alone
from traitscope.models import Model, is_anothers, wrap_forward

__all__ = ["fused_gelus"]

_ALLOWED = 1e-6  # of an input, or of 1 where that is more; the GELU by erf is 4.7e-4 away
_FILE = "transformers.activations"
_known: dict[type[nn.Module], bool] = {}


@contextmanager
def fused_gelus(model: Model) -> Iterator[None]:
    """Within it, GELUs that are written out take one operation, in float32 and inference."""
    with ExitStack() as undo:
        for module in model.hf.modules():
            if type(module).__module__ == _FILE and not is_anothers(module) and _is_gelu(module):
                undo.callback(wrap_forward(module, _fused, instead=True))
        yield


@torch.inference_mode()
def _is_gelu(module: Any) -> bool:
    kind = type(module)
    if kind not in _known:
        x_N = torch.cat([torch.linspace(-8, 8, 257), torch.tensor([-1e3, -50.0, 50.0, 1e3])])
        try:
            apart_N = (kind.forward(module, x_N) - _gelu(x_N)).abs()
            _known[kind] = bool((apart_N <= _ALLOWED * x_N.abs().clamp_min(1)).all())
        except (RuntimeError, TypeError):  # it wants other arguments
            _known[kind] = False
    return _known[kind]


def _fused(own: Callable[..., Any]) -> Callable[..., Any]:
    def forward(x: Tensor) -> Any:
        here = x.dtype == torch.float32 and x.device.type == "cpu" and not left_alone()
        return _gelu(x) if here else own(x)

    return forward


def _gelu(x: Tensor) -> Tensor:
    return nn.functional.gelu(x, approximate="tanh")
