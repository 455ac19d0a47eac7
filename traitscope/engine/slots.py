"""The KV cache: one slot per row, column = position, no padding.

`Slots` is a transformers `Cache` with one `SlotLayer` per block.  A forward is announced before
it is made, by `prefill(row, rows, offset)`, `decode(positions)` or `ragged(rows, positions)`; the
layers then write where that says and give back the columns in use.  Rows 0..n-1 are live; a row
that ends is overwritten by the last one (`move`).  What stands in unused columns is finite and
masked away.
This module does not know tokens, texts or when a row ends.

Legend: B rows, T tokens of this forward, N tokens of rows that have unlike numbers of them,
H key-value heads, C columns, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from traitscope.models import Model

__all__ = ["Slots", "forward", "masks"]

_MOST_HEADS = 1024  # key-value heads of one block


@dataclass
class _Forward:
    """Where the forward that is under way reads and writes."""

    first: int = 0  # first row
    rows: int = 0
    offset: int = 0  # prefill: the column of the first token
    position_N: Tensor | None = None  # the column of each token, where it is not `offset` for all
    columns: int = 0  # columns in use after it
    row_N: Tensor | None = None  # the row of each token, where there is not one of each row
    places: dict[tuple[int, torch.device], Tensor] = field(default_factory=dict)


class _Announced:
    """What the slots know and their layers go by.  It knows neither: a cache that nobody holds
    is gone at once, and not when cycles are looked for."""

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        self.rows, self.columns = rows, columns
        self.row_index = torch.arange(rows, device=device)
        self.head_index = torch.arange(_MOST_HEADS, device=device)
        self.now = _Forward()

    def places(self, heads: int, device: torch.device) -> Tensor:
        """Where each token is written, for a store seen as [rows * heads * columns, dh]:
        [N * heads].

        One flat index for all blocks of a kind: several times as fast as indexing row and column.
        """
        now = self.now
        assert now.position_N is not None
        if (heads, device) not in now.places:
            row_N = self.row_index[: now.rows] if now.row_N is None else now.row_N
            lane_NH = row_N[:, None] * heads + self.head_index[:heads]
            place_NH = lane_NH * self.columns + now.position_N[:, None]
            now.places[heads, device] = place_NH.flatten().to(device)
        return now.places[heads, device]


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is not followed
    """Keys and values [rows, H, C, dh] of one block; allocated when first written."""

    is_sliding = False

    def __init__(self, announced: _Announced) -> None:
        super().__init__()
        self._announced = announced
        self.keys: Tensor
        self.values: Tensor

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        def room(like: Tensor) -> Tensor:
            # zeros: a masked column must still be finite, 0 * NaN is NaN
            shape = (self._announced.rows, like.shape[1], self._announced.columns, like.shape[3])
            return torch.zeros(shape, dtype=like.dtype, device=like.device)

        self.keys, self.values = room(key_states), room(value_states)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        now = self._announced.now
        used = slice(now.first, now.first + now.rows)
        for store, new in ((self.keys, key_states), (self.values, value_states)):
            if now.position_N is None:
                store[used, :, now.offset : now.offset + new.shape[2]] = new
            else:
                width = new.shape[3]
                place = self._announced.places(new.shape[1], new.device)
                # a step has one token of each row, other tokens lie all in one row
                new = new if now.row_N is None else new.transpose(1, 2)
                store.view(-1, width).index_copy_(0, place, new.reshape(-1, width))
        return self.keys[used, :, : now.columns], self.values[used, :, : now.columns]

    def copy(self, source: int | Tensor, target: int | slice, columns: int) -> None:
        if isinstance(source, Tensor):
            source = source.to(self.keys.device)
        for store in (self.keys, self.values):
            store[target, :, :columns] = store[source, :, :columns]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._announced.now.columns, 0

    def get_seq_length(self) -> int:
        return self._announced.now.offset

    def get_max_length(self) -> int:
        return self._announced.columns


class Slots(Cache):  # type: ignore[misc]  # transformers is not followed
    """`rows` slots of `columns` positions for a model of `n_blocks` blocks."""

    def __init__(self, n_blocks: int, rows: int, columns: int, device: torch.device) -> None:
        self._announced = _Announced(rows, columns, device)
        super().__init__(layers=[SlotLayer(self._announced) for _ in range(n_blocks)])
        self.rows, self.columns = rows, columns

    @property
    def column_bytes(self) -> int:
        """What one column of one row takes in a block, in the mean; 0 before a forward."""
        stores: list[Tensor] = [
            s for x in self.layers if x.is_initialized for s in (x.keys, x.values)
        ]
        return sum(s.shape[1] * s.shape[3] * s.itemsize for s in stores) // len(self.layers)

    def prefill(self, first: int, rows: int, offset: int, tokens: int) -> None:
        """The next forward writes `tokens` columns from `offset` of rows first..first+rows-1."""
        self._announced.now = _Forward(first, rows, offset, None, offset + tokens)

    def decode(self, position_B: Tensor, columns: int) -> None:
        """The next forward writes one column per row, at `position_B` [n]; rows 0..n-1."""
        self._announced.now = _Forward(0, position_B.shape[0], 0, position_B, columns)

    def ragged(self, row_N: Tensor, position_N: Tensor, rows: int, columns: int) -> None:
        """The next forward writes tokens that all lie in one row, each at its own row and column;
        attention is given rows 0..rows-1."""
        self._announced.now = _Forward(0, rows, 0, position_N, columns, row_N)

    @torch.inference_mode()
    def move(self, source: int, target: int, columns: int) -> None:
        """Row `source` takes the place of row `target`."""
        for layer in self.layers:
            layer.copy(source, target, columns)

    @torch.inference_mode()
    def share(self, sources: list[int], first: int, columns: int) -> None:
        """Rows from `first` on begin as others do: each has the first `columns` tokens of its
        source, which is none of them."""
        alike = len(set(sources)) == 1  # a copy that is not gathered first
        source = sources[0] if alike else torch.tensor(sources)
        for layer in self.layers:
            layer.copy(source, slice(first, first + len(sources)), columns)


def forward(model: Model, slots: Slots, id_BT: Tensor, position_BT: Tensor, columns: int) -> Tensor:
    """Final-normed states [B, T, D] of a forward that was announced."""
    out = model.anatomy.stack(
        input_ids=id_BT,
        attention_mask=masks(model.anatomy.config, position_BT, columns, model.dtype),
        position_ids=position_BT,
        past_key_values=slots,
        use_cache=True,
    )
    # a model may span several devices, ids and numbers stay on one
    return out[0].to(id_BT.device)  # type: ignore[no-any-return]  # untyped outputs


def masks(config: Any, position_BT: Tensor, columns: int, dtype: torch.dtype) -> Any:
    """The additive float mask [B, 1, T, C]: 0 where a token may look, the dtype's least elsewhere.

    A token at position p sees columns up to p; in sliding layers only those above p - window, in
    chunked layers only those of its own chunk.
    A dict by layer type where the config has `layer_types`, one tensor otherwise: a bool mask
    would silently be added by eager attention, one tensor would also hit hybrid models' layers.
    """
    column_C = torch.arange(columns, device=position_BT.device)
    ahead_BTC = column_C > position_BT[..., None]
    window = int(getattr(config, "sliding_window", None) or 0)  # 0: none
    chunk = int(getattr(config, "attention_chunk_size", None) or 0)

    def additive(hidden_BTC: Tensor) -> Tensor:
        zero = torch.zeros((), dtype=dtype, device=hidden_BTC.device)
        return zero.masked_fill(hidden_BTC, torch.finfo(dtype).min)[:, None]

    def hidden(kind: str) -> Tensor:
        if kind == "sliding_attention":
            return ahead_BTC | (column_C <= position_BT[..., None] - window)
        if kind == "chunked_attention":
            return ahead_BTC | (column_C // chunk != position_BT[..., None] // chunk)
        return ahead_BTC

    def mask(kind: str) -> Tensor:
        span = {"sliding_attention": window, "chunked_attention": chunk}.get(kind, 0)
        if columns <= span:  # nothing is out of sight yet: the same for every kind
            kind = "full_attention"
        if kind not in made:
            made[kind] = additive(hidden(kind))
        return made[kind]

    made: dict[str, Tensor] = {}
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds:
        return mask("sliding_attention" if window else "full_attention")
    return {kind: mask(kind) for kind in kinds}
