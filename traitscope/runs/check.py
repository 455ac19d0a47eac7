"""What may be committed: shapes, finite numbers, nothing twice, nothing without a text.

Mistakes of the caller are ValueErrors.  Numbers that are not finite are no mistake of the caller
(float16 overflows): such a text becomes a recorded failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from traitscope.core import (
    Capture,
    FurtherScores,
    Generation,
    Internals,
    Keep,
    KeptStates,
    TextRecord,
)
from traitscope.runs.header import RunHeader
from traitscope.runs.index import Index

__all__ = ["finite", "new_further", "new_internals", "new_states", "outcomes", "shapes"]


def finite(record: TextRecord) -> TextRecord:
    """The record, or a failed one where a score or norm is NaN or infinite."""
    trace = record.trace
    if trace is None or (np.isfinite(trace.score).all() and np.isfinite(trace.norm).all()):
        return record
    bad_TS = ~(np.isfinite(trace.score).all(axis=2) & np.isfinite(trace.norm))
    position, site = np.argwhere(bad_TS)[0]
    return TextRecord(
        record.generation,
        record.prompt,
        error=(
            f"Expected finite scores, got NaN or infinity at position {position}, site number "
            f"{site}: the model overflowed. Run it in float32 or bfloat16."
        ),
    )


def shapes(record: TextRecord, n_sites: int, n_traits: int) -> None:
    """ValueError unless tokens and numbers of a done text agree in shape."""
    trace, tokens, name = record.trace, record.tokens, record.generation.id
    if trace is None or tokens is None:
        if trace is not None or tokens is not None or not record.error:
            raise ValueError(f"{name}: expected tokens and numbers, or neither and an error")
        return
    n = len(trace.token_ids)
    expected = {
        "score": (trace.score.shape, (n, n_sites, n_traits)),
        "norm": (trace.norm.shape, (n, n_sites)),
        "logprob": (trace.logprob.shape, (n,)),
        "piece": ((len(tokens.piece),), (n,)),
    }
    for column in ("token_id", "role", "part", "special", "turn", "start", "end"):
        expected[column] = (getattr(tokens, column).shape, (n,))
    for what, (got, wanted) in expected.items():
        if got != wanted:
            raise ValueError(f"{name}: expected {what} of shape {wanted}, got {got}")
    if n == 0 or not np.array_equal(tokens.token_id, trace.token_ids):
        raise ValueError(f"{name}: expected the same token ids, one or more, in tokens and trace")
    if tokens.n_prompt != trace.n_prompt:
        raise ValueError(f"{name}: expected {trace.n_prompt} prompt tokens, got {tokens.n_prompt}")


def outcomes(
    index: Index,
    texts: Sequence[TextRecord],
    captures: Sequence[Capture],
    failed: Mapping[Capture, str],
) -> dict[Capture, str]:
    """Capture -> "" (done) or why it failed; ValueError for doubles and captures without text."""
    if len({record.generation for record in texts}) != len(texts):
        raise ValueError("expected every text once in a commit")
    statuses = {g: (row.status, row.error) for g, row in index.generations.items()}
    for record in texts:
        name = record.generation
        if statuses.get(name, ("", ""))[0] == "done":
            raise ValueError(f"{name.id} is committed already")
        statuses[name] = (record.status, record.error)
    if len({*captures, *failed}) != len(captures) + len(failed):
        raise ValueError("expected every capture once in a commit")
    result = {}
    for capture in (*captures, *failed):
        if capture.generation not in statuses:
            raise ValueError(f"{capture} has no text")
        if capture in index.captures and index.captures[capture].status == "done":
            raise ValueError(f"{capture} is committed already")
        status, error = statuses[capture.generation]
        result[capture] = error if status == "failed" else failed.get(capture, "")
    return result


def new_internals(
    index: Index,
    texts: Sequence[TextRecord],
    internals: Sequence[Internals],
    traits: Sequence[str],
) -> list[Internals]:
    """Those not committed yet; ValueError for internals without a done text or of other traits."""
    done, known = _texts(index, texts)
    new: dict[tuple[Generation, int], Internals] = {}
    for item in internals:
        key = (item.generation, item.block)
        if item.generation not in known:
            raise ValueError(f"internals of {item.generation.id} have no text")
        if item.traits != tuple(traits):
            raise ValueError(f"expected internals of {tuple(traits)}, got {item.traits}")
        if item.generation in done and key not in index.internals:
            new.setdefault(key, item)
    return list(new.values())


def new_states(
    index: Index,
    texts: Sequence[TextRecord],
    states: Sequence[KeptStates],
    sites: Sequence[str],
) -> list[KeptStates]:
    """Those not committed yet; ValueError for states without a text, or of another shape."""
    done, known = _texts(index, texts)
    lengths = {g: (row.n_tokens, row.n_prompt) for g, row in index.generations.items()}
    for record in texts:
        if record.trace is not None:
            lengths[record.generation] = len(record.trace.token_ids), record.trace.n_prompt
    new: dict[tuple[Generation, Keep], KeptStates] = {}
    for item in states:
        name = item.generation
        if name not in known or len(item.keep.sites) != 1 or item.site not in sites:
            raise ValueError(f"states of {name.id} at {item.keep.sites} have no text or no site")
        if name not in done or (name, item.keep) in index.states:
            continue
        if item.h.ndim != 2 or len(item.h) != len(item.position):
            raise ValueError(f"{name.id}: expected a state for each of {len(item.position)} tokens")
        if not np.array_equal(item.position, item.keep.positions(*lengths[name])):
            raise ValueError(f"{name.id}: expected the states of its '{item.keep.tokens}' tokens")
        new.setdefault((name, item.keep), item)
    return list(new.values())


def new_further(
    index: Index, further: Sequence[FurtherScores], header: RunHeader
) -> list[FurtherScores]:
    """Those not committed yet; ValueError for scores without a done text or of other traits."""
    new: dict[Generation, FurtherScores] = {}
    for item in further:
        name = item.generation
        row = index.generations.get(name)
        if row is None or row.status != "done":
            raise ValueError(f"further scores of {name.id} have no done text")
        if not set(item.traits) <= set(header.further_traits):
            raise ValueError(f"expected scores of {header.further_traits}, got {item.traits}")
        shape = (row.n_tokens, len(header.sites), len(item.traits))
        if item.score.shape != shape or not np.isfinite(item.score).all():
            raise ValueError(f"{name.id}: expected finite scores {shape}, got {item.score.shape}")
        there = [trait for trait in item.traits if (name, trait) in index.further]
        if there and len(there) < len(item.traits):
            raise ValueError(f"{name.id}: expected scores that lack, has those on {there}")
        if not there:
            new.setdefault(name, item)
    return list(new.values())


def _texts(index: Index, texts: Sequence[TextRecord]) -> tuple[set[Generation], set[Generation]]:
    """The texts that are done once `texts` are committed, and those and the failed ones of them."""
    done = {g for g, row in index.generations.items() if row.status == "done"}
    done |= {record.generation for record in texts if record.status == "done"}
    return done, done | {record.generation for record in texts}
