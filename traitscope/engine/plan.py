"""What the decode loop will do, before it does it: batches, steps, and how full they are.

The rule is that of `decode.py`: longest prompts first, waiting ones join when `join` slots are
free, each text is in as many steps as it has new tokens and one more.  Lengths and prompts go in,
counts come out, exactly those that the loop's `Clock` shows; nothing is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from traitscope.engine.joining import arranged

__all__ = ["COLUMNS", "FEWEST", "Schedule", "bucket", "padded", "schedule"]

COLUMNS = 128  # slots have whole buckets of so many; bucketed steps look at whole ones
# rows of a step that is made ready first: fewer would take about as long (it is weights that are
# read), and making a shape ready costs dozens of steps
FEWEST = 32


def bucket(n: int, columns: int, rows: int, fewest: int = 1) -> tuple[int, int]:
    """Rows and columns of the bucketed step that n rows and their columns need, of `rows` slots."""
    wide = -(-columns // COLUMNS) * COLUMNS
    return min(max(fewest, 1 << (n - 1).bit_length()), rows), wide


@dataclass(frozen=True)
class Schedule:
    """Counts over a whole generation.

    `batches`: times that prompts joined together; `prefilled`: their tokens but the last ones, and
    but the `shared` ones that were taken over from texts that begin in the same way; `steps`;
    `row_steps`: rows summed over steps; `columns`: rows times columns in use, summed.  Where steps
    are bucketed, `shapes` is how many different ones there are, and `fed_rows` what `row_steps`
    is with rows that nobody reads.
    """

    batches: int = 0
    prefilled: int = 0
    shared: int = 0
    steps: int = 0
    row_steps: int = 0
    columns: int = 0
    new_tokens: int = 0
    shapes: int = 0
    fed_rows: int = 0

    @property
    def tokens(self) -> int:
        """All that are fed, prompts included."""
        return self.prefilled + self.row_steps


def schedule(
    texts: Sequence[tuple[int, int]],
    rows: int,
    join: int = 1,
    prompts: Sequence[Sequence[int]] | None = None,
    fewest: int = 1,
) -> Schedule:
    """For texts of (prompt tokens, new tokens), `rows` at once.

    `prompts` are their ids, for what they share; without them nothing is shared.  `fewest` rows
    has a bucketed step.
    """
    waiting = sorted(range(len(texts)), key=lambda i: -texts[i][0])
    capacity = min(rows, len(texts))
    live: list[tuple[int, int, int]] = []  # (text, position of the token to be fed, steps left)
    batches = prefilled = shared = steps = row_steps = columns = fed_rows = 0
    shapes = set[tuple[int, int]]()
    while waiting or live:
        free = capacity - len(live)
        if waiting and (not live or free >= min(join, len(waiting), capacity)):
            joining, waiting = waiting[:free], waiting[free:]
            batches += 1
            took = _taken_over([text for text, _, _ in live], joining, prompts)
            shared += took
            prefilled += sum(texts[i][0] - 1 for i in joining) - took
            live += [(i, texts[i][0] - 1, texts[i][1] + 1) for i in joining]
        # nothing changes until the next text ends
        stretch, n = min(left for _, _, left in live), len(live)
        first = max(position for _, position, _ in live) + 1
        steps += stretch
        row_steps += stretch * n
        columns += n * (stretch * first + stretch * (stretch - 1) // 2)
        ends = range(first, first + stretch + COLUMNS, COLUMNS)
        here = {bucket(n, min(end, first + stretch - 1), capacity, fewest) for end in ends}
        shapes |= here
        fed_rows += stretch * max(rows for rows, _ in here)
        live = [(i, at + stretch, left - stretch) for i, at, left in live if left > stretch]
    new_tokens = sum(new for _, new in texts)
    return Schedule(
        batches, prefilled, shared, steps, row_steps, columns, new_tokens, len(shapes), fed_rows
    )


def _taken_over(
    live: Sequence[int], joining: Sequence[int], prompts: Sequence[Sequence[int]] | None
) -> int:
    """Tokens that texts which join need not read again."""
    if prompts is None:
        return 0
    groups = arranged([prompts[i] for i in live], [prompts[i] for i in joining])
    return sum(one.shared for group in groups for one in group)


def padded(lengths: Sequence[int], batch_tokens: int) -> int:
    """The tokens of finished texts that are read in length-sorted batches, padding included."""
    order, total = sorted(lengths, reverse=True), 0
    while order:
        rows = max(1, batch_tokens // max(order[0], 1))
        total += order[0] * len(order[:rows])
        order = order[rows:]
    return total
