"""One forward of rows with unlike numbers of tokens: prompts that are read beside a decode step.

A forward reads all weights, however few its tokens, and a prefill of its own stops the rows that
are decoding.  Outside attention a model works token by token, so here all tokens lie in one row,
[1, N], without padding: first a step's, then those of some prompts.  Each is written to its own
slot, and attention gets the step's tokens and the prompts', padded, one after the other.  A step's
tokens may go there in several parts, each with the columns that the longest of its rows needs.
A model that calls its attention otherwise, or looks at rows elsewhere, cannot be read so, which
`takes_ragged` tries out; nor is one whose modules have hooks of others, who know [rows, tokens].

Legend: B rows of a step, P prompts, T tokens of the longest, M tokens of all of them, N = B + M,
H heads, G key-value heads, C columns, dh head width, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from traitscope.engine.packing import ALLOWED
from traitscope.engine.slots import Slots, forward
from traitscope.models import UNREADABLE, Model, is_anothers, is_hooked

__all__ = ["Part", "Prompts", "by_parts", "in_parts", "ragged", "takes_ragged"]

Attend = Callable[..., tuple[Tensor, Tensor | None]]
Part = tuple[int, int]  # rows of a step up to this one, from the part before on, and their columns

_takes: WeakKeyDictionary[nn.Module, dict[str, bool]] = WeakKeyDictionary()


class Prompts:
    """Tokens of rows `first`, `first` + 1, ...: `lengths[i]` of them, from column `offset` on."""

    def __init__(self, first: int, offset: int, lengths: Sequence[int]) -> None:
        self.first, self.offset, self.lengths = first, offset, list(lengths)
        length_P1 = torch.tensor(self.lengths)[:, None]
        at_T = torch.arange(max(self.lengths))
        row_P1 = torch.arange(first, first + len(self.lengths))[:, None]
        real_PT = at_T < length_P1
        self.row_M = row_P1.expand_as(real_PT)[real_PT]
        self.position_M = offset + at_T.expand_as(real_PT)[real_PT]
        self.place_M = real_PT.flatten().nonzero()[:, 0]  # in [P * T], with padding
        # in [M]: padding is the last token of its prompt once more (of the one before, if it has
        # none: the first one has some)
        self.padded_PT = length_P1.cumsum(0) - length_P1 + at_T.clamp(max=length_P1 - 1)


class _Forward:
    """What attention has to know of the forward that is under way: a step of rows in parts, and
    prompts that are read beside it."""

    def __init__(self, parts: Sequence[Part], prompts: Prompts | None = None) -> None:
        starts = [0, *(end for end, _ in parts)]
        self._parts = [
            (slice(start, end), slice(columns))
            for start, (end, columns) in zip(starts, parts, strict=False)
        ]
        self.prompts, self.calls = prompts, 0
        if prompts is not None:
            first, end = prompts.first, prompts.offset + prompts.padded_PT.shape[1]
            self._rows, self._columns = slice(first, first + len(prompts.lengths)), slice(end)
            self._place_N = starts[-1] + prompts.padded_PT.flatten()
        self._masks: list[tuple[Tensor, list[Tensor], Tensor]] = []

    def attend(
        self,
        attend: Attend,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        *others: Any,
        **options: Any,
    ) -> Tensor:
        """[1, N, H, dh] from queries [1, H, N, dh], and all keys and values [rows, G, C, dh]; of a
        step alone [B, 1, H, dh] from [B, H, 1, dh]."""
        self.calls += 1
        prompts = self.prompts
        if prompts is not None:
            query = query[0].transpose(0, 1)[:, :, None]
        step_masks, prompt_mask = self._apart(mask)
        made = list[Tensor]()
        for (rows, columns), here in zip(self._parts, step_masks, strict=True):
            k, v = key[rows, :, columns], value[rows, :, columns]
            made.append(attend(module, query[rows], k, v, here, *others, **options)[0])
        if prompts is not None:
            q_XHd = query[:, :, 0].index_select(0, self._place_N)
            q_PHTd = q_XHd.view(*prompts.padded_PT.shape, *q_XHd.shape[1:]).transpose(1, 2)
            k, v = key[self._rows, :, self._columns], value[self._rows, :, self._columns]
            out, _ = attend(module, q_PHTd, k, v, prompt_mask, *others, **options)
            made.append(out.flatten(0, 1).index_select(0, prompts.place_M)[:, None])
        made_N1Hd = torch.cat(made)
        return made_N1Hd if prompts is None else made_N1Hd.transpose(0, 1)

    def _apart(self, mask: Tensor) -> tuple[list[Tensor], Tensor]:
        """[1, 1, N, C] to one for each part of the step and [P, 1, T, C]; of a step alone
        [B, 1, 1, C] to its parts.  Once for all blocks of a kind."""
        for whole, step_masks, prompt_mask in self._masks:
            if whole is mask:
                return step_masks, prompt_mask
        mask_B11C, prompt_mask = mask, mask
        if self.prompts is not None:
            of_prompts = mask[0, 0, :, self._columns].index_select(0, self._place_N)
            prompt_mask = of_prompts.view(*self.prompts.padded_PT.shape, -1)[:, None]
            mask_B11C = mask[0, 0, :, None, None]
        step_masks = [mask_B11C[rows, :, :, columns] for rows, columns in self._parts]
        self._masks.append((mask, step_masks, prompt_mask))
        return step_masks, prompt_mask


_now: ContextVar[_Forward | None] = ContextVar("_now", default=None)


def by_parts(attend: Attend) -> Attend:
    """An attention function that takes ragged forwards too."""

    @wraps(attend)
    def either(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        *others: Any,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        now = None if torch.compiler.is_compiling() else _now.get()
        if now is None:
            return attend(module, query, key, value, attention_mask, *others, **options)
        here = now.attend(attend, module, query, key, value, attention_mask, *others, **options)
        return here, None

    return either


@contextmanager
def in_parts(parts: Sequence[Part]) -> Iterator[None]:
    """Within it, the rows of a step go to attention in these parts, of a model that
    `takes_ragged`."""
    token = _now.set(_Forward(parts) if len(parts) > 1 else None)
    try:
        yield
    finally:
        _now.reset(token)


def ragged(
    model: Model,
    slots: Slots,
    steps: tuple[Tensor, Tensor],
    prompts: Prompts,
    id_M: Tensor,
    parts: Sequence[Part],
) -> Tensor:
    """Final-normed states [N, D] of a step's tokens (ids and positions [B] of rows 0..B-1) and of
    those of prompts."""
    return _forward(model, slots, steps, prompts, id_M, parts)[0]


def _forward(
    model: Model,
    slots: Slots,
    steps: tuple[Tensor, Tensor],
    prompts: Prompts,
    id_M: Tensor,
    parts: Sequence[Part],
) -> tuple[Tensor, int]:
    """The states, and how often attention was called."""
    n = len(steps[0])
    id_N, position_N = torch.cat((steps[0], id_M)), torch.cat((steps[1], prompts.position_M))
    row_N = torch.cat((torch.arange(n), prompts.row_M))
    rows, columns = max(n, prompts.first + len(prompts.lengths)), int(position_N.max()) + 1
    slots.ragged(row_N, position_N, rows, columns)
    now = _Forward(parts, prompts)
    token = _now.set(now)
    try:
        return forward(model, slots, id_N[None], position_N[None], columns)[0], now.calls
    finally:
        _now.reset(token)


def takes_ragged(model: Model) -> bool:
    """Whether the model gives the same numbers when it is read so: tried once, with two forwards
    of three short texts.  Its modules, but the whole of it, have nobody's hooks or forwards."""
    blocks_and_all = (m for m in model.anatomy.stack.modules() if m is not model.anatomy.stack)
    if any(is_hooked(m) or is_anothers(m) for m in blocks_and_all):
        return False
    known = _takes.setdefault(model.hf, {})
    way = str(model.anatomy.config._attn_implementation)
    if way not in known:
        known[way] = _holds(model)
    return known[way]


