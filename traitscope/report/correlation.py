"""How traits go together over a run's responses, and how two runs differ over the same prompts.

The unit is a response, never a token.  Samples of one prompt belong together, so intervals come
from drawing prompts with replacement, all their responses with them (a bootstrap of clusters,
Efron and Tibshirani 1993, 95% between percentiles, a fixed seed), and are left out with fewer than
five prompts.  This module knows numbers only: z [N, K] and the prompt of each of N responses.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["DRAWS", "LEAST_PROMPTS", "Correlation", "Shift", "correlate", "pearson", "shift"]

DRAWS = 1_000
LEAST_PROMPTS = 5
_SEED = 20_240_229
_AT_ONCE = 100  # draws whose weights are in memory together

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """Of K traits over `n` responses of `prompts` prompts: all [K, K].

    `pearson`, `spearman` (of ranks); `low` and `high` bound `pearson`, NaN where there are too few
    prompts.  NaN where a trait does not vary.
    """

    n: int
    prompts: int
    pearson: Float64
    spearman: Float64
    low: Float64
    high: Float64


@dataclass(frozen=True)
class Shift:
    """The mean of b - a over `n` responses of `prompts` prompts, with its interval; all [K]."""

    n: int
    prompts: int
    mean: Float64
    low: Float64
    high: Float64


def correlate(z_NK: Float64, prompts: Sequence[Hashable]) -> Correlation:
    """Over the responses that have a number for every trait."""
    z_NK, number_N, count = _whole(z_NK, prompts)
    n, k = z_NK.shape
    nothing = np.full((k, k), np.nan)
    if n < 3:
        return Correlation(n, count, nothing, nothing, nothing, nothing)
    low, high = nothing, nothing
    if count >= LEAST_PROMPTS:
        low, high = _interval(z_NK, number_N, count)
    ranks_NK = np.stack([_ranks(column) for column in z_NK.T], axis=1)
    return Correlation(n, count, pearson(z_NK), pearson(ranks_NK), low, high)


def shift(difference_NK: Float64, prompts: Sequence[Hashable]) -> Shift:
    """Over the responses that have a difference for every trait."""
    difference_NK, number_N, count = _whole(difference_NK, prompts)
    n, k = difference_NK.shape
    nothing = np.full(k, np.nan)
    if n == 0:
        return Shift(0, 0, nothing, nothing, nothing)
    low, high = nothing, nothing
    if count >= LEAST_PROMPTS:
        sums_PK = _per_prompt(difference_NK, number_N, count)
        sizes_P = np.bincount(number_N, minlength=count)
        weights = _weights(count)
        means = np.concatenate([(w @ sums_PK) / (w @ sizes_P)[:, None] for w in weights])
        low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return Shift(n, count, difference_NK.mean(axis=0), low, high)


# --- inside --------------------------------------------------------------------------------------


def _whole(z_NK: Float64, prompts: Sequence[Hashable]) -> tuple[Float64, NDArray[np.intp], int]:
    """The rows without NaN, and the number of each one's prompt."""
    there = np.asarray(np.isfinite(z_NK).all(axis=1))
    numbers: dict[Hashable, int] = {}
    of = [numbers.setdefault(p, len(numbers)) for p, ok in zip(prompts, there, strict=True) if ok]
    return z_NK[there], np.array(of, dtype=np.intp), len(numbers)


def pearson(z_NK: Float64) -> Float64:
    """Pearson's r of every two columns: [K, K]; NaN where one does not vary."""
    centred = z_NK - z_NK.mean(axis=0)
    return _ratio(centred.T @ centred)


def _ratio(product: Float64) -> Float64:
    """Covariances [..., K, K] -> correlations; NaN where a trait does not vary."""
    variance = np.diagonal(product, axis1=-2, axis2=-1)
    spread = np.sqrt(np.where(variance > 1e-18, variance, np.nan))
    return np.asarray(np.clip(product / (spread[..., :, None] * spread[..., None, :]), -1, 1))


def _ranks(values: Float64) -> Float64:
    """Ranks from 0; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count + 1) / 2)[place])


def _interval(z_NK: Float64, number_N: NDArray[np.intp], count: int) -> tuple[Float64, Float64]:
    centred = z_NK - z_NK.mean(axis=0)
    k = z_NK.shape[1]
    products = (centred[:, :, None] * centred[:, None, :]).reshape(-1, k * k)
    sums_PK = _per_prompt(centred, number_N, count)
    squares_PKK = _per_prompt(products, number_N, count)
    sizes_P = np.bincount(number_N, minlength=count)
    drawn = []
    for w in _weights(count):
        n = (w @ sizes_P)[:, None]
        mean = (w @ sums_PK) / n
        second = ((w @ squares_PKK) / n).reshape(-1, k, k)
        drawn.append(_ratio(second - mean[:, :, None] * mean[:, None, :]))
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5], axis=0)  # NaN stays NaN
    return low, high


def _per_prompt(rows: Float64, number_N: NDArray[np.intp], count: int) -> Float64:
    """Sums over each prompt's responses: [prompts, columns]."""
    sums = [np.bincount(number_N, weights=column, minlength=count) for column in rows.T]
    return np.stack(sums, axis=1)


def _weights(count: int) -> Iterator[Float64]:
    """How often each prompt is drawn: pieces [draws, prompts], the same for the same count."""
    rng = np.random.default_rng(_SEED)
    row = count * np.arange(_AT_ONCE)[:, None]
    for _ in range(0, DRAWS, _AT_ONCE):
        drawn = row + rng.integers(count, size=(_AT_ONCE, count))
        counts = np.bincount(drawn.ravel(), minlength=_AT_ONCE * count)
        yield counts.reshape(_AT_ONCE, count).astype(np.float64)
