"""Stored draws → accuracies with intervals. Every number is a pure function of (table, rule, seed)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from scipy.stats import norm
from torch import Tensor

from noisychannel.decision import Decision
from noisychannel.report.draws import arrange, decided, same_examples
from noisychannel.report.resampling import LEVEL, carriers, columns, interval
from noisychannel.report.worst import worst

__all__ = [
    "Estimate",
    "WorstCase",
    "accuracy",
    "correct_matrix",
    "paired_difference",
    "wilson",
    "worst_case",
]

RESAMPLES = 2000
ENOUGH = 10
"""Fewer examples than this decide nothing; on one side of 0/1 outcomes, they are too few for a percentile bootstrap."""


class Estimate(NamedTuple):
    """A fraction (or a difference of two) with its interval, over n examples."""

    value: float
    low: float
    high: float
    n: int
    method: Literal["wilson", "bootstrap"]

    @property
    def percent(self) -> str:
        """In percent with the interval.

        >>> wilson(61, 100).percent
        '61.0 % [51.2, 70.0]'
        """
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    @property
    def half_width(self) -> float:
        """Half of the interval's length."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, eq=False)
class WorstCase:
    """Accuracy under the attack that does best on each example, and that attack's name per example."""

    estimate: Estimate
    index: Int[Tensor, "n"]
    winner: tuple[str, ...]


def wilson(successes: float, n: int, level: float = LEVEL) -> Estimate:
    """Wilson's score interval of a proportion.

    (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n),  p = successes / n.

    Args:
        successes: 0 … n; a fraction where each of n examples contributes its mean outcome.
        n: examples, at least 1.
        level: coverage in (0, 1).

    Raises:
        ValueError: no example, or successes outside 0 … n.

    Source: Wilson 1927.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1 example, got {n}")
    if not 0 <= successes <= n:
        raise ValueError(f"successes: expected 0..{n}, got {successes}")
    z = float(norm.ppf(0.5 + level / 2))
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    # Rounding must not leave [0, 1], nor leave out p: at 0 and 1 an end is p itself.
    return Estimate(
        p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)), n, "wilson"
    )


def correct_matrix(draws: pa.Table) -> Bool[Tensor, "n m"]:
    """Whether each single draw was classified rightly: rows by index, columns by draw.

    Raises:
        ValueError: an empty table, several candidates per example, or unequal numbers of draws.
    """
    d = arrange(draws)
    return d.predicted == d.label[:, None]


def accuracy(
    draws: pa.Table, rule: Decision, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Accuracy under a decision rule, over every disjoint group of draws that the rule can decide.

    m draws per example give ⌊m / k⌋ decisions; their mean is the example's accuracy. The interval is
    Wilson's where each example has one outcome (one group, or all groups agree), and where fewer than
    10 examples carry what is right, or what is wrong: a mean of 0/1 outcomes varies at most as one outcome
    does, so Wilson's is then wide enough while a bootstrap would collapse. Otherwise it is a bootstrap over
    images, each resampled with all its decisions, corrected for skewness: the images' means already vary by
    their draws, so resampling draws inside images too would count that variance twice. Where one draw of
    the weights answered all images, their errors are correlated, and what the columns of decisions add
    to the error is added; of two or three decisions that is known so badly that the interval is too wide, and one
    decision tells nothing of it: its interval is that of these weights alone.

    Args:
        draws: the stored table, one candidate per example.
        rule: decides `rule.draws` draws at a time.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: an empty or ragged table, or fewer draws per example than the rule takes.

    Source: Davison & Hinkley 1997, 3.8 (hierarchical data); Efron 1987 (skewness).
    """
    d = arrange(draws)
    return mean_outcome(decided(d, rule).double(), seed, resamples, shared=d.shared)


