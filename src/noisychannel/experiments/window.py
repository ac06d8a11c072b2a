"""What is answered of fooled examples behind noise, and the window of distortions where the original class leads."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from noisychannel.report.numbers import difference_of
from noisychannel.report.stats import LEVEL, RESAMPLES, Estimate

__all__ = [
    "ADVERSARIAL",
    "ORIGINAL",
    "OTHER",
    "Answers",
    "Window",
    "answers",
    "best_level",
    "lead",
    "said_anyway",
    "window",
]

ORIGINAL, ADVERSARIAL, OTHER = range(3)
"""Columns of shares of answers."""


class Answers(NamedTuple):
    """Of the examples that an attack fooled the network with, answers and distances."""

    examples: np.ndarray
    """Which examples (n,), ascending."""
    shares: np.ndarray
    """Of original, adversarial and other answers (n, 3)."""
    to_original: np.ndarray
    """Mean L2 of what the network saw from the original (n,)."""
    to_adversarial: np.ndarray
    """The same from the adversarial example."""
    attack: np.ndarray
    """L2 of the attack (n,)."""


def answers(rows: pa.Table, of: np.ndarray | None = None) -> Answers:
    """Shares of a `Recovery`'s rows, by example.

    An example was fooled if the attack moved it and it is wrong. What was wrong before stays where it is, unless the
    attack wants a confidence (κ > 0): ask about the examples that one of κ = 0 moved.

    Args:
        rows: of one attack and one level of noise.
        of: the index of the examples wanted, among those fooled; None: all of them.
    """
    label, taken, said, index = (
        rows[c].to_numpy() for c in ("label", "adversarial", "predicted", "index")
    )
    kept = (label != taken) & (rows["attack"].to_numpy() > 1e-6)
    if of is not None:
        kept &= np.isin(index, of)
    names, place = np.unique(index[kept], return_inverse=True)
    which = np.where(said == label, ORIGINAL, np.where(said == taken, ADVERSARIAL, OTHER))[kept]
    draws = np.bincount(place, minlength=len(names))
    counts = np.zeros((len(names), 3))
    np.add.at(counts, (place, which), 1)
    means = (
        np.bincount(place, rows[c].to_numpy()[kept], len(names)) / draws
        for c in ("to_original", "to_adversarial", "attack")
    )
    return Answers(names, counts / draws[:, None], *means)


def said_anyway(rows: pa.Table) -> np.ndarray:
    """Index of the examples of a class that is answered to most questions about each class, its own included.

    Their label is given back by a network that hardly sees them: that is no recovery. (At σ .3 to .6 our ResNet-20
    takes all for frogs; behind much noise ECG5000's networks take all for its commonest class.)

    Args:
        rows: of one attack and one level of noise. Where the noise is little, an attacked example is not answered with
            its own class, so that a class which many were driven to is not meant.
    """
    label, said = (rows[c].to_numpy() for c in ("label", "predicted"))
    known = np.unique(label)
    favourites = [c for c in known if all((said[label == k] == c).mean() > 0.5 for k in known)]
    return np.unique(rows["index"].to_numpy()[np.isin(label, favourites)])


class Window(NamedTuple):
    """Where the original class leads both others."""

    low: Estimate
    """Its lower end, in the distances' unit."""
    high: Estimate
    """Its upper end."""
    lead: Estimate
    """Original less next answers at the distortion that is best for one half of the examples, of the other half."""
    outside: tuple[Estimate, Estimate]
    """The same at the least and at the greatest distortion measured, of all examples."""


def window(shares: np.ndarray, distances: np.ndarray, *, seed: int = 0) -> Window | None:
    """The window, by interpolation on a logarithmic axis between the distortions measured; None: there is none.

    An end beyond which nothing was measured is the last distortion measured. Intervals are percentiles of a
    bootstrap over examples; a resample without a window says nothing of its ends.

    Args:
        shares: of answers (levels, n, 3): original, adversarial, other.
        distances: mean of each level, ascending (levels,).
        seed: of the bootstrap.
    """
    whole = _ends(_leads(shares.mean(axis=1)), distances)
    if whole is None:
        return None
    n = shares.shape[1]
    generator = np.random.default_rng(seed)
    found: list[tuple[float, float]] = []
    for _ in range(RESAMPLES):
        ends = _ends(_leads(shares[:, generator.integers(n, size=n)].mean(axis=1)), distances)
        found += [] if ends is None else [ends]
    low, high = (
        Estimate(value, min(value, float(a)), max(value, float(b)), n, "bootstrap")
        for value, (a, b) in zip(whole, _percentiles(np.array(found)), strict=True)
    )
    return Window(low, high, best_level(shares)[1], (lead(shares[0]), lead(shares[-1])))


def best_level(shares: np.ndarray) -> tuple[int, Estimate]:
    """The level (levels, n, 3) at which the original class leads most on half of the examples, its lead on the others.

    The greatest of many leads, on the examples that it is the greatest for, would be luck.
    """
    best = int(np.argmax(_leads(shares[:, ::2].mean(axis=1))))
    return best, lead(shares[best, 1::2] if shares.shape[1] > 1 else shares[best])


def lead(shares: np.ndarray, which: int = ORIGINAL) -> Estimate:
    """One class's share less the greater of the others', at one level (n, 3); the rival is named by all examples."""
    rival = max((c for c in range(3) if c != which), key=lambda c: float(shares[:, c].mean()))
    return difference_of(shares[:, which] - shares[:, rival])


def _leads(means: np.ndarray) -> np.ndarray:
    """Original less the greater of the others, per level (levels, 3) → (levels,)."""
    return means[:, 0] - means[:, 1:].max(axis=1)


def _ends(leads: np.ndarray, distances: np.ndarray) -> tuple[float, float] | None:
    """Where the lead around its greatest value crosses 0."""
    best = int(np.argmax(leads))
    if leads[best] <= 0:
        return None
    first = last = best
    while first > 0 and leads[first - 1] > 0:
        first -= 1
    while last < len(leads) - 1 and leads[last + 1] > 0:
        last += 1
    low = distances[0] if first == 0 else _crossing(leads, distances, first - 1)
    high = distances[-1] if last == len(leads) - 1 else _crossing(leads, distances, last)
    return float(low), float(high)


def _crossing(leads: np.ndarray, distances: np.ndarray, at: int) -> float:
    """The distance between levels `at` and `at + 1` at which the lead is 0."""
    a, b = leads[at], leads[at + 1]
    share = a / (a - b)
    return float(distances[at] ** (1 - share) * distances[at + 1] ** share)


def _percentiles(values: np.ndarray) -> np.ndarray:
    """Of each column, its interval (2, 2)."""
    return np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0).T
