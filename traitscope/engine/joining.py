"""Which texts are prefilled together, and what they need not read again.

Prompts that begin in the same way are read once: samples of one prompt share all of it, prompts
under one system prompt its tokens.  What is left goes together in pieces with little padding.
Ids and lengths in, an order out; nothing is timed, numbers and cache are the loop's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from traitscope.models import Model

__all__ = [
    "LEAST",
    "Joining",
    "arranged",
    "cuts",
    "forward_cost",
    "forward_tokens",
    "join_rule",
    "pieces",
]

LEAST = 32  # fewer tokens are not worth a forward of their own, unless nothing else is left
_DEAR = 200  # tokens: a forward that costs more than these waits for company
_STEP = 64  # texts whose shares differ by less go together, with the smaller share

Ids = Sequence[int]


def forward_cost(model: Model) -> int:
    """How many tokens of a prefill cost about as much as one forward more.

    On a CPU reading the weights once costs some 30 tokens, and calling a block as much as 20
    million multiplications, which is a lot where blocks are small (from timings of four
    architectures with blocks of 60,000 numbers on 2 cores); beside a CPU no token is that slow.
    A function of the model alone, so that the order of things is never timing's.
    """
    if model.device.type != "cpu":
        return 4096
    blocks = model.anatomy.blocks
    weights = sum(p.numel() for block in blocks for p in block.module.parameters())
    return 32 + min(480, int(2e7 * len(blocks) / max(weights, 1)))


def forward_tokens(model: Model) -> int:
    """How many tokens are read by one forward at most, padding included.

    On a CPU what blocks compute in between should stay in its cache, and larger arrays cost the
    taking of new memory too: 12 MB of the widest ones (float32) measured best; a quarter of it
    cost some 5% more, twice as much 15%, four times as much a half (2 cores, 3,072 wide).
    """
    if model.device.type != "cpu":
        return 4096
    widest = max(max(p.shape) for p in model.anatomy.blocks[0].module.parameters())
    return min(4096, max(256, (3 << 20) // widest))


def join_rule(model: Model, rows: int) -> int:
    """How many slots must be free before waiting prompts take them.

    A prefill stops the others, and few tokens cost as much as a forward: an eighth of the rows
    go together, a quarter where blocks are so small that calling them is dear (24 rows on 2 cores:
    3 or 4 at once came out some 5-10% ahead of 1 and of 6).
    """
    if model.device.type != "cpu":
        return max(1, rows // 3)
    return max(1, rows // (8 if forward_cost(model) < _DEAR else 4))


@dataclass(frozen=True)
class Joining:
    """Text `index` of those that join: the first `shared` positions come from the row `place`."""

    index: int
    place: int = -1
    shared: int = 0


def arranged(there: Sequence[Ids] | None, joining: Sequence[Ids]) -> list[list[Joining]]:
    """Texts that join, in groups that are prefilled together, in the order of their places.

    `there` are the prompts of the rows 0, 1, ... that are live; joining texts get the next places
    in the order of the result.  Those of a group share equally much.  Without `there` (None)
    nothing is shared.
    """
    if there is None:
        return [[Joining(i) for i in range(len(joining))]]
    donors, whole, sharing = list(there), list[Joining](), list[Joining]()
    for index, ids in enumerate(joining):
        shared, place = max(((_shared(d, ids), -p) for p, d in enumerate(donors)), default=(0, 0))
        if shared and (shared >= LEAST or shared == len(ids) - 1):
            sharing.append(Joining(index, -place, shared))
        else:  # its place is known: those that share nothing come first
            whole.append(Joining(index))
            donors.append(ids)
    return ([whole] if whole else []) + list(_groups(sharing, joining))


def _groups(sharing: list[Joining], joining: Sequence[Ids]) -> Iterator[list[Joining]]:
    """Those with nothing left to read, then the others by how much they share."""

    def kind(one: Joining) -> tuple[bool, int]:
        left = len(joining[one.index]) - 1 - one.shared
        return (left > 0, one.shared // _STEP if left else one.shared)

    for _, group in groupby(sorted(sharing, key=kind), key=kind):
        members = list(group)
        least = min(one.shared for one in members)
        yield [Joining(one.index, one.place, least) for one in members]


def _shared(some: Ids, ids: Ids) -> int:
    """How many positions two prompts have in common, with what each says of the next token.

    The last token of a prompt is not prefilled, and the last common one is followed by
    different tokens: neither counts.
    """
    most = min(len(some), len(ids))
    low = min(LEAST, most)
    if some[:low] != ids[:low]:  # too little, or not the whole of the shorter one
        return 0
    n = low
    while n < most and some[n] == ids[n]:
        n += 1
    return n - 1


def pieces(left: Sequence[int], most: int, padding: int, *, padded: bool = True) -> list[slice]:
    """Cut texts with so many tokens left to read, in descending order, into forwards.

    A forward has at most `most` tokens (but one text at least), with its padding where it is
    `padded`, and about `padding` tokens of padding: what it costs to make a forward more.
    """
    found, start, tokens, waste = [], 0, 0, 0
    for i, here in enumerate(left):
        waste += left[start] - here
        tokens += left[start] if padded else here
        if i > start and (waste > padding or tokens > most):
            found.append(slice(start, i))
            start, tokens, waste = i, here, 0
    return [*found, slice(start, len(left))]


def cuts(columns: Sequence[int], price: int) -> list[int]:
    """Where to cut rows that look at so many columns into parts, in each of which all look at as
    many as the longest: the ends of those, so that the columns of all and `price` of them for each
    part are fewest."""
    least, came_from = [0], [0]
    for end in range(1, len(columns) + 1):
        longest, best = 0, (0, -1)
        for start in reversed(range(end)):
            longest = max(longest, columns[start])
            cost = least[start] + longest * (end - start) + price
            if best[1] < 0 or cost < best[0]:
                best = (cost, start)
        least.append(best[0])
        came_from.append(best[1])
    ends, end = list[int](), len(columns)
    while end:
        ends.append(end)
        end = came_from[end]
    return ends[::-1]
