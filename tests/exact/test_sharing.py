"""Prompts that begin in the same way are read once, and no number knows it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.exact.reference import (
    NUCLEUS,
    assert_same,
    directions,
    model,
    requests,
    run_alone,
)
from traitscope.core import Generation, prompt_id_of
from traitscope.engine import Batching, Clock, Request, generate
from traitscope.engine.joining import (
    LEAST,
    Joining,
    arranged,
    forward_cost,
    join_rule,
    pieces,
)
from traitscope.models import Model

HEAD = tuple(range(60, 110))  # a system prompt of 50 tokens


def asked() -> list[Request]:
    """Three samples each of questions under one system prompt, and of some of their own."""
    questions = requests((5, 9, 1, 14), (6, 3, 9, 5), seed=1)
    under = [HEAD + question.token_ids for question in questions]
    alone = [request.token_ids for request in requests((7, 33, 1), (4, 4, 4), seed=2)]
    # ends where another goes on
    texts = [*under, *alone, HEAD[:40], HEAD]
    return [
        Request(Generation(prompt_id_of(ids), sample), ids, 4 + i % 5)
        for i, ids in enumerate(texts)
        for sample in range(3)
    ]


@pytest.mark.parametrize("name", ["gemma2", "llama", "gpt2", "falcon", "llama4_text", "mixtral"])
@pytest.mark.parametrize("rows", [4, 32])
def test_shared_beginnings_change_no_number(name: str, rows: int) -> None:
    subject, wanted, clock = model(name), asked(), Clock()
    batching = Batching(rows=rows, join=2, prefill_tokens=256)
    made = list(generate(subject, wanted, directions(subject), NUCLEUS, batching, clock, keep=[1]))
    alone = run_alone(subject, wanted, NUCLEUS)
    for trace in made:
        assert_same(subject, trace, alone[trace.generation], NUCLEUS)
        assert np.isfinite(trace.logprob[1:]).all()
        np.testing.assert_allclose(
            trace.logprob, alone[trace.generation].logprob, atol=1e-4, equal_nan=True
        )
    # two of three samples at least are taken over whole, or nothing of this was tried
    assert clock.shared_tokens >= sum(len(r.token_ids) - 1 for r in wanted) // 2
    fed = sum(len(trace.token_ids) for trace in made)
    assert clock.tokens + clock.shared_tokens == fed


def test_kept_states_are_taken_over_too() -> None:
    subject, wanted = model("llama"), asked()
    shared, plain = (
        {
            t.generation: t
            for t in generate(
                subject,
                wanted,
                directions(subject),
                NUCLEUS,
                Batching(rows=8, share=share),
                keep=[2],
            )
        }
        for share in (True, False)
    )
    for generation, trace in shared.items():
        there = plain[generation].kept
        assert trace.kept is not None and there is not None
        np.testing.assert_allclose(trace.kept, there, atol=1e-3)


def test_without_sharing_every_token_is_fed() -> None:
    subject, clock = model("llama"), Clock()
    batching = Batching(rows=8, share=False)
    list(generate(subject, asked(), directions(subject), NUCLEUS, batching, clock))
    assert clock.shared_tokens == 0


IDS = st.lists(st.integers(0, 1), min_size=1, max_size=90).map(tuple)
HEADS = st.sampled_from([(), HEAD, HEAD[:33], HEAD[:20]])
TEXTS = st.lists(st.tuples(HEADS, IDS).map(lambda pair: pair[0] + pair[1]), max_size=9)


@given(there=TEXTS, joining=TEXTS.filter(len))
def test_what_is_shared_is_the_same_and_there_already(
    there: list[tuple[int, ...]], joining: list[tuple[int, ...]]
) -> None:
    groups = arranged(there, joining)
    rows = list(there)
    assert sorted(one.index for group in groups for one in group) == list(range(len(joining)))
    for group in groups:
        assert len({one.shared for one in group}) == 1
        for one in group:
            mine, donor = joining[one.index], rows[one.place] if one.shared else ()
            # the first `shared` positions and the token after them: their log probabilities too
            assert one.shared < max(len(mine), 1)
            if one.shared:
                assert mine[: one.shared + 1] == donor[: one.shared + 1]
                assert one.shared <= len(donor) - 1  # what is prefilled of it
        rows.extend(joining[one.index] for one in group)


def test_nothing_is_shared_where_it_is_too_little() -> None:
    ids = (*HEAD[:LEAST], 1, 2, 3)
    assert arranged([(*HEAD[:LEAST], 9, 9)], [ids]) == [[Joining(0)]]  # LEAST - 1 positions
    assert arranged([(*HEAD[: LEAST + 1], 9)], [(*HEAD[: LEAST + 1], 1)]) == [
        [Joining(0, 0, LEAST)]
    ]
    assert arranged([(1, 2, 3)], [(1, 2, 3)]) == [[Joining(0, 0, 2)]]  # all of it


@given(
    left=st.lists(st.integers(1, 50), min_size=1, max_size=30).map(
        lambda some: sorted(some, reverse=True)
    ),
    most=st.integers(1, 300),
    padding=st.integers(0, 100),
)
def test_pieces_cover_all_with_little_padding(left: list[int], most: int, padding: int) -> None:
    cut = pieces(left, most, padding)
    assert [i for part in cut for i in range(len(left))[part]] == list(range(len(left)))
    for part in cut:
        mine = left[part]
        assert len(mine) == 1 or len(mine) * mine[0] <= most
        assert sum(mine[0] - tokens for tokens in mine) <= padding


def test_the_order_is_the_requests_alone() -> None:
    wanted = [replace(request, max_new_tokens=3) for request in asked()]
    ids = [request.token_ids for request in wanted]
    assert arranged(ids[:4], ids[4:]) == arranged(ids[:4], ids[4:])


def _of_size(width: int, device: str) -> Model:
    """As much of a model as the rule looks at: 12 blocks with one square matrix each."""
    block = SimpleNamespace(module=torch.nn.Linear(width, width, bias=False, device="meta"))
    anatomy = SimpleNamespace(blocks=[block] * 12)
    return cast(Model, SimpleNamespace(device=torch.device(device), anatomy=anatomy))


def test_dear_prefills_wait_for_company() -> None:
    small, large, gpu = _of_size(256, "cpu"), _of_size(8192, "cpu"), _of_size(8192, "meta")
    assert [join_rule(m, 24) for m in (small, large, gpu)] == [6, 3, 8]
    assert forward_cost(large) < 100 < forward_cost(small) < forward_cost(gpu)
    assert join_rule(small, 1) == 1
