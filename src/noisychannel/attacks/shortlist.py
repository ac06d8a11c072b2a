"""The few iterates that an attack keeps per example, and the choice among them: luck is not counted."""

import torch
from torch import Tensor

from noisychannel.norms import Norm
from noisychannel.types import Adversarials, Batch, Query, Status, View

__all__ = ["KEEP", "RUN", "Shortlist", "conclude", "nearest", "ranked", "stretch"]

KEEP = 5
"""Iterates kept per example: few enough to re-test, enough that one lucky draw cannot fill the list."""

RUN = 5
"""Successes in a row that a search for the least distance believes on a random view: luck of p = .2 once in 3,000."""

# Orders of magnitude that keep the parts of a rank apart: won or not, then rate, then margin.
_LOST, _RATE = 1e6, 1e3
# Above any loss, small enough that float32 still tells losses apart by 1e-3.
_WON = 1e4


class Shortlist:
    """Slots of points per example, each holding the lowest score offered to it.

    Args:
        x: examples (n, …) for shape, dtype and device.
        slots: places per example.
    """

    def __init__(self, x: Tensor, slots: int = KEEP) -> None:
        self.slots = slots
        # One place more than slots: what scores no lower is written there, so that an offer costs one copy
        # of the points and asks the device nothing.
        self._points = x.unsqueeze(0).repeat(slots + 1, *([1] * x.ndim))
        self._score = torch.full((slots + 1, len(x)), torch.inf, device=x.device)
        self._fooled = torch.zeros_like(self._score, dtype=torch.bool)
        self.blind = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def offer(
        self, rows: Tensor, x: Tensor, score: Tensor, fooled: Tensor, slot: Tensor | None = None
    ) -> None:
        """Put x (m, …) of examples `rows` (m,) into `slot`, or over the worst kept, where it scores lower.

        `fooled` (m,) is whether the attack took each for adversarial.
        """
        if slot is None:
            slot = self.score[:, rows].argmax(dim=0) if self.slots > 1 else torch.zeros_like(rows)
        to = torch.where(score < self._score[slot, rows], slot, self.slots)
        self._score[to, rows] = score
        self._fooled[to, rows] = fooled
        self._points[to, rows] = x

    def sighted(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """The gradient with 0 for what is no number; such examples are noted as `blind`."""
        dims = tuple(range(1, gradient.ndim))
        # One pass instead of two: a sum that overflows is no direction either.
        self.blind[rows] |= ~gradient.sum(dim=dims).isfinite()
        # Not in place: the gradient of a sum over pixels is one number seen from many places.
        return gradient.nan_to_num(0.0, 0.0, 0.0)

    @property
    def points(self) -> Tensor:
        """What each slot holds (r, n, …)."""
        return self._points[: self.slots]

    @property
    def score(self) -> Tensor:
        """The score of each (r, n)."""
        return self._score[: self.slots]

    @property
    def fooled(self) -> Tensor:
        """Whether the attack took each for adversarial (r, n)."""
        return self._fooled[: self.slots]

    @property
    def filled(self) -> Tensor:
        """Which slots hold a point (r, n)."""
        return self.score < torch.inf


def nearest(view: View, x: Tensor) -> Shortlist:
    """The list of a minimal attack: the two nearest where nothing is random, else one for each of KEEP stretches.

    The second is there in case that rounding undoes the first; the stretches, so that luck cannot fill the list.
    """
    return Shortlist(x, KEEP if view.stochastic else 2)


def stretch(view: View, rows: Tensor, share: float) -> Tensor | None:
    """The slot of iterates found after a `share` in [0, 1) of the attack; None: over the worst kept."""
    return torch.full_like(rows, int(share * KEEP)) if view.stochastic else None


def ranked(view: View, query: Query, *, losses_differ: bool = False) -> Tensor:
    """The score by which an attack within a budget keeps its iterates, lowest first (n,).

    A deterministic margin decides success itself; a random one is a lucky draw, so the loss ranks (unless
    `losses_differ` from question to question), after the defender's own verdict where the view gives that.
    """
    score = query.margin if losses_differ or not view.stochastic else -query.value
    return torch.where(query.fooled, score - _WON, score) if view.certain else score


def conclude(
    view: View,
    batch: Batch,
    kept: Shortlist,
    strongest: Shortlist | None = None,
    norm: Norm | None = None,
    otherwise: Tensor | None = None,
) -> Adversarials:
    """Choose one candidate per example on the view's selection draws.

    With a `strongest` list and a norm the attack is a minimal one: of the candidates that win, the nearest is
    chosen, and if none wins, the one most often adversarial. Without, the attack has a budget: the
    candidate most often adversarial is chosen, then the lowest margin. An example that is not won is
    FAILED if the network gave nothing but NaN for it, or a gradient that was no number: an attack
    that was told no direction has not shown that there is none. `otherwise` (n,) is the status of
    what is not won for another reason than that nothing was found.
    """
    if len(batch) == 0:
        return Adversarials(batch.x.clone(), torch.zeros_like(batch.y), view.cost(batch))
    lists = [kept] if strongest is None else [kept, strongest]
    points = torch.cat([part.points for part in lists])
    filled = torch.cat([part.filled for part in lists])
    fooled = torch.cat([part.fooled for part in lists])
    trial = view.trial(points, fooled & filled, batch)
    # The margin enters by its place among the candidates, in double precision: at 1e6 float32 steps by 1/16.
    place = trial.margin.argsort(dim=0, stable=True).argsort(dim=0)
    lost = _RATE * (1 - trial.rate.double()) + place / len(points)
    if norm is not None:
        distance = torch.stack([norm.distance(p, batch.x) for p in points]).double()
        rank = torch.where(trial.won, distance, _LOST + lost)
    else:
        rank = torch.where(trial.won, lost, _LOST + lost)
    usable = filled & ~trial.margin.isnan()
    rank = torch.where(usable, rank, torch.inf)
    best = rank.argmin(dim=0)
    every = torch.arange(len(batch), device=batch.x.device)
    won = trial.won[best, every] & usable[best, every]
    if otherwise is None:
        otherwise = torch.full_like(batch.y, int(Status.NOT_FOUND))
    status = torch.where(won, int(Status.FOUND), otherwise)
    failed = ~usable.any(dim=0) | (kept.blind & ~won)
    status = torch.where(failed, int(Status.FAILED), status)
    return Adversarials(points[best, every], status, view.cost(batch))
