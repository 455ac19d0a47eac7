"""The arithmetic of a plan: the loop's own counts, exact sums, and lengths that are not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests import tiny
from traitscope.calibrate import reading
from traitscope.core import Generation, GenerationConfig
from traitscope.engine import Batching, Clock, Request, Steps, generate
from traitscope.engine.plan import FEWEST, Schedule, padded, schedule
from traitscope.engine.replay import _batches
from traitscope.engine.step import BucketedStep, Made
from traitscope.forecast import PHASES, Amounts, Lengths, Opened, Rates, at_most, forecast
from traitscope.gauge import endless
from traitscope.models import Model

TEXTS = [(9, 5), (3, 9), (17, 2), (1, 4), (12, 6), (5, 1), (8, 8), (2, 3)]


@pytest.mark.parametrize(("rows", "join"), [(1, 1), (3, 1), (3, 2), (5, 3), (8, 1), (20, 7)])
def test_counts_are_those_of_the_loop(rows: int, join: int) -> None:
    model = endless(tiny.model("llama"))
    requests = [
        # no two begin alike
        Request(Generation(f"{i:016x}"), tuple(range(10 * i, 10 * i + prompt)), new)
        for i, (prompt, new) in enumerate(TEXTS)
    ]
    clock = counted(model, requests, rows, join)
    found = schedule(TEXTS, rows, join)
    assert (found.batches, found.steps) == (clock.batches, clock.steps)
    assert (found.tokens, found.new_tokens) == (clock.tokens, clock.new_tokens)
    assert schedule(TEXTS, rows, join, [request.token_ids for request in requests]) == found


@pytest.mark.parametrize("rows", [2, 3, 5, 20])
@pytest.mark.parametrize("join", [1, 2])
def test_what_texts_share_is_counted_as_the_loop_does(rows: int, join: int) -> None:
    """Two system prompts, and two samples of each text under them."""
    model = endless(tiny.model("llama"))
    system = tuple(range(40)), tuple(range(60, 100))
    prompts = [
        (*system[i % 2], *range(10 * i, 10 * i + prompt))
        for i, (prompt, _) in enumerate(TEXTS)
        for _ in range(2)
    ]
    requests = [Request(Generation(f"{i:016x}"), ids, 2 + i % 5) for i, ids in enumerate(prompts)]
    clock = counted(model, requests, rows, join)
    texts = [(len(r.token_ids), r.max_new_tokens) for r in requests]
    found = schedule(texts, rows, join, prompts)
    assert found.shared == clock.shared_tokens > 300
    assert (found.tokens, found.steps) == (clock.tokens, clock.steps)


@pytest.mark.parametrize("fewest", [1, 5])
@pytest.mark.parametrize(("rows", "join"), [(1, 1), (3, 2), (7, 3), (20, 1)])
def test_shapes_are_those_of_bucketed_steps(
    rows: int, join: int, fewest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that cross one bucket's columns, and end in another's."""
    fed = list[int]()
    real, make = BucketedStep._compute, BucketedStep._make

    def compute(self: BucketedStep, n: int, columns: int) -> Made:
        fed.append(n)
        return real(self, n, columns)

    def making(self: BucketedStep, n: int, columns: int) -> Made:
        self._fewest = fewest  # as where they are recorded
        return make(self, n, columns)

    monkeypatch.setattr(BucketedStep, "_compute", compute)
    monkeypatch.setattr(BucketedStep, "_make", making)
    texts = [*TEXTS, (100, 40), (120, 300), (128, 1), (127, 2), (129, 130)]
    requests = [
        Request(Generation(f"{i:016x}"), tuple((7 * i + t) % 250 for t in range(prompt)), new)
        for i, (prompt, new) in enumerate(texts)
    ]
    clock = counted(endless(tiny.model("llama")), requests, rows, join, "bucketed")
    found = schedule(texts, rows, join, fewest=fewest)
    assert (found.shapes, found.steps) == (clock.shapes, clock.steps)
    assert found.fed_rows == sum(fed)


