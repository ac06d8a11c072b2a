"""Stored draws → accuracies with intervals. Every number is a pure function of (table, rule, seed)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import norm
from torch import Tensor

from noisychannel.decision import Decision
from noisychannel.report.draws import Draws, arrange, decided, same_examples

__all__ = [
    "Estimate",
    "WorstCase",
    "accuracy",
    "correct_matrix",
    "paired_difference",
    "wilson",
    "worst_case",
]

LEVEL = 0.95
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
    return Estimate(p, min(p, middle - half), max(p, middle + half), n, "wilson")


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
    10 examples are ever right or ever wrong: a mean of 0/1 outcomes varies at most as one outcome
    does, so Wilson's is then wide enough while a bootstrap would collapse. Otherwise it is a percentile
    bootstrap over images, each resampled with all its decisions: the images' means already vary by
    their draws, so resampling draws inside images too would count that variance twice. Where one draw
    of the weights answered all images, their errors are correlated, and images and decisions are
    resampled both, crossed; with fewer than 20 decisions such an interval is too narrow.

    Args:
        draws: the stored table, one candidate per example.
        rule: decides `rule.draws` draws at a time.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: an empty or ragged table, or fewer draws per example than the rule takes.

    Source: Davison & Hinkley 1997, 3.8 (hierarchical data); Owen 2007 (crossed bootstrap).
    """
    d = arrange(draws)
    return _estimate(decided(d, rule), seed, resamples, shared=d.shared)


def paired_difference(
    a: pa.Table, b: pa.Table, rule: Decision, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Accuracy of a minus accuracy of b on the same examples, by a bootstrap over images.

    The resampled population has half an example of difference +1, half of −1 and one of 0 added, so
    that the interval has a width where no observed example differs; the value has nothing added. Where
    one draw of the weights answered all images, the interval is at least that of resampling both, crossed.

    Args:
        a: draws of the one defense or attack.
        b: draws of the other, for the same indices.
        rule: decides both.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: different indices, or what `accuracy` refuses.

    Source: Agresti & Min 2005 (the added examples).
    """
    one, two = arrange(a), arrange(b)
    same_examples({"a": one, "b": two})
    outcomes = [decided(one, rule), decided(two, rule)]
    gap = outcomes[0].double().mean(dim=1) - outcomes[1].double().mean(dim=1)
    values, counts = _levels(gap)
    values = np.concatenate([values, [1.0, -1.0, 0.0]])
    counts = np.concatenate([counts, [0.5, 0.5, 1.0]])
    low, high = _percentiles(values, counts, len(gap), seed, resamples)
    if one.shared or two.shared:
        wide = _crossed(outcomes, [1.0, -1.0], [one.shared, two.shared], seed, resamples)
        low, high = min(low, wide[0]), max(high, wide[1])
    value = float(gap.mean())
    return Estimate(value, min(value, low), max(value, high), len(gap), "bootstrap")


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
    if not tables:
        raise ValueError("tables: expected at least 1 attack, got none")
    arranged = {name: arrange(table) for name, table in tables.items()}
    same_examples(arranged)
    draws = {d.predicted.shape[1] for d in arranged.values()}
    if len(draws) != 1:
        raise ValueError(
            f"tables: expected the same draws per example of every attack, got {sorted(draws)}"
        )
    select, score = _halves(draws.pop(), rule)
    chosen = torch.stack([_badness(d, select) for d in arranged.values()]).argmin(dim=0)
    outcomes = torch.stack([decided(d.take(score), rule) for d in arranged.values()])
    best = outcomes[chosen, torch.arange(outcomes.shape[1])]
    names = tuple(arranged)
    return WorstCase(
        _estimate(best, seed, resamples, shared=any(d.shared for d in arranged.values())),
        next(iter(arranged.values())).index,
        tuple(names[i] for i in chosen.tolist()),
    )


def _estimate(
    outcomes: Bool[Tensor, "n groups"], seed: int, resamples: int, *, shared: bool
) -> Estimate:
    n, groups = outcomes.shape
    means = outcomes.double().mean(dim=1)
    ever_right, ever_wrong = int((means > 0).sum()), int((means < 1).sum())
    constant = bool(((means == 0) | (means == 1)).all())
    if constant or min(ever_right, ever_wrong) < ENOUGH:
        return wilson(float(means.sum()), n)
    if shared and groups > 1:
        low, high = _crossed([outcomes], [1.0], [True], seed, resamples)
    else:
        low, high = _percentiles(*_levels(means), n, seed, resamples)
    return Estimate(float(means.mean()), low, high, n, "bootstrap")


def _crossed(
    tables: list[Bool[Tensor, "n _"]],
    signs: list[float],
    shared: list[bool],
    seed: int,
    resamples: int,
) -> tuple[float, float]:
    """Percentile interval of Σ sign · mean, images resampled in common, the columns of shared weights too."""
    generator = np.random.default_rng(seed)
    n = len(tables[0])
    means = np.zeros(resamples)
    for start in range(0, resamples, 100):
        rows = generator.multinomial(n, np.full(n, 1 / n), size=min(100, resamples - start))
        for table, sign, both in zip(tables, signs, shared, strict=True):
            columns = table.shape[1]
            each = rows @ table.double().numpy() / n
            weight = np.full(columns, 1 / columns)
            if both:
                weight = generator.multinomial(columns, weight, size=len(rows)) / columns
            means[start : start + len(rows)] += sign * (each * weight).sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _levels(values: Float[Tensor, "n"]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct values and how many examples have each."""
    return np.unique(values.numpy().round(12), return_counts=True)


def _percentiles(
    values: np.ndarray, counts: np.ndarray, n: int, seed: int, resamples: int
) -> tuple[float, float]:
    """Percentile interval of the mean of n examples resampled from a population of few levels.

    Which examples share a level does not matter to the mean, so one multinomial draw of the levels is
    one resample of the examples, at a cost that does not grow with n.
    """
    generator = np.random.default_rng(seed)
    means = generator.multinomial(n, counts / counts.sum(), size=resamples) @ values / n
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _halves(m: int, rule: Decision) -> tuple[slice, slice]:
    """Which draws choose the attack, and which score it."""
    if m == 1:
        return slice(0, 1), slice(0, 1)
    scoring = max(rule.draws, m // 2)
    if scoring >= m:
        raise ValueError(
            f"draws: expected more than {rule.draws} per example, to choose the worst attack on draws"
            f" that do not score it, got {m}"
        )
    return slice(0, m - scoring), slice(m - scoring, m)


def _badness(d: Draws, which: slice) -> Float[Tensor, "n"]:
    """Small where the attack is strong: the rate of right draws, then the margin squeezed below one draw."""
    right = (d.predicted[:, which] == d.label[:, None]).double().sum(dim=1)
    return right + 0.5 * d.margin[:, which].double().mean(dim=1).sigmoid()