@torch.inference_mode()
def _holds(model: Model) -> bool:
    """One text goes on after 7 tokens, two are read but for their last ones, which are a step's."""
    last_B, rows = torch.tensor([7, 5, 3]), 3
    if model.context <= last_B.max():
        return False
    drawn = torch.Generator().manual_seed(0)
    id_BT = torch.randint(model.vocabulary, (rows, 8), generator=drawn)
    slots = Slots(len(model.anatomy.blocks), rows, 8, model.device)
    slots.prefill(0, rows, 0, 8)
    wanted_BTD = forward(model, slots, id_BT, torch.arange(8).expand(rows, -1), 8)
    for layer in slots.layers:  # what is to be written again, so that it is seen if it is not
        layer.keys[1:].zero_()
        layer.values[1:].zero_()
    prompts = Prompts(1, 0, last_B[1:].tolist())
    steps, id_M = (
        (id_BT[torch.arange(rows), last_B], last_B),
        id_BT[prompts.row_M, prompts.position_M],
    )
    try:
        made_ND, calls = _forward(model, slots, steps, prompts, id_M, [(1, 8), (rows, 6)])
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE:
        return False
    row_N = torch.cat((torch.arange(rows), prompts.row_M))
    wanted_ND = wanted_BTD[row_N, torch.cat((last_B, prompts.position_M))]
    apart = float((made_ND - wanted_ND).abs().max())
    near = apart <= ALLOWED.get(model.dtype, 0.0) * float(wanted_ND.abs().max())
    return near and calls == len(model.anatomy.blocks)
