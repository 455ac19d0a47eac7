"""Steps of fixed shapes, recorded and replayed, give what plain steps give; where they do not,
plain steps are made and the reason is kept.

A recorder stands in for a CUDA graph: it plays a step into the same tensors every time, as a graph
does.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from tests.exact.reference import GREEDY, NUCLEUS, assert_same, directions, model, requests
from traitscope.core import Generation, GenerationConfig, Trace
from traitscope.engine import Batching, Clock, Request, Steps, compiling, generate
from traitscope.engine import step as steps
from traitscope.engine.plan import COLUMNS
from traitscope.engine.slots import Slots
from traitscope.engine.step import BucketedStep, Made, Recorder, Step

LENGTHS, NEW_TOKENS = (3, 1, 44, 9, 1, 17, 2, 6, 120), (9, 6, 4, 1, 12, 7, 11, 2, 30)


def made(kind: Steps, config: GenerationConfig, clock: Clock | None = None) -> list[Trace]:
    subject, wanted = model("gemma2"), requests(LENGTHS, NEW_TOKENS)
    batching = Batching(rows=5, join=2, steps=kind)
    traces = generate(subject, wanted, directions(subject), config, batching, clock)
    return sorted(traces, key=lambda trace: trace.generation)


def made_of(wanted: list[Request], kind: Steps) -> dict[Generation, Trace]:
    subject = model("gemma2")
    traces = generate(subject, wanted, directions(subject), GREEDY, Batching(4, steps=kind))
    return {trace.generation: trace for trace in traces}


class Tape:
    """Plays what was recorded into the tensors of the recording."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, compute: Callable[[], Made]) -> Callable[[], Made]:
        with torch.inference_mode():
            token_B, numbers_BW = (part.clone() for part in compute())
        self.shapes.append(tuple(numbers_BW.shape))

        def replay() -> Made:
            for still, fresh in zip((token_B, numbers_BW), compute(), strict=True):
                still.copy_(fresh)
            return token_B, numbers_BW

        return replay


WHOLE_NUCLEUS = GenerationConfig(temperature=1.3, top_p=0.97, seed=3)  # beyond the first candidates


@pytest.mark.parametrize(("fewest", "rows"), [(1, {1, 2, 4, 5}), (3, {3, 4, 5}), (32, {5})])
@pytest.mark.parametrize("config", [GREEDY, NUCLEUS, WHOLE_NUCLEUS])
def test_recorded_steps_are_plain_steps(
    monkeypatch: pytest.MonkeyPatch, config: GenerationConfig, fewest: int, rows: set[int]
) -> None:
    tape, clock = Tape(), Clock()
    monkeypatch.setattr(steps, "CudaGraphs", lambda device: tape)
    monkeypatch.setattr(steps, "FEWEST", fewest)
    for recorded, plain in zip(made("recorded", config, clock), made("plain", config), strict=True):
        assert_same(model("gemma2"), recorded, plain, config)
    assert clock.plain_steps == ""
    assert {n for n, _ in tape.shapes} <= rows
    assert len(tape.shapes) < clock.steps / 2  # shapes are few, and each is recorded once


def test_columns_come_in_buckets_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    real = BucketedStep._compute

    def compute(self: BucketedStep, n: int, columns: int) -> Made:
        seen.add(columns)
        return real(self, n, columns)

    monkeypatch.setattr(BucketedStep, "_compute", compute)
    made("bucketed", GREEDY)
    assert seen == {COLUMNS, 2 * COLUMNS}  # the longest text has 150 tokens


def refuse(compute: Callable[[], Made]) -> Callable[[], Made]:
    raise RuntimeError("operation not permitted when stream is capturing")


def broken(compute: Callable[[], Made]) -> Callable[[], Made]:
    def replay() -> Made:
        raise RuntimeError("an illegal memory access was encountered")

    return replay


def wrong(compute: Callable[[], Made]) -> Callable[[], Made]:
    def replay() -> Made:
        token_B, numbers_BW = compute()
        return token_B, numbers_BW * 1.5

    return replay


