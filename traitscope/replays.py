"""Scoring what exists: conversations as a run of their own, or a run's texts on further traits.

Conversations become a suite whose texts are given, and go the way of every suite.  A run's own
texts are read once more by their token ids; scores and states become part of that run.  Nothing
is generated.  This module prints nothing and does not know what a table looks like.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from traitscope.checkup import at_load
from traitscope.core import Keep, TraitDirections
from traitscope.engine import Clock
from traitscope.errors import InputError, Interrupted, MachineError, ModelError, RunError
from traitscope.fill import fill, sites_kept
from traitscope.models import Model, Proof, locate
from traitscope.prepare import directions_for, own_up
from traitscope.runner import Outcome, made_from, run_suite
from traitscope.runs import Run, RunHeader, RunWriter
from traitscope.suite import Suite, find_traits, suite_from_dict
from traitscope.ticks import Progress, Tick
from traitscope.work import Source, trait_data

__all__ = ["replay", "replay_run", "replay_suite"]

Conversations = str | Path | Sequence[Mapping[str, Any]]


def replay(
    model: Model | str,
    conversations: Conversations,
    traits: Sequence[str],
    *,
    internals: Sequence[int | str] = (),
    keep: Sequence[str] = (),
    logprobs: bool = True,
    thinking: bool | None = None,
    template: Mapping[str, object] | None = None,
    out: str | Path | None = None,
    fresh: bool = False,
    progress: Progress = lambda tick: None,
) -> Run:
    """Score conversations that exist, in one forward each; returns the run, opened.

    `conversations`: a `.jsonl` file, or objects as its lines hold them (`messages`, or `prompt`
    and `response`; `id`, `tags`, `token_ids`).  Where it is a run's folder, its texts are scored
    on `traits` too, and the same run comes back.  `keep` are sites whose raw states are kept;
    the rest is as in `capture`.  The run is kept in `out` (default `runs/replay-KEY`); the same
    call again finds it finished, new conversations are added to it.
    """
    if isinstance(traits, str):
        raise InputError("traits: expected a list of texts, got one text. Put it into [ ].")
    if isinstance(conversations, str | Path) and Path(conversations).is_dir():
        outcome = replay_run(conversations, traits, model=model, keep=keep, progress=progress)
        return Run.open(outcome.path)
    suite = replay_suite(
        model if isinstance(model, str) else model.name,
        conversations,
        traits,
        internals,
        logprobs=logprobs,
        keep=list(keep),
        thinking=thinking,
        template=dict(template or {}),
    )
    given = model if isinstance(model, Model) else None
    place = None if out is None else Path(out)
    outcome = run_suite(suite, out=place, fresh=fresh, model=given, progress=progress)
    return Run.open(outcome.path)


def replay_suite(
    model: str,
    conversations: Conversations,
    traits: Sequence[str],
    internals: Sequence[int | str] = (),
    **others: object,
) -> Suite:
    """The suite that `replay` means: one set of conversations, and with `internals` a second one
    on the same texts.  `others` are further keys of a suite."""
    texts = str(conversations) if isinstance(conversations, str | Path) else list(conversations)
    sets: dict[str, object] = {"conversations": {"conversations": texts}}
    if internals:
        blocks = {"kind": "internals", "blocks": list(internals)}
        sets["internals"] = {"conversations": texts, **blocks}
    table = {"name": "replay", "model": model, "traits": list(traits), "prompts": sets, **others}
    return suite_from_dict(table, root=Path(), source="replay")


# --- a run's own texts ---------------------------------------------------------------------------


def replay_run(
    path: str | Path,
    traits: Sequence[str],
    *,
    model: Model | str | None = None,
    keep: Sequence[str] = (),
    dtype: str | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    allow_unproven: bool = False,
    progress: Progress = lambda tick: None,
) -> Outcome:
    """Score a run's own texts on `traits` that it has not, and keep states of the sites `keep`.

    The model is the run's own (loaded by its name where `model` is None); RunError for another
    one, or another dtype.  What is there already is not made again; after a stop the same call
    goes on.  Code that comes with a checkpoint runs only with `trust_remote_code`: a run may come
    from a stranger, so what its suite says of that is not enough.
    """
    began, run = time.perf_counter(), Run.open(path)
    source = _source(run, model, dtype, trust_remote_code)
    wanted = _Wanted(run, traits, keep)
    if not wanted:
        return Outcome(run.path, True, True, _stats(Clock(), 0, 0, {"total": 0.0}))
    progress(Tick("load", message=source.name))
    told = run.header.generation.get("template") or {}
    loaded = source.load(device, told, allow_unproven=allow_unproven)
    proofs = at_load(loaded)
    if not allow_unproven:
        loaded.proven(proofs)
    try:
        stats = wanted.make(loaded, proofs, progress, began, loads=int(source.model is None))
    except torch.OutOfMemoryError as error:
        raise MachineError(
            f"Out of memory on '{loaded.device}' with '{loaded.name}'; what is done is in {path}. "
            "Use another device."
        ) from error
    return Outcome(run.path, False, True, stats)


class _Wanted:
    """What is asked of a run: traits that it has not, states, and what an earlier call left."""

    def __init__(self, run: Run, traits: Sequence[str], keep: Sequence[str]) -> None:
        self.run, self.keep = run, _keep(run, keep)
        found = find_traits(traits)
        for source, data in zip(found, trait_data(found), strict=True):
            if source.name in run.traits and not made_from(data, run.directions[source.name]):
                raise RunError(
                    f"Expected a trait that {run.path} has not, or the same one, got "
                    f"'{source.name}' from other data. Give it another name."
                )
        self.sources = tuple(source for source in found if source.name not in run.traits)

    def __bool__(self) -> bool:
        run = self.run
        return bool(self.sources or run.unscored() or run.unkept(self.keep))

    def make(
        self,
        model: Model,
        proofs: Sequence[Proof],
        progress: Progress,
        began: float,
        *,
        loads: int,
    ) -> dict[str, Any]:
        """Score, keep and commit; returns the stats."""
        sites_kept(model, self.keep)
        seconds, clock, mark = {"load": time.perf_counter() - began}, Clock(), time.perf_counter()
        directions = self._directions(model, progress)
        seconds["directions"] = time.perf_counter() - mark
        with RunWriter.resume(self.run.path, self._header()) as writer:
            # asked again: another process may have written to the folder since it was read
            new = {n: d for n, d in directions.items() if n not in writer.header.trait_names}
            own_up(writer, model, proofs)
            if new:
                writer.add_traits(new)
            writer.event("replay", traits=list(directions), keep=list(self.keep.sites))
            mark = time.perf_counter()
            try:
                texts = fill(
                    writer,
                    Run.open(self.run.path),
                    model,
                    self.keep,
                    clock,
                    lambda done, total: progress(Tick("replay", done, total, "texts")),
                )
            except KeyboardInterrupt:
                seconds["total"] = time.perf_counter() - began
                writer.event("interrupted", **_stats(clock, 0, loads, seconds))
                raise Interrupted(
                    f"Interrupted. What is scored is kept in {self.run.path}; "
                    "the same command goes on."
                ) from None
            seconds |= {"replay": time.perf_counter() - mark, "total": time.perf_counter() - began}
            stats = _stats(clock, texts, loads, seconds)
            writer.event("finished", **stats)
        progress(Tick("done", message=f"All is in {self.run.path}."))
        return stats

    def _directions(self, model: Model, progress: Progress) -> dict[str, TraitDirections]:
        return directions_for(
            model,
            self.sources,
            trait_data(self.sources),
            lambda done, total: progress(Tick("directions", done, total, "texts", "from pairs")),
        )

    def _header(self) -> RunHeader:
        """The run's own; states that are asked for are noted in its suite."""
        if not self.keep.sites:
            return self.run.header
        return replace(self.run.header, suite={**self.run.header.suite, "keep": vars(self.keep)})


