"""Attention of few tokens, heads of a group in one product.

Where several heads share keys and values, transformers' plain ("eager") attention copies those for
each head.  torch's fused one gets the heads of a group as tokens of one text, and for few tokens
prepares more than it computes.  Here they are the rows of one product with what they share, in
place of the plain way, and of the fused one for a decode step's tokens and for short texts.  In
narrow dtypes the fused one stays.  Where the processor has no AMX it gets a step's query that
shares its keys with none twice: there two rows take half as long as one, with AMX up to five times.
Off the CPU it is the plain way's decode steps that gain: fewer launches, and no copies.

Each block's own function is held against this one when it is first called and goes on where the
two differ, as it does with all that is not known here.  The plain way is held against it in
float32, and stays where the block has parameters of its own: a sink may be small at first, and
great in another text.

Legend: B rows, H heads, G groups (key-value heads), R = H / G, T tokens, C columns, L = B * G,
N = R * T, dh head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from traitscope.engine.modeling import exchanged, left_alone, replaced
from traitscope.engine.packing import ALLOWED, has_products, has_tiles
from traitscope.engine.ragged import by_parts
from traitscope.models import Model

__all__ = ["grouped_attention"]

Attended = tuple[Tensor, Tensor | None]  # [B, T, H, dh], and the weights [B, H, T, C]
Attend = Callable[..., Attended]

_PLAIN = "eager_attention_forward"  # what every modeling file of transformers calls it
_FUSED = "sdpa"
# of the fused one's options, what would make another attention of it
_OTHERS = frozenset({"position_bias", "cache", "softcap", "s_aux", "output_attentions"})
# numbers of the keys: below it more calls are no gain to heads with keys of their own, ...
_LEAST_ALONE = 1 << 19
_LEAST_TWICE = 1 << 15  # ... nor is a query given twice
_MOST_COLUMNS = 128  # of several tokens: above it the fused one is about as fast, and needs no
_MOST_WEIGHTS = 1 << 21  # memory for every weight: no more of them than fit into a cache
# blocks for which the plain way, or the fused one, gave the same as here
_same: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_same_fused: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()

_multiplies, _has_tiles = cache(has_products), cache(has_tiles)


@contextmanager
def grouped_attention(model: Model) -> Iterator[None]:
    """Within it, attention of few tokens is cheaper, for `model` and its like."""
    way = model.anatomy.config._attn_implementation
    if way == "eager":
        with replaced(model, _PLAIN, lambda own: by_parts(_plainly(own))):
            yield
    elif way == _FUSED:
        with exchanged(ALL_ATTENTION_FUNCTIONS, _FUSED, lambda own: by_parts(_fused(own))):
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
        mask, same = attention_mask, _same.get(module)
        shared = key.shape[1] < query.shape[1]  # else nothing is copied
        if same is False or others or not shared or not _fits(mask, query, key):
            return own(module, query, key, value, mask, *others, **options)
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        softcap = options.get("softcap")
        if same is None:
            q, k, v, m = (x.float() for x in (query, key, value, mask))
            made = _grouped(_Laid(), q, k, v, m, scale, softcap)
            near = not module._parameters and _near(made, own(module, q, k, v, m, **options))
            same = _same[module] = near
        if same:
            return _grouped(laid, query, key, value, mask, scale, softcap)
        return own(module, query, key, value, mask, **options)

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
        made, mask, same = None, attention_mask, _same_fused.get(module)
        odd = dropout or any(options[name] is not None for name in _OTHERS & options.keys())
        if torch.compiler.is_compiling():
            if not odd and _hands_over(mask, query, key):
                return _by_groups(query, key, value, mask, scaling), None
        elif same is not False and not odd and query.device.type == "cpu":
            hides = options.get("is_causal")
            hides = getattr(module, "is_causal", True) if hides is None else hides
            seen = laid.seen(query, key) if mask is None and hides else mask
            if _fits(seen, query, key):
                made = _instead(laid, query, key, value, seen, scaling or query.shape[-1] ** -0.5)
        if made is not None and same:
            return made, None
        wanted = own(module, query, key, value, mask, dropout=dropout, scaling=scaling, **options)
        if made is None:
            return wanted
        # ours, at the first step too: a text knows nothing of what came before it
        _same_fused[module] = _near((made, None), wanted)
        return (made, None) if _same_fused[module] else wanted

    return attend


def _hands_over(mask: Any, query: Tensor, key: Tensor) -> TypeGuard[Tensor]:
    """Whether it is one token of several heads to a group, with one mask for all of them."""
    shared = key.shape[1] < query.shape[1] and query.shape[2] == 1
    return shared and isinstance(mask, Tensor) and mask.shape[1] == 1


def _by_groups(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float | None
) -> Tensor:
    """[B, 1, H, dh] by the fused attention, to which heads of a group are tokens of one text.

    So transformers has it too, but to a compiler it hands keys and values copied for every head.
    """
    rows, heads, _, width = query.shape
    shared = heads // key.shape[1]
    made_BGRd = nn.functional.scaled_dot_product_attention(
        query.reshape(rows, -1, shared, width),
        key,
        value,
        attn_mask=mask.expand(-1, -1, shared, -1),
        scale=scale,
    )
    return made_BGRd.reshape(rows, 1, heads, -1)


def _near(made: Attended, wanted: Attended) -> bool:
    apart = float((made[0] - wanted[0]).abs().max())
    return apart <= ALLOWED[wanted[0].dtype] * float(wanted[0].abs().max())


def _fits(mask: Any, query: Tensor, key: Tensor) -> TypeGuard[Tensor]:
    """Whether the mask is one that is added, the same for all heads; elsewhere than on a CPU also
    whether it is a decode step's."""
    if query.dtype not in ALLOWED or left_alone():
        return False
    if query.device.type != "cpu" and (query.shape[2] > 1 or query.device.type == "mps"):
        return False
    if query.shape[1] % key.shape[1] or not isinstance(mask, Tensor):
        return False
    alike = mask.shape[1:] == (1, query.shape[2], key.shape[2])
    return alike and mask.is_floating_point() and mask.shape[0] in (1, query.shape[0])


