"""GELUs on a CPU, in one operation instead of eight.

Some models write the tanh approximation of the GELU (Hendrycks and Gimpel 2016, arXiv 1606.08415)
out in elementary operations; torch has it as one.  A class is known for it by its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.engine.gated import ending
from traitscope.engine.modeling import left_alone
from traitscope.models import Model, is_anothers, wrap_forward

__all__ = ["fused_gelus"]

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


def _is_gelu(module: Any) -> bool:
    kind = type(module)
    if kind not in _known:  # its class's forward: who watches the module need not see this
        _known[kind] = ending(partial(kind.forward, module)) == ("gelu", "tanh")
    return _known[kind]


def _fused(own: Callable[..., Any]) -> Callable[..., Any]:
    def forward(x: Tensor) -> Any:
        here = x.dtype == torch.float32 and x.device.type == "cpu" and not left_alone()
        return _gelu(x) if here else own(x)

    return forward


def _gelu(x: Tensor) -> Tensor:
    return nn.functional.gelu(x, approximate="tanh")
