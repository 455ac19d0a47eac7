"""What a call on a run needs first: directions from files, vectors or pairs; proofs owned up to.

Makes directions and puts them into their cache; of a run it knows the log alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from traitscope.core import TraitDirections
from traitscope.models import Model, Proof
from traitscope.runs import RunWriter
from traitscope.suite import TraitSource
from traitscope.traits.extract import extract, fits
from traitscope.traits.pairs import Trait
from traitscope.traits.vectors import Vector, directions_of
from traitscope.work import TraitData

__all__ = ["directions_for", "own_up"]


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
    brought = directions_of(model, [trait for trait in data if isinstance(trait, Vector)])
    made = extract(model, [trait for trait in data if isinstance(trait, Trait)], on_done)
    every = {**ready, **brought, **made}
    return {source.name: every[source.name] for source in sources}


def own_up(writer: RunWriter, model: Model, proofs: Sequence[Proof]) -> None:
    """What failed of a model that is used all the same; also of one that goes on a run."""
    broken = [proof.to_dict() for proof in proofs if proof.held is False]
    if broken:
        place = {"dtype": model.dtype_name, "device": str(model.device)}
        writer.event("unproven", checks=broken, **place)