def _instead(
    laid: _Laid, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float
) -> Tensor | None:
    """[B, T, H, dh] by what costs less than the fused attention; None: nothing does."""
    alone, one = key.shape[1] == query.shape[1], query.shape[2] == 1
    if query.dtype == torch.float32:
        if one and alone and key.numel() < _LEAST_ALONE:
            return None
        if not one and (key.shape[2] > _MOST_COLUMNS or _n_weights(query, key) > _MOST_WEIGHTS):
            return None
        return _grouped(laid, query, key, value, mask, scale, None)[0]
    if not one or not alone or key.numel() < _LEAST_TWICE:
        return None
    if not _multiplies(query.dtype) or _has_tiles():
        return None
    query_BH2d, mask_B12C = (x.expand(-1, -1, 2, -1) for x in (query, mask))
    made_BH2d = nn.functional.scaled_dot_product_attention(
        query_BH2d, key, value, attn_mask=mask_B12C, scale=scale
    )
    return made_BH2d[:, :, :1].transpose(1, 2).contiguous()


def _n_weights(query: Tensor, key: Tensor) -> int:
    return query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]


def _grouped(
    laid: _Laid,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scale: float,
    cap: float | None,
) -> tuple[Tensor, Tensor]:
    """[B, T, H, dh] in the queries' dtype, and the weights [B, H, T, C]."""
    rows, heads, tokens, width = query.shape
    groups, dtype = key.shape[1], query.dtype
    if query.device.type == "cpu" and not _multiplies(dtype):
        query, key, value = query.float(), key.float(), value.float()
    # heads of a group lie side by side, as `repeat_kv` has them
    query_LNd = query.reshape(rows * groups, -1, width)
    key_LCd, value_LCd = key.flatten(0, 1), value.flatten(0, 1)
    # a product in a narrow dtype lays its second factor out anew: the smaller one
    keys_first = _is_narrow_here(query) and query_LNd.shape[1] < key_LCd.shape[1]
    if cap is None and not keys_first and _n_weights(query, key) <= _MOST_WEIGHTS:
        mask_LNC = laid.of(mask, rows, groups, heads // groups, value.dtype)
        weight_LNC = torch.baddbmm(mask_LNC, query_LNd, key_LCd.mT, alpha=scale)
    else:
        if keys_first:
            weight_LNC = torch.bmm(key_LCd, query_LNd.mT).mT.contiguous()
        else:
            weight_LNC = torch.bmm(query_LNd, key_LCd.mT)
        if cap is not None:
            weight_LNC.mul_(scale / cap).tanh_()
        weight_BHTC = weight_LNC.view(rows, heads, tokens, -1)
        mask = mask.to(value.dtype)
        torch.add(mask, weight_BHTC, alpha=scale if cap is None else cap, out=weight_BHTC)
    weight_LNC = weight_LNC.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    out_LNd = torch.bmm(weight_LNC, value_LCd)
    made = out_LNd.view(rows, heads, tokens, -1).transpose(1, 2).contiguous()
    return made.to(dtype), weight_LNC.view(rows, heads, tokens, -1).to(dtype)


def _is_narrow_here(x: Tensor) -> bool:
    return x.dtype != torch.float32 and x.device.type == "cpu"


class _Laid:
    """Masks of a forward with a row for each of a product's, made once for all blocks."""

    def __init__(self) -> None:
        self._known: list[tuple[Tensor, Tensor]] = []
        self._seen = torch.empty(0)

    def of(self, mask: Tensor, rows: int, groups: int, heads: int, dtype: torch.dtype) -> Tensor:
        """[B or 1, 1, T, C] to [L, N, C]."""
        size = (rows * groups, heads * mask.shape[2])
        for own, made in self._known:
            if own is mask and made.shape[:2] == size:
                return made
        whole = mask.to(dtype)[:, :, None].expand(rows, groups, heads, -1, -1)
        made = whole.reshape(*size, mask.shape[-1])
        # a forward has two kinds at most, of a step's tokens, in parts, and of prompts'
        self._known = [*self._known[-7:], (mask, made)]
        return made

    def seen(self, query: Tensor, key: Tensor) -> Tensor | None:
        """A mask [1, 1, T, T] that hides what comes later; None where it is not worth it."""
        tokens = query.shape[2]
        if tokens == 1 or not tokens == key.shape[2] <= _MOST_COLUMNS:
            return None
        if self._seen.shape[-1] != tokens:
            least = torch.finfo(torch.float32).min
            full = torch.full((1, 1, tokens, tokens), least, dtype=torch.float32)
            self._seen = full.triu_(1)
        return self._seen
