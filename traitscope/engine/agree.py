"""Does a batch give the numbers of a text run alone?  Measured on the model itself, in seconds.

Fixed texts of staggered lengths are continued for a few tokens: together in fewer slots than
texts, so that places are taken over; alone; and the same ids again in one plain forward.
Differences are in units of |h|, as everywhere.  In float32 they must be rounding; in narrow dtypes
they are the noise floor of every number of a run.  Each check is made so that one broken thing
breaks one of them; what would only repeat another one's failure is not measured.
This module does not know tokenizers, nor who asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from traitscope.core import Float32, Generation, GenerationConfig, Int32, Trace, prompt_id_of
from traitscope.engine.decode import Batching, Request, generate
from traitscope.engine.replay import score_texts
from traitscope.engine.sampling import gap
from traitscope.models import FAMILIES, UNREADABLE, Model, Proof, is_finite
from traitscope.models.proof import probe_ids, timed

__all__ = ["LONG", "QUICK", "WIDE", "Probe", "agreement", "repetition"]

# float32: the contract. Others: reported, judged by the reader (a loose bound catches nonsense).
_ALLOWED = {torch.float32: 1e-5, torch.float64: 1e-5}
_NARROW = 0.25
TEMPERATURE = 0.7
NEAR_TIE = 1e-5  # of perturbed logits: rounding may decide which of two is picked

Traces = dict[Generation, Trace]


@dataclass(frozen=True)
class Probe:
    """Which texts are compared: the tokens of each prompt, the most of each answer, the slots.

    Answers end one after the other and not in order, so that rows move and others join.
    """

    lengths: tuple[int, ...]
    new_tokens: tuple[int, ...]
    rows: int


QUICK = Probe((9, 5, 3), (2, 5, 3), rows=2)
WIDE = Probe((24, 3, 17, 9, 1, 12), (3, 8, 6, 9, 5, 7), rows=3)
LONG = Probe(
    (480, 3, 250, 61, 130, 17, 33, 320, 9, 200, 90, 1),
    (20, 32, 9, 27, 14, 24, 31, 6, 29, 17, 22, 26),
    rows=5,
)


def agreement(model: Model, probe: Probe = QUICK) -> list[Proof]:
    """Proofs "batched = alone" and "slots = a plain forward"; judged by the caller.

    A model of an unknown architecture may not take the engine's cache or masks at all: that is a
    proof that does not hold.
    """
    try:
        return list(timed(_agreement(model, probe)))
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        if model.anatomy.config.model_type in FAMILIES:
            raise
        said = f"it raises {type(error).__name__}: {error}"
        allowed = _ALLOWED.get(model.dtype, _NARROW)
        return [Proof("batched = alone", float("inf"), allowed, False, said)]


def repetition(model: Model, probe: Probe = QUICK, *, agree: bool = True) -> list[Proof]:
    """Proofs "two equal runs agree" and "sampled text = alone"; raises nothing.

    The second one says nothing new where a batch's numbers are not those of a text alone
    (`agree` False).
    """
    return list(timed(_repetition(model, probe, agree)))


def _agreement(model: Model, probe: Probe) -> Iterator[Proof]:
    batched, plain = "batched = alone", "slots = a plain forward"
    allowed = _ALLOWED.get(model.dtype, _NARROW)
    if not is_finite(model.proofs):
        for name in (batched, plain):
            yield Proof.skipped(name, allowed, "values are not finite")
        return
    requests, config = _requests(model, probe), _config(temperature=0.0)
    together = _together(model, requests, config, probe.rows)
    alone = _alone(model, requests, config)
    yield _compared(model, batched, together, alone, config)
    # those run alone: what a batch breaks is named above
    yield Proof.of(plain, _replayed(model, list(alone.values())), allowed)


def _repetition(model: Model, probe: Probe, agree: bool) -> Iterator[Proof]:
    twice, sampled = "two equal runs agree", "sampled text = alone"
    allowed, flips = _ALLOWED.get(model.dtype, _NARROW), 0.0 if _exact(model) else 1.0
    if not is_finite(model.proofs):
        yield Proof.skipped(twice, allowed, "values are not finite")
        yield Proof.skipped(sampled, flips, "values are not finite", unit="of texts")
        return
    requests, config = _requests(model, probe), _config(TEMPERATURE)
    first = _together(model, requests, config, probe.rows)
    again = _together(model, requests, config, probe.rows)
    yield _compared(model, twice, first, again, config)
    if not agree:
        yield Proof.skipped(sampled, flips, "batched is not alone", unit="of texts")
        return
    alone = _alone(model, requests, config)
    apart = _flips(model, first, alone, config)
    share = sum(not flip.excused for flip in apart) / len(alone)
    detail = f"{_said(apart, len(alone))}, temperature {TEMPERATURE}"
    yield Proof.of(sampled, share, flips, detail, unit="of texts")


def _compared(
    model: Model, name: str, some: Traces, others: Traces, config: GenerationConfig
) -> Proof:
    """Numbers within what is allowed; in float32 the texts must be equal too, near ties excused."""
    allowed = _ALLOWED.get(model.dtype, _NARROW)
    worst = max(_apart(some[key], others[key]) for key in others)
    apart = _flips(model, some, others, config)
    held = worst <= allowed and not (_exact(model) and any(not flip.excused for flip in apart))
    return Proof(name, worst, allowed, held, _said(apart, len(others)))


@dataclass(frozen=True)
class _Flip:
    """A text that came out as another: where, and how far apart the two best were there.

    `gap` is None where it was not measured: narrow dtypes promise no texts.
    """

    text: int
    position: int
    gap: float | None

    @property
    def excused(self) -> bool:
        return self.gap is not None and self.gap < NEAR_TIE

    def __str__(self) -> str:
        return f"text {self.text + 1} at token {self.position + 1} ({self.gap:.1e})"


def _flips(
    model: Model, some: Traces, others: Traces, config: GenerationConfig
) -> tuple[_Flip, ...]:
    found = []
    for number, (key, other) in enumerate(others.items()):
        a, b = some[key].token_ids, other.token_ids
        if np.array_equal(a, b):
            continue
        at = _same(a, b)
        apart = _gap(model, other, at, config) if _exact(model) else None
        found.append(_Flip(number, at, apart))
    return tuple(found)


@torch.inference_mode()
def _gap(model: Model, trace: Trace, position: int, config: GenerationConfig) -> float:
    """How near a tie was: the two best of a plain forward, perturbed as they were."""
    ids = torch.tensor([trace.token_ids[:position].tolist()], device=model.device)
    logits = model.hf(input_ids=ids, use_cache=False).logits[0, -1]
    return gap(logits, trace.generation, position, config)


def _said(apart: Sequence[_Flip], texts: int) -> str:
    said = f"{texts - len(apart)} of {texts} texts equal"
    ties = [str(flip) for flip in apart if flip.excused]
    return f"{said}; near ties excused: {', '.join(ties)}" if ties else said


def _same(a: Int32, b: Int32) -> int:
    """How many ids two texts have in common at their beginning."""
    n = min(len(a), len(b))
    return int(np.cumprod(a[:n] == b[:n], dtype=np.int64).sum())


def _exact(model: Model) -> bool:
    return model.dtype in _ALLOWED


def _config(temperature: float) -> GenerationConfig:
    return GenerationConfig(temperature=temperature)  # lengths are the requests' own


def _requests(model: Model, probe: Probe) -> list[Request]:
    """The probe's texts, cut to what the model's context holds."""
    ids = probe_ids(model.vocabulary, len(probe.lengths), max(probe.lengths)).tolist()
    requests = []
    for row, length, new in zip(ids, probe.lengths, probe.new_tokens, strict=True):
        new = min(new, model.context - 1)
        text = tuple(row[: min(length, model.context - new)])
        requests.append(Request(Generation(prompt_id_of(text)), text, new))
    return requests


def _direction(model: Model) -> Float32:
    shape = (len(model.sites), model.anatomy.d_model, 1)
    random = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    unit = random / np.linalg.norm(random, axis=1, keepdims=True)
    return np.asarray(unit, dtype=np.float32)


def _together(
    model: Model, requests: Sequence[Request], config: GenerationConfig, rows: int
) -> Traces:
    made = generate(model, requests, _direction(model), config, Batching(rows))
    return {trace.generation: trace for trace in made}


def _alone(model: Model, requests: Sequence[Request], config: GenerationConfig) -> Traces:
    return {
        generation: trace
        for request in requests
        for generation, trace in _together(model, [request], config, 1).items()
    }


def _apart(a: Trace, b: Trace) -> float:
    """The largest |score difference| / |h| over the positions that have the same history."""
    n = _same(a.token_ids, b.token_ids)
    difference = np.abs(a.score[:n] - b.score[:n]).max(axis=-1) / b.norm[:n]
    return float(np.nan_to_num(difference, nan=np.inf).max())


def _replayed(model: Model, traces: list[Trace]) -> float:
    worst = 0.0
    texts = [trace.token_ids.tolist() for trace in traces]
    for text in score_texts(model, texts, _direction(model), own=True):
        difference = np.abs(traces[text.index].score - text.score).max(axis=-1) / text.norm
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf).max()))
    return worst
