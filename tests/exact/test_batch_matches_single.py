"""Batched = alone, on every architecture: tokens equal, scores within 1e-5 |h|.

More prompts than rows, of lengths from one token to far beyond the sliding window, that end at
all sorts of times, by an end token or by their own limit, so that places are taken over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from tests.exact.reference import (
    END_IDS,
    GREEDY,
    NUCLEUS,
    VARIANTS,
    assert_same,
    directions,
    model,
    perturbed,
    requests,
    run,
    run_alone,
)
from traitscope.core import GenerationConfig, Trace
from traitscope.engine import Batching, Clock, Request, generate
from traitscope.errors import InputError
from traitscope.models import Model

LENGTHS = (3, 1, 44, 9, 1, 17, 2, 6)
NEW_TOKENS = (9, 6, 4, 1, 12, 7, 11, 2)
BATCHINGS = (
    Batching(rows=3, join=1, prefill_tokens=16),
    Batching(rows=4, join=3, steps="bucketed"),
)


@pytest.mark.parametrize("config", [GREEDY, NUCLEUS], ids=["greedy", "nucleus"])
@pytest.mark.parametrize("name", VARIANTS)
def test_batch_matches_single(name: str, config: GenerationConfig) -> None:
    subject = model(name)
    wanted = requests(LENGTHS, NEW_TOKENS)
    alone = run_alone(subject, wanted, config)
    for batching in BATCHINGS:
        together = run(subject, wanted, config, batching)
        for generation, trace in together.items():
            assert_same(subject, trace, alone[generation], config)


def test_the_requests_above_end_in_every_way() -> None:
    """Or the test above would not show what it says: early ends, limits, a one-token answer."""
    made = run(model("llama"), requests(LENGTHS, NEW_TOKENS), NUCLEUS, BATCHINGS[0])
    new = {g: len(t.token_ids) - t.n_prompt for g, t in made.items()}
    assert {t.finish for t in made.values()} == {"stop", "length"}
    assert min(new.values()) == 1
    for request in requests(LENGTHS, NEW_TOKENS):
        trace = made[request.generation]
        assert tuple(trace.token_ids[: trace.n_prompt]) == request.token_ids
        response = trace.token_ids[trace.n_prompt :].tolist()
        ended = [token in END_IDS for token in response]
        assert not any(ended[:-1])
        assert ended[-1] == (trace.finish == "stop")
        if trace.finish == "length":
            assert len(response) == request.max_new_tokens


@pytest.mark.parametrize("config", [GREEDY, NUCLEUS], ids=["greedy", "nucleus"])
@pytest.mark.parametrize("name", ["gemma2", "mixtral"])
@pytest.mark.parametrize("rows", [2, 5, 64])
def test_any_number_of_rows(name: str, rows: int, config: GenerationConfig) -> None:
    subject, wanted = model(name), requests(LENGTHS, NEW_TOKENS)
    alone = run_alone(subject, wanted, config)
    for join, prefill_tokens in ((1, 3), (rows, 4096)):
        made = run(subject, wanted, config, Batching(rows, join, prefill_tokens))
        for generation, trace in made.items():
            assert_same(subject, trace, alone[generation], config)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_the_order_of_requests_does_not_matter(name: str) -> None:
    subject, wanted = model(name), requests(LENGTHS, NEW_TOKENS)
    made = run(subject, wanted, NUCLEUS, BATCHINGS[0])
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(wanted))
        again = run(subject, [wanted[i] for i in order], NUCLEUS, BATCHINGS[0])
        for generation, trace in again.items():
            assert_same(subject, trace, made[generation], NUCLEUS)


def test_the_company_of_a_text_does_not_matter() -> None:
    """The same text beside short ones, beside a long one, and with nobody."""
    subject = model("mistral")
    (wanted,) = requests((11,), (10,), seed=3)
    alone = run_alone(subject, [wanted], NUCLEUS)[wanted.generation]
    for lengths in ((2, 1, 3), (60, 4, 35)):
        company = requests(lengths, (5, 12, 3), seed=4)
        made = run(subject, [wanted, *company], NUCLEUS, Batching(4))
        assert_same(subject, made[wanted.generation], alone, NUCLEUS)


def test_samples_of_a_prompt_differ_and_stay_what_they_are() -> None:
    subject = model("qwen3")
    wanted = [
        request
        for sample in range(5)
        for request in requests((6, 13), (10, 10), seed=8, sample=sample)
    ]
    made = run(subject, wanted, NUCLEUS, Batching(3))
    for prompt_id in {g.prompt_id for g in made}:
        texts = {tuple(t.token_ids) for g, t in made.items() if g.prompt_id == prompt_id}
        assert len(texts) == 5
    for generation, trace in run(subject, wanted, NUCLEUS, Batching(10)).items():
        assert_same(subject, trace, made[generation], NUCLEUS)
    for generation, trace in run_alone(subject, wanted[:4], NUCLEUS).items():
        assert_same(subject, trace, made[generation], NUCLEUS)


def test_samples_are_equal_when_nothing_is_drawn() -> None:
    subject = model("llama")
    first, second = (requests((6,), (8,), sample=i)[0] for i in (0, 1))
    made = run(subject, [first, second], GREEDY, Batching(2))
    np.testing.assert_array_equal(
        made[first.generation].token_ids, made[second.generation].token_ids
    )


def test_another_seed_is_another_text() -> None:
    subject, wanted = model("llama"), requests((6, 7), (10, 10))
    texts = {
        tuple(trace.token_ids)
        for seed in range(4)
        for trace in run(subject, wanted, replace(NUCLEUS, seed=seed), Batching(2)).values()
    }
    assert len(texts) == 8


def test_narrow_dtypes_run_in_batches_and_stay_near() -> None:
    """In bfloat16 texts may part; where they have not, the numbers are near."""
    hf = tiny.hf_model("gemma2").to(torch.bfloat16)
    subject = Model.wrap(hf, tiny.tokenizer())
    wanted = requests((3, 9, 30, 1), (5, 5, 5, 5))
    made = run(subject, wanted, GREEDY, Batching(3))
    for generation, alone in run_alone(subject, wanted, GREEDY).items():
        n = alone.n_prompt
        off = np.abs(made[generation].score[:n] - alone.score[:n]).max(axis=-1)
        assert (off <= 0.05 * alone.norm[:n]).all()


def test_nothing_wanted_is_nothing_made() -> None:
    subject = model("llama")
    assert list(generate(subject, [], directions(subject), GREEDY, Batching(4))) == []


def test_the_clock_counts_every_token_once() -> None:
    subject, wanted = model("llama"), requests(LENGTHS, NEW_TOKENS)
    clock, seen = Clock(), []
    batching = Batching(rows=3, join=2, prefill_tokens=16)
    traces = list(
        generate(
            subject,
            wanted,
            directions(subject),
            NUCLEUS,
            batching,
            clock,
            lambda clock: seen.append(clock.steps),
        )
    )
    assert clock.tokens == sum(len(trace.token_ids) for trace in traces)
    assert clock.new_tokens == sum(len(trace.token_ids) - trace.n_prompt for trace in traces)
    assert seen == sorted(seen)
    assert clock.batches >= 2


def test_hooks_are_gone_when_the_generator_is_dropped() -> None:
    """Only those stay that transformers itself keeps on its blocks."""
    subject = model("llama")
    before = tiny.watched(subject.hf)
    wanted = requests((4, 5, 6), (9, 1, 9))
    made = generate(subject, wanted, directions(subject), GREEDY, Batching(2))
    next(made)
    assert tiny.watched(subject.hf) != before
    made.close()
    assert tiny.watched(subject.hf) == before


# --- the judge itself ----------------------------------------------------------------------------


def _trace_and_wanted() -> tuple[Trace, Request]:
    (wanted,) = requests((6,), (8,), seed=1)
    return run_alone(model("llama"), [wanted], NUCLEUS)[wanted.generation], wanted


def test_the_judge_excuses_no_flip_of_a_clear_choice() -> None:
    trace, _ = _trace_and_wanted()
    ids = trace.token_ids.copy()
    ids[-1] = (ids[-1] + 1) % 256
    with pytest.raises(AssertionError, match="the texts differ at"):
        assert_same(model("llama"), replace(trace, token_ids=ids), trace, NUCLEUS)


def test_the_judge_sees_a_score_that_is_off() -> None:
    trace, _ = _trace_and_wanted()
    score = trace.score.copy()
    score[-1, 2, 1] += 3e-5 * trace.norm[-1, 2]
    with pytest.raises(AssertionError, match="apart"):
        assert_same(model("llama"), replace(trace, score=score), trace, NUCLEUS)


@pytest.mark.parametrize("config", [GREEDY, NUCLEUS], ids=["greedy", "nucleus"])
def test_the_judge_knows_which_token_is_next(config: GenerationConfig) -> None:
    """The plain account of what is drawn gives the engine's own choices."""
    subject = model("llama")
    for trace in run(subject, requests((6, 3), (8, 8)), config, Batching(2)).values():
        for position in range(trace.n_prompt, len(trace.token_ids)):
            best = int(perturbed(subject, trace, position, config).argmax())
            assert best == trace.token_ids[position]


# --- what cannot be asked ------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [(), (3, 300), (-1, 3)])
def test_ids_that_are_none(ids: tuple[int, ...]) -> None:
    subject, (wanted,) = model("llama"), requests((6,), (8,))
    with pytest.raises(InputError, match="at least one token id, each from 0 to"):
        run(subject, [replace(wanted, token_ids=ids)], GREEDY, Batching(1))


@pytest.mark.parametrize("change", [lambda d: d[1:], lambda d: d[:, 1:], lambda d: d[0]])
def test_directions_of_another_model(change: Any) -> None:
    subject, direction_SDK = model("llama"), change(directions(model("llama")))
    with pytest.raises(InputError, match="a vector for each site, got"):
        list(generate(subject, requests((6,), (8,)), direction_SDK, GREEDY, Batching(1)))


def test_steps_cannot_be_recorded_on_a_cpu() -> None:
    """And nothing is left on the model."""
    subject, batching = model("llama"), Batching(2, steps="recorded")
    with pytest.raises(InputError, match="on 'cpu', got 'recorded'"):
        run(subject, requests((6,), (8,)), GREEDY, batching)
    assert not any("forward" in vars(module) for module in subject.hf.modules())
