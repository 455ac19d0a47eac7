"""Correlations over responses: the textbook numbers; intervals know what belongs together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from traitscope.report.correlation import DRAWS, LEAST_PROMPTS, _weights, correlate, shift


def made(
    prompts: int, samples: int, *, shared: float, seed: int = 0
) -> tuple[np.ndarray, list[int]]:
    """Three traits; `shared` is how much of a response is its prompt's."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(prompts), samples)
    z = shared * rng.normal(size=(prompts, 3))[of] + rng.normal(size=(len(of), 3))
    z[:, 1] += 0.8 * z[:, 0]
    return z, of.tolist()


def test_the_textbooks_numbers() -> None:
    z, of = made(30, 2, shared=1.0)
    found = correlate(z, of)
    assert (found.n, found.prompts) == (60, 30)
    np.testing.assert_allclose(found.pearson, np.corrcoef(z.T), atol=1e-12)
    np.testing.assert_allclose(found.spearman, spearmanr(z).statistic, atol=1e-12)
    z = np.round(z)  # equal values share a rank
    np.testing.assert_allclose(correlate(z, of).spearman, spearmanr(z).statistic, atol=1e-12)


def test_intervals_draw_whole_prompts() -> None:
    """Against drawing the rows themselves, one draw at a time."""
    z, of = made(8, 3, shared=2.0)
    rows = [np.flatnonzero(np.array(of) == p) for p in range(8)]
    drawn = []
    for weights in np.concatenate(list(_weights(8))):
        chosen = np.concatenate([np.tile(rows[p], int(n)) for p, n in enumerate(weights)])
        drawn.append(np.corrcoef(z[chosen].T)[0, 1])
    assert len(drawn) == DRAWS
    found = correlate(z, of)
    np.testing.assert_allclose(
        [found.low[0, 1], found.high[0, 1]], np.percentile(drawn, [2.5, 97.5]), atol=1e-9
    )


def test_samples_of_one_prompt_are_no_new_evidence() -> None:
    """Ten copies of each response leave the interval where it was."""
    z, of = made(12, 1, shared=0.0)
    once, often = correlate(z, of), correlate(np.repeat(z, 10, axis=0), np.repeat(of, 10).tolist())
    assert (often.n, often.prompts) == (120, 12)
    np.testing.assert_allclose(often.low, once.low, atol=1e-9)
    np.testing.assert_allclose(often.high, once.high, atol=1e-9)
    apart = shift(np.repeat(z, 10, axis=0), np.repeat(of, 10).tolist())
    np.testing.assert_allclose(apart.low, shift(z, of).low, atol=1e-9)


@pytest.mark.parametrize("shared", [0.0, 2.0])
def test_the_interval_holds_what_it_says(shared: float) -> None:
    """Of unrelated traits about 95 in 100 hold 0, also where samples share their prompt."""
    held = 0
    for seed in range(60):
        z, of = made(25, 4, shared=shared, seed=seed)
        found = correlate(z, of)
        held += bool(found.low[0, 2] <= 0 <= found.high[0, 2])
    assert held >= 50  # 57 expected


def test_responses_without_a_number_are_left_out_whole() -> None:
    z, of = made(10, 2, shared=1.0)
    z[3, 1] = np.nan
    kept = np.delete(np.arange(20), 3)
    found = correlate(z, of)
    assert found.n == 19
    np.testing.assert_allclose(found.pearson, np.corrcoef(z[kept].T), atol=1e-12)


def test_too_little_to_say() -> None:
    z, of = made(LEAST_PROMPTS - 1, 6, shared=1.0)
    few = correlate(z, of)
    assert np.isfinite(few.pearson).all()
    assert np.isnan(few.low).all()
    assert np.isnan(shift(z, of).low).all()
    assert np.isnan(correlate(z[:2], of[:2]).pearson).all()
    assert shift(z[:0], []).n == 0
    still, of = made(8, 1, shared=1.0)
    still[:, 2] = 1.5  # a trait that does not vary goes together with nothing
    found = correlate(still, of)
    assert np.isnan(found.pearson[2]).all() and np.isfinite(found.pearson[0, 1])
    assert np.isnan(found.low[2]).all() and np.isfinite(found.low[0, 1])


def test_a_shift_and_its_interval() -> None:
    rng = np.random.default_rng(1)
    moved = shift(rng.normal(0.7, 0.5, size=(40, 2)), list(range(40)))
    assert (moved.low < moved.mean).all() and (moved.mean < moved.high).all()
    assert (moved.low > 0).all()
    assert moved.mean == pytest.approx([0.7, 0.7], abs=0.25)
