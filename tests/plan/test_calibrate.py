"""What a trial of answers is made of, and what two timings say that differ by noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from traitscope import calibrate
from traitscope.calibrate import _apart, _line, _spread, answers, steps_of
from traitscope.core import Generation, GenerationConfig
from traitscope.engine import Batching, Clock, Request
from traitscope.engine.joining import arranged
from traitscope.gauge import Timed

NOTHING = np.zeros((1, 1, 1), dtype=np.float32)


class Pretended:
    """A model whose answers to a prompt have as many tokens as `length` says, a second a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, length: Callable[[Request], int]) -> None:
        self.now, self.length = 0.0, length
        self.calls: list[list[Generation]] = []
        monkeypatch.setattr(calibrate, "generate", self.generate)
        monkeypatch.setattr(calibrate.time, "perf_counter", lambda: self.now)

    def generate(
        self,
        model: Any,
        requests: Sequence[Request],
        direction_SDK: Any,
        config: GenerationConfig,
        batching: Batching,
        clock: Clock,
        on_step: Callable[[Clock], None],
    ) -> Iterator[Any]:
        assert len(requests) <= batching.rows  # or they would not begin together
        self.calls.append([request.generation for request in requests])
        left = {request: self.length(request) for request in requests}
        step = 0
        while left:
            step += 1
            self.now += 1
            clock.steps += 1
            clock.new_tokens += len(left)
            for request in [r for r, length in left.items() if length == step]:
                del left[request]
                ids = range(len(request.token_ids) + step)
                yield SimpleNamespace(
                    generation=request.generation,
                    token_ids=ids,
                    n_prompt=len(request.token_ids),
                    finish="stop",
                )
            on_step(clock)


def requests(prompts: int, samples: int) -> list[Request]:
    """The first prompt is the longest one."""
    return [
        Request(Generation(f"{p:016x}", sample), tuple(range(prompts - p + 1)), 100)
        for p in range(prompts)
        for sample in range(samples)
    ]


def trial(
    texts: Sequence[Request], rows: int, budget: float, there: Sequence[tuple[str, int, bool]] = ()
) -> Any:
    model: Any = None
    return answers(model, texts, NOTHING, GenerationConfig(), rows, budget, there).lengths


def test_each_prompt_is_tried_before_one_is_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pretended = Pretended(monkeypatch, lambda request: len(request.token_ids))
    found = trial(requests(8, samples=50), rows=8, budget=1000)
    first = pretended.calls[0]
    assert len({generation.prompt_id for generation in first}) == 8
    assert len(pretended.calls) == 200 / 8  # more than one batch, and not all there are
    assert (found.tried, found.tried_prompts, found.open) == (200, 8, ())
    # each of a prompt's other samples is as long as those that were tried
    lengths = found.of([100] * 400)
    assert lengths == [len(request.token_ids) for request in requests(8, samples=50)]


def test_the_first_few_are_of_prompts_of_all_lengths() -> None:
    ranks = _spread([str(n) for n in range(20)])
    first = [int(name) for name in sorted(ranks, key=lambda name: ranks[name])]
    assert sorted(first) == list(range(20))
    assert {n // 5 for n in first[:4]} >= {0, 1, 3}
    assert 5 <= first[0] < 17  # one alone is neither the longest nor the shortest
    assert _spread(["alone"]) == {"alone": 1}


def test_one_row_tries_more_than_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    Pretended(monkeypatch, lambda request: 10)
    found = trial(requests(20, samples=1), rows=1, budget=55)
    assert (len(found.seen), found.tokens) == (5, 5 * 10 + 6)
    assert len(found.open) == 1
    assert (found.ended, found.tried) == (5, 6)


def test_those_that_wait_are_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no tokens: counted as open they would make the others' shares smaller."""
    Pretended(monkeypatch, lambda request: 4 if request.generation.sample == 0 else 50)
    found = trial(requests(4, samples=9), rows=4, budget=20)
    assert (len(found.seen), len(found.open)) == (4, 4)
    assert found.tokens == 4 * 4 + 4 * 17  # all that are open have as many
    assert found.of([100] * 36)[1] == 17 + round(found.tokens / 4)


def test_what_a_run_says_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pretended = Pretended(monkeypatch, lambda request: 7)
    texts = requests(3, samples=60)
    first, second = texts[0].generation.prompt_id, texts[60].generation.prompt_id
    there = [(first, 30, True)] * 200 + [(second, 20, True)] * 2
    found = trial(texts, rows=4, budget=1000, there=there)
    tried = [generation.prompt_id for call in pretended.calls for generation in call]
    assert first not in tried
    assert tried.count(second) == 3
    assert tried.count(texts[120].generation.prompt_id) == 5
    lengths = found.of([100] * 180)
    assert set(lengths[:60]) == {30}
    assert set(lengths[120:]) == {7}
    assert (found.before, found.tried, found.source) == (202, 8, "both")


def test_a_run_that_says_enough_needs_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    pretended = Pretended(monkeypatch, lambda request: 7)
    texts = requests(1, samples=9)
    found = trial(texts, 4, 100, [(texts[0].generation.prompt_id, 30, True)] * 200)
    assert pretended.calls == []
    assert (found.source, found.tried, found.of([100] * 9)) == ("run", 0, [30] * 9)


# --- two timings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("few", "many"),
    [((20, 0.004), (160, 0.011)), ((20, 0.004), (160, 0.002)), ((20, 0.030), (160, 0.020))],
)
def test_a_line_explains_no_more_than_was_measured(
    few: tuple[int, float], many: tuple[int, float]
) -> None:
    fixed, token = _line(few, many)
    assert 0 <= fixed <= min(few[1], many[1])
    assert 0 <= token <= many[1] / many[0]


def test_readings_that_are_about_as_long_are_told_apart_by_nothing() -> None:
    """A difference of noise over a few tokens would make one of them as costly as a reading."""
    fixed, token = _line((30, 0.005), (33, 0.025))
    assert fixed == 0
    assert token == pytest.approx(0.03 / 63)
    assert _line((0, 0.0), (0, 0.0)) == (0.0, 0.0)


def test_one_timing_that_was_disturbed_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text alone and four of them: a reading takes 2 s and 1 more for each token."""
    calls = 0

    def timed(model: Any, texts: Sequence[Sequence[int]], *_: object) -> Timed:
        nonlocal calls
        calls += 1
        fed = sum(len(ids) - 1 for ids in texts)
        disturbed = 50.0 if calls % 3 == 2 else 0.0
        return Timed(len(texts), fed, 9.0, 2.0 + fed + disturbed, 3.0 + disturbed)

    monkeypatch.setattr(calibrate, "time_steps", timed)
    monkeypatch.setattr(calibrate.time, "perf_counter", lambda: 0.0)
    model: Any = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    prompts = [list(range(9))] * 4
    found = steps_of(model, prompts, 4, 20, NOTHING, GenerationConfig())
    assert (found.prefill, found.prefill_token) == pytest.approx((2.0, 1.0))
    assert (found.step, found.step_row) == pytest.approx((3.0, 0.0))


def test_texts_that_are_timed_share_nothing() -> None:
    """Samples of one prompt, and prompts that begin alike."""
    system = list(range(50))
    prompts = [[*system, 60 + n // 3] for n in range(9)]
    assert any(one.shared for group in arranged([], prompts) for one in group)
    apart = _apart(prompts)
    assert not any(one.shared for group in arranged([], apart) for one in group)
    assert [sorted(ids) for ids in apart] == [sorted(ids) for ids in prompts]