def counted(
    model: Model, requests: list[Request], rows: int, join: int, steps: Steps = "auto"
) -> Clock:
    nothing = np.zeros((len(model.sites), model.anatomy.d_model, 1), dtype=np.float32)
    clock, batching = Clock(), Batching(rows, min(join, rows), steps=steps)
    for _ in generate(model, requests, nothing, GenerationConfig(), batching, clock):
        pass
    return clock


def test_columns_are_summed_over_rows_and_steps() -> None:
    # two texts: positions 2, 3, 4 beside 1, 2; the longer one's columns are looked at by both
    assert schedule([(3, 2), (2, 1)], rows=2) == Schedule(
        batches=1,
        prefilled=3,
        steps=3,
        row_steps=5,
        columns=2 * 3 + 2 * 4 + 5,
        new_tokens=3,
        shapes=2,
        fed_rows=5,
    )
    assert schedule([], rows=4) == Schedule()


def test_padding_is_that_of_the_batches() -> None:
    lengths = [7, 900, 3, 2500, 4096, 9000, 40, 40, 41]
    texts = [[0] * n for n in lengths]
    every = sum(len(b) * max(lengths[i] for i in b) for b in _batches(texts, 1024))
    assert padded(lengths, 1024) == every
    assert padded([], 1024) == 0


