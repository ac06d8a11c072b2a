"""Whether there was enough of it: draws per gradient, and images."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from noisychannel.decision import Decision
from noisychannel.report.draws import Draws, decided
from noisychannel.report.resampling import LEVEL
from noisychannel.report.stats import ENOUGH, RESAMPLES, Estimate, mean_gap
from noisychannel.report.worst import arranged, badness, halves

__all__ = ["Doubling", "doubling", "doublings", "powered", "saturated"]

POINT = 0.01


class Doubling(NamedTuple):
    """What one more rung of a ladder of draws per gradient won.

    `draws`: of that rung; `drop`: of accuracy; `upper`: its one-sided 95 % bound; `left`: accuracy thereafter.
    """

    draws: int
    drop: Estimate
    upper: float
    left: float


def doublings(
    ladder: Mapping[int, pa.Table],
    rule: Decision,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Doubling, ...]:
    """What each rung wins over all rungs below it, image by image.

    On each image a rung's attack is kept if it is the worst so far, chosen on draws that do not score it; where
    it is not, the drop is 0. If both halves of the draws take a decision, each chooses for the other, and both score.

    Args:
        ladder: draws per gradient → draws of the defense under that attack; all of the same examples, each rung
            at least twice the one below.
        rule: decides the scoring draws.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: fewer than two rungs, rungs that do not double, or what `worst_case` refuses.
    """
    rungs = sorted(ladder)
    if len(rungs) < 2 or any(b < 2 * a for a, b in pairwise(rungs)):
        raise ValueError(f"ladder: expected two or more rungs, each twice the last, got {rungs}")
    return tuple(
        doubling(
            n, [ladder[m] for m in rungs[: i + 1]], ladder[n], rule, seed=seed, resamples=resamples
        )
        for i, n in enumerate(rungs[1:])
    )


def doubling(
    draws: int,
    known: Sequence[pa.Table],
    last: pa.Table,
    rule: Decision,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Doubling:
    """What one more rung wins over what is known, image by image.

    Args:
        draws: per gradient of the rung.
        known: draws of the defense under each attack before it; of the same examples.
        last: under the rung.
        rule: decides the scoring draws.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: what `worst_case` refuses.
    """
    found = list(arranged({str(i): rows for i, rows in enumerate((*known, last))}).values())
    shared = any(d.shared for d in found)
    before, after = _worst_so_far(found[:-1], rule), _worst_so_far(found, rule)
    drop, bound = (
        mean_gap(before, after, seed, resamples, shared=(shared, shared), level=level)
        for level in (LEVEL, 2 * LEVEL - 1)
    )
    return Doubling(draws, drop, bound.high, float(after.mean()))


def saturated(last: Doubling, margin: float = POINT) -> bool:
    """Whether more draws per gradient would win less than `margin`: by the last doubling's bound, or as less is left.

    It takes each further doubling to win no more than the last one did.
    """
    return min(last.upper, last.left) < margin


def powered(headline: Estimate, half_width: float) -> bool:
    """Whether the headline's interval is as narrow as was promised; fewer than 10 examples never are enough.

    Raises:
        ValueError: a half-width that is no share.
    """
    if not 0 < half_width < 1:
        raise ValueError(f"half_width: expected a share in (0, 1), got {half_width}")
    return headline.n >= ENOUGH and headline.half_width <= half_width


def _worst_so_far(found: list[Draws], rule: Decision) -> Float[Tensor, "n columns"]:
    """Right or wrong under the rung that did best on draws that are not scored, by example and decision."""
    select, score = halves(found[0].predicted.shape[1], rule)
    folds = [(select, score)]
    if select != score and select.stop >= rule.draws:
        folds.append((score, select))
    outcomes: list[Tensor] = []
    for choose, decide in folds:
        chosen = torch.stack([badness(d, choose) for d in found]).argmin(dim=0)
        every = torch.stack([decided(d.take(decide), rule) for d in found])
        outcomes.append(every[chosen, torch.arange(every.shape[1])].double())
    return torch.cat(outcomes, dim=1)
