"""What a call on a run needs first: directions, the rows of a batch; proofs owned up to.

Makes directions (from files, vectors or pairs) and puts them into their cache; sizes a batch by
this machine's memory and speed, or as a plan of the same work here has; of a run it knows the log
alone.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import psutil
import torch

from traitscope.core import Capture, Float32, Generation, TraitDirections
from traitscope.engine import memory_for_texts
from traitscope.gauge import shape_of, step_times
from traitscope.kept_plans import KeptPlan, digest, find_plan
from traitscope.machine import all_memory
from traitscope.models import Model, Proof
from traitscope.runs import Run, RunWriter
from traitscope.sizing import DEFAULT_ROWS, Sizing, StepTimes, choose_rows
from traitscope.suite import Suite, TraitSource
from traitscope.traits.extract import extract, fits
from traitscope.traits.pairs import Trait
from traitscope.traits.vectors import Vector, VectorSet, directions_of
from traitscope.work import TraitData, Work

__all__ = [
    "Misfit",
    "directions_for",
    "misfits",
    "own_up",
    "plan_for",
    "planned_for",
    "refusals_of",
    "room",
    "rows_for",
]

Misfit = Literal["context", "vocabulary"]


def directions_for(
    model: Model,
    sources: Sequence[TraitSource],
    data: Sequence[TraitData],
    on_done: Callable[[int, int], None],
) -> dict[str, TraitDirections]:
    """Of each trait, in the order of `sources`: a file's, a vector's, or made from pairs."""
    ready = {d.trait: d for d in data if isinstance(d, TraitDirections)}
    for source in sources:
        if source.name in ready:
            fits(ready[source.name], model, source.path)
    brought = directions_of(
        model, [trait for trait in data if isinstance(trait, Vector | VectorSet)]
    )
    made = extract(model, [trait for trait in data if isinstance(trait, Trait)], on_done)
    every = {**ready, **brought, **made}
    return {source.name: every[source.name] for source in sources}


def rows_for(
    model: Model,
    suite: Suite,
    work: Work,
    texts: Sequence[Generation],
    direction_SDK: Float32,
    plan: KeptPlan | None = None,
) -> Sizing:
    """How many of `texts` go at once: the suite's own number, what a plan of this work has chosen,
    or what this machine has room for.

    Steps are timed only where there are more texts than go at once by default.  A plan's rows that
    memory has no room for any more are chosen anew, by the plan's times.
    """
    if suite.rows != "auto":
        return Sizing(suite.rows, "asked")
    if work.given or not texts:
        return Sizing(DEFAULT_ROWS, "default")
    prompts = [work.rendered[text].token_ids for text in texts]
    columns = min(max(map(len, prompts)) + work.config.max_new_tokens, model.context)
    n_kept, shape = len(work.keep.sites), shape_of(model)
    row, working = shape.row_bytes(columns, direction_SDK.shape[2], n_kept), shape.working_bytes()
    free, chosen = memory_for_texts(model), None if plan is None else _sizing(plan.sizing)
    if chosen is not None and (free is None or working + chosen.rows * row <= free):
        return chosen
    times = None if chosen is None else chosen.times
    if times is None and len(texts) > DEFAULT_ROWS:
        times = step_times(model, prompts, direction_SDK, work.config)
    return choose_rows(len(texts), row, working, free, times)


def _sizing(kept: Mapping[str, Any]) -> Sizing | None:
    """As a plan has kept it; None where rows were asked for, or from what is damaged."""
    try:
        steps = kept.get("steps")
        times = None if steps is None else StepTimes(**steps)
        return Sizing(int(kept["rows"]), kept["limit"], times)
    except (KeyError, TypeError, ValueError):
        return None


def plan_for(model: Model, work: Work, captures: Iterable[Capture]) -> str:
    """What a plan of these captures is kept by: all that its figures depend on, the machine too."""
    return digest(
        captures,
        keep=asdict(work.keep),
        blocks={name: list(blocks) for name, blocks in work.blocks.items()},
        machine=[platform.node(), platform.platform(), psutil.cpu_count(), torch.get_num_threads()],
        device=[str(model.device), model.device_kind, all_memory(model.device)],
    )


def planned_for(model: Model, work: Work, captures: Iterable[Capture]) -> KeptPlan | None:
    """The plan of the very same work on this machine, if there is one."""
    return find_plan(work.key, plan_for(model, work, captures))


def room(model: Model, work: Work, text: Generation) -> int:
    """How many tokens may follow this prompt."""
    return min(work.config.max_new_tokens, model.context - len(work.rendered[text].token_ids))


def misfits(model: Model, work: Work, texts: Iterable[Generation]) -> dict[Generation, Misfit]:
    """The texts that this model cannot take, which a run records as failed, and what of it."""
    found = dict[Generation, Misfit]()
    for text in texts:
        given = work.given.get(text)
        long = room(model, work, text) < 1 if given is None else len(given) > model.context
        if long:
            found[text] = "context"
        elif max(given or work.rendered[text].token_ids) >= model.vocabulary:
            found[text] = "vocabulary"
    return found


def refusals_of(model: Model, work: Work, texts: Iterable[Generation]) -> dict[Generation, str]:
    """A sentence for each text that this model cannot take."""
    return {
        text: _refusal(model, work, text, what)
        for text, what in misfits(model, work, texts).items()
    }


def _refusal(model: Model, work: Work, text: Generation, misfit: Misfit) -> str:
    given, ids = work.given.get(text), work.rendered[text].token_ids
    if misfit == "vocabulary":
        theirs = "They are another model's: give the text instead."
        return (
            f"Expected token ids below {model.vocabulary}, the vocabulary of '{model.name}', got "
            f"{max(given or ids)}. {theirs if given else 'The tokenizer has tokens of its own.'}"
        )
    holds = f"the context of '{model.name}' holds {model.context}"
    if given is not None:
        return f"The text has {len(given)} tokens, and {holds}. Shorten it."
    return f"The prompt has {len(ids)} tokens, and {holds}, one of them for the answer. Shorten it."


def own_up(writer: RunWriter, model: Model, proofs: Sequence[Proof]) -> None:
    """What failed of a model that is used all the same, also of one that goes on with a run; and
    a run that goes on on another kind of device, whose numbers are others in the last digits."""
    before = Run.open(writer.path).devices[-1]
    if model.device_kind != before:
        writer.event("device", before=before, to=model.device_kind)
    broken = [proof.to_dict() for proof in proofs if proof.held is False]
    if broken:
        place = {"dtype": model.dtype_name, "device": str(model.device)}
        writer.event("unproven", checks=broken, **place)
