"""One call's work on one run folder: load, prove, directions, texts, internals.

Speaks to models, engine and the run's writer; is told by `work.py` what is missing, and reports
through a callback.  Knows nothing of command lines or of where runs are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from traitscope.checkup import at_load
from traitscope.core import Capture, Float32, Generation, TextRecord, Trace, TraitDirections
from traitscope.engine import (
    Batching,
    Clock,
    Request,
    Scored,
    capture_internals,
    check_internals,
    forward_tokens,
    generate,
    join_rule,
    score_texts,
)
from traitscope.errors import Interrupted, MachineError
from traitscope.fill import fill, sites_kept
from traitscope.machine import versions
from traitscope.models import Model, Proof
from traitscope.prepare import (
    directions_for,
    own_up,
    planned_for,
    refusals_of,
    room,
    rows_for,
)
from traitscope.runs import Run, RunHeader, RunWriter
from traitscope.sizing import Sizing, part_texts
from traitscope.suite import Suite
from traitscope.ticks import Progress, Tick
from traitscope.traits.extract import stacked
from traitscope.usage import folder_bytes, used
from traitscope.work import Source, Todo, TraitData, Work

__all__ = ["Progress", "Task", "Tick"]

_PHASES = ("load", "directions", "generate", "replay", "internals", "write")


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
        self.lengths: list[tuple[int, int]] = []  # of texts made: prompt tokens, all tokens
        self.disk_before = folder_bytes(path) if there is not None else 0
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
            own_up(writer, model, proofs)
            direction_SDK = stacked([directions[name] for name in self.suite.trait_names])
            try:
                self._texts(writer, model, direction_SDK)
                self._internals(writer, model, direction_SDK)
                self._fill(writer, model)
            except KeyboardInterrupt:
                writer.event("interrupted", **self._stats())
                done = writer.done_captures().intersection(self.work.captures)
                raise Interrupted(
                    f"Interrupted. {len(done)} of {len(self.work.captures)} "
                    f"captures are kept in {self.path}; the same command goes on."
                ) from None
            stats = self._stats()
            stats |= self._beside(model, direction_SDK, stats["seconds"])
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

    def _beside(
        self, model: Model, direction_SDK: Float32, seconds: Mapping[str, float]
    ) -> dict[str, Any]:
        """How much of the machine this took, and what was planned for the very same work."""
        config = self.work.config
        usage = used(model, self.lengths, direction_SDK, config, self.clock, seconds)
        plan = planned_for(model, self.work, self.todo.captures)
        planned = {} if plan is None else {"planned": plan.to_dict()}
        disk = folder_bytes(self.path) - self.disk_before
        return {"usage": {**usage, "disk": disk}, **planned}

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - began

    # --- before anything is written --------------------------------------------------------------

    def _load(self) -> Model:
        self.progress(Tick("load", message=self.source.name))
        with self._timed("load"):
            model = self.source.load(
                self.suite.device,
                self.work.arguments,
                allow_unproven=self.suite.allow_unproven,
            )
        n_blocks = len(model.anatomy.blocks)
        for generation in self.work.prompts:
            for block in self.work.blocks_of(generation, n_blocks):
                check_internals(model, block)
        sites_kept(model, self.work.keep)
        return model

    def _prove(self, model: Model) -> list[Proof]:
        with self._timed("load"):
            proofs = at_load(model)
        if not self.suite.allow_unproven:
            model.proven(proofs)
        return proofs

    def _directions(self, model: Model) -> dict[str, TraitDirections]:
        """Of each trait, in the suite's order: the run's own, a file's, or made from pairs."""
        if self.there is not None:
            return dict(self.there.directions)
        with self._timed("directions"):
            return directions_for(
                model,
                self.suite.trait_sources,
                self.traits,
                lambda done, total: self.progress(
                    Tick("directions", done, total, "texts", "from pairs")
                ),
            )

    def _header(
        self, model: Model, directions: Mapping[str, TraitDirections], proofs: Sequence[Proof]
    ) -> RunHeader:
        with self._timed("load"):
            sizing = self._sizing(model, stacked([directions[n] for n in self.suite.trait_names]))
        rows = sizing.rows
        return RunHeader(
            key=self.work.key,
            name=self.suite.name,
            suite=self.suite.to_dict(),
            model=model.describe(),
            sites=tuple(site.name for site in model.sites),
            generation=self.work.settings,
            rows=rows,
            # on a GPU a prefill stalls the others for longer than an idle slot costs
            sizing=sizing.to_dict(),
            join=join_rule(model, rows),
            captures=self.work.captures,
            traits=tuple({"name": name, "hash": d.hash} for name, d in directions.items()),
            versions=versions(),
            proofs=[proof.to_dict() for proof in proofs],
        )

    def _sizing(self, model: Model, direction_SDK: Float32) -> Sizing:
        """A run's own rows, so that going on makes the same batches; chosen where it is new, as
        its plan has done."""
        if self.there is not None:
            return Sizing(self.there.header.rows, "asked")
        plan = planned_for(model, self.work, self.todo.captures)
        return rows_for(model, self.suite, self.work, self.todo.texts, direction_SDK, plan)

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
        refusals = refusals_of(model, self.work, todo)
        refused = [TextRecord(g, self.work.prompts[g], error=why) for g, why in refusals.items()]
        self._commit(writer, refused, self._of(writer, refusals))
        wanted = dict.fromkeys(g for g in todo if g not in refusals)
        rows = writer.header.rows
        while wanted:
            try:
                self._make(writer, model, direction_SDK, wanted, rows)
            except torch.OutOfMemoryError as error:
                if rows == 1:
                    raise MachineError(
                        f"Out of memory on {model.device} with one text at a time; what is done is "
                        f"in {self.path}. Use a narrower dtype, fewer new tokens or another device."
                    ) from error
                rows = max(1, rows // 2)
                writer.event("out_of_memory", rows=rows)

    def _make(
        self,
        writer: RunWriter,
        model: Model,
        direction_SDK: Float32,
        wanted: dict[Generation, None],
        rows: int,
    ) -> None:
        """Make the wanted texts; each leaves `wanted` when it is committed."""
        pending: list[Trace] = []
        writing: list[Trace] = []  # what the other thread commits now
        total, began = len(self.todo.texts), time.perf_counter()
        enough = part_texts(rows, total)
        job: Future[None] | None = None

        phase = "replay" if self.work.given else "generate"

        def tick(clock: Clock) -> None:
            done = total - len(wanted) + len(pending) + len(writing)
            self.progress(Tick(phase, done, total, "texts", tokens=clock.new_tokens))

        def settle() -> None:
            """Wait for what is being written; its error, if any, is raised here."""
            nonlocal job
            under_way, job = job, None
            if under_way is not None:
                with self._timed("write"):
                    under_way.result()
                for trace in writing:
                    wanted.pop(trace.generation, None)
                writing.clear()

        def flush() -> None:
            nonlocal began, job
            self.seconds[phase] += time.perf_counter() - began
            settle()
            writing.extend(pending)
            pending.clear()
            job = thread.submit(self._write, writer, model, tuple(writing))
            began = time.perf_counter()

        make = self._read if self.work.given else self._generate
        with ThreadPoolExecutor(1, "writing") as thread:  # so that no step waits for a disk
            try:
                # closed at once where a commit fails: the model is the caller's, with taps on it
                with closing(make(writer, model, direction_SDK, list(wanted), rows, tick)) as made:
                    for trace in made:
                        pending.append(trace)
                        if len(pending) >= enough:
                            flush()
            finally:
                settle()
                if not self.committing:  # one that was cut short may have happened: never twice
                    flush()
                    settle()
        if self.clock.plain_steps:
            writer.event("plain_steps", reason=self.clock.plain_steps)

    def _write(self, writer: RunWriter, model: Model, traces: Sequence[Trace]) -> None:
        there = writer.done_generations()
        fresh = [trace for trace in traces if trace.generation not in there]
        records = [self._record(model, trace) for trace in fresh]
        self._commit(writer, records, self._of(writer, [trace.generation for trace in fresh]))

    def _generate(
        self,
        writer: RunWriter,
        model: Model,
        direction_SDK: Float32,
        wanted: Sequence[Generation],
        rows: int,
        tick: Callable[[Clock], None],
    ) -> Generator[Trace, None, None]:
        return generate(
            model,
            [self._request(model, generation) for generation in wanted],
            direction_SDK,
            self.work.config,
            Batching(rows, min(writer.header.join, rows)),
            self.clock,
            tick,
            sites_kept(model, self.work.keep),
        )

    def _read(
        self,
        writer: RunWriter,
        model: Model,
        direction_SDK: Float32,
        wanted: Sequence[Generation],
        rows: int,
        tick: Callable[[Clock], None],
    ) -> Generator[Trace, None, None]:
        """The texts that exist; after an OOM `rows` says how much less goes at once."""
        before = self.clock.batches
        with closing(
            score_texts(
                model,
                [self.work.given[generation] for generation in wanted],
                direction_SDK,
                batch_tokens=max(1, forward_tokens(model) * rows // writer.header.rows),
                logprobs=self.suite.logprobs,
                keep=sites_kept(model, self.work.keep),
            )
        ) as texts:
            for text in texts:
                self.clock.batches = before + text.batch + 1
                self.clock.tokens += len(text.norm)
                yield self._given(wanted[text.index], text)
                tick(self.clock)

    def _given(self, generation: Generation, text: Scored) -> Trace:
        return Trace(
            generation=generation,
            token_ids=np.array(self.work.given[generation], dtype=np.int32),
            n_prompt=len(self.work.rendered[generation].token_ids),
            score=text.score,
            norm=text.norm,
            logprob=text.logprob,
            finish="given",
            seconds=text.seconds,
            kept=text.kept,
        )

    def _of(self, writer: RunWriter, generations: Iterable[Generation]) -> list[Capture]:
        """The captures that come with texts: trajectories."""
        chosen, done = set(generations), writer.done_captures()
        mine = [c for c in self.todo.captures if c.generation in chosen and c not in done]
        return [c for c in mine if c.kind == "trajectory"]

    def _request(self, model: Model, generation: Generation) -> Request:
        ids = self.work.rendered[generation].token_ids
        return Request(generation, ids, room(model, self.work, generation))

    def _record(self, model: Model, trace: Trace) -> TextRecord:
        rendered = self.work.rendered[trace.generation]
        if trace.finish != "given":
            self.lengths.append((trace.n_prompt, len(trace.token_ids)))
        tokens = model.speller.table(trace.token_ids.tolist(), rendered)
        return TextRecord(
            generation=trace.generation,
            prompt=self.work.prompts[trace.generation],
            response=model.speller.answer(tokens),
            thinking=tokens.words("thinking"),
            tokens=tokens,
            trace=trace,
        )

    def _commit(
        self, writer: RunWriter, texts: Sequence[TextRecord], captures: Sequence[Capture]
    ) -> None:
        states = [
            item
            for text in texts
            if text.trace is not None and text.trace.kept is not None
            for item in self.work.keep.pick(text.generation, text.trace.kept, text.trace.n_prompt)
        ]
        self.committing = True
        writer.commit(texts, captures, states=states)
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

    # --- what texts lack -------------------------------------------------------------------------

    def _fill(self, writer: RunWriter, model: Model) -> None:
        run = Run.open(self.path)
        if not (run.unscored() or run.unkept(self.work.keep)):
            return
        with self._timed("replay"):
            fill(
                writer,
                run,
                model,
                self.work.keep,
                self.clock,
                lambda done, total: self.progress(Tick("replay", done, total, "texts")),
            )
