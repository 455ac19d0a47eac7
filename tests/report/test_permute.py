"""The permutation test keeps its level and has power; its statistic is the documented one."""

from __future__ import annotations

import numpy as np
import pytest

from traitscope.report.permute import Contrast, max_t


def contrast(rng: np.random.Generator, n: int, shift: float = 0.0, pair: str = "a") -> Contrast:
    return Contrast(pair, tuple(rng.normal(shift, size=n)), tuple(rng.normal(size=n)))


def test_nothing_to_test() -> None:
    assert max_t([]) == []


def test_every_relabelling_is_counted() -> None:
    apart = Contrast("a", (5.0, 6.0, 7.0, 8.0, 9.5), (0.0, 1.0, 2.5, 3.0, 4.0))
    assert max_t([apart]) == [pytest.approx(1 / 252)]
    turned = Contrast("a", apart.lower, apart.higher)
    assert max_t([turned]) == [pytest.approx(1.0)]


def test_the_level_holds_for_one_and_for_several() -> None:
    rng = np.random.default_rng(1)
    one = [max_t([contrast(rng, 5)])[0] for _ in range(400)]
    assert np.mean(np.array(one) <= 0.05) < 0.08  # 0.05 and three standard errors
    assert np.mean(np.array(one) <= 0.5) == pytest.approx(0.5, abs=0.08)


def test_any_false_alarm_among_several_stays_at_the_level() -> None:
    rng = np.random.default_rng(2)
    smallest = []
    for _ in range(60):
        pairs = [contrast(rng, 5, pair=str(i)) for i in range(4)]
        smallest.append(min(max_t(pairs)))
    assert np.mean(np.array(smallest) <= 0.05) < 0.15


def test_the_level_holds_where_expectations_share_a_prompt() -> None:
    rng = np.random.default_rng(5)
    smallest = []
    for _ in range(60):
        shared = tuple(rng.normal(size=5))
        pairs = [Contrast(str(i), shared, tuple(rng.normal(size=5))) for i in range(4)]
        smallest.append(min(max_t(pairs)))
    assert np.mean(np.array(smallest) <= 0.05) < 0.15


def test_correction_makes_p_larger_and_leaves_what_is_real() -> None:
    rng = np.random.default_rng(3)
    real = contrast(rng, 8, shift=6.0, pair="real")
    noise = [contrast(rng, 8, pair=str(i)) for i in range(3)]
    alone, (together, *others) = max_t([real])[0], max_t([real, *noise])
    assert alone <= together < 0.01
    assert min(others) > 0.05


def test_the_same_again_gives_the_same() -> None:
    pairs = [contrast(np.random.default_rng(4), 9, pair=str(i)) for i in range(2)]
    assert max_t(pairs) == max_t(pairs)


def test_equal_answers_are_no_evidence() -> None:
    assert max_t([Contrast("a", (1.0,) * 5, (1.0,) * 5)]) == [1.0]
