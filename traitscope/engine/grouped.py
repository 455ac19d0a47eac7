"""Plain attention of a decode step on a CPU, without repeating keys and values.

Where several heads share keys and values, transformers' plain ("eager") attention copies those for
each head, in every step; with some hundred columns the copies cost more than all else.  Here the
heads of a group are the rows of one product with what they share.  Only models that ask for plain
attention are concerned (Gemma-2, whose soft cap no fused kernel has); each block's own function is
held against this one at its first step and goes on where the two differ.

Legend: B rows, H heads, G groups (key-value heads), R = H / G, C columns, dh head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from traitscope.engine.modeling import left_alone, replaced
from traitscope.engine.packing import ALLOWED, has_products
from traitscope.models import Model

__all__ = ["grouped_attention"]

Attend = Callable[..., tuple[Tensor, Tensor | None]]

_NAME = "eager_attention_forward"  # what every modeling file of transformers calls it
_same: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@contextmanager
def grouped_attention(model: Model) -> Iterator[None]:
    """Within it, plain attention of one token a row goes by groups, for `model` and its like."""
    plain = model.anatomy.config._attn_implementation == "eager"
    with replaced(model, _NAME, _by_groups) if plain else nullcontext():
        yield


def _by_groups(own: Attend) -> Attend:
    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        *others: Any,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        mask = attention_mask
        if left_alone() or others or not _fits(query, key, mask) or not _same.get(module, True):
            return own(module, query, key, value, mask, *others, **options)
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        made, weight_BH1C = _grouped(query, key, value, mask, scale, options.get("softcap"))
        if module not in _same:
            wanted, _ = own(module, query, key, value, mask, **options)
            apart = float((made - wanted).abs().max())
            _same[module] = apart <= ALLOWED[query.dtype] * float(wanted.abs().max())
            if not _same[module]:
                return wanted, weight_BH1C
        return made, weight_BH1C  # at the first step too: a text does not know what came before it

    return attend


def _fits(query: Tensor, key: Tensor, mask: Any) -> bool:
    one = query.shape[2] == 1 and query.device.type == "cpu" and query.dtype in ALLOWED
    shared = key.shape[1] < query.shape[1] and query.shape[1] % key.shape[1] == 0
    added = isinstance(mask, Tensor) and mask.is_floating_point() and mask.shape[1] == 1
    return one and shared and added


def _grouped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, cap: float | None
) -> tuple[Tensor, Tensor]:
    """[B, 1, H, dh] in the queries' dtype, and the weights [B, H, 1, C]."""
    rows, heads, _, width = query.shape
    dtype = query.dtype
    if not has_products(dtype):
        query, key, value = query.float(), key.float(), value.float()
    # heads of a group lie side by side, as `repeat_kv` has them
    weight_BGRC = torch.matmul(query.view(rows, key.shape[1], -1, width), key.transpose(2, 3))
    if cap is None:
        weight_BGRC = weight_BGRC.mul_(scale)
    else:
        weight_BGRC = weight_BGRC.mul_(scale / cap).tanh_().mul_(cap)
    weight_BGRC = weight_BGRC + mask
    weight_BGRC = weight_BGRC.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    out_BGRd = torch.matmul(weight_BGRC, value)
    weight_BH1C = weight_BGRC.reshape(rows, heads, 1, -1)
    return out_BGRd.reshape(rows, 1, heads, -1).to(dtype), weight_BH1C.to(dtype)
