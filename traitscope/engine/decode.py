"""The decode loop: many prompts in true batches, one forward per step, scores from inside it.

A prompt's tokens but the last are prefilled into a slot; the last one goes through the decode
step like every sampled token, so that sampling lives in one place.  Every sampled token is fed
once, the last one too, so that every token has a state.  What a step says about ending is read
while the next one runs: that one is the extra feed of the last token.  Rows that end leave at
once, the last row takes their slot, waiting prompts take the free ones.  The order is a function
of the requests and of `rows` and `join` alone.  The engine knows nothing of disks, suites,
traits' names or screens.

Legend: B rows, T tokens, S sites, K traits, X kept numbers per token (D for each
kept site), W = 2 + S + S * K + X numbers per token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from traitscope.core import Generation, GenerationConfig, Trace
from traitscope.engine.logprob import own_logprob
from traitscope.engine.sampling import noise_key, pick
from traitscope.engine.slots import Slots, masks
from traitscope.models import Model, Scores, Taps

__all__ = ["Batching", "Clock", "Request", "generate"]


@dataclass(frozen=True)
class Request:
    """One text to be made: its name, its prompt's ids, and how many tokens it may get."""

    generation: Generation
    token_ids: tuple[int, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class Batching:
    """`rows` texts at once; waiting prompts join when `join` slots are free.

    `prefill_tokens` bounds the tokens of one prefill forward.
    """

    rows: int
    join: int = 1
    prefill_tokens: int = 4096


@dataclass
class Clock:
    """Where the time went, in seconds, and how much was done; filled while generating."""

    prefill: float = 0.0
    decode: float = 0.0
    batches: int = 0  # times that prompts were admitted together
    steps: int = 0
    tokens: int = 0  # fed through the model, prompts included
    new_tokens: int = 0


@dataclass
class _Row:
    """Everything about one text under way; when it leaves, this one object leaves."""

    request: Request
    numbers: NDArray[np.float32]  # [T, W - 2]: norm, score, kept of each position fed so far
    ids: list[int]
    logprob: NDArray[np.float32]
    began: float
    fed: int  # positions launched so far
    last: bool = False  # the newest id ends the text; it is fed once more


@dataclass(frozen=True)
class _Flight:
    """One launched step: its rows and its numbers, still on the device."""

    rows: tuple[_Row, ...]
    packed_BW: Tensor


@dataclass
class _Live:
    """Device-side state of the live rows: the next id to feed, its position, the noise key."""

    id_B: Tensor
    position_B: Tensor
    key_B: Tensor
    rows: list[_Row] = field(default_factory=list)


def generate(
    model: Model,
    requests: Sequence[Request],
    direction_SDK: NDArray[np.float32],
    config: GenerationConfig,
    batching: Batching,
    clock: Clock | None = None,
    on_step: Callable[[Clock], None] = lambda clock: None,
    keep: Sequence[int] = (),
) -> Generator[Trace, None, None]:
    """Yield each request's `Trace` as it finishes; `on_step` is called once per step.

    `direction_SDK` [S, D, K] unit float32; `keep`: indices of the sites whose states come with
    the trace.  Every request must fit the model's context (the caller records those that do not).
    Longest prompts go first.
    """
    if requests:
        loop = _Loop(model, requests, direction_SDK, config, batching, clock or Clock(), keep)
        with loop.taps:
            yield from loop.run(on_step)


class _Loop:
    def __init__(
        self,
        model: Model,
        requests: Sequence[Request],
        direction_SDK: NDArray[np.float32],
        config: GenerationConfig,
        batching: Batching,
        clock: Clock,
        keep: Sequence[int],
    ) -> None:
        self.model, self.config, self.batching, self.clock = model, config, batching, clock
        self.waiting = sorted(requests, key=lambda request: -len(request.token_ids))
        self.capacity = min(batching.rows, len(requests))
        device = model.device
        columns = max(len(r.token_ids) + r.max_new_tokens for r in requests)
        self.slots = Slots(len(model.anatomy.blocks), self.capacity, columns, device)
        direction = torch.from_numpy(np.ascontiguousarray(direction_SDK)).to(device)
        self.n_sites, self.n_traits = direction.shape[0], direction.shape[2]
        self.scores, self.n_kept = Scores(direction, keep), len(keep)
        self.taps = Taps(model.anatomy, self.scores)
        zeros = torch.zeros(self.capacity, dtype=torch.int64, device=device)
        self.live = _Live(zeros, zeros.clone(), zeros.clone())

    def run(self, on_step: Callable[[Clock], None]) -> Iterator[Trace]:
        flight: _Flight | None = None
        while self.waiting or self.live.rows or flight:
            self._admit()
            launched = self._launch() if self.live.rows else None
            if flight:
                yield from self._collect(flight)
            self._leave()
            flight = launched
            on_step(self.clock)

    # --- rows come ---------------------------------------------------------------------------

    def _admit(self) -> None:
        """Waiting prompts take free slots, once enough are free (or nothing else is to do)."""
        free = self.capacity - len(self.live.rows)
        wanted = min(self.batching.join, len(self.waiting), self.capacity)
        if not self.waiting or (self.live.rows and free < wanted):
            return
        joining, self.waiting = self.waiting[:free], self.waiting[free:]
        self.clock.batches += 1
        while joining:
            most = max(1, self.batching.prefill_tokens // max(len(joining[0].token_ids), 1))
            self._prefill(joining[:most])
            joining = joining[most:]

    @torch.inference_mode()
    def _prefill(self, requests: list[Request]) -> None:
        """All but the last token of some prompts, left-aligned, in chunks of columns."""
        began = time.perf_counter()
        first = len(self.live.rows)
        rows = [self._open(request, began) for request in requests]
        length = max(len(request.token_ids) for request in requests) - 1
        id_BT = torch.zeros(len(rows), length + 1, dtype=torch.int64)
        for i, request in enumerate(requests):
            id_BT[i, : len(request.token_ids)] = torch.tensor(request.token_ids)
        id_BT = id_BT.to(self.model.device)
        chunk = max(1, self.batching.prefill_tokens // len(rows))
        for offset in range(0, length, chunk):
            self._prefill_chunk(rows, first, id_BT, offset, min(chunk, length - offset))
        self.live.rows.extend(rows)
        for i, row in enumerate(rows, start=first):
            self.live.id_B[i] = row.ids[-1]
            self.live.position_B[i] = len(row.ids) - 1
            self.live.key_B[i] = noise_key(self.config.seed, row.request.generation)
        self.clock.prefill += time.perf_counter() - began

    def _prefill_chunk(
        self, rows: list[_Row], first: int, id_BT: Tensor, offset: int, tokens: int
    ) -> None:
        end = offset + tokens
        position_BT = torch.arange(offset, end, device=id_BT.device).expand(len(rows), -1)
        self.slots.prefill(first, len(rows), offset, tokens)
        h_BTD = self._forward(id_BT[:, offset:end], position_BT, end)
        score_BTSK, norm_BTS = self.scores.read()
        next_BT = id_BT[:, offset + 1 : end + 1]
        logprob_N = own_logprob(self.model.anatomy, h_BTD.flatten(0, 1), next_BT.flatten())
        logprob_BT1 = logprob_N.view(*next_BT.shape, 1)
        parts = (logprob_BT1, norm_BTS, score_BTSK.flatten(2), self.scores.kept_BTX())
        packed_BTW = torch.cat(parts, dim=2).cpu().numpy()
        for i, row in enumerate(rows):
            used = min(len(row.ids) - 1, end) - offset
            if used > 0:
                row.logprob[offset + 1 : offset + 1 + used] = packed_BTW[i, :used, 0]
                row.numbers[offset : offset + used] = packed_BTW[i, :used, 1:]
                self.clock.tokens += used

    def _open(self, request: Request, began: float) -> _Row:
        length = len(request.token_ids) + request.max_new_tokens
        width = self.n_sites * (1 + self.n_traits) + self.n_kept * self.model.anatomy.d_model
        numbers = np.empty((length, width), dtype=np.float32)
        logprob = np.full(length, np.nan, dtype=np.float32)
        ids = list(request.token_ids)
        return _Row(request, numbers, ids, logprob, began, len(ids) - 1)

    # --- a step ------------------------------------------------------------------------------

    @torch.inference_mode()
    def _launch(self) -> _Flight:
        """Feed each live row's newest token; project, sample, and advance, all on the device."""
        began = time.perf_counter()
        live, n = self.live, len(self.live.rows)
        columns = max(row.fed for row in live.rows) + 1
        position_B = live.position_B[:n]
        self.slots.decode(position_B, columns)
        h_B1D = self._forward(live.id_B[:n, None], position_B[:, None], columns)
        score_B1SK, norm_B1S = self.scores.read()
        logits_BV = self.model.anatomy.logits(h_B1D[:, 0])
        token_B, logprob_B = pick(logits_BV, live.key_B[:n], position_B + 1, self.config)
        id_bits_B1 = token_B.to(torch.int32).view(torch.float32)[:, None]
        numbers = (norm_B1S[:, 0], score_B1SK[:, 0].flatten(1), self.scores.kept_BTX()[:, 0])
        packed_BW = torch.cat((id_bits_B1, logprob_B[:, None], *numbers), dim=1)
        flight = _Flight(tuple(live.rows), packed_BW)
        live.id_B[:n] = token_B
        live.position_B[:n] += 1
        for row in live.rows:
            row.fed += 1
        self.clock.steps += 1
        self.clock.tokens += n
        self.clock.decode += time.perf_counter() - began
        return flight

    def _forward(self, id_BT: Tensor, position_BT: Tensor, columns: int) -> Tensor:
        """Final-normed states [B, T, D]; the taps fill `self.scores` on the way."""
        anatomy = self.model.anatomy
        out = anatomy.stack(
            input_ids=id_BT,
            attention_mask=masks(anatomy.config, position_BT, columns, self.model.dtype),
            position_ids=position_BT,
            past_key_values=self.slots,
            use_cache=True,
        )
        # a model may span several devices, ids and numbers stay on one
        return out[0].to(id_BT.device)  # type: ignore[no-any-return]  # untyped outputs

    # --- rows go -----------------------------------------------------------------------------

    def _collect(self, flight: _Flight) -> Iterator[Trace]:
        """Read a step's numbers (its one copy to the host); hand over the texts that it ended."""
        began = time.perf_counter()
        packed_BW = flight.packed_BW.cpu().numpy()
        id_B = packed_BW[:, 0].view(np.int32)
        self.clock.decode += time.perf_counter() - began
        for i, row in enumerate(flight.rows):
            position = len(row.ids) - 1
            row.numbers[position] = packed_BW[i, 2:]
            if row.last:
                yield self._trace(row)
                continue
            token = int(id_B[i])
            row.ids.append(token)
            row.logprob[position + 1] = packed_BW[i, 1]
            self.clock.new_tokens += 1
            made = len(row.ids) - len(row.request.token_ids)
            row.last = token in self.model.end_ids or made == row.request.max_new_tokens

    def _leave(self) -> None:
        """Rows whose last token has been fed give up their slots; the last row moves in."""
        live = self.live
        for i in reversed(range(len(live.rows))):
            row = live.rows[i]
            if not (row.last and row.fed == len(row.ids)):
                continue
            end = len(live.rows) - 1
            if i != end:
                self._move(end, i)
            live.rows.pop()

    def _move(self, source: int, target: int) -> None:
        live = self.live
        with torch.inference_mode():
            self.slots.move(source, target, live.rows[source].fed)
            for state_B in (live.id_B, live.position_B, live.key_B):
                state_B[target] = state_B[source]
        live.rows[target] = live.rows[source]

    def _trace(self, row: _Row) -> Trace:
        length, ends = len(row.ids), np.cumsum([self.n_sites, self.n_sites * self.n_traits])
        norm_TS, score_TSK, kept_TSD = np.split(row.numbers[:length], ends, axis=1)
        return Trace(
            generation=row.request.generation,
            token_ids=np.array(row.ids, dtype=np.int32),
            n_prompt=len(row.request.token_ids),
            score=score_TSK.reshape(length, self.n_sites, self.n_traits).copy(),
            norm=norm_TS.copy(),
            logprob=row.logprob[:length].copy(),
            finish="stop" if row.ids[-1] in self.model.end_ids else "length",
            seconds=time.perf_counter() - row.began,
            kept=kept_TSD.reshape(length, self.n_kept, -1).copy() if self.n_kept else None,
        )
