"""Seconds and bytes of each thing that a run does, measured on this machine in a few seconds.

Each measurement does the real thing on a few of the run's own texts: the engine's steps, the
readings of finished texts, one block's internals, one commit's tables.  Nothing is written: what
a commit costs the disk is measured on a file without a name.  Does not know what is to be done
with the figures.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from traitscope.core import (
    Capture,
    Float32,
    Generation,
    GenerationConfig,
    Prompt,
    TextRecord,
    Trace,
)
from traitscope.engine import Batching, Clock, Request, capture_internals, generate
from traitscope.engine.plan import padded
from traitscope.forecast import Lengths
from traitscope.gauge import Timed, time_steps
from traitscope.models import Model, Rendered
from traitscope.runs.tables import captures_bytes, generations_bytes, tokens_bytes
from traitscope.runs.tensors import internals_bytes

__all__ = [
    "Commit",
    "Steps",
    "Trial",
    "answers",
    "commit_of",
    "internals_of",
    "reading",
    "steps_of",
]

ENOUGH = 1.0  # seconds of a reading after which no larger one is tried: a call has costs of its own
_FORWARDS = 2  # of a reading, at most
LONG = 2048  # tokens that are prefilled to see what more columns cost
_FIRST = 2  # steps that only warm up
_AT_LEAST = 8  # steps of a trial, however slow
_FEW = 5  # answers to a prompt after which another one's are tried first
_MANY = 200  # answers after which no more are tried, but for prompts with few
_REPEATS, _QUICK = 3, 0.3  # timings of the same, while they take no longer than so many seconds
_APART = 2  # times as many tokens: what a reading takes with them is then more than noise
_MANIFEST = 200  # bytes of a file's entry
_SYNCED = 64_000  # bytes of a file that is written to see what the disk takes
_SYNCS = 5  # of a commit: three tables, their folder, the line of the manifest


# --- generating ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """Seconds: a prefill, each of its tokens; a step, each row, each column of a row.

    `cached` tokens stood in the slots while this was measured.  `preparing`: of each shape of a
    step that is recorded; 0 where none is.
    """

    prefill: float
    prefill_token: float
    step: float
    step_row: float
    step_column: float
    cached: int
    preparing: float = 0.0


def steps_of(
    model: Model,
    prompts: Sequence[Sequence[int]],
    rows: int,
    columns: int,
    direction_SDK: Float32,
    config: GenerationConfig,
    keep: Sequence[int] = (),
) -> Steps:
    """From the run's first batch, one prompt alone, and where texts get long a third time."""
    order = sorted(prompts, key=lambda ids: -len(ids))
    middle = order[len(order) // 2]

    steps = 4

    every = list[Timed]()

    def timed(texts: Sequence[Sequence[int]]) -> Timed:
        if model.device.type != "cpu":  # what is made at the first use of a shape
            time_steps(model, texts, direction_SDK, config, keep, _FIRST)
        began, same = time.perf_counter(), list[Timed]()
        while not same or (len(same) < _REPEATS and time.perf_counter() - began < _QUICK):
            same.append(time_steps(model, texts, direction_SDK, config, keep, steps))
        every.extend(same)
        return _typical(same)

    first = timed([middle])  # what only the first time takes
    steps = max(4, min(16, int(1 / max(first.step, 1e-9))))
    one, many = timed([middle]), timed(_apart(order[:rows]))
    column = 0.0
    if columns > 256 and columns > 2 * many.columns:
        few = max(1, min(rows, LONG // columns))
        ids = [(list(middle) * (columns // len(middle) + 1))[: columns - 8] for _ in range(few)]
        short, long = timed([middle] * few), timed(ids)
        column = max(0.0, (long.step - short.step) / (few * (long.columns - short.columns)))
    shapes = sum(one.shapes for one in every)
    preparing = sum(one.preparing for one in every) / shapes if shapes else 0.0
    return replace(_solved(one, many, column), preparing=preparing)


def _typical(same: Sequence[Timed]) -> Timed:
    """Of the same texts timed again: the middle times, which one that was disturbed leaves be."""
    prefill = statistics.median(timed.prefill for timed in same)
    return replace(same[0], prefill=prefill, step=statistics.median(t.step for t in same))


def _apart(prompts: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """As long as these, and none begins like another one: what texts share is not read, and what
    is hardly read says nothing of what a token costs."""
    return [[*ids[i % len(ids) :], *ids[: i % len(ids)]] for i, ids in enumerate(prompts)]


def _solved(one: Timed, many: Timed, column: float) -> Steps:
    fixed, token = _line((one.fed, one.prefill), (many.fed, many.prefill))
    alone, together = (t.step - column * t.rows * t.columns for t in (one, many))
    row = max(0.0, (together - alone) / (many.rows - one.rows)) if many.rows > one.rows else 0.0
    return Steps(
        prefill=fixed,
        prefill_token=token,
        step=max(0.0, alone - row),
        step_row=row,
        step_column=column,
        cached=many.rows * round(many.columns + 2),
    )


def _line(few: tuple[int, float], many: tuple[int, float]) -> tuple[float, float]:
    """Seconds of a reading and of each of its tokens, neither below nothing, from the tokens and
    seconds of two.

    Two that read about as much differ by noise alone: all is then said to be the tokens'.
    """
    (n_few, took_few), (n_many, took_many) = sorted((few, many))
    if n_many < _APART * n_few or n_many == 0:
        return 0.0, (took_few + took_many) / max(n_few + n_many, 1)
    token = max(0.0, (took_many - took_few) / (n_many - n_few))
    return max(0.0, min(took_few, took_many) - token * n_few), token


# --- answers -------------------------------------------------------------------------------------


class _Enough(Exception):
    """The time for trying answers is over."""


@dataclass(frozen=True)
class Trial:
    """How long answers got, and the slots that were made for them: (rows, the longest text)."""

    lengths: Lengths
    slots: tuple[tuple[int, int], ...]


def answers(
    model: Model,
    requests: Sequence[Request],
    direction_SDK: Float32,
    config: GenerationConfig,
    rows: int,
    budget: float,
    there: Sequence[tuple[str, int, bool]] = (),
) -> Trial:
    """How long answers get, as far as `budget` seconds go: of prompts of all lengths.

    `there` are answers that exist: their prompt, tokens, and whether they ended by themselves.
    What they say of a prompt is not tried again.  Each `rows` texts begin together, so that those
    that are open at the end have all as many tokens.
    """
    known = Counter(prompt for prompt, _, _ in there)
    order = _to_try(requests, known)
    clock, began = Clock(), time.perf_counter()
    seen = {-1 - i: tokens for i, (_, tokens, _) in enumerate(there)}
    ended, open_ = sum(ended for _, _, ended in there), tuple[int, ...]()
    slots = list[tuple[int, int]]()

    def over() -> bool:
        return time.perf_counter() - began > budget and clock.steps > _AT_LEAST

    def on_step(now: Clock) -> None:
        if over():
            raise _Enough

    for start in range(0, len(order), rows):
        places = {requests[i].generation: i for i in order[start : start + rows]}
        some = [requests[i] for i in places.values()]
        slots.append((len(some), max(len(r.token_ids) + r.max_new_tokens for r in some)))
        texts = generate(model, some, direction_SDK, config, Batching(rows), clock, on_step)
        with suppress(_Enough):
            for text in texts:
                seen[places.pop(text.generation)] = len(text.token_ids) - text.n_prompt
                ended += text.finish == "stop"
        open_ += tuple(places.values())
        if over():
            break
    prompts = {i: request.generation.prompt_id for i, request in enumerate(requests)}
    prompts |= {-1 - i: prompt for i, (prompt, _, _) in enumerate(there)}
    tokens = clock.new_tokens + sum(tokens for _, tokens, _ in there)
    return Trial(Lengths(seen, ended, open_, tokens, prompts), tuple(slots))


def _to_try(requests: Sequence[Request], known: Mapping[str, int]) -> list[int]:
    """The places of texts worth a trial, in its order.

    One of each prompt comes before a second one, `known` answers counted, and the first few are of
    prompts of all lengths.
    """
    samples = Counter(known)
    lengths = {r.generation.prompt_id: len(r.token_ids) for r in requests}
    spread = _spread(sorted(lengths, key=lambda prompt: -lengths[prompt]))
    turn = dict[int, tuple[int, int]]()
    for i, request in enumerate(requests):
        prompt = request.generation.prompt_id
        turn[i] = samples[prompt], spread[prompt]
        samples[prompt] += 1
    least = sum(sample < _FEW for sample, _ in turn.values())
    order = sorted(turn, key=lambda i: turn[i])
    return order[: max(least, _MANY - sum(known.values()))]


def _spread(ordered: Sequence[str]) -> dict[str, int]:
    """A rank for each, so that the first few are from everywhere: the middle, the first, a quarter,
    ... (van der Corput's sequence)."""
    bits = max(1, (len(ordered) - 1).bit_length())
    half = 1 << (bits - 1)
    return {name: int(f"{at ^ half:0{bits}b}"[::-1], 2) for at, name in enumerate(ordered)}


# --- reading -------------------------------------------------------------------------------------


def reading(
    read: Callable[[Sequence[int]], None], lengths: Sequence[int], most: int
) -> tuple[float, int]:
    """Seconds of one token, padding counted, and the most tokens that were read at once.

    `read` takes the places of some texts, and reads `most` tokens in one forward.  More are read
    at a time until it takes long enough.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    tokens, rate = 256, 0.0
    while True:
        count = max(1, tokens // max(lengths[order[len(order) // 2]], 1))
        start = max(0, len(order) // 2 - count // 2)
        some = order[start : start + count]
        began = time.perf_counter()
        read(some)
        took = time.perf_counter() - began
        read_now = padded([lengths[i] for i in some], most)
        rate = took / read_now
        if took > ENOUGH or tokens >= _FORWARDS * most or len(some) == len(order):
            return rate, min(read_now, most)
        tokens = min(4 * tokens, _FORWARDS * most)


# --- internals and commits -----------------------------------------------------------------------


def internals_of(
    model: Model, ids: Sequence[int], block: int, direction_SDK: Float32, traits: Sequence[str]
) -> tuple[float, tuple[float, float, float]]:
    """Seconds of one block, and its file's bytes: fixed, a token, a token squared."""
    capture_internals(model, Generation("0" * 16), ids, block, direction_SDK, traits)
    began = time.perf_counter()
    opened = capture_internals(model, Generation("0" * 16), ids, block, direction_SDK, traits)
    took = time.perf_counter() - began
    n, whole = len(ids), len(internals_bytes(opened))
    square = opened.tensors["attention"].nbytes
    fixed = sum(a.nbytes for name, a in opened.tensors.items() if name.endswith("_score"))
    every = sum(a.nbytes for a in opened.tensors.values())
    linear = every - square - fixed
    return took, (whole - every + fixed, linear / n, square / n**2)


@dataclass(frozen=True)
class Commit:
    """A commit of some texts: seconds and bytes, fixed and for each token; an empty one's bytes.

    `seconds_once`: what the first one takes more; `sync`: until a small file is on the disk.
    """

    seconds_once: float
    sync: float
    seconds: float
    seconds_token: float
    bytes_part: int
    bytes_token: float
    bytes_captures: int


def commit_of(
    model: Model,
    prompts: Sequence[tuple[Prompt, Rendered]],
    new_tokens: int,
    traits: Sequence[str],
    place: Path,
) -> Commit:
    """What the tables of these texts cost, with answers of `new_tokens` made up for them."""
    first, every = prompts[:1], prompts
    texts, seconds, sizes = list[int](), list[float](), list[int]()
    beside = 0
    drawn = _drawn([r.token_ids for _, r in prompts], new_tokens, len(model.sites), len(traits))
    for some in (first, first, every):
        began = time.perf_counter()
        records = [
            _record(model, *prompt, numbers, sample)
            for sample, (prompt, numbers) in enumerate(zip(some, drawn, strict=False))
        ]
        tokens = tokens_bytes(records, len(model.sites), traits)[0]
        generations = generations_bytes(records)[0]
        captures = {Capture(r.generation, "prompts"): "" for r in records}
        captured = captures_bytes(captures)[0]
        seconds.append(time.perf_counter() - began)
        beside = generations.nbytes + captured.nbytes
        sizes.append(tokens.nbytes)
        texts.append(sum(len(r.trace.token_ids) for r in records if r.trace))
    more = max(texts[2] - texts[1], 1)
    a_second = max(0.0, (seconds[2] - seconds[1]) / more) if len(every) > 1 else 0.0
    a_byte = (sizes[2] - sizes[1]) / more if len(every) > 1 else sizes[1] / texts[1]
    sync = _sync(place)
    return Commit(
        seconds_once=max(0.0, seconds[0] - seconds[1]),
        sync=sync,
        seconds=max(0.0, seconds[1] - a_second * texts[1]) + _SYNCS * sync,
        seconds_token=a_second,
        bytes_part=round(sizes[1] - a_byte * texts[1]) + beside + 3 * _MANIFEST,
        bytes_token=a_byte,
        bytes_captures=captures_bytes({Capture(Generation("0" * 16), "prompts"): ""})[0].nbytes
        + 2 * _MANIFEST,
    )


def _drawn(
    prompts: Sequence[Sequence[int]], new_tokens: int, n_sites: int, n_traits: int
) -> list[Float32]:
    """Numbers of no meaning for texts that begin with these [T, S, K + 1], to be stored.

    They compress as real ones do: what two begin with in common has the same numbers in both.
    """
    dice, made = np.random.default_rng(0), list[Float32]()
    for ids in prompts:
        size = (len(ids) + new_tokens, n_sites, n_traits + 1)
        drawn = dice.standard_normal(size, dtype=np.float32)
        before = enumerate(prompts[: len(made)])
        shared, donor = max(((_common(ids, other), at) for at, other in before), default=(0, 0))
        if shared:
            drawn[:shared] = made[donor][:shared]
        made.append(drawn)
    return made


def _common(some: Sequence[int], others: Sequence[int]) -> int:
    """How many ids two texts begin with in common."""
    pairs = enumerate(zip(some, others, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(some), len(others)))


def _record(
    model: Model, prompt: Prompt, rendered: Rendered, drawn: Float32, sample: int
) -> TextRecord:
    """A text with such numbers."""
    n_prompt, length = len(rendered.token_ids), len(drawn)
    ids = (list(rendered.token_ids) * (length // n_prompt + 1))[:length]
    generation = Generation(rendered.prompt_id, sample)
    trace = Trace(
        generation=generation,
        token_ids=np.array(ids, dtype=np.int32),
        n_prompt=n_prompt,
        score=drawn[:, :, 1:],
        norm=np.abs(drawn[:, :, 0]),
        logprob=-np.abs(drawn[:, 0, 0]),
        finish="length",
        seconds=1.0,
    )
    said = model.speller.decode(ids[n_prompt:], skip_special=True)
    return TextRecord(generation, prompt, said, model.speller.table(ids, rendered), trace)


def _sync(place: Path) -> float:
    """Seconds until a small file is on the disk; 0 where nothing may be written there."""
    while not place.is_dir():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            took = list[float]()
            for _ in range(3):
                began = time.perf_counter()
                file.write(b"\0" * _SYNCED)
                file.flush()
                os.fsync(file.fileno())
                took.append(time.perf_counter() - began)
        return sorted(took)[1]
    except OSError:
        return 0.0
