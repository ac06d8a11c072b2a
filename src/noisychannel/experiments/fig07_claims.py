"""What sections 4.3 and I say of the window of recovery, checked, and the rows that it is about."""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from noisychannel.experiments.defended import points
from noisychannel.experiments.setting import Claim, Result
from noisychannel.experiments.verdict import above, below, every, number
from noisychannel.experiments.window import (
    ADVERSARIAL,
    ORIGINAL,
    OTHER,
    answers,
    best_level,
    lead,
    said_anyway,
)
from noisychannel.report.numbers import mean_of

__all__ = ["Seen", "claims", "fooled", "width"]

# Beforehand: "relatively wide" is at least half a decade of σ; a window is where the original class leads both others.
# One narrower than a tenth of a decade is closed: from there a stronger attack has nothing to shrink.
_WIDE, _CLOSED = 0.5, 0.1
_ENOUGH = 10
"""Images below which nothing is said of their mean."""


class Seen(NamedTuple):
    """Answers behind noise of one attack, of the images that every attack moved across and whose class noise hides."""

    images: np.ndarray
    """Their index (n,)."""
    epsilons: np.ndarray
    """Noise levels (levels,), ascending."""
    shares: np.ndarray
    """Of original, adversarial and other answers (levels, n, 3)."""
    to_original: np.ndarray
    """Mean L2 of what the network saw from the original (levels,)."""
    to_adversarial: np.ndarray
    """The same from the adversarial image."""
    attack: np.ndarray
    """L2 of the attack (n,)."""


def fooled(results: tuple[Result, ...]) -> dict[float, Seen]:
    """Confidence κ → answers, weakest first; empty where no image was moved across by every attack."""
    by: dict[float, dict[float, Result]] = {}
    for r in results:
        by.setdefault(float(r.place["kappa"]), {})[float(r.place["epsilon"])] = r
    common: np.ndarray | None = None
    for line in by.values():
        mine = answers(next(iter(line.values())).draws).examples
        common = mine if common is None else np.intersect1d(common, mine)
    if common is None or len(common) == 0:
        return {}
    anyway = [said_anyway(r.draws) for r in by[min(by)].values()]
    common = np.setdiff1d(common, np.concatenate(anyway))
    return {kappa: _seen(by[kappa], common) for kappa in sorted(by)} if len(common) else {}


def _seen(line: Mapping[float, Result], images: np.ndarray) -> Seen:
    epsilons = sorted(line)
    found = [answers(line[epsilon].draws, images) for epsilon in epsilons]
    return Seen(
        images,
        np.array(epsilons),
        np.stack([f.shares for f in found]),
        np.array([f.to_original.mean() for f in found]),
        np.array([f.to_adversarial.mean() for f in found]),
        found[0].attack,
    )


def width(seen: Seen) -> np.ndarray:
    """Of each image, how many decades of σ its original class leads both others in (n,).

    A level stands for the half way to its neighbours on the logarithmic axis, so widths are bounded by the grid.
    """
    x = np.log10(seen.epsilons)
    middles = np.concatenate([x[:1], (x[1:] + x[:-1]) / 2, x[-1:]])
    leads = seen.shares[:, :, ORIGINAL] > seen.shares[:, :, 1:].max(axis=2)
    return np.diff(middles) @ leads


def claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    """Wide for close adversarials, narrower with every step of strength, closed at last; and in which order."""
    found = fooled(results)
    if not found or len(next(iter(found.values())).images) < _ENOUGH:
        return ()
    kappas = list(found)
    widths = {k: width(seen) for k, seen in found.items()}
    wide, whole = mean_of(widths[kappas[0]]), mean_of(widths[kappas[0]] - widths[kappas[-1]])
    steps = [
        above(mean_of(widths[a] - widths[b]), 0.0)
        for a, b in pairwise(kappas)
        if widths[a].mean() >= _CLOSED
    ]
    far = {k: float(seen.attack.mean()) for k, seen in found.items()}
    said = ", ".join(f"κ {k:g} (L2 {far[k]:.2f}): {w.mean():.2f}" for k, w in widths.items())
    last = found[kappas[-1]]
    level, closed = best_level(last.shares)
    at = float(last.epsilons[level])
    return (
        Claim(
            "fig07-wide",
            "For adversarial examples very close to the original the window of recovery is relatively wide (at least "
            "half a decade of σ).",
            above(wide, _WIDE),
            f"κ {kappas[0]:g}, L2 {far[kappas[0]]:.2f}: {number(wide)} decades; {wide.n} images",
            "I",
            wide,
        ),
        Claim(
            "fig07-shrinks",
            "As we increase the distance of the adversarial image from the original, the window shrinks.",
            every(above(whole, 0.0), *steps),
            f"decades of σ: {said}; weakest less strongest {number(whole)}; {steps.count(True)} of {len(steps)} steps "
            f"from an open window shrink; {whole.n} images",
            "I",
            whole,
        ),
        Claim(
            "fig07-closed",
            "Finally we are unable to recover the correct label (no noise level at which the original class leads).",
            below(closed, 0.0),
            f"κ {kappas[-1]:g}, L2 {far[kappas[-1]]:.2f}, best ε {at:g}: original less the greater of the others "
            f"{points(closed)}; {closed.n} images",
            "I",
            closed,
        ),
        _order(found[kappas[0]]),
    )


def _order(seen: Seen) -> Claim:
    level, middle = best_level(seen.shares)
    at = float(seen.epsilons[level])
    first, last = lead(seen.shares[0], ADVERSARIAL), lead(seen.shares[-1], OTHER)
    return Claim(
        "fig07-order",
        "As noise is added the predictions change from the adversarial class, through original, and to a random other "
        "class.",
        every(*(above(e, 0.0) for e in (first, middle, last))),
        f"lead over both others: adversarial at ε {seen.epsilons[0]:g} {points(first)}, original at ε {at:g} "
        f"{points(middle)}, other at ε {seen.epsilons[-1]:g} {points(last)}; {first.n} images",
        "I",
        middle,
    )
