"""Means, ratios, shares: values by hand, intervals that cover, and what is equivalent."""

import numpy as np
import pytest

from noisychannel.report.numbers import equivalent, mean_of, median_of, ratio_of_means, share_of
from noisychannel.report.stats import Estimate


def test_values_by_hand() -> None:
    v = np.array([1.0, 2.0, 3.0, 10.0])
    assert mean_of(v).value == 4.0
    assert median_of(v).value == 2.5
    assert ratio_of_means(v, np.array([1.0, 0.0, 2.0, 1.0])).value == 4.0
    assert share_of(v > 2).value == 0.5


def test_intervals_cover_about_as_often_as_they_say() -> None:
    """100 worlds: 95 % intervals of a mean and of a paired ratio hold the truth in 88 to 99 % of them."""
    generator = np.random.default_rng(1)
    held = np.zeros(2)
    for seed in range(100):
        below = generator.exponential(2.0, size=120)
        above = 3 * below * generator.uniform(0.5, 1.5, size=120)
        for i, (e, truth) in enumerate(
            [(mean_of(below, seed=seed), 2.0), (ratio_of_means(above, below, seed=seed), 3.0)]
        ):
            held[i] += e.low <= truth <= e.high
    assert ((held / 100 >= 0.88) & (held / 100 <= 0.99)).all(), held / 100


def test_pairs_are_resampled_together() -> None:
    """Twice the same numbers have a ratio without spread; beside another example's they have one."""
    v = np.random.default_rng(0).exponential(size=60)
    assert ratio_of_means(2 * v, v).high == pytest.approx(2.0)
    assert ratio_of_means(2 * v, np.roll(v, 1)).high > 2.3
    with pytest.raises(ValueError, match="60 numbers above and 59 below"):
        ratio_of_means(v, v[1:])


def test_equivalent_needs_the_whole_interval() -> None:
    def gap(low: float, high: float) -> Estimate:
        return Estimate((low + high) / 2, low, high, 100, "bootstrap")

    assert equivalent(gap(-0.04, 0.03), 0.05) is True
    assert equivalent(gap(-0.04, 0.06), 0.05) is None
    assert equivalent(gap(0.06, 0.09), 0.05) is False
    assert equivalent(gap(-0.09, -0.05), 0.05) is False


def test_nothing_is_refused() -> None:
    for statistic in (mean_of, median_of):
        with pytest.raises(ValueError, match="at least 1"):
            statistic(np.array([]))
    with pytest.raises(ValueError, match="mean other than 0"):
        ratio_of_means(np.ones(3), np.zeros(3))
