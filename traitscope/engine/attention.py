"""Where a text's tokens look, in every block: one forward over the finished text.

Attention is computed the plain ("eager") way for that forward and averaged over heads inside it,
so that one block's weights per head are in memory at a time.  This module does not know files.

Legend: T tokens, L blocks, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from traitscope.engine.internals import eager
from traitscope.errors import ModelError, memory_errors
from traitscope.models import Model

__all__ = ["mean_attention"]


def mean_attention(model: Model, token_ids: Sequence[int]) -> list[Tensor]:
    """For each block [T, T] float32 on the CPU: row t is where token t looks, the mean over heads.

    Raises ModelError where the architecture does not return its attention weights.
    """
    seen: list[Tensor] = []

    def hook(module: nn.Module, _: object, out: Any) -> None:
        if not isinstance(out, tuple) or len(out) < 2 or out[1] is None:
            raise ModelError(
                f"Expected '{type(module).__name__}' to return its attention weights, but it does "
                "not. Export without them: --no-attention."
            )
        seen.append(out[1][0].float().mean(dim=0).cpu())

    id_1T = torch.tensor([list(token_ids)], device=model.device)
    plain = eager(model.anatomy.config)
    with memory_errors(), ExitStack() as hooks, torch.inference_mode(), plain:
        for block in model.anatomy.blocks:
            hooks.callback(block.attention.register_forward_hook(hook).remove)
        model.anatomy.stack(input_ids=id_1T, use_cache=False)
    return seen
