"""Is a difference between two prompts' answers more than chance?  A permutation test.

Under the null hypothesis the answers to `higher` and `lower` are exchangeable.  The statistic is
one-sided and studentised, so that expectations on different traits can be compared:

    t = (mean_h - mean_l) / sqrt(var_h / n_h + var_l / n_l)

Labels are permuted over whole answers, never over tokens.  Expectations that compare the same two
prompts see the same relabelling; others are relabelled independently.  Corrected for all m tested
expectations at once by the maximum (Westfall and Young 1993, max-T):

    p_e = #{relabellings with max over all e' of t*_e' >= t_e} / #{relabellings}

over all relabellings if there are at most 10,000 of them (the observed one is among them), else
over 10,000 random ones with a fixed seed, and then p_e = (1 + #{...}) / (1 + 10,000).
This module knows numbers only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DRAWS", "Contrast", "max_t"]

DRAWS = 10_000
_SEED = 20_240_229
_SLACK = 1e-9  # equal statistics may differ in the last bits

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Contrast:
    """One expectation's answers: z of `higher` and of `lower`, and the pair they belong to."""

    pair: Hashable
    higher: tuple[float, ...]
    lower: tuple[float, ...]


def max_t(contrasts: Sequence[Contrast]) -> list[float]:
    """The corrected p of each contrast; see the module's docstring."""
    if not contrasts:
        return []
    pairs = {c.pair: (len(c.higher), len(c.lower)) for c in contrasts}
    exact = math.prod(math.comb(h + n, h) for h, n in pairs.values()) <= DRAWS
    choices = _every(pairs) if exact else _some(pairs)
    null = np.stack([_statistics(c, choices[c.pair]) for c in contrasts])  # [m, relabellings]
    largest = null.max(axis=0)
    observed = [_statistics(c, _identity(c))[0] for c in contrasts]
    counts = [int((largest >= t - _SLACK).sum()) for t in observed]
    return [n / null.shape[1] if exact else (1 + n) / (1 + DRAWS) for n in counts]


Choices = dict[Hashable, NDArray[np.bool_]]


def _every(pairs: dict[Hashable, tuple[int, int]]) -> Choices:
    """All joint relabellings: [relabellings, answers] masks of what counts as `higher`."""
    masks = [_combinations(h, h + n) for h, n in pairs.values()]
    grid = np.meshgrid(*[np.arange(len(mask)) for mask in masks], indexing="ij")
    return {pair: mask[index.ravel()] for pair, mask, index in zip(pairs, masks, grid, strict=True)}


def _combinations(chosen: int, size: int) -> NDArray[np.bool_]:
    sets = list(itertools.combinations(range(size), chosen))
    mask = np.zeros((len(sets), size), dtype=np.bool_)
    mask[np.arange(len(sets))[:, None], np.array(sets)] = True
    return mask


def _some(pairs: dict[Hashable, tuple[int, int]]) -> Choices:
    rng = np.random.default_rng(_SEED)
    drawn = {}
    for pair, (h, n) in pairs.items():
        first = np.tile(np.arange(h + n) < h, (DRAWS, 1))
        drawn[pair] = rng.permuted(first, axis=1)
    return drawn


def _identity(contrast: Contrast) -> NDArray[np.bool_]:
    h, n = len(contrast.higher), len(contrast.lower)
    return (np.arange(h + n) < h)[None, :]


def _statistics(contrast: Contrast, chosen: NDArray[np.bool_]) -> Float64:
    """t of each relabelling."""
    values = np.array([*contrast.higher, *contrast.lower])
    mean_h, var_h = _moments(values, chosen)
    mean_l, var_l = _moments(values, ~chosen)
    n_h, n_l = len(contrast.higher), len(contrast.lower)
    error = np.sqrt(var_h / n_h + var_l / n_l)
    # a relabelling without any spread is as extreme as one can be, whichever way it points
    floor = max(float(values.std()), 1.0) * 1e-9
    return np.asarray((mean_h - mean_l) / np.maximum(error, floor))


def _moments(values: Float64, chosen: NDArray[np.bool_]) -> tuple[Float64, Float64]:
    count = chosen.sum(axis=1)
    mean = (chosen * values).sum(axis=1) / count
    deviation = (values[None, :] - mean[:, None]) * chosen
    return mean, (deviation**2).sum(axis=1) / (count - 1)
