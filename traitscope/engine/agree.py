"""Does a batch give the numbers of a text run alone?  Measured on the model itself, in seconds.

Three fixed texts of different lengths are continued greedily for a few tokens: together in two
slots, alone, and replayed in one forward.  Differences are in units of |h|, as everywhere.  In
float32 they must be rounding; in narrow dtypes they are the noise floor of every number of a run.
"""

from __future__ import annotations

import numpy as np
import torch

from traitscope.core import Float32, Generation, GenerationConfig, Trace, prompt_id_of
from traitscope.engine.decode import Batching, Request, generate
from traitscope.engine.replay import score_texts
from traitscope.models import FAMILIES, UNREADABLE, Model, Proof
from traitscope.models.proof import probe_ids

__all__ = ["agreement"]

_CONFIG = GenerationConfig(temperature=0.0)
_LENGTHS = (9, 5, 3)
_NEW_TOKENS = (2, 6, 4)  # the first row ends first: another takes its place, and a third joins
# float32: the contract. Others: reported, judged by the reader (a loose bound catches nonsense).
_ALLOWED = {torch.float32: 1e-5, torch.float64: 1e-5}
_NARROW = 0.25


def agreement(model: Model) -> list[Proof]:
    """Proofs "batched = alone" and "slots = a plain forward"; judged by the caller.

    A model of an unknown architecture may not take the engine's cache or masks at all: that is a
    proof that does not hold.
    """
    try:
        return _measured(model)
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        if model.anatomy.config.model_type in FAMILIES:
            raise
        said = f"it raises {type(error).__name__}: {error}"
        allowed = _ALLOWED.get(model.dtype, _NARROW)
        return [Proof("batched = alone", float("inf"), allowed, False, said)]


def _measured(model: Model) -> list[Proof]:
    requests = _requests(model)
    direction_SDK = _direction(model)
    together = _traces(model, requests, direction_SDK, rows=2)
    alone = {
        key: trace
        for request in requests
        for key, trace in _traces(model, [request], direction_SDK, rows=1).items()
    }
    allowed = _ALLOWED.get(model.dtype, _NARROW)
    texts = sum(not np.array_equal(together[k].token_ids, alone[k].token_ids) for k in alone)
    batched = max(_apart(together[k], alone[k]) for k in alone)
    replayed = _replayed(model, list(together.values()), direction_SDK)
    exact = allowed < _NARROW
    return [
        Proof(
            "batched = alone",
            batched,
            allowed,
            batched <= allowed and not (exact and texts),
            f"{len(alone) - texts} of {len(alone)} texts equal",
        ),
        Proof("slots = a plain forward", replayed, allowed, replayed <= allowed),
    ]


def _requests(model: Model) -> list[Request]:
    ids = probe_ids(int(model.anatomy.config.vocab_size), len(_LENGTHS), max(_LENGTHS)).tolist()
    texts = [tuple(row[:length]) for row, length in zip(ids, _LENGTHS, strict=True)]
    return [
        Request(Generation(prompt_id_of(text)), text, new_tokens)
        for text, new_tokens in zip(texts, _NEW_TOKENS, strict=True)
    ]


def _direction(model: Model) -> Float32:
    shape = (len(model.sites), model.anatomy.d_model, 1)
    random = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    unit = random / np.linalg.norm(random, axis=1, keepdims=True)
    return np.asarray(unit, dtype=np.float32)


def _traces(
    model: Model,
    requests: list[Request],
    direction_SDK: Float32,
    rows: int,
) -> dict[Generation, Trace]:
    made = generate(model, requests, direction_SDK, _CONFIG, Batching(rows))
    return {trace.generation: trace for trace in made}


def _apart(a: Trace, b: Trace) -> float:
    """The largest |score difference| / |h| over the positions that have the same history."""
    same = np.cumprod(
        a.token_ids[: len(b.token_ids)] == b.token_ids[: len(a.token_ids)], dtype=np.int64
    )
    n = int(same.sum())
    difference = np.abs(a.score[:n] - b.score[:n]).max(axis=-1) / b.norm[:n]
    return float(np.nan_to_num(difference, nan=np.inf).max())


def _replayed(
    model: Model,
    traces: list[Trace],
    direction_SDK: Float32,
) -> float:
    worst = 0.0
    texts = [trace.token_ids.tolist() for trace in traces]
    for i, score_TSK, norm_TS in score_texts(model, texts, direction_SDK):
        difference = np.abs(traces[i].score - score_TSK).max(axis=-1) / norm_TS
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf).max()))
    return worst
