"""Whether certificates hold where attacks were made: the certified class must keep its majority within the radius."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from scipy.stats import binom

from noisychannel.audit.finding import Finding, Status
from noisychannel.errors import expected

__all__ = ["Attacked", "attacked", "consistency"]

ENOUGH = 1000
"""Draws per point, at least: a majority of fewer is too often a matter of luck."""
NAME = "certificate-consistency"

_WARN, _FAIL = 0.05, 0.001
_SHARE = 0.1
"""Chance, in parts of α, that votes err about one image: little beside its certificate's own."""
_MEND = (
    "certify with the noise that is voted under (the radius is σ·Φ⁻¹(p) of the same σ), choose the class on other "
    "draws than those that bound its probability, and draw fresh noise for every vote"
)


@dataclass(frozen=True, eq=False)
class Attacked:
    """Points that attacks made of certified images, and what the smoothed network votes there, one or more per image.

    `index` of the image, `l2` distance from it (pixels in [0, 1]), `votes` per class of `draws` draws of the same
    noise at each point, drawn for nothing else; draws without an answer are nobody's vote.
    """

    index: Int[np.ndarray, "m"]
    l2: Float[np.ndarray, "m"]
    votes: Int[np.ndarray, "m k"]
    draws: int


def attacked(examples: pa.Table, draws: pa.Table) -> Attacked:
    """The points of a Craft, from its `examples`, with the `draws` of a Measure of them behind the certified noise.

    Raises:
        UserError: rows of other images, or unequal numbers of draws.
    """
    index, l2 = _column(examples, "index"), _column(examples, "l2")
    order = np.argsort(index)
    of, times = np.unique(_column(draws, "index"), return_counts=True)
    if not np.array_equal(index[order], of) or len(set(times)) != 1:
        raise expected(
            "draws", "as many of each image in examples, each there once", "others of other images"
        )
    classes = draws.schema.field("probabilities").type.list_size
    votes = np.zeros((len(of), classes), dtype=np.int64)
    said = _column(draws, "predicted")
    answered = said >= 0
    rows = np.searchsorted(of, _column(draws, "index"))
    np.add.at(votes, (rows[answered], said[answered]), 1)
    return Attacked(of, l2[order], votes, int(times[0]))


def consistency(certificates: pa.Table, points: Attacked) -> Finding:
    """Whether images lose their certified class within their radius more often than certificates and votes may err.

    A right certificate of class c and radius r means P(f(x + δ + ε) = c) ≥ ½ for ‖δ‖₂ ≤ r. An image is lost where
    its votes for c at some such point say less than ½, by one-sided binomial tests that together err with chance
    α/10. A certificate is wrong with chance α over all images that were asked, not over those that did not abstain:
    of N images asked, honest certificates lose at most Binomial(N, 1.1 α).

    Args:
        certificates: columns index, predicted (−1: it abstains), radius, alpha; a row per image asked.
        points: attacked, at least 1,000 draws each; those of other images are left out.

    Raises:
        UserError: too few draws, an image certified twice, or votes that cannot be.

    Differs: 1. images are taken to err independently; those of one draw of shared weights do not quite.
    """
    index, predicted, far = (_column(certificates, c) for c in ("index", "predicted", "radius"))
    _check(index, predicted, points)
    order = np.argsort(index)
    place = order[np.searchsorted(index[order], points.index).clip(0, len(index) - 1)]
    within = (index[place] == points.index) & (predicted[place] >= 0) & (points.l2 <= far[place])
    if not within.any():
        words = (
            f"none of {len(points.index)} attacked points lies within its image's certified radius"
        )
        return Finding(NAME, "not run", words)
    alpha = float(_column(certificates, "alpha").max())
    images, row, several = np.unique(place[within], return_inverse=True, return_counts=True)
    kept = points.votes[within, predicted[place[within]]]
    low = binom.cdf(kept, points.draws, 0.5) <= _SHARE * alpha / several[row]
    lost, chance = len(np.unique(row[low])), (1 + _SHARE) * alpha
    p = float(binom.sf(lost - 1, len(index), chance))
    status: Status = "fail" if p < _FAIL else "warn" if p < _WARN else "pass"
    evidence = (
        f"of {len(images)} images attacked within their certified radius, {lost} lost the certified class's majority "
        f"of {points.draws:,} votes; honest certificates at α = {alpha:g} of all {len(index)} images lose at most "
        f"{int(binom.ppf(1 - _FAIL, len(index), chance))}, errors of the votes included (p = {p:.2g})"
    )
    return Finding(NAME, status, evidence, "" if status == "pass" else _MEND)


def _check(index: np.ndarray, predicted: np.ndarray, points: Attacked) -> None:
    if points.draws < ENOUGH:
        raise expected("votes", f"at least {ENOUGH:,} draws at each point", points.draws)
    if len(np.unique(index)) != len(index):
        raise expected("certificates", "one row per image", "several of one")
    classes = points.votes.shape[1]
    if len(predicted) and predicted.max() >= classes:
        raise expected("votes", f"a column for each class up to {predicted.max()}", classes)
    if len(points.votes) and (points.votes.min() < 0 or points.votes.sum(1).max() > points.draws):
        raise expected("votes", f"0 … {points.draws} a class, and no more in all", "others")


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy()
