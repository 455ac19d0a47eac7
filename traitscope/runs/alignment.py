"""Two texts, token by token: which tokens are the same ones, and where the texts part.

Prompts are aligned with prompts, answers with answers.  Tokens of one vocabulary are the same where
their ids are; of two vocabularies where their characters are, which is said.  Up to `same` the two
models read equal tokens in equal contexts; behind it a token that lines up has another past.
Sites pair up by name in models of one depth, else by depth.  Knows no scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from traitscope.core import Site, TokenTable

__all__ = ["Alignment", "Column", "align", "pair_sites"]

Column = tuple[int | None, int | None]
_MOST = 2_000 * 2_000  # cells that the search for common tokens may look at


@dataclass(frozen=True)
class Alignment:
    """`columns`: positions in a and in b, in reading order; None where one has no such token.

    `same` tokens from the first are equal in both.  `by` says what was compared.  `notes`: a
    sentence for each thing that does not line up.
    """

    columns: tuple[Column, ...]
    same: int
    by: str  # "ids" or "characters"
    notes: tuple[str, ...]

    @property
    def common(self) -> int:
        return sum(a is not None and b is not None for a, b in self.columns)


def align(a: TokenTable, b: TokenTable) -> Alignment:
    """Line up two texts' tokens."""
    by = "ids" if _one_vocabulary(a, b) else "characters"
    keys_a, keys_b = (_keys(tokens, by) for tokens in (a, b))
    same = next(
        (i for i, (x, y) in enumerate(zip(keys_a, keys_b, strict=False)) if x != y),
        min(len(keys_a), len(keys_b)),
    )
    columns: list[Column] = []
    notes: list[str] = []
    for part in ("prompt", "response"):
        rows_a, rows_b = (np.flatnonzero(tokens.part == part).tolist() for tokens in (a, b))
        found, whole = _common([keys_a[i] for i in rows_a], [keys_b[i] for i in rows_b])
        columns += _columns(rows_a, rows_b, found)
        if not whole:
            notes.append(
                f"The {part}s are too long to be searched for common tokens in their middle: only "
                "their beginnings and ends line up."
            )
    aligned = Alignment(tuple(columns), same, by, ())
    return Alignment(tuple(columns), same, by, (*_said(a, b, aligned), *notes))


def pair_sites(a: Sequence[Site], b: Sequence[Site]) -> tuple[tuple[int, int], ...]:
    """For each site of a (by number) the site of b that it is set beside.

    By name where both have the same sites, else the one of the same kind at the nearest depth.
    Sites of a kind that b has not are left out.
    """
    if tuple(a) == tuple(b):
        return tuple((i, i) for i in range(len(a)))
    last_a, last_b = (max(max(site.block for site in sites), 1) for sites in (a, b))
    pairs = []
    for i, site in enumerate(a):
        depth = {
            j: abs(site.block / last_a - other.block / last_b)
            for j, other in enumerate(b)
            if other.place == site.place
        }
        if depth:
            pairs.append((i, min(depth, key=lambda j: depth[j])))
    return tuple(pairs)


# --- inside --------------------------------------------------------------------------------------


def _one_vocabulary(a: TokenTable, b: TokenTable) -> bool:
    """One id, one piece, and the other way round, as far as these texts show."""
    pieces = dict(zip(a.token_id.tolist(), a.piece, strict=True))
    ids = {piece: i for i, piece in pieces.items()}
    mine = zip(b.token_id.tolist(), b.piece, strict=True)
    return all(pieces.get(i, p) == p and ids.get(p, i) == i for i, p in mine)


def _keys(tokens: TokenTable, by: str) -> list[object]:
    if by == "ids":
        return list(tokens.token_id.tolist())
    ends = zip(tokens.start.tolist(), tokens.end.tolist(), tokens.piece, strict=True)
    return [tokens.text[start:end] or piece for start, end, piece in ends]


def _common(a: Sequence[object], b: Sequence[object]) -> tuple[list[tuple[int, int]], bool]:
    """Pairs of equal places, rising in both; False where the middle was not searched."""
    n = min(len(a), len(b))
    first = next((i for i in range(n) if a[i] != b[i]), n)
    last = next((i for i in range(n - first) if a[-1 - i] != b[-1 - i]), n - first)
    pairs = [(i, i) for i in range(first)]
    middle_a, middle_b = a[first : len(a) - last], b[first : len(b) - last]
    searched = len(middle_a) * len(middle_b) <= _MOST
    if searched:
        for block in SequenceMatcher(None, middle_a, middle_b, False).get_matching_blocks():
            pairs += [(first + block.a + i, first + block.b + i) for i in range(block.size)]
    pairs += [(len(a) - i, len(b) - i) for i in range(last, 0, -1)]
    return pairs, searched


def _columns(
    rows_a: Sequence[int], rows_b: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> Iterator[Column]:
    """Pairs, and before each what stands alone: a's tokens, then b's."""
    at_a = at_b = 0
    for i, j in [*pairs, (len(rows_a), len(rows_b))]:
        yield from ((row, None) for row in rows_a[at_a:i])
        yield from ((None, row) for row in rows_b[at_b:j])
        if i < len(rows_a):
            yield rows_a[i], rows_b[j]
        at_a, at_b = i + 1, j + 1


def _said(a: TokenTable, b: TokenTable, aligned: Alignment) -> Iterator[str]:
    n_a, n_b = len(a.piece), len(b.piece)
    if aligned.by == "characters":
        yield (
            "The two have different vocabularies: tokens line up where their characters are equal, "
            "and a word that is cut in two places does not."
        )
    if aligned.same == n_a == n_b:
        return
    where = "in the prompt" if aligned.same < min(a.n_prompt, b.n_prompt) else "in the answer"
    yield (
        f"The texts part {where}, at token {aligned.same}. {aligned.common} of {n_a} and {n_b} "
        "tokens line up; those behind it have been read in another context."
    )