def stale(compute: Callable[[], Made]) -> Callable[[], Made]:
    """Hands out what was, as if a part had run beside the recording, and not in it."""
    with torch.inference_mode():
        token_B, numbers_BW = (part.clone() for part in compute())
    return lambda: (token_B, numbers_BW)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (refuse, "not permitted when stream is capturing"),
        (broken, "illegal memory access"),
        (wrong, "not the plain one"),
        (stale, "not the plain one"),
    ],
)
def test_what_cannot_be_recorded_is_made_plainly(
    record: Recorder, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "CudaGraphs", lambda device: record)
    clock = Clock()
    for trace, plain in zip(made("recorded", GREEDY, clock), made("plain", GREEDY), strict=True):
        assert_same(model("gemma2"), trace, plain, GREEDY)
    assert why in clock.plain_steps


def test_out_of_memory_is_not_a_reason_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(compute: Callable[[], Made]) -> Callable[[], Made]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(steps, "CudaGraphs", lambda device: full)
    with pytest.raises(torch.OutOfMemoryError):
        made("recorded", GREEDY)


@pytest.mark.parametrize("kind", ["plain", "bucketed"])
def test_out_of_memory_has_one_name(kind: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever device it is of: MPS raises what any failure raises."""

    def full(self: Step, *_: object) -> Made:
        raise RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GiB)")

    monkeypatch.setattr(Step, "_compute", full)
    with pytest.raises(torch.OutOfMemoryError, match="MPS backend"):
        made(kind, GREEDY)


@pytest.mark.parametrize("kind", ["bucketed", "recorded"])
def test_places_that_nobody_holds_stay_inside(kind: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text in the last place has used its slot to the end; others go on without it, and rows
    are rounded up."""
    monkeypatch.setattr(steps, "CudaGraphs", lambda device: Tape())
    subject, long = model("gemma2"), requests((COLUMNS - 9, 3, 3, 3), (9, 40, 40, 40))
    batching = Batching(4, steps=kind)

    def last_place_first(waiting: list[Request], **_: object) -> list[Request]:
        return sorted(waiting, key=lambda request: len(request.token_ids))

    monkeypatch.setattr("traitscope.engine.decode.sorted", last_place_first, raising=False)
    traces = list(generate(subject, long, directions(subject), GREEDY, batching))
    assert len(traces[0].token_ids) == COLUMNS  # it ends first, with its slot full
    plain = made_of(long, "plain")
    for trace in traces:
        assert_same(subject, trace, plain[trace.generation], GREEDY)


@pytest.mark.parametrize("kind", ["plain", "bucketed", "recorded", "compiled"])
def test_what_generating_held_is_gone_with_it(kind: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, without cycles to be found: memory on a device is what the next one needs."""
    caches = list[weakref.ref[Slots]]()
    real = Slots.__init__

    def watched(self: Slots, *given: object) -> None:
        real(self, *given)  # type: ignore[arg-type]  # whatever it was made of
        caches.append(weakref.ref(self))

    monkeypatch.setattr(Slots, "__init__", watched)
    monkeypatch.setattr(steps, "CudaGraphs", lambda device: Tape())
    monkeypatch.setattr(compiling.torch, "compile", lambda work, **_: work)
    with uncollected():
        made(kind, GREEDY)
        half_done = generate(
            model("gemma2"), requests(LENGTHS, NEW_TOKENS), None, GREEDY, Batching(3, steps=kind)
        )
        next(half_done)
        half_done.close()
        assert len(caches) == 2
        assert [cache() for cache in caches] == [None, None]


@contextmanager
def uncollected() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_without_directions_nothing_is_tapped() -> None:
    """Capture off: the same texts and log probabilities, no sites."""
    subject, wanted = model("gemma2"), requests(LENGTHS, NEW_TOKENS)
    bare = list(generate(subject, wanted, None, GREEDY, Batching(5)))
    for trace, full in zip(
        sorted(bare, key=lambda t: t.generation), made("plain", GREEDY), strict=True
    ):
        assert trace.token_ids.tolist() == full.token_ids.tolist()
        torch.testing.assert_close(trace.logprob, full.logprob, atol=1e-4, rtol=0, equal_nan=True)
        assert trace.score.shape == (len(full.token_ids), 0, 0)
