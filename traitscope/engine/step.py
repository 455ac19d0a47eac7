"""One decode step, all on the device: forward, projection, the next token.

`Step` owns what the device knows of the live rows (the id to feed, its position, the noise key)
and makes a step of the first n of them.  Nothing in a step waits for the host, so that it can be
recorded: `BucketedStep` runs steps of a few fixed shapes, which a CUDA graph replays in one
launch, and which a device that caches every shape (MPS) does not drown in.  Both give the same
numbers.  This module does not know texts, when they end, or who reads the numbers.

Legend: B rows, T tokens, D model width, W numbers per token, or Y before they are finished
(`numbers.py`).
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from traitscope.core import GenerationConfig
from traitscope.engine.compiling import Compiled, NotCompiled
from traitscope.engine.logprob import at_once, own_logprob
from traitscope.engine.numbers import Numbers
from traitscope.engine.plan import FEWEST, bucket
from traitscope.engine.ragged import Part, Prompts, ragged
from traitscope.engine.sampling import pick
from traitscope.engine.slots import Slots, forward
from traitscope.errors import InputError, memory_errors
from traitscope.models import Model

__all__ = ["BucketedStep", "Made", "Step", "step_for"]

Made = tuple[Tensor, Tensor]  # the next token [B] and the numbers [B, W], or [B, Y]
Recorder = Callable[[Callable[[], Made]], Callable[[], Made]]
Compute = Callable[[int, int], Made]  # of so many rows, looking at so many columns

_ALLOWED = 1e-2  # of the largest number: rounding in narrow dtypes is inside, stale buffers not


class Step:
    """Steps of the first n rows, whatever n; the plain way, the reference of the other."""

    def __init__(self, model: Model, slots: Slots, numbers: Numbers, config: GenerationConfig):
        self.model, self.slots, self.numbers, self.config = model, slots, numbers, config
        self.refused = ""  # why steps are not recorded though they should be
        self.preparing = 0.0  # seconds of making ready, which is done once for a shape
        self.shapes = 0  # that were made ready
        # sampling may ask the host whether its first candidates suffice: in float64, unknown to MPS
        self.ask = model.device.type != "mps"
        zeros = torch.zeros(slots.rows, dtype=torch.int64, device=model.device)
        self.id_B, self.position_B, self.key_B = zeros, zeros.clone(), zeros.clone()

    def close(self) -> None:
        """Let go of what holds the slots, and of recordings."""

    @torch.inference_mode()
    def enter(self, first: int, ids: list[int], positions: list[int], keys: list[int]) -> None:
        """Rows from `first` on begin with these ids at these positions."""
        device, rows = self.id_B.device, slice(first, first + len(ids))
        for state_B, values in (
            (self.id_B, ids),
            (self.position_B, positions),
            (self.key_B, keys),
        ):
            state_B[rows] = torch.tensor(values, dtype=torch.int64).to(device)

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        for state_B in (self.id_B, self.position_B, self.key_B):
            state_B[target] = state_B[source]

    @torch.inference_mode()
    def __call__(self, n: int, columns: int) -> Made:
        """Feed rows 0..n-1 once, looking at `columns`; they go on to the token that comes next.

        The numbers are yet to be finished.
        """
        token_B, numbers_BW = self._make(n, columns)
        self.id_B[:n] = token_B
        self.position_B[:n] += 1
        return token_B, numbers_BW

    @torch.inference_mode()
    def beside(
        self, parts: Sequence[Part], prompts: Prompts, id_M: Tensor, next_M: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """A step of rows 0..n-1, in parts, in one forward with these tokens of prompts; n may be 0.

        The next token [B], and the log probabilities [B + M] of it and of those that come next in
        the prompts: NaN where `next_M` is None.
        """
        n = parts[-1][0] if parts else 0
        token_B, position_B = self.id_B[:n], self.position_B[:n]
        h_ND = ragged(self.model, self.slots, (token_B, position_B), prompts, id_M, parts)
        anatomy, logprob_N = self.model.anatomy, torch.full((len(h_ND),), torch.nan)
        head_NV: Tensor | None = None
        if n:
            # in one product with the first of the prompts' tokens: most of it is reading the head
            together = n if next_M is None else max(n, at_once(anatomy, h_ND.device))
            head_NV = anatomy.head_of(h_ND[:together])
            logits_BV, head_NV = anatomy.scaled(head_NV[:n]), head_NV[n:]
            token_B, logprob_N[:n] = self._next(logits_BV, self.key_B[:n], position_B)
            self.id_B[:n] = token_B
            self.position_B[:n] += 1
        if next_M is not None:
            logprob_N[n:] = own_logprob(anatomy, h_ND[n:], next_M, head_NV)
        return token_B, logprob_N

    def forward(self, id_BT: Tensor, position_BT: Tensor, columns: int) -> Tensor:
        """Final-normed states [B, T, D]; taps fill their sink on the way."""
        return forward(self.model, self.slots, id_BT, position_BT, columns)

    def _make(self, n: int, columns: int) -> Made:
        return self._compute(n, columns)

    def _compute(self, n: int, columns: int) -> Made:
        position_B = self.position_B[:n]
        self.slots.decode(position_B, columns)
        h_BTD = self.forward(self.id_B[:n, None], position_B[:, None], columns)
        logits_BV = self.model.anatomy.logits(h_BTD[:, 0])
        token_B, logprob_B = self._next(logits_BV, self.key_B[:n], position_B)
        return token_B, self.numbers.of_step(logprob_B)

    def _next(self, logits_BV: Tensor, key_B: Tensor, position_B: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens that come after those at these positions, and their log probabilities."""
        return pick(logits_BV, key_B, position_B + 1, self.config, self.ask)


