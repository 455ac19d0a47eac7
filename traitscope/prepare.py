"""What a call on a run needs first: directions, the rows of a batch; proofs owned up to.

Makes directions (from files, vectors or pairs) and puts them into their cache; sizes a batch by
this machine's memory and speed; of a run it knows the log alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from traitscope.core import Float32, Generation, TraitDirections
from traitscope.engine import memory_for_texts
from traitscope.gauge import shape_of, step_times
from traitscope.models import Model, Proof
from traitscope.runs import Run, RunWriter
from traitscope.sizing import DEFAULT_ROWS, Sizing, choose_rows
from traitscope.suite import Suite, TraitSource
from traitscope.traits.extract import extract, fits
from traitscope.traits.pairs import Trait
from traitscope.traits.vectors import Vector, VectorSet, directions_of
from traitscope.work import TraitData, Work

__all__ = ["directions_for", "own_up", "rows_for"]


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
    model: Model, suite: Suite, work: Work, texts: Sequence[Generation], direction_SDK: Float32
) -> Sizing:
    """How many of `texts` go at once: the suite's own number, or what this machine has room for.

    Steps are timed only where there are more texts than go at once by default.
    """
    if suite.rows != "auto":
        return Sizing(suite.rows, "asked")
    if work.given or not texts:
        return Sizing(DEFAULT_ROWS, "default")
    prompts = [work.rendered[text].token_ids for text in texts]
    columns = min(max(map(len, prompts)) + work.config.max_new_tokens, model.context)
    n_kept, shape = len(work.keep.sites), shape_of(model)
    times = None
    if len(texts) > DEFAULT_ROWS:
        times = step_times(model, prompts, direction_SDK, work.config)
    return choose_rows(
        len(texts),
        shape.row_bytes(columns, direction_SDK.shape[2], n_kept),
        shape.working_bytes(),
        memory_for_texts(model),
        times,
    )


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