def _keep(run: Run, sites: Sequence[str]) -> Keep:
    narrow = run.header.model["dtype"] == "bfloat16"
    return Keep(tuple(dict.fromkeys(sites)), "all", "bfloat16" if narrow else "float32")


def _source(run: Run, model: Model | str | None, dtype: str | None, trust: bool) -> Source:
    """The model before it is loaded; RunError where it is not the one that made the run."""
    there = run.header.model
    if isinstance(model, Model):
        source = Source.loaded(model)
    else:
        if model is None and str(there["fingerprint"]).startswith("memory:"):
            raise ModelError(
                f"Expected a model for {run.path}, which was made with one that was in memory only "
                f"('{there['name']}'). Give that model, from Python."
            )
        # of another name (the model has moved): its adapter and its parts are the same
        told = {key: run.header.suite.get(key) or None for key in ("adapter", "family")}
        told["revision"] = run.header.suite.get("revision") if model is None else None
        found = locate(model or there["name"], trust_remote_code=trust, **told)
        source = Source.located(found, dtype or there["dtype"])
    if source.fingerprint != there["fingerprint"]:
        raise RunError(
            f"Expected the model that made {run.path}, '{there['name']}' "
            f"({there['fingerprint']}), got '{source.name}' ({source.fingerprint}). Its states are "
            "others: replay the texts into a run of their own."
        )
    if source.dtype != there["dtype"]:
        raise RunError(
            f"Expected {there['dtype']}, in which {run.path} was made, got {source.dtype}. "
            "Leave the dtype out."
        )
    return source


def _stats(clock: Clock, texts: int, loads: int, seconds: Mapping[str, float]) -> dict[str, Any]:
    return {
        "model_loads": loads,
        "batches": clock.batches,
        "steps": 0,
        "tokens": clock.tokens,
        "new_tokens": 0,
        "made": 0,
        "replayed": texts,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
    }