@pytest.mark.parametrize("token", [1.3e-4, 1e-3, 1e-2])
def test_what_a_call_costs_once_is_not_taken_for_tokens(
    token: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, lengths, most = 0.0, [20 + i % 60 for i in range(1200)], 4096

    def read(some: Sequence[int]) -> None:
        nonlocal now
        now += 0.05 + token * padded([lengths[i] for i in some], most)

    monkeypatch.setattr("traitscope.calibrate.time.perf_counter", lambda: now)
    rate, probed = reading(read, lengths, most)
    assert rate == pytest.approx(token, rel=0.06)
    assert probed <= most
    assert now < 4  # a few seconds, however slow


# --- sums ----------------------------------------------------------------------------------------

AMOUNTS = Amounts(
    loads=1,
    texts=((3, 2), (2, 1)),
    rows=2,
    join=1,
    commit=1,
    read=1,
    read_tokens=100,
    pairs=4,
    pair_tokens=1000,
    opened=(Opened(0), Opened(None, 10)),
    kept="response",
    kept_sites=2,
)
RATES = Rates(
    start=1.0,
    load=2.0,
    render=3.0,
    pair_token=0.01,
    read_token=0.1,
    prefill=5.0,
    prefill_token=1.0,
    step=10.0,
    step_row=100.0,
    step_column=1000.0,
    opened=7.0,
    write_once=0.25,
    part=4.0,
    part_token=0.5,
    memory=1_000_000,
    column_bytes=100,
    once_bytes=10_000,
    part_bytes=1000,
    token_bytes=2.0,
    state_bytes=50,
    opened_bytes=(500.0, 10.0, 1.0),
)


def test_a_forecast_adds_up() -> None:
    found = forecast(AMOUNTS, RATES, Lengths())
    assert found.seconds == {
        "start": 1.0,
        "load": 2.0,
        "directions": 3.0 + 10.0,
        "generate": 5.0 + 3.0 + 30.0 + 500.0 + 19_000.0,
        "replay": 10.0,
        "internals": 14.0,
        "write": 0.25 + 4.0 * 5 + 0.5 * 108,
        "prefill": 8.0,
        "decode": 19_530.0,
    }
    assert found.total == sum(found.seconds[phase] for phase in PHASES)
    assert found.to_dict()["seconds"]["total"] == found.total
    assert found.memory == 1_000_000 + 100 * 2 * 5
    opened = (500 + 10 * 5 + 25) + (500 + 10 * 10 + 100)
    assert found.disk == 10_000 + 3 * 1000 + 2 * 108 + opened + 2 * 3 * 50
    assert (found.tokens, found.new_tokens) == (108, 3)


def test_shapes_of_steps_are_prepared_once() -> None:
    """Where steps are recorded; rows are then powers of two, and slots whole buckets."""
    rates = replace(RATES, preparing=0.5, bucket=128)
    plain, found = (forecast(AMOUNTS, r, Lengths()) for r in (RATES, rates))
    shapes = schedule(AMOUNTS.texts, AMOUNTS.rows, AMOUNTS.join, fewest=FEWEST)
    more = 0.5 * shapes.shapes + 100.0 * (shapes.fed_rows - shapes.row_steps)
    assert found.seconds["generate"] == plain.seconds["generate"] + more
    assert found.memory == 1_000_000 + 100 * 2 * 128


# --- lengths -------------------------------------------------------------------------------------


def test_nothing_ended_says_the_most() -> None:
    assert Lengths({}, 0, (0, 1, 2, 3), 40).of([50, 20]) == [50, 20]
    assert not Lengths({}, 0, (0, 1, 2, 3), 40).known


def test_texts_that_were_seen_are_taken_and_others_in_turn() -> None:
    seen = Lengths({0: 7, 2: 9}, ended=2, tokens=16)
    assert seen.of([50, 50, 50, 50]) == [7, 9, 9, 9]
    assert seen.of([5, 50, 5, 50]) == [5, 9, 5, 9]  # never more than a text may have


def test_those_not_at_their_end_go_on_at_the_rate_seen() -> None:
    # 2 of 4 ended, with 5 tokens each; the others have 10 each: 30 tokens, one end in 15
    tried = Lengths({0: 5, 1: 5}, ended=2, open=(2, 3), tokens=30)
    assert tried.of([100] * 4) == [5, 5, 25, 25]
    assert tried.tried == 4


def test_the_samples_of_a_prompt_are_as_long_as_each_other() -> None:
    prompts = {0: "a", 1: "a", 2: "b", 3: "b", 4: "c", -1: "b"}
    tried = Lengths({0: 7, -1: 30}, ended=2, tokens=37, prompts=prompts)
    assert tried.of([50] * 5) == [7, 7, 30, 30, 7]  # of the last prompt nothing is known
    assert (tried.source, tried.before, tried.tried, tried.tried_prompts) == ("both", 1, 1, 1)


# --- at most -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "join"), [(1, 1), (3, 1), (8, 1), (8, 3), (400, 100)])
def test_no_phase_takes_more_than_at_most(rows: int, join: int) -> None:
    """Answers that end apart make more batches than those that are all as long as they may be."""
    dice = np.random.default_rng(0)
    texts = tuple((int(n), 20) for n in dice.integers(5, 40, 60))
    amounts = replace(AMOUNTS, texts=texts, rows=rows, join=join, commit=4)
    expected = forecast(amounts, RATES, Lengths({0: 3}, 1, (), 3))
    most = at_most(amounts, RATES, expected)
    assert most.total == pytest.approx(sum(most.seconds[phase] for phase in PHASES))
    assert most.preparing == pytest.approx(0)
    for _ in range(20):
        seen = dict(enumerate(map(int, dice.integers(1, 21, 60))))
        lengths = Lengths(seen, 60, (), sum(seen.values()))
        found = forecast(amounts, replace(RATES, step_column=0.0), lengths)
        assert found.batches <= most.batches
        assert found.steps <= most.steps
        for phase, took in found.seconds.items():
            assert took <= most.seconds[phase] + 1e-9, phase
        assert (found.memory <= most.memory, found.disk <= most.disk) == (True, True)


def test_at_most_is_no_less_than_expected_in_any_phase() -> None:
    """A step looks at as many columns as its longest text has: those that end apart, at more."""
    amounts = replace(AMOUNTS, texts=((4, 20),) * 30, rows=4)
    rates = replace(RATES, step=0.0, step_row=0.0)
    seen = {**dict.fromkeys(range(30), 20), 0: 5, 1: 10, 2: 15}
    expected = forecast(amounts, rates, Lengths(seen, 30, (), sum(seen.values())))
    assert expected.seconds["decode"] > forecast(amounts, rates, Lengths()).seconds["decode"]
    most = at_most(amounts, rates, expected)
    assert all(most.seconds[phase] >= took for phase, took in expected.seconds.items())
