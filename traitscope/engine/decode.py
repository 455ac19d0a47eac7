"""The decode loop: many prompts in true batches, one forward per step, scores from inside it.

A prompt's tokens but the last are prefilled into a slot, on a CPU in one forward with the step
that comes next; the last one goes through the decode step like every sampled token, so that
sampling lives in one place.  Every sampled token is fed once, the last one too, so that every token
has a state.  What a step says about ending is read while the next one runs: that one is the extra
feed of the last token.  Rows that end leave at once, the last row takes their slot, waiting prompts
take the free ones.  The order is a function of the requests and of the batching alone.  The engine
knows nothing of disks, suites, traits' names or screens.

Legend: B rows, T tokens, D model width, S sites, K traits, X kept numbers per token (D for each
kept site), W = 1 + S + S * K + X numbers per token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from traitscope.core import Generation, GenerationConfig, Trace
from traitscope.engine.joining import (
    Joining,
    arranged,
    cuts,
    forward_cost,
    forward_tokens,
    pieces,
)
from traitscope.engine.lean import lean
from traitscope.engine.noise import noise_key
from traitscope.engine.numbers import Numbers
from traitscope.engine.outbox import HostCopy, Outbox
from traitscope.engine.plan import COLUMNS
from traitscope.engine.prefill import Piece, Prefill
from traitscope.engine.ragged import Part, in_parts, takes_ragged
from traitscope.engine.slots import Slots
from traitscope.engine.step import Step, step_for
from traitscope.errors import InputError, memory_errors
from traitscope.models import Model, Scores, Taps

__all__ = ["Batching", "Clock", "Request", "Steps", "generate"]

# of keys and values of a block: to read less than so much for nothing costs less than attention in
# one part more (2 Xeon cores: 1 MB came out even, and 4 MB as well where one text is long)
_PART_BYTES = 4 << 20
_CUT_ANEW = 16  # steps: all rows grow alike, and what is best changes slowly

Steps = Literal["auto", "plain", "bucketed", "recorded", "compiled"]


@dataclass(frozen=True)
class Request:
    """One text to be made: its name, its prompt's ids, and how many tokens it may get."""

    generation: Generation
    token_ids: tuple[int, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class Batching:
    """`rows` texts at once; waiting prompts join when `join` slots are free.

    `prefill_tokens` bounds the tokens of one prefill forward; None is what suits the model.
    `steps`: "plain" makes each step as it comes, "bucketed" in few shapes, "recorded" replays those
    as CUDA graphs; "auto" takes what suits the device.  "compiled" makes programs of them first,
    by torch's compiler, which takes a minute or more: for long work on a GPU.  `share` takes over
    what begins as another text does, instead of computing it again.  None of these changes a
    number by more than rounding.
    """

    rows: int
    join: int = 1
    prefill_tokens: int | None = None
    steps: Steps = "auto"
    share: bool = True


@dataclass
class Clock:
    """Where the time went, in seconds, and how much was done; filled while generating."""

    prefill: float = 0.0
    decode: float = 0.0
    preparing: float = 0.0  # of steps that are recorded or compiled, once for each of their shapes
    shapes: int = 0
    batches: int = 0  # times that prompts were admitted together
    steps: int = 0
    tokens: int = 0  # fed through the model, prompts included
    new_tokens: int = 0
    shared_tokens: int = 0  # of prompts, taken over from texts that begin in the same way
    plain_steps: str = ""  # why steps that should have been recorded were not


@dataclass(eq=False)
class _Row:
    """Everything about one text under way; when it leaves, this one object leaves."""

    request: Request
    numbers: NDArray[np.float32]  # [T, W] of each position fed
    ids: list[int]
    began: float
    fed: int  # positions launched so far
    stored: int = 0  # positions whose numbers have arrived
    last: bool = False  # the newest id ends the text; it is fed once more


@dataclass(frozen=True)
class _Flight:
    """One launched step: its rows, and their next tokens on the way to the host."""

    rows: tuple[_Row, ...]
    token_B: HostCopy


def generate(
    model: Model,
    requests: Sequence[Request],
    direction_SDK: NDArray[np.float32] | None,
    config: GenerationConfig,
    batching: Batching,
    clock: Clock | None = None,
    on_step: Callable[[Clock], None] = lambda clock: None,
    keep: Sequence[int] = (),
) -> Generator[Trace, None, None]:
    """Yield each request's `Trace` soon after it finishes; `on_step` is called once per step.

    `direction_SDK` [S, D, K] unit float32, or None to tap nothing (traces then have no sites: what
    the cost of taps is measured against); `keep`: indices of the sites whose states come with the
    trace.  Every request must fit the model's context (the caller records those that do not).
    Longest prompts go first.  InputError for what no model can be asked.
    """
    _check(model, requests, direction_SDK)
    if requests:
        with memory_errors(), lean(model):
            loop = _Loop(model, requests, direction_SDK, config, batching, clock or Clock(), keep)
            try:
                with loop.taps:
                    yield from loop.run(on_step)
            finally:
                loop.step.close()


def _check(
    model: Model, requests: Sequence[Request], direction_SDK: NDArray[np.float32] | None
) -> None:
    for request in requests:
        ids, name = request.token_ids, request.generation.id
        if not ids or not 0 <= min(ids) <= max(ids) < model.vocabulary:
            raise InputError(
                f"Text {name}: expected at least one token id, each from 0 to "
                f"{model.vocabulary - 1}, got {list(ids[:8]) or 'none'}."
            )
    wanted = (len(model.sites), model.anatomy.d_model)
    if direction_SDK is not None and direction_SDK.shape[:2] != wanted:
        raise InputError(
            f"directions: expected [{wanted[0]}, {wanted[1]}, traits], a vector for each site, got "
            f"{list(direction_SDK.shape)}."
        )


class _Loop:
    def __init__(
        self,
        model: Model,
        requests: Sequence[Request],
        direction_SDK: NDArray[np.float32] | None,
        config: GenerationConfig,
        batching: Batching,
        clock: Clock,
        keep: Sequence[int],
    ) -> None:
        self.model, self.config, self.batching, self.clock = model, config, batching, clock
        self.waiting = sorted(requests, key=lambda request: -len(request.token_ids))
        self.capacity = min(batching.rows, len(requests))
        longest = max(len(r.token_ids) + r.max_new_tokens for r in requests)
        columns = -(-longest // COLUMNS) * COLUMNS  # whole buckets, whatever steps are made of
        self.slots = Slots(len(model.anatomy.blocks), self.capacity, columns, model.device)
        self.scores, self.n_sites, self.n_traits = None, 0, 0
        self.taps: AbstractContextManager[object] = nullcontext()
        if direction_SDK is not None:
            direction = torch.from_numpy(np.ascontiguousarray(direction_SDK)).to(model.device)
            self.n_sites, self.n_traits = direction.shape[0], direction.shape[2]
            self.scores = Scores(direction, keep)
        self.n_kept = len(keep)
        scores_wide = self.n_sites * (1 + self.n_traits)
        self.width = 1 + scores_wide + self.n_kept * model.anatomy.d_model
        self.numbers = Numbers(self.scores, self.capacity)
        self.step = step_for(model, self.slots, self.numbers, config, batching.steps)
        self.forward_cost = forward_cost(model)
        self.prefill_tokens = batching.prefill_tokens or forward_tokens(model)
        finish, at_once = self.numbers.finish, self.numbers.at_once
        self.outbox = Outbox(self.capacity, self.width, finish, at_once)
        self.prefill = Prefill(model, self.slots, self.step, self.numbers, config)
        # all tokens lie in one row then, which some models give positions by
        room = model.context - self.capacity
        # no trial for a few texts that all fit, whose prompts are read once, if they are alike
        tokens = sum(len(r.token_ids) + r.max_new_tokens for r in requests)
        pays = len(requests) > self.capacity or 2 * tokens < longest * self.capacity
        here = model.device.type == "cpu" and type(self.step) is Step and room > 0
        self.ragged = here and pays and takes_ragged(model)
        if self.ragged:
            self.prefill_tokens = min(self.prefill_tokens, room)
        self.newest: Piece | None = None  # of prompts that is still to be read
        self.cuts = list[int]()  # where the parts of the rows end that go to attention; none: anew
        self.live: list[_Row] = []
        self.ended: list[_Row] = []  # texts whose numbers are still on their way
        if self.scores is not None:  # last: what has failed so far has left nothing on the model
            self.taps = Taps(model.anatomy, self.scores)

    def run(self, on_step: Callable[[Clock], None]) -> Iterator[Trace]:
        flight: _Flight | None = None
        while self.waiting or self.live or flight:
            self._admit()
            launched = self._launch() if self.live else None
            if flight:
                self._collect(flight)
            self._leave()
            yield from self._arrived()
            flight = launched
            on_step(self.clock)
        self.clock.plain_steps = self.step.refused
        self.outbox.flush()
        yield from self._arrived()

    # --- rows come ---------------------------------------------------------------------------

    def _admit(self) -> None:
        """Waiting prompts take free slots, once enough are free (or nothing else is to do)."""
        free = self.capacity - len(self.live)
        wanted = min(self.batching.join, len(self.waiting), self.capacity)
        if not self.waiting or (self.live and free < wanted):
            return
        began = time.perf_counter()
        joining, self.waiting = self.waiting[:free], self.waiting[free:]
        self.cuts = []
        self.clock.batches += 1
        there = [row.request.token_ids for row in self.live] if self.batching.share else None
        for together in arranged(there, [request.token_ids for request in joining]):
            self._begin([joining[one.index] for one in together], together, began)
        self.clock.prefill += time.perf_counter() - began

    def _begin(self, requests: list[Request], joining: list[Joining], began: float) -> None:
        """Texts that share equally much (or nothing) of others', in as few forwards as pay."""
        left = [len(request.token_ids) - joining[0].shared for request in requests]
        padding = self.prefill_tokens if self.ragged else self.forward_cost
        for part in pieces(left, self.prefill_tokens, padding, padded=not self.ragged):
            self._prefill(requests[part], joining[part], began)

    @torch.inference_mode()
    def _prefill(self, requests: list[Request], joining: list[Joining], began: float) -> None:
        """All but the last token of some prompts, left-aligned, in chunks of columns.

        The newest piece is read beside the next step where that can be, and when another comes.
        """
        first, shared = len(self.live), joining[0].shared
        rows = [self._open(request, began) for request in requests]
        self.live.extend(rows)
        length = max(len(row.ids) for row in rows) - 1
        if shared:
            self._read_newest()  # which may be what is shared
            self.slots.share([one.place for one in joining], first, shared)
            for row, one in zip(rows, joining, strict=True):
                row.numbers[:shared] = self.live[one.place].numbers[:shared]
                row.stored = shared
            self.clock.shared_tokens += shared * len(rows)
        id_PT = torch.zeros(len(rows), length + 1, dtype=torch.int64)
        for i, row in enumerate(rows):
            id_PT[i, : len(row.ids)] = torch.tensor(row.ids)
        ragged = self.ragged and len(rows) > 1  # no longer than one forward
        chunk = max(1, length if ragged else self.prefill_tokens // len(rows))
        for offset in range(shared, length, chunk):
            self._read_newest()
            self.newest = Piece(rows, first, id_PT, offset, min(offset + chunk, length))
            if not self.ragged:
                self._read_newest()
        ends = [len(row.ids) - 1 for row in rows]
        keys = [noise_key(self.config.seed, row.request.generation) for row in rows]
        self.step.enter(first, [row.ids[-1] for row in rows], ends, keys)

    def _read_newest(self) -> None:
        """The piece that no step has been made with yet, by a forward of its own."""
        if self.newest is not None:
            if self.ragged:
                self.prefill.beside(self.newest)
            else:
                self.prefill.read(self.newest)
            self.clock.tokens += sum(self.newest.lengths)
            self.newest = None

    def _open(self, request: Request, began: float) -> _Row:
        length = len(request.token_ids) + request.max_new_tokens
        numbers = np.empty((length, self.width), dtype=np.float32)
        ids = list(request.token_ids)
        return _Row(request, numbers, ids, began, len(ids) - 1)

    # --- a step ------------------------------------------------------------------------------

    def _launch(self) -> _Flight:
        """Feed each live row's newest token; project, sample, and advance, all on the device."""
        began, prepared = time.perf_counter(), self.step.preparing
        rows = tuple(self.live)
        if self.newest is not None:
            return self._launch_beside(self.newest, rows)
        parts = self._parts()
        with in_parts(parts):
            token_B, numbers_BW = self.step(len(rows), max(columns for _, columns in parts))
        flight = _Flight(rows, HostCopy(token_B))
        self.outbox.add(rows, numbers_BW)
        for row in rows:
            row.fed += 1
        self.clock.steps += 1
        self.clock.tokens += len(rows)
        preparing = self.step.preparing - prepared
        self.clock.preparing += preparing
        self.clock.shapes = self.step.shapes
        self.clock.decode += time.perf_counter() - began - preparing
        return flight

    def _launch_beside(self, piece: Piece, rows: tuple[_Row, ...]) -> _Flight:
        """The same, and a piece of prompts is read; on a CPU, where nothing has to travel."""
        began, self.newest = time.perf_counter(), None
        token_B, number_BW = self.prefill.beside(piece, self._parts())
        self.outbox.flush()  # what came before
        for row, number_W in zip(rows, number_BW, strict=True):
            row.numbers[row.stored] = number_W
            row.stored += 1
            row.fed += 1
        read = sum(piece.lengths)
        self.clock.steps += 1
        self.clock.tokens += read + len(rows)
        took = time.perf_counter() - began
        reading = took * read / (read + len(rows))  # a token costs as much as another one
        self.clock.prefill += reading
        self.clock.decode += took - reading
        return _Flight(rows, HostCopy(token_B))

    def _parts(self) -> list[Part]:
        """The rows as they go to attention: those that look at far fewer columns than others by
        themselves, where all is on a CPU."""
        columns = [row.fed + 1 for row in self.live]
        if not self.cuts or self.clock.steps % _CUT_ANEW == 0:
            wide = self.slots.column_bytes if self.ragged else 0
            self.cuts = cuts(columns, _PART_BYTES // wide) if wide else []
        ends = self.cuts or [len(columns)]
        return [
            (end, max(columns[start:end])) for start, end in zip([0, *ends], ends, strict=False)
        ]

    # --- rows go -----------------------------------------------------------------------------

    def _collect(self, flight: _Flight) -> None:
        """Read a step's tokens (its one wait for the device)."""
        began = time.perf_counter()
        token_B = flight.token_B.read().tolist()
        self.clock.decode += time.perf_counter() - began
        for row, token in zip(flight.rows, token_B, strict=True):
            if row.last:
                continue  # this was the feed of its last token
            row.ids.append(token)
            self.clock.new_tokens += 1
            made = len(row.ids) - len(row.request.token_ids)
            row.last = token in self.model.end_ids or made == row.request.max_new_tokens

    def _leave(self) -> None:
        """Rows whose last token has been fed give up their slots; the last row moves in."""
        for i in reversed(range(len(self.live))):
            row = self.live[i]
            if not (row.last and row.fed == len(row.ids)):
                continue
            self.ended.append(row)
            self.cuts = []
            mover = self.live.pop()
            if mover is not row:
                self.slots.move(len(self.live), i, mover.fed)
                self.step.move(len(self.live), i)
                self.live[i] = mover

    def _arrived(self) -> Iterator[Trace]:
        """The texts that ended and have all their numbers: an interruption must not lose them."""
        if any(row.stored != len(row.ids) for row in self.ended):
            self.outbox.hurry()
        here = [row for row in self.ended if row.stored == len(row.ids)]
        if here:
            self.ended = [row for row in self.ended if row.stored != len(row.ids)]
            yield from map(self._trace, here)

    def _trace(self, row: _Row) -> Trace:
        length = len(row.ids)
        ends = np.cumsum([1, self.n_sites, self.n_sites * self.n_traits])
        next_T1, norm_TS, score_TX, kept_TX = np.split(row.numbers[:length], ends, axis=1)
        # what a position says of the next token belongs to that one
        logprob_T = np.concatenate([[np.nan], next_T1[:-1, 0]]).astype(np.float32)
        return Trace(
            generation=row.request.generation,
            token_ids=np.array(row.ids, dtype=np.int32),
            n_prompt=len(row.request.token_ids),
            score=score_TX.reshape(length, self.n_sites, self.n_traits),
            norm=norm_TS.copy(),
            logprob=logprob_T,
            finish="stop" if row.ids[-1] in self.model.end_ids else "length",
            seconds=time.perf_counter() - row.began,
            kept=kept_TX.reshape(length, self.n_kept, -1) if self.n_kept else None,
        )
