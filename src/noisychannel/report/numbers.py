"""Means, ratios and shares of per-example numbers, with 95 % intervals; and what counts as equivalent."""

from collections.abc import Callable
from typing import Any

import numpy as np

from noisychannel.report.stats import ENOUGH, LEVEL, RESAMPLES, Estimate, wilson

__all__ = ["difference_of", "equivalent", "mean_of", "median_of", "ratio_of_means", "share_of"]


def mean_of(values: np.ndarray, *, seed: int = 0) -> Estimate:
    """Mean (1/n) Σ vᵢ of one number per example, by a percentile bootstrap over examples.

    Raises:
        ValueError: no value.
    """
    return _bootstrap(_full(values), np.mean, seed)


def median_of(values: np.ndarray, *, seed: int = 0) -> Estimate:
    """Median of one number per example, by a percentile bootstrap over examples.

    Raises:
        ValueError: no value.
    """
    return _bootstrap(_full(values), np.median, seed)


def ratio_of_means(above: np.ndarray, below: np.ndarray, *, seed: int = 0) -> Estimate:
    """(mean of `above`) / (mean of `below`) of the same examples in the same order, by a percentile bootstrap.

    Pairs are resampled whole. Where several pairs share an example, give their sums, example by example.

    Raises:
        ValueError: no value, unequal lengths, or `below` has mean 0.
    """
    one, two = _full(above), _full(below)
    if len(one) != len(two):
        raise ValueError(f"expected pairs, got {len(one)} numbers above and {len(two)} below")
    if two.mean() == 0:
        raise ValueError("below: expected a mean other than 0")
    generator = np.random.default_rng(seed)
    rows = generator.integers(len(one), size=(RESAMPLES, len(one)))
    with np.errstate(divide="ignore"):
        found = one[rows].mean(axis=1) / two[rows].mean(axis=1)
    return _estimate(float(one.mean() / two.mean()), found, len(one))


def difference_of(values: np.ndarray, *, seed: int = 0) -> Estimate:
    """Mean of one difference of shares per example, each in [−1, 1], by a percentile bootstrap over examples.

    The resampled population has half an example of difference +1, half of −1 and one of 0 added, so that the
    interval has a width where no example differs; the value has nothing added.

    Raises:
        ValueError: no value, or one outside [−1, 1].

    Source: Agresti & Min 2005 (the added examples).
    """
    found = _full(values)
    if np.abs(found).max() > 1:
        raise ValueError("values: expected differences of shares, in [−1, 1]")
    levels, counts = np.unique(
        np.concatenate([found, [1.0, -1.0, 0.0, 0.0]]).round(12), return_counts=True
    )
    # Twice each example and once each of the added, of which 0 counts twice.
    weights = 2.0 * counts
    weights[np.isin(levels, (-1.0, 1.0))] -= 1
    weights[levels == 0] -= 2
    n = len(found)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n, weights / weights.sum(), size=RESAMPLES) @ levels / n
    return _estimate(float(found.mean()), drawn, n)


def share_of(which: np.ndarray) -> Estimate:
    """Share of examples of which something is true, with Wilson's interval.

    Raises:
        ValueError: no value.
    """
    return wilson(float(np.count_nonzero(which)), len(which))


def equivalent(difference: Estimate, margin: float) -> bool | None:
    """Whether a difference is smaller than the margin: True or False where its whole interval says so, else None.

    Fewer than 10 examples say nothing.

    Source: Schuirmann 1987 (two one-sided tests), at 2.5 % each.
    """
    if difference.n < ENOUGH:
        return None
    if -margin < difference.low and difference.high < margin:
        return True
    if difference.low >= margin or difference.high <= -margin:
        return False
    return None


def _full(values: np.ndarray) -> np.ndarray:
    if len(values) == 0:
        raise ValueError("values: expected at least 1 example, got none")
    return np.asarray(values, dtype=np.float64)


def _bootstrap(values: np.ndarray, statistic: Callable[..., Any], seed: int) -> Estimate:
    generator = np.random.default_rng(seed)
    rows = generator.integers(len(values), size=(RESAMPLES, len(values)))
    found = statistic(values[rows], axis=1)
    return _estimate(float(statistic(values)), found, len(values))


def _estimate(value: float, found: np.ndarray, n: int) -> Estimate:
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, min(value, float(low)), max(value, float(high)), n, "bootstrap")