class BucketedStep(Step):
    """Steps in few shapes: rows a power of two, columns a multiple of 128.  Where shapes are made
    ready first there are few of few rows (`FEWEST`).

    `record` turns the making of one shape's step into its replay; what it gives is copied at
    once, since a replay writes where the one before did.  None: a shape's step is made as it is.
    `compiled` is another way to compute a step, which is recorded in place of the plain one.  Rows
    beyond n are fed as well, into slots that nobody reads.  A way that fails or does not give what
    the plain step gives is not gone again: what is compiled is then recorded as it is, and what
    cannot be recorded made plainly.  `refused` says why.
    """

    def __init__(
        self,
        model: Model,
        slots: Slots,
        numbers: Numbers,
        config: GenerationConfig,
        record: Recorder | None,
        compiled: Callable[[Compute], Compute] | None = None,
    ):
        super().__init__(model, slots, numbers, config)
        self.ask = False
        self._record = record
        self._ways: list[Compute] = [self._compute]
        if compiled is not None:
            self._ways.insert(0, compiled(self._compute))
        self._replays: dict[tuple[int, int], Callable[[], Made]] = {}
        self._fewest = FEWEST if record is not None or compiled is not None else 1
        self._held = 0  # rows of the step before

    def close(self) -> None:
        self._ways.clear()
        self._replays.clear()
        self._record = None  # with it go all graphs at once

    def _make(self, n: int, columns: int) -> Made:
        if n != self._held:  # places that nobody holds look at their first column
            self.position_B[n:].zero_()
            self._held = n
        rows, wide = bucket(n, columns, self.slots.rows, self._fewest)
        replay = self._replays.get((rows, wide)) or self._prepared(rows, wide, n)
        if replay is None:
            return self._compute(n, columns)
        token_B, numbers_BW = replay()
        return token_B[:n].clone(), numbers_BW[:n].clone()

    def _prepared(self, rows: int, columns: int, n: int) -> Callable[[], Made] | None:
        """The replay of this shape, by the first way that holds; None: there is none."""
        if not self._ways:
            return None
        began = time.perf_counter()
        if self._record is None and len(self._ways) == 1:
            replay: Callable[[], Made] | None = partial(self._compute, rows, columns)
        else:
            replay = self._by_a_way(rows, columns, n)
        if replay is None:
            self.close()
            self.ask = self.id_B.device.type != "mps"
        else:
            self._replays[rows, columns] = replay
        self.shapes += 1
        self.preparing += time.perf_counter() - began
        return replay

    def _by_a_way(self, rows: int, columns: int, n: int) -> Callable[[], Made] | None:
        plain = partial(self._compute, rows, columns)
        # first, so that a recording's memory does not stand beside that of these
        with self._other_tokens(n):
            other_B, other_BW = (part[:n].clone() for part in plain())
        before_BW = plain()[1][:n].clone()
        while self._ways:
            way = partial(self._ways[0], rows, columns)
            try:
                with memory_errors():
                    if len(self._ways) > 1:
                        way()  # outside the recording: compiled at first use
                    replay = way if self._record is None else self._record(way)
                    with self._other_tokens(n):
                        token_B, numbers_BW = (part[:n] for part in replay())
                    wrong = self._apart(token_B == other_B, numbers_BW, other_BW, before_BW)
            except torch.OutOfMemoryError:
                raise
            except NotCompiled as error:
                wrong = str(error)
            except RuntimeError as error:  # what torch raises where a step cannot be captured
                wrong = f"a step could not be recorded: {error}"
            if not wrong:
                return replay
            self.refused = f"{self.refused}; {wrong}" if self.refused else wrong
            self._ways.pop(0)
        return None

    @contextmanager
    def _other_tokens(self, n: int) -> Iterator[None]:
        """Within it, other tokens are fed than those of the recording: a replay that hands out
        what it was recorded with would else be right once.  What a step within writes into the
        slots, the step itself writes again."""
        here_B = self.id_B.clone()
        self.id_B[:n] = (here_B[:n] + 1) % self.model.anatomy.config.vocab_size
        try:
            yield
        finally:
            self.id_B.copy_(here_B)

    def _apart(
        self, same_B: Tensor, numbers_BW: Tensor, plain_BW: Tensor, before_BW: Tensor
    ) -> str:
        """What is wrong with a replay, held against the plain step of the same tokens.

        Rounding may make another token of a close call: its log probability is another one, too.
        """
        apart_BW = (numbers_BW - plain_BW).abs()
        apart_BW[:, self.numbers.logprob_at] *= same_B
        apart = float(apart_BW.max())
        moved = float((plain_BW - before_BW).abs().max())
        if apart <= _ALLOWED * float(plain_BW.abs().max()) and apart <= moved / 4:
            return ""
        return f"a recorded step is not the plain one: {apart:.1e} apart"


