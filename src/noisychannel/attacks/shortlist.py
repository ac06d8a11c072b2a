"""The few iterates that an attack keeps per example, and the choice among them: luck is not counted."""

import torch
from torch import Tensor

from noisychannel.norms import Norm
from noisychannel.types import Adversarials, Batch, Status, View

__all__ = ["KEEP", "Shortlist", "conclude"]

KEEP = 5
"""Iterates kept per example: few enough to re-test, enough that one lucky draw cannot fill the list."""

# Orders of magnitude that keep the parts of a rank apart: won or not, then rate, then margin.
_LOST, _RATE = 1e6, 1e3


class Shortlist:
    """Slots of points per example, each holding the lowest score offered to it.

    Args:
        x: examples (n, …) for shape, dtype and device.
        slots: places per example.
    """

    def __init__(self, x: Tensor, slots: int = KEEP) -> None:
        self.points = x.unsqueeze(0).repeat(slots, *([1] * x.ndim))
        self.score = torch.full((slots, len(x)), torch.inf, device=x.device)
        self.fooled = torch.zeros_like(self.score, dtype=torch.bool)

    def offer(
        self, rows: Tensor, x: Tensor, score: Tensor, fooled: Tensor, slot: Tensor | None = None
    ) -> None:
        """Put x (m, …) of examples `rows` (m,) into `slot`, or over the worst kept, where it scores lower.

        `fooled` (m,) is whether the attack took each for adversarial.
        """
        if slot is None:
            slot = self.score[:, rows].argmax(dim=0)
        old = self.score[slot, rows]
        better = score < old
        self.score[slot, rows] = torch.where(better, score, old)
        self.fooled[slot, rows] = torch.where(better, fooled, self.fooled[slot, rows])
        shaped = better.view(-1, *([1] * (x.ndim - 1)))
        self.points[slot, rows] = torch.where(shaped, x, self.points[slot, rows])

    @property
    def filled(self) -> Tensor:
        """Which slots hold a point (r, n)."""
        return self.score < torch.inf


def conclude(
    view: View, batch: Batch, kept: Shortlist, strongest: Shortlist | None, norm: Norm
) -> Adversarials:
    """Choose one candidate per example on the view's selection draws.

    With a `strongest` list the attack is a minimal one: of the candidates that win, the nearest is
    chosen, and if none wins, the one most often adversarial. Without, the attack has a budget: the
    candidate most often adversarial is chosen, then the lowest margin.
    """
    minimal = strongest is not None
    points = torch.cat([kept.points, strongest.points]) if minimal else kept.points
    filled = torch.cat([kept.filled, strongest.filled]) if minimal else kept.filled
    fooled = torch.cat([kept.fooled, strongest.fooled]) if minimal else kept.fooled
    trial = view.trial(points, fooled & filled, batch)
    # The margin enters by its place among the candidates, in double precision: at 1e6 float32 steps by 1/16.
    place = trial.margin.argsort(dim=0, stable=True).argsort(dim=0)
    lost = _RATE * (1 - trial.rate.double()) + place / len(points)
    if minimal:
        distance = torch.stack([norm.distance(p, batch.x) for p in points]).double()
        rank = torch.where(trial.won, distance, _LOST + lost)
    else:
        rank = torch.where(trial.won, lost, _LOST + lost)
    usable = filled & trial.margin.isfinite()
    rank = torch.where(usable, rank, torch.inf)
    best = rank.argmin(dim=0)
    every = torch.arange(len(batch), device=batch.x.device)
    won = trial.won[best, every] & usable[best, every]
    status = torch.where(won, int(Status.FOUND), int(Status.NOT_FOUND))
    status = torch.where(usable.any(dim=0), status, int(Status.FAILED))
    return Adversarials(points[best, every], status, view.cost(batch))
