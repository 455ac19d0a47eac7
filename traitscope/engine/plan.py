"""What the decode loop will do, before it does it: batches, steps, and how full they are.

The rule is that of `decode.py`: longest prompts first, waiting ones join when `join` slots are
free, each text is in as many steps as it has new tokens and one more.  Lengths go in, counts come
out, exactly those that the loop's `Clock` shows; nothing is measured and torch is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Schedule", "padded", "schedule"]


@dataclass(frozen=True)
class Schedule:
    """Counts over a whole generation.

    `batches`: times that prompts joined together; `prefilled`: their tokens but the last ones;
    `steps`; `row_steps`: rows summed over steps; `columns`: rows times columns in use, summed.
    """

    batches: int = 0
    prefilled: int = 0
    steps: int = 0
    row_steps: int = 0
    columns: int = 0
    new_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All that are fed, prompts included (where no text takes over another's beginning)."""
        return self.prefilled + self.row_steps


def schedule(texts: Sequence[tuple[int, int]], rows: int, join: int = 1) -> Schedule:
    """For texts of (prompt tokens, new tokens), `rows` at once."""
    waiting = sorted(texts, key=lambda text: -text[0])
    capacity = min(rows, len(texts))
    live: list[tuple[int, int]] = []  # (position of the token to be fed, steps left)
    batches = prefilled = steps = row_steps = columns = 0
    while waiting or live:
        free = capacity - len(live)
        if waiting and (not live or free >= min(join, len(waiting), capacity)):
            joining, waiting = waiting[:free], waiting[free:]
            batches += 1
            prefilled += sum(prompt - 1 for prompt, _ in joining)
            live += [(prompt - 1, new + 1) for prompt, new in joining]
        # nothing changes until the next text ends
        stretch, n = min(left for _, left in live), len(live)
        first = max(position for position, _ in live) + 1
        steps += stretch
        row_steps += stretch * n
        columns += n * (stretch * first + stretch * (stretch - 1) // 2)
        live = [(at + stretch, left - stretch) for at, left in live if left > stretch]
    new_tokens = sum(new for _, new in texts)
    return Schedule(batches, prefilled, steps, row_steps, columns, new_tokens)


def padded(lengths: Sequence[int], batch_tokens: int) -> int:
    """The tokens of finished texts that are read in length-sorted batches, padding included."""
    order, total = sorted(lengths, reverse=True), 0
    while order:
        rows = max(1, batch_tokens // max(order[0], 1))
        total += order[0] * len(order[:rows])
        order = order[rows:]
    return total
