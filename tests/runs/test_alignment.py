"""Two texts lined up: equal tokens with equal tokens, in order, prompts apart from answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traitscope.core import Site, TokenTable, sites_of
from traitscope.runs.alignment import align, pair_sites


def table(prompt: Sequence[str], answer: Sequence[str], ids: dict[str, int]) -> TokenTable:
    words = [*prompt, *answer]
    n, ends = len(words), np.cumsum([len(word) for word in words])
    return TokenTable(
        token_id=np.array([ids[word] for word in words], dtype=np.int32),
        role=np.array(["user"] * len(prompt) + ["assistant"] * len(answer)),
        part=np.array(["prompt"] * len(prompt) + ["response"] * len(answer)),
        special=np.zeros(n, dtype=np.bool_),
        turn=np.zeros(n, dtype=np.int32),
        piece=tuple(words),
        start=np.concatenate([[0], ends[:-1]]).astype(np.int32)[:n],
        end=ends.astype(np.int32),
        text="".join(words),
    )


LETTERS = {letter: i for i, letter in enumerate("abcdefghij")}
words = st.lists(st.sampled_from("abcd"), min_size=1, max_size=12)


@given(words, words, words, words)
def test_every_token_stands_once_and_only_equal_ones_share_a_column(
    p: list[str], q: list[str], x: list[str], y: list[str]
) -> None:
    a, b = table(p, x, LETTERS), table(q, y, LETTERS)
    aligned = align(a, b)
    assert [i for i, _ in aligned.columns if i is not None] == list(range(len(a.piece)))
    assert [j for _, j in aligned.columns if j is not None] == list(range(len(b.piece)))
    for i, j in aligned.columns:
        if i is not None and j is not None:
            assert a.token_id[i] == b.token_id[j]
            assert a.part[i] == b.part[j]
    assert a.piece[: aligned.same] == b.piece[: aligned.same]


def test_one_text_lines_up_with_itself() -> None:
    a = table("abc", "defa", LETTERS)
    aligned = align(a, a)
    assert aligned.columns == tuple((i, i) for i in range(7))
    assert (aligned.same, aligned.by, aligned.notes) == (7, "ids", ())


def test_where_two_answers_part_is_said() -> None:
    aligned = align(table("abc", "dead", LETTERS), table("abc", "dbad", LETTERS))
    assert aligned.columns == (
        *((i, i) for i in range(4)),
        (4, None),
        (None, 4),
        (5, 5),
        (6, 6),
    )
    assert aligned.same == 4
    (note,) = aligned.notes
    assert "part in the answer, at token 4. 6 of 7 and 7 tokens line up" in note
    (note,) = align(table("abc", "d", LETTERS), table("aec", "d", LETTERS)).notes
    assert "part in the prompt, at token 1" in note


def test_other_vocabularies_line_up_by_characters() -> None:
    other = {letter: 90 - i for i, letter in enumerate("abcdefghij")}
    twisted = {**LETTERS, "a": LETTERS["b"], "b": LETTERS["a"]}  # one id, two pieces
    for ids in (other, twisted):
        aligned = align(table("abc", "de", LETTERS), table("abc", "d", ids))
        assert aligned.by == "characters"
        assert aligned.common == 4
        assert "different vocabularies" in aligned.notes[0]


def test_a_long_text_is_lined_up_or_said_to_be_too_long() -> None:
    rng = np.random.default_rng(0)
    texts = [["".join(rng.choice(list("abcd"), size=1)) for _ in range(1_900)] for _ in range(2)]
    assert align(*(table("a", text, LETTERS) for text in texts)).notes
    texts = [["a", *rng.choice(list("bc"), size=3_000), "d"] for _ in range(2)]
    aligned = align(*(table("a", text, LETTERS) for text in texts))
    assert "too long to be searched" in aligned.notes[-1]
    assert aligned.columns[1] == (1, 1)
    assert aligned.columns[-1] == (3_002, 3_002)


def test_sites_pair_up_by_name_or_by_depth() -> None:
    six, three = sites_of(6), sites_of(3)
    assert pair_sites(six, six) == tuple((i, i) for i in range(13))
    named = {str(six[i]): str(three[j]) for i, j in pair_sites(six, three)}
    assert named["embed"] == "embed"
    assert named["5.post"] == "2.post"
    assert named["0.mid"] == "0.mid"
    assert named["2.post"] == "1.post"
    parallel = sites_of(3, mid=False)
    assert all(six[i].place != "mid" for i, _ in pair_sites(six, parallel))
    assert pair_sites((Site(0, "mid"),), parallel) == ()


@pytest.mark.parametrize("prompt", ["", "a"])
def test_a_text_without_an_answer(prompt: str) -> None:
    aligned = align(table(prompt, "", LETTERS), table("a", "b", LETTERS))
    assert aligned.common == len(prompt)
