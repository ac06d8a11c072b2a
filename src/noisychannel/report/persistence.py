"""What an attacker wins who tries again: expected, voted, any-of-k and all-of-k accuracy from one table of draws."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from scipy.stats import norm
from torch import Tensor

from noisychannel.decision import Single, Vote
from noisychannel.report.draws import Draws, arrange
from noisychannel.report.resampling import LEVEL, Columns, columns, corrected, moments
from noisychannel.report.stats import RESAMPLES, Estimate, accuracy, mean_outcome

__all__ = ["Persistence", "Reductions", "all_of_k", "any_of_k", "persistence", "reductions"]


class Reductions(NamedTuple):
    """The same draws, reduced four ways: one answer, the vote of k, k tries of which one is enough, k that all must."""

    expected: Estimate
    vote: Estimate
    any_of: Estimate
    all_of: Estimate


@dataclass(frozen=True)
class Persistence:
    """Accuracy against k = 1, 2 … tries of which one is enough.

    Args:
        estimates: of one k each, with the interval of that k alone.
        band: low and high of one k each; the whole curve lies within in 95 % of cases.
        draws: of each example.
    """

    estimates: tuple[Estimate, ...]
    band: tuple[tuple[float, float], ...]
    draws: int

    @property
    def reach(self) -> int:
        """The largest k that the draws tell without bias."""
        return len(self.estimates)

    def beyond(self, k: int) -> tuple[float, float]:
        """Between which accuracy at k lies where the draws do not reach: A(K)^(k/K) ≤ A(k) ≤ A(K), K the reach.

        More tries never help the defender, and E[p^k] ≥ E[p^K]^(k/K). There is no estimate: (right / m)^k would
        be one that counts an example with p = 0.98 and 32 right draws as right for ever.

        Raises:
            ValueError: a k that the curve itself reaches.

        Source: Jensen's inequality.
        """
        if k <= self.reach:
            raise ValueError(
                f"k: expected more than the {self.reach} that the curve reaches, got {k}"
            )
        low, high = self.band[-1]
        return low ** (k / self.reach), high


def reductions(draws: pa.Table, k: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Reductions:
    """Four accuracies of the same draws.

    Args:
        draws: the stored table, one candidate per example.
        k: draws of a vote, and tries of an attacker; 1 … m.
        seed: of the bootstraps.
        resamples: of the bootstraps.

    Raises:
        ValueError: what `accuracy` and `any_of_k` refuse.
    """
    return Reductions(
        accuracy(draws, Single(), seed=seed, resamples=resamples),
        accuracy(draws, Vote(k), seed=seed, resamples=resamples),
        any_of_k(draws, k, seed=seed, resamples=resamples),
        all_of_k(draws, k, seed=seed, resamples=resamples),
    )


def any_of_k(draws: pa.Table, k: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Accuracy against an attacker who tries k times and needs one wrong answer: E[p^k].

    Per example C(right, k) / C(m, k), the share of the k-subsets of its m draws that are all right. Its mean over
    draws is p^k; that of (right / m)^k is not, nor is there such an estimate for k > m.

    Args:
        draws: the stored table, one candidate per example.
        k: tries, 1 … m; at most m / 2 where draws of the weights are shared, since the error that these add
            shows only between sets of draws.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: an empty or ragged table, or another k.

    Source: Halmos 1946 (unbiased estimates); Arvesen 1969 (their jackknife, for shared draws).
    """
    d = arrange(draws)
    return _tries(d, _right(d), k, seed, resamples)


