"""The few iterates that an attack keeps per example, and the choice among them: luck is not counted."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noisychannel.norms import Norm
from noisychannel.types import Adversarials, Batch, Query, Status, Trial, View

__all__ = ["BEYOND", "KEEP", "RUN", "Shortlist", "conclude", "nearest", "ranked", "stretch"]

BEYOND = (1.0, 1.05, 1.15, 1.4, 2.0)
"""Where a minimal attack's last candidates stand on a random network, in units of its nearest point's distance.

At the boundary about half of the draws err, so that fresh draws refuse every second point there."""

KEEP = 5
"""Iterates kept per example: few enough to re-test, enough that one lucky draw cannot fill the list."""

RUN = 5
"""Successes in a row that a search for the least distance believes on a random view: luck of p = .2 once in 3,000."""

# Orders of magnitude that keep the parts of a rank apart: won or not, then rate, then margin.
_LOST, _RATE = 1e6, 1e3
# Share of draws won from which a candidate may stand just before the boundary.
_HOPEFUL = 0.3
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
    candidate most often adversarial is chosen, then the lowest margin. On a random view the chosen one is FOUND
    only if it wins again, on draws that did not choose it; if it does not, the next is asked (of a minimal attack
    also points a little beyond the nearest). An example that is not won is FAILED if the network gave nothing
    but NaN for it, or a gradient that was no number: an attack that was told no direction has not shown that
    there is none. `otherwise` (n,) is the status of what is not won for another reason than that nothing was found.
    """
    if len(batch) == 0:
        return Adversarials(batch.x.clone(), torch.zeros_like(batch.y), view.cost(batch))
    lists = [kept] if strongest is None else [kept, strongest]
    points = torch.cat([part.points for part in lists])
    filled = torch.cat([part.filled for part in lists])
    opinion = filled & torch.cat([part.fooled for part in lists])
    trial = view.trial(points, opinion, batch)
    usable = filled & ~trial.margin.isnan()
    distance = None if norm is None else torch.stack([norm.distance(p, batch.x) for p in points])
    field = _Field(points, opinion, trial, usable, distance)
    if view.stochastic:
        if norm is not None and distance is not None:
            field = field.with_beyond(batch, norm, distance)
        field = replace(field, trial=field.judged_again(view, batch))
    best = field.rank.argmin(dim=0)
    every = torch.arange(len(batch), device=batch.x.device)
    won = field.trial.won[best, every] & field.usable[best, every]
    if otherwise is None:
        otherwise = torch.full_like(batch.y, int(Status.NOT_FOUND))
    status = torch.where(won, int(Status.FOUND), otherwise)
    failed = ~field.usable.any(dim=0) | (kept.blind & ~won)
    status = torch.where(failed, int(Status.FAILED), status)
    return Adversarials(field.points[best, every], status, view.cost(batch))


@dataclass(frozen=True)
class _Field:
    """Candidates (r, n, …) for a random view, and what is known of each (r, n)."""

    points: Tensor
    opinion: Tensor
    trial: Trial
    usable: Tensor
    distance: Tensor | None

    @property
    def rank(self) -> Tensor:
        """The order of the candidates (r, n), the best one lowest."""
        # The margin enters by its place among the candidates, in double precision: at 1e6 float32 steps by 1/16.
        place = self.trial.margin.argsort(dim=0, stable=True).argsort(dim=0)
        lost = _RATE * (1 - self.trial.rate.double()) + place / len(self.points)
        good = lost if self.distance is None else self.distance.double()
        return torch.where(self.trial.won, good, _LOST + lost).where(self.usable, torch.inf)

    def with_beyond(self, batch: Batch, norm: Norm, apart: Tensor) -> "_Field":
        """Also points beyond the nearest that may win, which stands where half of the draws err.

        Fresh draws refuse every second such point, and the next candidate may be far away.
        """
        every = torch.arange(len(batch), device=batch.x.device)
        # Beyond the example itself there is nothing.
        hopeful = self.usable & (self.trial.rate >= _HOPEFUL) & (apart > 0)
        best = apart.where(hopeful, torch.inf).argmin(dim=0)
        at = self.points[best, every]
        more = torch.stack([torch.lerp(batch.x, at, share).clamp(0, 1) for share in BEYOND[1:]])
        beyond = torch.stack([norm.distance(p, batch.x) for p in more])

        def same(known: Tensor) -> Tensor:
            return torch.cat([known, known[best, every].expand(len(more), -1)])

        trial = self.trial
        # Decision-based attacks hand in points beyond their last one themselves: those were tried.
        tried = ((beyond[:, None] - apart).abs() <= 1e-5 * beyond[:, None]) & self.usable
        won = torch.cat([trial.won, hopeful[best, every] & ~tried.any(dim=1)])
        return _Field(
            torch.cat([self.points, more]),
            same(self.opinion),
            Trial(won, same(trial.rate), same(trial.margin)),
            same(self.usable),
            torch.cat([apart, beyond]),
        )

    def judged_again(self, view: View, batch: Batch) -> Trial:
        """The trial, after each example's best has won again on draws of its own, or another has.

        The best of several is the luckiest as well: of ten candidates that each win a third of the time, one wins.
        """
        won, rate = self.trial.won.clone(), self.trial.rate.clone()
        settled = ~won
        every = torch.arange(len(batch), device=batch.x.device)
        while True:
            trial = Trial(won, rate, self.trial.margin)
            best = replace(self, trial=trial).rank.argmin(dim=0)
            rows = (self.usable & ~settled)[best, every].nonzero()[:, 0]
            if len(rows) == 0:
                return trial
            at = best[rows]
            # A stranger's random module sees other noise where its batch is another one.
            who = rows if view.compact else every
            chosen, opinion = self.points[best[who], who], self.opinion[best[who], who]
            again = view.trial(chosen[None], opinion[None], batch.rows(who), final=True)
            if not view.compact:
                again = Trial(*(known[:, rows] for known in again))
            won[at, rows] = again.won[0]
            rate[at, rows] = torch.where(again.won[0], rate[at, rows], again.rate[0])
            settled[at, rows] = True
