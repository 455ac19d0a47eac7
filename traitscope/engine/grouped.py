"""Attention of a decode step on a CPU: one token a row, heads of a group in one product.

Where several heads share keys and values, transformers' plain ("eager") attention copies those for
each head, and gives them to torch's fused one as tokens of one text, for which that prepares more
than it computes.  Here they are the rows of one product with what they share, in place of either.
In narrow dtypes the fused one stays, but gets a query that shares its keys with none twice: there
it takes twice as long for one row as for two.

Each block's own function is held against this one at its first step and goes on where the two
differ, as it does with all that is not known here.

Legend: B rows, H heads, G groups (key-value heads), R = H / G, L = B * G, C columns, dh head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from traitscope.engine.modeling import exchanged, left_alone, replaced
from traitscope.engine.packing import ALLOWED, has_products
from traitscope.models import Model

__all__ = ["grouped_attention"]

Attended = tuple[Tensor, Tensor | None]  # [B, 1, H, dh], and the weights [B, H, 1, C]
Attend = Callable[..., Attended]

_PLAIN = "eager_attention_forward"  # what every modeling file of transformers calls it
_FUSED = "sdpa"
# of the fused one's options, what would make another attention of it
_OTHERS = frozenset({"position_bias", "cache", "softcap", "s_aux", "output_attentions"})
# numbers of the keys: below it more calls are no gain to heads with keys of their own, ...
_LEAST_ALONE = 1 << 19
_LEAST_TWICE = 1 << 15  # ... nor is a query given twice
# blocks for which the plain way, or the fused one, gave the same as here
_same: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_same_fused: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()

_multiplies = cache(has_products)


@contextmanager
def grouped_attention(model: Model) -> Iterator[None]:
    """Within it, attention of one token a row is cheaper, for `model` and its like."""
    way = model.anatomy.config._attn_implementation
    if way == "eager":
        with replaced(model, _PLAIN, _plainly):
            yield
    elif way == _FUSED:
        with exchanged(ALL_ATTENTION_FUNCTIONS, _FUSED, _fused):
            yield
    else:
        yield


def _plainly(own: Attend) -> Attend:
    """What takes the place of a file's plain attention."""
    laid = _Laid()

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        *others: Any,
        **options: Any,
    ) -> Attended:
        mask = attention_mask
        shared = key.shape[1] < query.shape[1]  # else nothing is copied
        if others or not shared or not _fits(query, key, mask) or not _same.get(module, True):
            return own(module, query, key, value, mask, *others, **options)
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        made = _grouped(laid, query, key, value, mask, scale, options.get("softcap"))
        if module in _same:
            return made
        return _tried(_same, module, made, own(module, query, key, value, mask, **options))

    return attend


def _fused(own: Attend) -> Attend:
    """What takes the place of the fused attention."""
    laid = _Laid()

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        dropout: float = 0.0,
        scaling: float | None = None,
        **options: Any,
    ) -> Attended:
        made, mask = None, attention_mask
        odd = any(options[name] is not None for name in _OTHERS & options.keys())
        if not dropout and not odd and _fits(query, key, mask) and _same_fused.get(module, True):
            made = _instead(laid, query, key, value, mask, scaling or query.shape[-1] ** -0.5)
        if made is not None and module in _same_fused:
            return made, None
        wanted = own(module, query, key, value, mask, dropout=dropout, scaling=scaling, **options)
        if made is None:
            return wanted
        return _tried(_same_fused, module, (made, None), wanted)

    return attend


def _tried(
    same: WeakKeyDictionary[nn.Module, bool], module: nn.Module, made: Attended, wanted: Attended
) -> Attended:
    """Ours, at the first step too, unless the two differ: a text knows nothing of what came
    before it."""
    apart = float((made[0] - wanted[0]).abs().max())
    same[module] = apart <= ALLOWED[wanted[0].dtype] * float(wanted[0].abs().max())
    return made if same[module] else wanted


def _fits(query: Tensor, key: Tensor, mask: Any) -> bool:
    """One token a row on a CPU, and a mask that is added, the same for all heads."""
    if query.shape[2] != 1 or query.device.type != "cpu" or query.dtype not in ALLOWED:
        return False
    if left_alone() or query.shape[1] % key.shape[1] or not isinstance(mask, Tensor):
        return False
    return mask.is_floating_point() and mask.shape[:3] == (query.shape[0], 1, 1)


def _instead(
    laid: _Laid, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float
) -> Tensor | None:
    """[B, 1, H, dh] by what costs less than the fused attention; None: nothing does."""
    alone, size = key.shape[1] == query.shape[1], key.numel()
    if query.dtype == torch.float32:
        if alone and size < _LEAST_ALONE:
            return None
        return _grouped(laid, query, key, value, mask, scale, None)[0]
    if not alone or size < _LEAST_TWICE or not _multiplies(query.dtype):
        return None
    query_BH2d, mask_B12C = (x.expand(-1, -1, 2, -1) for x in (query, mask))
    made_BH2d = nn.functional.scaled_dot_product_attention(
        query_BH2d, key, value, attn_mask=mask_B12C, scale=scale
    )
    return made_BH2d[:, :, :1].transpose(1, 2).contiguous()


def _grouped(
    laid: _Laid,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scale: float,
    cap: float | None,
) -> tuple[Tensor, Tensor]:
    """[B, 1, H, dh] in the queries' dtype, and the weights [B, H, 1, C]."""
    rows, heads, _, width = query.shape
    groups, dtype = key.shape[1], query.dtype
    if not _multiplies(dtype):
        query, key, value = query.float(), key.float(), value.float()
    # heads of a group lie side by side, as `repeat_kv` has them
    query_LRd = query.reshape(rows * groups, -1, width)
    key_LdC, value_LCd = key.flatten(0, 1).transpose(1, 2), value.flatten(0, 1)
    mask_LRC = laid.of(mask, groups, heads // groups, value.dtype)
    if cap is None:
        weight_LRC = torch.baddbmm(mask_LRC, query_LRd, key_LdC, alpha=scale)
    else:
        weight_LRC = torch.baddbmm(mask_LRC, query_LRd, key_LdC, beta=0, alpha=scale / cap)
        weight_LRC = torch.add(mask_LRC, weight_LRC.tanh_(), alpha=cap)
    weight_LRC = weight_LRC.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    out_LRd = torch.bmm(weight_LRC, value_LCd)
    made = out_LRd.view(rows, 1, heads, -1), weight_LRC.view(rows, heads, 1, -1)
    return made[0].to(dtype), made[1].to(dtype)


class _Laid:
    """Masks of a step with a row for each of a product's, made once for all blocks."""

    def __init__(self) -> None:
        self._known: list[tuple[Tensor, Tensor]] = []

    def of(self, mask: Tensor, groups: int, heads: int, dtype: torch.dtype) -> Tensor:
        """[B, 1, 1, C] to [B * groups, heads, C]."""
        for own, made in self._known:
            if own is mask and made.shape[:2] == (mask.shape[0] * groups, heads):
                return made
        made = mask.to(dtype).expand(-1, groups, heads, -1).reshape(-1, heads, mask.shape[-1])
        self._known = [*self._known[-1:], (mask, made)]  # a step has two kinds of them at most
        return made