def all_of_k(draws: pa.Table, k: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Accuracy against an attacker who wins only if all of k tries are wrong: 1 − E[(1 − p)^k].

    Args:
        draws: the stored table, one candidate per example.
        k: as of `any_of_k`.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: what `any_of_k` refuses.
    """
    d = arrange(draws)
    wins = _tries(d, 1 - _right(d), k, seed, resamples)
    return wins._replace(value=1 - wins.value, low=1 - wins.high, high=1 - wins.low)


def persistence(
    draws: pa.Table, most: int = 100, *, seed: int = 0, resamples: int = RESAMPLES
) -> Persistence:
    """`any_of_k` for k = 1 … most, as far as the draws reach, with a band that holds the whole curve.

    The band is as many resampled curves' common range as holds 95 % of them whole, corrected for skewness, and
    at least the interval of each k.

    Args:
        draws: the stored table, one candidate per example.
        most: the largest k asked for, ≥ 1.
        seed: of the bootstraps.
        resamples: of the bootstraps.

    Raises:
        ValueError: what `any_of_k` refuses.

    Source: Davison & Hinkley 1997, 4.2.4 (envelopes).
    """
    if most < 1:
        raise ValueError(f"most: expected at least 1 try, got {most}")
    d = arrange(draws)
    right = _right(d)
    ks = range(1, min(most, _reach(d)) + 1)
    alone = tuple(_tries(d, right, k, seed, resamples) for k in ks)
    low, high = _envelope(right, len(ks), seed, resamples, shared=d.shared)
    band = tuple(
        (min(e.low, float(one)), max(e.high, float(two)))
        for e, one, two in zip(alone, low, high, strict=True)
    )
    return Persistence(alone, band, right.shape[1])


def _right(d: Draws) -> Float[Tensor, "n m"]:
    return (d.predicted == d.label[:, None]).double()


def _reach(d: Draws) -> int:
    m = d.predicted.shape[1]
    return max(1, m // 2) if d.shared else m


def _tries(d: Draws, event: Float[Tensor, "n m"], k: int, seed: int, resamples: int) -> Estimate:
    if not 1 <= k <= _reach(d):
        why = " (half of the draws, since they share weights)" if d.shared else ""
        raise ValueError(f"k: expected 1..{_reach(d)} of {event.shape[1]} draws{why}, got {k}")
    outcomes = _pseudo(event, k) if d.shared else _shares(event, k)[:, None]
    return mean_outcome(outcomes, seed, resamples, shared=d.shared)


def _table(m: int, most: int) -> Float[np.ndarray, "right k"]:
    """C(r, k) / C(m, k) = Π (r − i) / (m − i), i < k, for r = 0 … m right draws and k = 1 … most."""
    i = np.arange(most)
    return np.cumprod(np.maximum(np.arange(m + 1)[:, None] - i, 0) / (m - i), axis=1)


def _shares(event: Float[Tensor, "n m"], k: int) -> Float[Tensor, "n"]:
    """The share of k-subsets of each example's draws in which the event is everywhere."""
    return torch.from_numpy(_table(event.shape[1], k)[:, -1])[event.sum(dim=1).long()]


def _pseudo(event: Float[Tensor, "n m"], k: int) -> Float[Tensor, "n m"]:
    """Jackknife pseudo-values, draw by draw: U + k (m − 1)/(m − k) · (U of the subsets with the draw − U)."""
    if k == 1:
        return event
    m = event.shape[1]
    rest = torch.from_numpy(_table(m - 1, k - 1)[:, -1])
    others = (event.sum(dim=1).long() - 1).clamp_min(0)
    whole, within = _shares(event, k)[:, None], event * rest[others][:, None]
    return whole + k * (m - 1) / (m - k) * (within - whole)


def _envelope(
    event: Float[Tensor, "n m"], most: int, seed: int, resamples: int, *, shared: bool
) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """Low and high of each k, so that 95 % of the resampled curves lie within at every k."""
    n, m = event.shape
    generator = np.random.default_rng(seed)
    table, right = _table(m, most), event.sum(dim=1).long().numpy()
    times = generator.multinomial(n, np.bincount(right, minlength=m + 1) / n, size=resamples)
    curves = times @ table / n
    found: list[list[Columns]] = [[] for _ in range(most)]
    if shared:
        normal = generator.standard_normal((resamples, m))
        tail = ((m - 1) / generator.chisquare(max(1, m - 1), size=resamples)) ** 0.5
        for k in range(1, most + 1):
            outcomes = _pseudo(event, k)
            means = outcomes.mean(dim=0).numpy()
            scale, freedom = columns(outcomes)
            if scale > 0:
                away = (means - means.mean()) / np.linalg.norm(means - means.mean())
                # Other weights change p by a factor, and p^k by its power: a curve stays one, and above 0.
                log_factor = scale / means.mean() * tail * (normal @ away)
                curves[:, k - 1] *= np.exp(np.clip(log_factor, -50, 50))
                found[k - 1] = [Columns(scale, freedom)]
    curves = np.minimum(curves, 1.0)
    ordered = np.sort(curves, axis=0)
    depth = np.ones(resamples)
    for curve, column in zip(curves.T, ordered.T, strict=True):
        below = np.searchsorted(column, curve, "right") / resamples
        above = 1 - np.searchsorted(column, curve, "left") / resamples
        depth = np.minimum(depth, np.minimum(below, above))
    z = float(norm.ppf(np.quantile(depth, 1 - LEVEL, method="weibull")))
    ends: list[np.ndarray] = []
    for k in range(most):
        shares = corrected(np.array([z, -z]), *moments(table[right, k], found[k]))
        ends.append(np.quantile(curves[:, k], shares, method="weibull"))
    low, high = np.array(ends).T
    return low, high