def paired_difference(
    a: pa.Table, b: pa.Table, rule: Decision, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Accuracy of a minus accuracy of b on the same examples, by a bootstrap over images.

    Where fewer than 10 images carry a difference, or make one away from ±1, it is put together from Wilson's
    intervals of what a has more and what b has more. Where one draw of the weights answered all images, what
    the columns of decisions add to the error is added.

    Args:
        a: draws of the one defense or attack.
        b: draws of the other, for the same indices.
        rule: decides both.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: different indices, or what `accuracy` refuses.

    Source: Efron 1987 (bootstrap); Newcombe 1998 (intervals of a difference put together).
    """
    one, two = arrange(a), arrange(b)
    same_examples({"a": one, "b": two})
    outcomes = decided(one, rule).double(), decided(two, rule).double()
    return mean_gap(*outcomes, seed, resamples, shared=(one.shared, two.shared))


def worst_case(
    tables: Mapping[str, pa.Table],
    rule: Decision,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> WorstCase:
    """Accuracy when each example meets the attack that does best on it, luck not counted.

    The attack is chosen by its rate of wrong draws (ties: the smaller mean margin) on the first draws
    of each example, and scored by the rule on the last: choosing and scoring on the same draws would
    keep the luckiest attack. Scoring gets half of the draws, or as many as one decision takes. With one
    draw there is nothing to hold back: that is the plain minimum, right for a deterministic defense.

    Args:
        tables: attack name → its draws, all for the same indices.
        rule: decides the scoring draws.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: no table, different indices, or too few draws to choose and score apart.

    Source: architecture, decision 5.
    """
    found = worst(tables, rule)
    names = tuple(tables)
    return WorstCase(
        mean_outcome(found.outcomes.double(), seed, resamples, shared=found.shared),
        found.index,
        tuple(names[i] for i in found.chosen.tolist()),
    )


def mean_outcome(
    outcomes: Float[Tensor, "n columns"],
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    shared: bool,
) -> Estimate:
    """Mean over examples of their mean outcome in [0, 1], with the interval that `accuracy` describes.

    Args:
        outcomes: one row per example, of which only the mean need lie in [0, 1].
        seed: of the bootstrap.
        resamples: of the bootstrap.
        shared: whether one draw of the weights answered a column.
    """
    means = outcomes.mean(dim=1).numpy().round(12)
    constant = bool(((means == 0) | (means == 1)).all())
    if constant or min(carriers(means), carriers(1 - means)) < ENOUGH:
        return wilson(float(means.sum()), len(means))
    found = [columns(outcomes)] if shared else []
    low, high = interval(means, found, seed=seed, resamples=resamples)
    value = float(means.mean())
    low, high = max(0.0, min(value, low)), min(1.0, max(value, high))
    return Estimate(value, low, high, len(means), "bootstrap")


def mean_gap(
    one: Float[Tensor, "n _"],
    two: Float[Tensor, "n _"],
    seed: int = 0,
    resamples: int = RESAMPLES,
    *,
    shared: tuple[bool, bool],
    level: float = LEVEL,
) -> Estimate:
    """Mean outcome of one less that of two, example by example, with the interval that `paired_difference` describes.

    Args:
        one: outcomes in [0, 1] by example and column.
        two: of the other; where both have as many columns, a column of both may be of the same draws.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        shared: whether one draw of the weights answered a column, of each.
        level: coverage of the interval in (0, 1).
    """
    gap = (one.mean(dim=1) - two.mean(dim=1)).numpy().round(12)
    n, value = len(gap), float(gap.mean())
    if min(carriers(np.abs(gap)), carriers(1 - gap), carriers(1 + gap)) < ENOUGH:
        more = wilson(float(np.maximum(gap, 0).sum()), n, level)
        less = wilson(float(np.maximum(-gap, 0).sum()), n, level)
        below = ((more.value - more.low) ** 2 + (less.high - less.value) ** 2) ** 0.5
        above = ((more.high - more.value) ** 2 + (less.value - less.low) ** 2) ** 0.5
        return Estimate(value, max(-1.0, value - below), min(1.0, value + above), n, "wilson")
    if one.shape == two.shape:
        found = [columns(one - two)] if any(shared) else []
    else:
        found = [columns(part) for part, so in zip((one, two), shared, strict=True) if so]
    low, high = interval(gap, found, seed=seed, resamples=resamples, level=level)
    low, high = max(-1.0, min(value, low)), min(1.0, max(value, high))
    return Estimate(value, low, high, n, "bootstrap")
