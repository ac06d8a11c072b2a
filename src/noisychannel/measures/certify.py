"""Randomized smoothing: from votes under Gaussian noise to a class and the L2 radius within which it cannot change.

The smoothed classifier g(x) = argmax_k P(f(x + ε) = k), ε ~ N(0, σ²I), has the same answer at every x + δ with
‖δ‖₂ < σ·Φ⁻¹(p_A), where p_A = P(f(x + ε) = g(x)) > ½. Draws give a lower bound of p_A, and so of the radius.
It holds for any f, one that is itself random included if each draw has its own, and for that noise alone.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import beta, binom, norm

from noisychannel.errors import expected

__all__ = [
    "ABSTAIN",
    "Certified",
    "certified",
    "check_smoothing",
    "lower_bound",
    "predicted",
    "radius",
]

ABSTAIN = -1
"""The answer that is none: the votes do not tell which class is the most likely."""

Votes = Int[np.ndarray, "n k"]
"""How many draws of each example answered each class; a draw without an answer (NaN) is nobody's vote."""


@dataclass(frozen=True, eq=False)
class Certified:
    """What n examples are certified for, all (n,).

    `top` is the class chosen on the selection draws, `count` its votes on the scoring draws, `bound` the lower
    confidence bound of its probability, `predicted` the class that is certified or `ABSTAIN`, `radius` the L2
    radius in pixels of [0, 1], 0 where it abstains.
    """

    top: Int[np.ndarray, "n"]
    count: Int[np.ndarray, "n"]
    bound: Float[np.ndarray, "n"]
    predicted: Int[np.ndarray, "n"]
    radius: Float[np.ndarray, "n"]


def certified(selection: Votes, scoring: Votes, n: int, sigma: float, alpha: float) -> Certified:
    """The class with most selection votes, bounded on the scoring votes; each certificate is wrong at most with α.

    R = σ·Φ⁻¹(p_A), p_A the Clopper-Pearson bound of its share of n scoring draws; no class where p_A ≤ ½.

    Args:
        selection: votes that choose the class; ties go to the smaller number.
        scoring: votes of other draws, which bound its probability.
        n: scoring draws per example, those without an answer included.
        sigma: of the noise, > 0, pixels in [0, 1].
        alpha: chance that one certificate is wrong, in (0, ½).

    Raises:
        UserError: a number out of range, or votes of other examples or beyond n.

    Source: Cohen, Rosenfeld & Kolter 2019, Algorithm 1 (CERTIFY) and Theorem 1.
    """
    check_smoothing(sigma, alpha)
    if selection.shape != scoring.shape:
        raise expected("votes", f"selection {scoring.shape} as scoring", selection.shape)
    top = selection.argmax(axis=1)
    count = np.take_along_axis(scoring, top[:, None], axis=1)[:, 0]
    bound = lower_bound(count, n, alpha)
    sure = bound > 0.5
    return Certified(
        top,
        count,
        bound,
        np.where(sure, top, ABSTAIN),
        np.where(sure, radius(bound, sigma), 0.0),
    )


def lower_bound(count: Int[np.ndarray, "n"], n: int, alpha: float) -> Float[np.ndarray, "n"]:
    """Lower bound of a probability after `count` of n trials, which lies above it at most with chance α.

    The α quantile of Beta(count, n − count + 1); 0 where count is 0.

    Args:
        count: successes, 0 … n.
        n: trials, ≥ 1.
        alpha: that chance, in (0, ½).

    Raises:
        UserError: a number out of range.

    Source: Clopper & Pearson 1934.
    """
    _check_alpha(alpha)
    if n < 1:
        raise expected("n", "a whole number ≥ 1", n)
    if len(count) and not 0 <= count.min() <= count.max() <= n:
        raise expected("votes", f"0 … {n} of {n} draws", f"{count.min()} … {count.max()}")
    # Beta has no first parameter 0, and the bound is 0 there.
    found = beta.ppf(alpha, np.maximum(count, 1), n - count + 1)
    return np.where(count > 0, found, 0.0)


def radius(bound: Float[np.ndarray, "n"], sigma: float) -> Float[np.ndarray, "n"]:
    """σ·Φ⁻¹(p): the L2 distance over which Gaussian noise of std σ cannot take a probability p > ½ below ½."""
    return sigma * norm.ppf(bound)


def predicted(votes: Votes, alpha: float) -> Int[np.ndarray, "n"]:
    """The smoothed classifier's answer at each point: the class with most votes, wrong at most with chance α.

    Abstains unless a two-sided binomial test tells the first class from the second, of equal chances among
    the draws that answered either.

    Args:
        votes: of one set of draws.
        alpha: chance of another answer than g(x), in (0, ½).

    Raises:
        UserError: alpha out of range.

    Source: Cohen, Rosenfeld & Kolter 2019, 3.2.1 (PREDICT); Hung & Fithian 2019.
    """
    _check_alpha(alpha)
    first = votes.argmax(axis=1)
    # A network of one class has a second one without votes.
    ordered = np.sort(np.pad(votes, ((0, 0), (1, 0))), axis=1)
    most, second = ordered[:, -1], ordered[:, -2]
    # At ½ the law is symmetric: the two-sided test is twice the upper tail.
    chance = np.minimum(1.0, 2 * binom.sf(most - 1, most + second, 0.5))
    return np.where(chance <= alpha, first, ABSTAIN)


def check_smoothing(sigma: float, alpha: float) -> None:
    """Refuse noise and errors that certify nothing.

    Raises:
        UserError: sigma not a finite number > 0, or alpha outside (0, ½).
    """
    if not 0 < sigma < float("inf"):
        raise expected(
            "sigma",
            "a standard deviation > 0 in pixels of [0, 1], e.g. 0.25 (without noise nothing can be certified)",
            sigma,
        )
    _check_alpha(alpha)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 0.5:
        raise expected("alpha", "the chance of a wrong certificate, in (0, 0.5), e.g. 0.001", alpha)
