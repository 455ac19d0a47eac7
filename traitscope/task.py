"""One call's work on one run folder: load, prove, directions, texts, internals.

Speaks to models, engine and the run's writer; is told by `work.py` what is missing, and reports
through a callback.  Knows nothing of command lines or of where runs are kept.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from traitscope.core import Capture, Float32, Generation, TextRecord, Trace, TraitDirections
from traitscope.engine import (
    Batching,
    Clock,
    Request,
    agreement,
    capture_internals,
    check_internals,
    generate,
)
from traitscope.errors import Interrupted, MachineError, ModelError
from traitscope.models import Model, Proof
from traitscope.runs import Run, RunHeader, RunWriter
from traitscope.suite import Suite
from traitscope.traits.extract import extract, fits, stacked
from traitscope.traits.pairs import Trait
from traitscope.work import Source, Todo, TraitData, Work

__all__ = ["Progress", "Task", "Tick"]

_PHASES = ("load", "directions", "generate", "internals", "write")
DEFAULT_ROWS = 24  # the batch of the bundled suite; memory-aware sizes are the caller's to set


@dataclass(frozen=True)
class Tick:
    """Progress: `done` of `total` in `unit`; `tokens` generated so far; `message` for a person."""

    phase: str  # load, directions, generate, internals, done
    done: int = 0
    total: int = 0
    unit: str = ""
    message: str = ""
    tokens: int = 0


Progress = Callable[[Tick], None]


class Task:
    """One call's work on one run folder: load, prove, directions, texts, internals."""

    def __init__(
        self,
        suite: Suite,
        source: Source,
        work: Work,
        traits: Sequence[TraitData],
        path: Path,
        there: Run | None,
        todo: Todo,
        progress: Progress,
        began: float,
    ) -> None:
        self.suite, self.source, self.work, self.traits = suite, source, work, traits
        self.path, self.there, self.todo, self.progress = path, there, todo, progress
        self.began, self.clock = began, Clock()
        self.seconds = dict.fromkeys(_PHASES, 0.0)
        self.made = 0
        self.committing = False  # stays True where a commit was cut short

    def run(self) -> dict[str, Any]:
        """Do it all; returns the stats.  Nothing is written before model and directions stand."""
        try:
            return self._run()
        except torch.OutOfMemoryError as error:
            raise MachineError(
                f"Out of memory on '{self.suite.device}' with '{self.source.name}'; what is done "
                f"is in {self.path}. Use a narrower dtype, shorter texts or another device."
            ) from error

    def _run(self) -> dict[str, Any]:
        model = self._load()
        proofs = self._prove(model)
        directions = self._directions(model)
        header = self._header(model, directions, proofs)
        with self._open(header, directions) as writer:
            direction_SDK = stacked([directions[name] for name in self.suite.trait_names])
            try:
                self._texts(writer, model, direction_SDK)
                self._internals(writer, model, direction_SDK)
            except KeyboardInterrupt:
                writer.event("interrupted", **self._stats())
                done = writer.done_captures().intersection(self.work.captures)
                raise Interrupted(
                    f"Interrupted. {len(done)} of {len(self.work.captures)} "
                    f"captures are kept in {self.path}; the same command goes on."
                ) from None
            stats = self._stats()
            writer.event("finished", **stats)
        self.progress(Tick("done", message=f"All is in {self.path}."))
        return stats

    def _stats(self) -> dict[str, Any]:
        seconds = {**self.seconds, "prefill": self.clock.prefill, "decode": self.clock.decode}
        seconds["total"] = time.perf_counter() - self.began
        generating = self.seconds["generate"]
        return {
            "model_loads": 0 if self.source.model is not None else 1,
            "batches": self.clock.batches,
            "steps": self.clock.steps,
            "tokens": self.clock.tokens,
            "new_tokens": self.clock.new_tokens,
            "tokens_per_second": self.clock.new_tokens / generating if generating else 0.0,
            "made": self.made,
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
        }

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - began

    # --- before anything is written --------------------------------------------------------------

    def _load(self) -> Model:
        self.progress(Tick("load", message=f"Loading {self.source.name}."))
        with self._timed("load"):
            model = self.source.load(self.suite.device)
        n_blocks = len(model.anatomy.blocks)
        for generation in self.work.prompts:
            for block in self.work.blocks_of(generation, n_blocks):
                check_internals(model, block)
        return model

    def _prove(self, model: Model) -> list[Proof]:
        with self._timed("load"):
            proofs = [*model.proofs, *agreement(model)]
        broken = [proof for proof in proofs if not proof.held]
        if broken:
            said = "; ".join(f"{p.name}: {p.detail or f'{p.difference:.2g} |h|'}" for p in broken)
            raise ModelError(
                f"Expected '{model.name}' in {model.dtype_name} on {model.device} to give the same "
                f"numbers in a batch as alone, but: {said}. Its runs could not be trusted; try "
                "float32, or report the architecture."
            )
        return proofs

    def _directions(self, model: Model) -> dict[str, TraitDirections]:
        """Of each trait, in the suite's order: the run's own, a file's, or made from pairs."""
        if self.there is not None:
            return dict(self.there.directions)
        data = [trait for trait in self.traits if isinstance(trait, Trait)]
        ready = {d.trait: d for d in self.traits if isinstance(d, TraitDirections)}
        for source in self.suite.trait_sources:
            if source.name in ready:
                fits(ready[source.name], model, source.path)
        with self._timed("directions"):
            made = extract(
                model,
                data,
                lambda done, total: self.progress(
                    Tick("directions", done, total, "texts", "Making directions from pairs.")
                ),
            )
        every = {**ready, **made}
        return {name: every[name] for name in self.suite.trait_names}

    def _header(
        self, model: Model, directions: Mapping[str, TraitDirections], proofs: Sequence[Proof]
    ) -> RunHeader:
        rows = DEFAULT_ROWS if self.suite.rows == "auto" else self.suite.rows
        return RunHeader(
            key=self.work.key,
            name=self.suite.name,
            suite=self.suite.to_dict(),
            model=model.describe(),
            sites=tuple(site.name for site in model.sites),
            generation=vars(self.work.config),
            rows=rows,
            # on a GPU a prefill stalls the others for longer than an idle slot costs
            join=1 if model.device.type == "cpu" else max(1, rows // 3),
            captures=self.work.captures,
            traits=tuple({"name": name, "hash": d.hash} for name, d in directions.items()),
            versions=_versions(),
            proofs=[proof.to_dict() for proof in proofs],
        )

    def _open(self, header: RunHeader, directions: Mapping[str, TraitDirections]) -> RunWriter:
        if self.there is None:
            return RunWriter.create(self.path, header, directions)
        return RunWriter.resume(self.path, header)

    # --- texts -----------------------------------------------------------------------------------

    def _texts(self, writer: RunWriter, model: Model, direction_SDK: Float32) -> None:
        # asked again: another process may have written to the folder since it was read
        done = writer.done_generations()
        todo = [g for g in self.todo.texts if g not in done]
        known = (done | writer.failed_generations()).difference(todo)
        self._commit(writer, [], self._of(writer, known))
        too_long = [g for g in todo if self._room(model, g) < 1]
        refused = [self._refused(model, g) for g in too_long]
        self._commit(writer, refused, self._of(writer, too_long))
        wanted = {g: self._request(model, g) for g in todo if self._room(model, g) >= 1}
        rows = writer.header.rows
        while wanted:
            try:
                self._generate(writer, model, direction_SDK, wanted, rows)
            except torch.OutOfMemoryError as error:
                if rows == 1:
                    raise MachineError(
                        f"Out of memory on {model.device} with one text at a time; what is done is "
                        f"in {self.path}. Use a narrower dtype, fewer new tokens or another device."
                    ) from error
                rows = max(1, rows // 2)
                writer.event("out_of_memory", rows=rows)

    def _generate(
        self,
        writer: RunWriter,
        model: Model,
        direction_SDK: Float32,
        wanted: dict[Generation, Request],
        rows: int,
    ) -> None:
        """Make the wanted texts; each leaves `wanted` when it is committed."""
        pending: list[Trace] = []
        total, began = len(self.todo.texts), time.perf_counter()
        enough = max(1, rows // 4)

        def tick(clock: Clock) -> None:
            done = total - len(wanted) + len(pending)
            self.progress(Tick("generate", done, total, "texts", tokens=clock.new_tokens))

        def flush() -> None:
            nonlocal began
            self.seconds["generate"] += time.perf_counter() - began
            there = writer.done_generations()
            fresh = [t for t in pending if t.generation not in there]
            self._commit(
                writer,
                [self._record(model, trace) for trace in fresh],
                self._of(writer, [trace.generation for trace in fresh]),
            )
            for trace in pending:
                wanted.pop(trace.generation, None)
            pending.clear()
            began = time.perf_counter()

        batching = Batching(rows, min(writer.header.join, rows))
        requests = list(wanted.values())
        try:
            # closed at once where a commit fails: the model is the caller's, and has taps on it
            with closing(
                generate(
                    model, requests, direction_SDK, self.work.config, batching, self.clock, tick
                )
            ) as traces:
                for trace in traces:
                    pending.append(trace)
                    if len(pending) >= enough:
                        flush()
        finally:
            if not self.committing:  # one that was cut short may have happened: never twice
                flush()

    def _of(self, writer: RunWriter, generations: Iterable[Generation]) -> list[Capture]:
        """The captures that come with texts: trajectories."""
        chosen, done = set(generations), writer.done_captures()
        mine = [c for c in self.todo.captures if c.generation in chosen and c not in done]
        return [c for c in mine if c.kind == "trajectory"]

    def _room(self, model: Model, generation: Generation) -> int:
        """How many tokens may follow this prompt."""
        length = len(self.work.rendered[generation].token_ids)
        return min(self.work.config.max_new_tokens, model.context - length)

    def _request(self, model: Model, generation: Generation) -> Request:
        ids = self.work.rendered[generation].token_ids
        return Request(generation, ids, self._room(model, generation))

    def _refused(self, model: Model, generation: Generation) -> TextRecord:
        length = len(self.work.rendered[generation].token_ids)
        return TextRecord(
            generation,
            self.work.prompts[generation],
            error=(
                f"The prompt has {length} tokens, and the context of '{model.name}' holds "
                f"{model.context}, one of them for the answer. Shorten it."
            ),
        )

    def _record(self, model: Model, trace: Trace) -> TextRecord:
        rendered = self.work.rendered[trace.generation]
        response = trace.token_ids[trace.n_prompt :].tolist()
        return TextRecord(
            generation=trace.generation,
            prompt=self.work.prompts[trace.generation],
            response=model.speller.decode(response, skip_special=True),
            tokens=model.speller.table(trace.token_ids.tolist(), rendered),
            trace=trace,
        )

    def _commit(
        self, writer: RunWriter, texts: Sequence[TextRecord], captures: Sequence[Capture]
    ) -> None:
        with self._timed("write"):
            self.committing = True
            writer.commit(texts, captures)
            self.committing = False
        self.made += len(captures)

    # --- internals -------------------------------------------------------------------------------

    def _internals(self, writer: RunWriter, model: Model, direction_SDK: Float32) -> None:
        wanted = [c for c in self.todo.captures if c.kind == "internals"]
        run = Run.open(self.path)
        done = writer.done_captures()
        there = {(c.generation, b) for c in wanted for b in run.internal_blocks(c.generation)}
        for number, capture in enumerate(wanted):
            self.progress(Tick("internals", number, len(wanted), "captures"))
            if capture.generation in writer.failed_generations():
                writer.commit([], [capture])
                continue
            ids = run.text(capture.generation).tokens.token_id.tolist()
            blocks = self.work.blocks_of(capture.generation, len(model.anatomy.blocks))
            missing = [block for block in blocks if (capture.generation, block) not in there]
            with self._timed("internals"):
                opened = [
                    capture_internals(
                        model, capture.generation, ids, block, direction_SDK, self.suite.trait_names
                    )
                    for block in missing
                ]
            there.update((capture.generation, block) for block in missing)
            with self._timed("write"):
                writer.commit([], [] if capture in done else [capture], opened)
            self.made += 1


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "tokenizers", "numpy")
    return {
        **{name: version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
    }
