"""95 % intervals of means over images: skewed, few, or answered by weights that all images share."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import norm
from torch import Tensor

__all__ = ["LEVEL", "Columns", "carriers", "columns", "corrected", "interval", "moments", "tails"]

LEVEL = 0.95


class Columns(NamedTuple):
    """What draws of shared weights add to the error of a mean: a scale, and how well it is known."""

    scale: float
    freedom: int


def carriers(parts: Float[np.ndarray, "n"]) -> float:
    """How many 0/1 outcomes have a sum as skewed as that of parts ≥ 0: (Σ v²)³ / (Σ v³)²; of 0/1 parts, their number.

    Many small parts beside a few large ones count as little more than the few: whether a table has two large
    parts or none is as uncertain as it is among 0/1 outcomes.
    """
    largest = float(parts.max())
    if largest <= 0:
        return 0.0
    v = parts / largest
    return float((v**2).sum()) ** 3 / float((v**3).sum()) ** 2


def columns(outcomes: Float[Tensor, "n m"]) -> Columns:
    """The part of a mean's error that comes from the m draws of weights which answered all n images.

    v_c = s²(column means) / m holds the columns' own variance and the cells', v_e = s²(residuals) / (n m).
    The rows' means vary by the cells too, so here v_e is taken off: v_c − (m − 3)/(m − 1) v_e, at least 0.
    The factor is Efron and Morris's: with few columns v_c is often small by chance, and taking off all of v_e
    would then hide the columns altogether. With less than four columns nothing is taken off, and the interval
    is too wide rather than too narrow.

    Source: Owen 2007 (crossed variances; resampling rows and columns both counts v_e three times);
        Efron & Morris 1973 (the factor).
    """
    n, m = outcomes.shape
    if m < 2:
        return Columns(0.0, 1)
    cells = outcomes.double().numpy()
    rows, cols = cells.mean(axis=1, keepdims=True), cells.mean(axis=0, keepdims=True)
    residual = cells - rows - cols + cells.mean()
    between = float(cols.var(ddof=1)) / m
    within = float((residual**2).sum()) / ((n - 1) * (m - 1)) / (n * m) if n > 1 else 0.0
    own = between - max(0.0, (m - 3) / (m - 1)) * within
    return Columns(max(0.0, own) ** 0.5, m - 1)


def interval(
    values: Float[np.ndarray, "n"],
    shared: Sequence[Columns],
    *,
    seed: int,
    resamples: int,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Bootstrap interval of a mean: examples resampled, columns' errors added, corrected for skewness.

    A resample is the mean of n examples drawn again, plus Σ scale · t with Student's t of each columns'
    freedom. Its quantiles are taken where a skewed mean has them: Φ(a + (a + z)/(1 − a(a + z))), z = ±1.96,
    a = κ₃ / (6 κ₂^1.5) of the mean (the bias correction of a mean is a as well).

    Args:
        values: one per example.
        shared: one for each set of columns whose draws of the weights answered all examples.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        level: coverage of the interval in (0, 1).

    Source: Efron 1987 (BCa).
    """
    generator = np.random.default_rng(seed)
    n = len(values)
    # Which examples share a value does not matter to the mean, so one multinomial draw of the distinct values
    # is one resample of the examples, at a cost that does not grow with n.
    distinct, counts = np.unique(values.round(12), return_counts=True)
    means = generator.multinomial(n, counts / n, size=resamples) @ distinct / n
    for scale, freedom in shared:
        if scale > 0:
            means += scale * generator.standard_t(freedom, size=resamples)
    shares = corrected(tails(level), *moments(values, shared))
    # Of B numbers the q-quantile is the q (B + 1)-th: else its tail is too small on average.
    low, high = np.quantile(means, shares, method="weibull")
    return float(low), float(high)


def tails(level: float = LEVEL) -> Float[np.ndarray, "2"]:
    """The two normal quantiles with `level` between them."""
    return norm.ppf([(1 - level) / 2, (1 + level) / 2])


def corrected(z: Float[np.ndarray, "2"], variance: float, third: float) -> Float[np.ndarray, "2"]:
    """Which shares of the resampled means are the z-quantiles of a mean of that variance and third cumulant."""
    if variance <= 0:
        return norm.cdf(z)
    a = third / variance**1.5 / 6
    return norm.cdf(a + (a + z) / (1 - a * (a + z)))


def moments(values: Float[np.ndarray, "n"], shared: Sequence[Columns]) -> tuple[float, float]:
    """Variance and third cumulant of the mean; the columns' own skewness is not known well enough to count."""
    n, centred = len(values), values - values.mean()
    variance = float((centred**2).mean()) / n + sum(c.scale**2 for c in shared)
    return variance, float((centred**3).mean()) / n**2
