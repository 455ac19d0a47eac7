"""What a text costs in memory and arithmetic, and how many texts go at once.

Plain arithmetic over a model's `Shape`, which `gauge.py` reads off its tensors.  Sizes are in
bytes, work in floating-point operations (a product and a sum are two).  Measures nothing, knows
no torch, and does not know what a text says.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Literal

__all__ = ["DEFAULT_ROWS", "Shape", "Sizing", "StepTimes", "choose_rows", "part_texts"]

Limit = Literal["asked", "speed", "texts", "memory", "default"]

DEFAULT_ROWS = 24  # what is taken where nothing speaks for more
MOST_ROWS = 512
_MULTIPLE = 8
_OVERHEAD = 0.2  # the share of a step's time that may be spent on what all rows have in common
_HEADROOM = 0.8  # of the free memory; the rest is for what is not counted
_HEAD_TOKENS = 512  # whose logits exist at once in a prefill
_PREFILL_LOGITS = 4  # float32 numbers for each of them


@dataclass(frozen=True)
class Shape:
    """What the arithmetic needs of a loaded model.

    `kv_column`: keys and values of one token, all blocks together.  `token_flops`: products with
    weights for one token, of experts those that it visits, without the head's `head_flops`.
    `column_flops`: attention, for a token and one column that it looks at.  `weight_bytes`: what
    a step reads at least (one token's experts), the head included.  `widest`: the widest vector
    inside a block.  `forward_tokens`: the most that one prefill reads.

    `logits`: how many float32 numbers a step holds for each entry of the vocabulary.  `bucket`:
    slots take memory in whole buckets of so many columns.  `repeated_column`: keys and values of
    one token in one block, where attention repeats them for every head.
    """

    n_sites: int
    d_model: int
    vocabulary: int
    itemsize: int
    kv_column: int
    token_flops: int
    head_flops: int
    column_flops: int
    weight_bytes: int
    widest: int
    forward_tokens: int
    logits: int = 4  # a row's logits, its log probabilities, and what the sampler makes of them
    bucket: int = 1
    repeated_column: int = 0

    def slot_columns(self, columns: int) -> int:
        """The columns that are taken for a text of so many."""
        return ceil(columns / self.bucket) * self.bucket

    def numbers_bytes(self, n_traits: int, n_kept: int = 0) -> int:
        """What is kept of one token until its text is written: norm, scores, states."""
        return 4 * (1 + self.n_sites * (1 + n_traits) + n_kept * self.d_model)

    def row_bytes(self, columns: int, n_traits: int, n_kept: int = 0) -> int:
        """Everything that one more row needs, its text being at most `columns` long."""
        slot = self.kv_column + self.repeated_column + self.itemsize  # and the mask
        numbers = columns * self.numbers_bytes(n_traits, n_kept)
        return self.slot_columns(columns) * slot + numbers + self.logits * 4 * self.vocabulary

    def working_bytes(self) -> int:
        """The states of the largest prefill inside a block, and the logits of its pieces."""
        inside = self.forward_tokens * (3 * self.widest + 4 * self.d_model) * self.itemsize
        return inside + _PREFILL_LOGITS * 4 * _HEAD_TOKENS * self.vocabulary

    def flops(self, tokens: int, with_logits: int, columns: int) -> int:
        """Of `tokens` fed, `with_logits` of them through the head, which looked at `columns` in
        all."""
        products = tokens * self.token_flops + with_logits * self.head_flops
        return products + columns * self.column_flops


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a decode step with few rows and with many, as measured here."""

    few: int
    seconds_few: float
    many: int
    seconds_many: float

    @property
    def a_row(self) -> float:
        """What one more row costs; never below nothing, whatever noise says."""
        return max((self.seconds_many - self.seconds_few) / (self.many - self.few), 0.0)

    @property
    def shared(self) -> float:
        """What a step costs however many rows it has."""
        return max(self.seconds_few - self.few * self.a_row, 0.0)

    def seconds(self, rows: int) -> float:
        return self.shared + rows * self.a_row

    @property
    def worth(self) -> int:
        """The rows at which what they share is a fifth of a step: more gain little."""
        if self.a_row == 0:
            return MOST_ROWS
        return min(MOST_ROWS, ceil(self.shared * (1 - _OVERHEAD) / (_OVERHEAD * self.a_row)))


@dataclass(frozen=True)
class Sizing:
    """Rows of a batch and what decided: "asked", "speed", "texts", "memory", or "default"."""

    rows: int
    limit: Limit
    times: StepTimes | None = None

    def to_dict(self) -> dict[str, Any]:
        """What a run records of it beside the rows."""
        steps = None if self.times is None else asdict(self.times)
        return {"limit": self.limit, **({} if steps is None else {"steps": steps})}


def part_texts(rows: int, texts: int) -> int:
    """How many texts are committed together, of so many that a call makes.

    A kill loses no more than these; a run of more than some hundred parts is slow to read.
    """
    return max(1, rows // 4, texts // 200)


def choose_rows(
    texts: int,
    row_bytes: int,
    working_bytes: int,
    free: int | None,
    times: StepTimes | None,
) -> Sizing:
    """How many texts go at once: as many as pay, while there are texts and memory for them.

    `free` bytes, None where it is not known; `times`, None where nothing was measured.  Never
    fewer than `DEFAULT_ROWS` but for memory: prompts that are added later find room.
    """
    rows = DEFAULT_ROWS
    limit: Limit = "default"
    if times is not None and texts > DEFAULT_ROWS:
        worth = -(-times.worth // _MULTIPLE) * _MULTIPLE
        if worth > DEFAULT_ROWS:
            rows, limit = min(worth, texts), "speed" if worth <= texts else "texts"
    if free is not None:
        room = max(1, int((_HEADROOM * free - working_bytes) // row_bytes))
        if room < rows:
            rows, limit = room, "memory"
    return Sizing(rows, limit, times)