def step_for(
    model: Model, slots: Slots, numbers: Numbers, config: GenerationConfig, kind: str = "auto"
) -> Step:
    """The kind of step that suits the model's device: "plain", "bucketed", (CUDA) "recorded", or
    "compiled": compiled, and where there is CUDA recorded."""
    home = model.device
    if kind == "auto":
        kind = {"cuda": "recorded", "mps": "bucketed"}.get(home.type, "plain")
        if len({parameter.device for parameter in model.hf.parameters()}) > 1:
            kind = "plain"  # a graph records one device
    if kind == "plain":
        return Step(model, slots, numbers, config)
    graphs = kind == "recorded" or (kind == "compiled" and home.type == "cuda")
    record = CudaGraphs(home) if graphs else None
    compiled = Compiled if kind == "compiled" else None
    return BucketedStep(model, slots, numbers, config, record, compiled)


class CudaGraphs:
    """Records steps as CUDA graphs: warmed up beside the stream, captured, then replayed.

    All of them work in one memory: they are replayed one at a time, and what one made is copied
    before the next begins.  They go together as well: with one of them goes the workspace of the
    stream that all were recorded on, which others would still write to.  What waits for the host
    is found in the warm-up, where it can be said which call it is and no recording is broken.
    Warm-up and capture share a stream, whose libraries have their workspaces then.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise InputError(
                f"steps: expected 'auto', 'plain', 'bucketed' or 'compiled' on '{device}', got "
                "'recorded': that is by CUDA graphs."
            )
        self._device = device
        with torch.cuda.device(device):
            self._beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._memory: Any = None
        self._graphs = list[torch.cuda.CUDAGraph]()

    def __call__(self, compute: Callable[[], Made]) -> Callable[[], Made]:
        with torch.cuda.device(self._device):
            return self._recorded(compute)

    def _recorded(self, compute: Callable[[], Made]) -> Callable[[], Made]:
        here = torch.cuda.current_stream()
        self._beside.wait_stream(here)
        try:
            with torch.cuda.stream(self._beside), _no_waiting():
                compute()
        finally:  # whatever it is that failed, its kernels are still under way
            here.wait_stream(self._beside)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # none is freed while one is recorded
        with torch.cuda.stream(self._beside), _no_collection():
            graph, made = self._captured(compute)
        here.wait_stream(self._beside)

        def replay() -> Made:
            graph.replay()
            return made

        return replay

    def _captured(self, compute: Callable[[], Made]) -> tuple[torch.cuda.CUDAGraph, Made]:
        """As `torch.cuda.graph` does, which where it fails leaves its stream and memory taken."""
        graph = torch.cuda.CUDAGraph()
        self._graphs.append(graph)
        self._memory = self._memory or torch.cuda.graph_pool_handle()
        graph.capture_begin(pool=self._memory, capture_error_mode="thread_local")
        try:
            made = compute()
        except BaseException:
            with suppress(RuntimeError):  # it says again that the capture is invalid
                self._end(graph)
            raise
        self._end(graph)
        return graph, made

    def _end(self, graph: torch.cuda.CUDAGraph) -> None:
        try:
            graph.capture_end()
        except RuntimeError:
            with suppress(RuntimeError):  # else the allocator would go on as if one were recorded
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._memory)
            self._memory = None
            raise


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Within it, an operation that waits for the device raises a RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    _debug(2)
    try:
        yield
    finally:
        _debug(before)


def _debug(mode: int) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")
        torch.cuda.set_sync_debug_mode(mode)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Within it, no cycle is collected: one may hold an older graph, which then breaks this one."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
