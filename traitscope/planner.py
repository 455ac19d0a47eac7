"""What a suite would do here, before it is run: counts, seconds by phase, memory, disk.

What is there already in the run's folder is left out.  The model is loaded once and measured for
a few seconds; nothing of the suite is run, and the run's folder is not touched.  The result is
kept in the cache, so that the run that is planned finds it and can stand beside it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from traitscope.calibrate import (
    Commit,
    Steps,
    answers,
    commit_of,
    internals_of,
    reading,
    steps_of,
)
from traitscope.checkup import at_load
from traitscope.core import Float32, Generation
from traitscope.engine import Request, forward_tokens, join_rule, mean_states, score_texts
from traitscope.engine.plan import padded
from traitscope.errors import MachineError
from traitscope.fill import sites_kept
from traitscope.forecast import Amounts, Lengths, Opened, Rates, at_most, forecast
from traitscope.gauge import any_directions, shape_of
from traitscope.kept_plans import KeptPlan, keep_plan
from traitscope.machine import all_memory, free_memory, peak_memory
from traitscope.models import Model
from traitscope.others import Others
from traitscope.plans import Plan, known, nothing
from traitscope.prepare import misfits, plan_for, room, rows_for
from traitscope.runner import Wanted, wanted
from traitscope.sizing import Shape, Sizing, part_texts
from traitscope.suite import Suite
from traitscope.ticks import Progress, Tick
from traitscope.traits.extract import cached, texts_to_read
from traitscope.traits.pairs import Trait
from traitscope.traits.vectors import Vector

__all__ = ["plan"]

_ANSWERS = 5.0  # seconds for seeing how long answers get
_OTHERS = 5000  # bytes of run.json and the events beside the suite and what is counted


def plan(
    suite: Suite,
    *,
    out: Path | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    progress: Progress = lambda tick: None,
) -> Plan:
    """Work it out.  Raises what `run_suite` raises before it writes anything, and MachineError
    where the model does not fit."""
    began = time.perf_counter()
    want = wanted(suite, out=out, fresh=fresh, retry_failed=retry_failed)
    if want.there is not None and not want.todo:
        return nothing(want, began)
    try:
        return _Planner(suite, want, progress, began).plan()
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"Out of memory on '{suite.device}' with '{want.source.name}' while measuring. Use a "
            "narrower dtype, fewer rows or another device."
        ) from error


class _Planner:
    def __init__(self, suite: Suite, want: Wanted, progress: Progress, began: float) -> None:
        self.suite, self.want, self.progress, self.began = suite, want, progress, began
        self.start = time.perf_counter() - began
        self.others = Others()
        self.probed = 0  # the most tokens that were read at once
        self.slots = 0  # columns of slots that a device held while measuring

    def plan(self) -> Plan:
        model, load = self._load()
        self.shape = shape_of(model)
        n_traits = len(self.suite.trait_names)
        direction_SDK = any_directions(model, n_traits)
        began = time.perf_counter()
        sizing = self._sizing(model, direction_SDK)
        load += time.perf_counter() - began
        self.progress(Tick("measure", message="a few seconds"))
        self.misfits = misfits(model, self.want.work, self.want.todo.texts)
        requests = list(self._requests(model))
        keep = sites_kept(model, self.want.work.keep)
        render, pair, pairs = self._pairs(model)
        read, lengths_read = self._read(model, direction_SDK)
        steps = Steps(0.0, 0.0, 0.0, 0.0, 0.0, 0)
        lengths = Lengths()
        if requests:
            sizing, steps, lengths = self._generating(model, requests, sizing, direction_SDK, keep)
        amounts = self._amounts(model, requests, sizing, pairs, lengths_read)
        typical = self._typical(requests, lengths, lengths_read)
        opened, opened_bytes = self._opened(model, amounts, typical, direction_SDK)
        commit = self._commit(model, amounts, typical)
        rates = Rates(
            start=self.start,
            load=load,
            render=render,
            pair_token=pair,
            read_token=read,
            prefill=steps.prefill,
            prefill_token=steps.prefill_token,
            step=steps.step,
            step_row=steps.step_row,
            step_column=steps.step_column,
            preparing=steps.preparing,
            opened=opened,
            # a new run begins with its directions, two journals, run.json and their folders
            write_once=commit.seconds_once + (0 if self.want.there else n_traits + 8) * commit.sync,
            part=commit.seconds,
            part_token=commit.seconds_token,
            memory=self._memory(model, amounts, steps, n_traits, len(keep)),
            column_bytes=self._column(model, n_traits, len(keep)),
            bucket=self.shape.bucket,
            once_bytes=self._once(n_traits),
            part_bytes=commit.bytes_part,
            token_bytes=commit.bytes_token,
            state_bytes=self._state(model),
            opened_bytes=(opened_bytes[0] + commit.bytes_captures, *opened_bytes[1:]),
        )
        return self._made(model, amounts, rates, lengths, sizing, pairs)

    # --- what the run would do first ---------------------------------------------------------

    def _load(self) -> tuple[Model, float]:
        """The model, and the seconds until it is proved."""
        want = self.want
        self.progress(Tick("load", message=want.source.name))
        began = time.perf_counter()
        unproven = self.suite.allow_unproven
        model = want.source.load(self.suite.device, want.work.arguments, allow_unproven=unproven)
        proofs = at_load(model)
        if not unproven:
            model.proven(proofs)
        return model, time.perf_counter() - began

    def _sizing(self, model: Model, direction_SDK: Float32) -> Sizing:
        there, want = self.want.there, self.want
        if there is not None:
            return Sizing(there.header.rows, "asked")
        return rows_for(model, self.suite, want.work, want.todo.texts, direction_SDK)

    # --- texts to be made --------------------------------------------------------------------

    def _requests(self, model: Model) -> Iterator[Request]:
        """Those that fit; what does not is recorded by the run, and costs nothing."""
        work = self.want.work
        for text in self.want.todo.texts:
            if text not in work.given and text not in self.misfits:
                yield Request(text, work.rendered[text].token_ids, room(model, work, text))

    def _generating(
        self,
        model: Model,
        requests: Sequence[Request],
        sizing: Sizing,
        direction_SDK: Float32,
        keep: Sequence[int],
    ) -> tuple[Sizing, Steps, Lengths]:
        """What steps take and how long answers get; with half the rows where memory ends, as a
        run goes on then."""
        prompts, config = [request.token_ids for request in requests], self.want.work.config
        columns = max(len(r.token_ids) + r.max_new_tokens for r in requests)
        while True:
            rows = sizing.rows
            try:
                steps = steps_of(model, prompts, rows, columns, direction_SDK, config, keep)
                return sizing, steps, self._lengths(model, requests, direction_SDK, rows)
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
            sizing = replace(sizing, rows=max(1, rows // 2), limit="memory")

    def _lengths(
        self, model: Model, requests: Sequence[Request], direction_SDK: Float32, rows: int
    ) -> Lengths:
        """From the run that is there, and from a trial of what it says little of."""
        config, there = self.want.work.config, list(self._answered())
        tried = answers(model, requests, direction_SDK, config, rows, _ANSWERS, there)
        if self.shape.bucket > 1:  # these slots were taken whole, and counted while measuring
            taken = (rows * self.shape.slot_columns(longest) for rows, longest in tried.slots)
            self.slots = max(taken, default=0)
        return tried.lengths

    def _answered(self) -> Iterator[tuple[str, int, bool]]:
        """Answers that are there: their prompt, tokens, and whether they ended by themselves."""
        there = self.want.there
        for row in there.generations() if there is not None else ():
            if row.status == "done":
                yield row.generation.prompt_id, row.n_tokens - row.n_prompt, row.finish == "stop"

    # --- texts that exist --------------------------------------------------------------------

    def _pairs(self, model: Model) -> tuple[float, float, tuple[tuple[str, ...], int, int]]:
        """Seconds to make pairs' texts ready and to read one of their tokens; traits, texts,
        tokens."""
        data = [] if self.want.there is not None else self.want.traits
        missing = [t for t in data if isinstance(t, Trait) and cached(model, t) is None]
        vectors = [t for t in data if isinstance(t, Vector)]
        if not missing and not vectors:
            return 0.0, 0.0, ((), 0, 0)
        began = time.perf_counter()
        texts, chosen, neutral = texts_to_read(model, missing)
        render = time.perf_counter() - began
        every = [len(ids) for ids in texts] or [len(ids) for ids in neutral]
        source = texts or neutral
        none, most = any_directions(model, 1), forward_tokens(model)

        def read(some: Sequence[int]) -> None:
            ids = [source[i] for i in some]
            if texts:
                mean_states(model, ids, [chosen[i] for i in some])
            else:
                list(score_texts(model, ids, none))

        rate, probed = reading(read, every, most)
        self.probed = max(self.probed, probed)
        times = bool(missing) + bool(vectors)  # what is normal is calibrated for either
        tokens = padded([len(ids) for ids in texts], most)
        tokens += times * padded([len(ids) for ids in neutral], most)
        names = (*(t.name for t in missing), *(t.name for t in vectors))
        return render, rate, (names, len(texts) + times * len(neutral), tokens)

    def _read(self, model: Model, direction_SDK: Float32) -> tuple[float, list[int]]:
        """Seconds of a token of texts that exist, and the lengths of those to be read."""
        work, there = self.want.work, self.want.there
        given = [text for text in self.want.todo.texts if text in work.given]
        texts = [work.given[text] for text in given if text not in self.misfits]
        if self.want.todo.lacking and there is not None:
            names = {**there.unscored(), **there.unkept(work.keep)}
            texts += [tuple(there.text(name).tokens.token_id.tolist()) for name in names]
        if not texts:
            return 0.0, []
        logprobs = bool(work.given) and self.suite.logprobs

        def read(some: Sequence[int]) -> None:
            list(score_texts(model, [texts[i] for i in some], direction_SDK, logprobs=logprobs))

        lengths = [len(ids) for ids in texts]
        rate, probed = reading(read, lengths, forward_tokens(model))
        self.probed = max(self.probed, probed)
        return rate, lengths

    # --- amounts and sizes -------------------------------------------------------------------

    def _amounts(
        self,
        model: Model,
        requests: Sequence[Request],
        sizing: Sizing,
        pairs: tuple[tuple[str, ...], int, int],
        read: Sequence[int],
    ) -> Amounts:
        work, rows = self.want.work, sizing.rows
        keep = work.keep
        return Amounts(
            loads=1,
            texts=tuple((len(r.token_ids), r.max_new_tokens) for r in requests),
            rows=rows,
            join=join_rule(model, rows),
            commit=part_texts(rows, len(requests)),
            read=len(read),
            read_tokens=padded(read, forward_tokens(model)),
            pairs=pairs[1],
            pair_tokens=pairs[2],
            opened=tuple(self._blocks(model, requests)),
            kept=keep.tokens if keep.sites else "",
            kept_sites=len(keep.sites),
            prompts=[request.token_ids for request in requests],
        )

    def _blocks(self, model: Model, requests: Sequence[Request]) -> Iterator[Opened]:
        """The blocks of texts that are to be opened and are not, each text's once."""
        work, there = self.want.work, self.want.there
        places = {request.generation: i for i, request in enumerate(requests)}
        names = dict.fromkeys(
            c.generation for c in self.want.todo.captures if c.kind == "internals"
        )
        for name in names:
            blocks = set(work.blocks_of(name, len(model.anatomy.blocks)))
            if name in self.misfits:
                continue
            if name in places:
                yield from (Opened(places[name]) for _ in blocks)
            elif name in work.given:
                yield from (Opened(None, len(work.given[name])) for _ in blocks)
            elif there is not None and name in _done(there):
                blocks -= set(there.internal_blocks(name))
                tokens = len(there.text(name).tokens.token_id)
                yield from (Opened(None, tokens) for _ in blocks)

    def _typical(
        self, requests: Sequence[Request], lengths: Lengths, read: Sequence[int]
    ) -> tuple[int, int]:
        """A text's prompt and new tokens, on average."""
        if requests:
            new = lengths.of([request.max_new_tokens for request in requests])
            prompt = sum(len(request.token_ids) for request in requests)
            return prompt // len(requests), max(1, sum(new) // len(new))
        return (sum(read) // len(read) if read else 16), 1

    def _opened(
        self,
        model: Model,
        amounts: Amounts,
        typical: tuple[int, int],
        direction_SDK: Float32,
    ) -> tuple[float, tuple[float, float, float]]:
        if not amounts.opened:
            return 0.0, (0.0, 0.0, 0.0)
        some = next(iter(self.want.work.rendered.values())).token_ids
        ids = (list(some) * (sum(typical) // len(some) + 1))[: sum(typical)]
        middle = len(model.anatomy.blocks) // 2
        return internals_of(model, ids, middle, direction_SDK, self.suite.trait_names)

    def _commit(self, model: Model, amounts: Amounts, typical: tuple[int, int]) -> Commit:
        work = self.want.work
        fit = [text for text in self.want.todo.texts if text not in self.misfits]
        names = list(fit or work.rendered)[: amounts.commit]
        prompts = [(work.prompts[name], work.rendered[name]) for name in names]
        place = self.want.path.absolute()
        return commit_of(model, prompts, typical[1], self.suite.trait_names, place)

    def _column(self, model: Model, n_traits: int, n_kept: int) -> int:
        """Bytes of one token of a slot, on the device whose memory is meant."""
        numbers = self.shape.numbers_bytes(n_traits, n_kept)
        return self.shape.kv_column + (numbers if model.device.type == "cpu" else 0)

    def _memory(
        self, model: Model, amounts: Amounts, steps: Steps, n_traits: int, n_kept: int
    ) -> int:
        """What was in use at most, without the slots, with the largest batch that is read."""
        measured = peak_memory(model.device) or 0
        largest = min(forward_tokens(model), max(amounts.pair_tokens, amounts.read_tokens))
        more = max(0, largest - self.probed) * _inside(self.shape)
        slots = max(steps.cached, self.slots) * self._column(model, n_traits, n_kept)
        return measured + more - slots

    def _state(self, model: Model) -> int:
        """Bytes of one kept state and its position."""
        width = 2 if self.want.work.keep.dtype == "bfloat16" else 4
        return int(width * model.anatomy.d_model + 4)

    def _once(self, n_traits: int) -> int:
        """What a new run holds beside its parts: directions, run.json and journals."""
        if self.want.there is not None:
            return 0
        directions = n_traits * (4 * self.shape.n_sites * (self.shape.d_model + 5) + 1500)
        header = len(json.dumps(self.suite.to_dict(), indent=1))
        header += 100 * len(self.want.work.captures)
        return directions + header + _OTHERS

    # --- the result --------------------------------------------------------------------------

    def _made(
        self,
        model: Model,
        amounts: Amounts,
        rates: Rates,
        lengths: Lengths,
        sizing: Sizing,
        pairs: tuple[tuple[str, ...], int, int],
    ) -> Plan:
        expected = forecast(amounts, rates, lengths)
        most = at_most(amounts, rates, expected)
        made = Plan(
            **known(self.want),
            loads=1,
            sizing=sizing,
            model=model.describe(),
            pair_texts=pairs[1],
            pair_traits=pairs[0],
            read_texts=amounts.read,
            written_texts=len(amounts.texts),
            misfits=tuple(self.misfits.values()),
            context=model.context,
            opened=len(amounts.opened),
            lengths=lengths,
            most=most,
            expected=expected,
            memory_free=free_memory(model.device),
            memory_all=all_memory(model.device),
            weights=sum(p.numel() * p.element_size() for p in model.hf.parameters()),
            others=self.others.share(),
            warning=self.others.warning(),
            seconds=time.perf_counter() - self.began,
        )
        chosen = self.suite.rows == "auto" and self.want.there is None
        rows = {"rows": sizing.rows, **sizing.to_dict()} if chosen else {}
        with suppress(OSError):  # a cache that cannot be written loses a comparison, no more
            keep_plan(
                self.want.work.key,
                plan_for(model, self.want.work, self.want.todo.captures),
                KeptPlan(expected.to_dict(), rows, made.others),
            )
        return made


def _done(run: Any) -> set[Generation]:
    return {row.generation for row in run.generations() if row.status == "done"}


def _inside(shape: Shape) -> int:
    """Bytes of one more token in a batch that is read."""
    return (3 * shape.widest + 4 * shape.d_model) * shape.itemsize
