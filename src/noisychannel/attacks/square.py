"""Square attack: random search over squares of an image, or intervals of a series."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.shortlist import KEEP, Shortlist, conclude, ranked
from noisychannel.attacks.squares import (
    Size,
    pyramids,
    redistributed,
    repainted,
    stripes,
    window,
)
from noisychannel.attacks.variants import repeated, sheet
from noisychannel.errors import expected
from noisychannel.norms import L2, Linf, Norm
from noisychannel.objectives import Loss, Margin
from noisychannel.types import Adversarials, Batch, View

__all__ = ["Square"]

# Shares of the questions after which the squares' area halves: published for 10,000.
_HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Square:
    """Change a random square of the perturbation, and keep the change where the loss has risen.

    L∞: every channel of the square is set to x ± ε, starting from vertical stripes. L2: the mass of one square
    goes to another, as two pyramids of opposite sign, starting from a grid of them. The squares' share of the
    image begins at p and is halved on the published schedule. On a series squares are intervals.

    An example leaves once it is adversarial, where the view's verdict is certain.

    Args:
        norm: of the ball, Linf() or L2().
        epsilon: its radius, pixels in [0, 1].
        queries: questions per example at most, ≥ 3, refreshing ones included.
        p: share of the image in the first squares, > 0 and at most 1.
        refresh: on a random view each `refresh`-th proposal is asked about together with the point that it would
            replace, on the same draws; else a point that was lucky once would never be replaced. (Digits in noise of
            .1, 600 questions: 11 % right after every one, 44 % after every fifth, 65 % without any.)
        loss: what is made large.

    Raises:
        UserError: a number out of range.

    Source: Andriushchenko et al. 2020, algorithms 1 to 3 and section 4; p as in AutoAttack.
    Differs: 1. the schedule always scales with `queries`. 2. squares may lie at the last row and column, which
    theirs never do. 3. L∞: a square that would change nothing is painted anew, not asked about. 4. the first
    question is about the example itself.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    norm: Norm = Linf()
    epsilon: float = 8 / 255
    queries: int = 5000
    p: float = 0.8
    refresh: int = 1
    loss: Loss = Margin()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.norm not in (Linf(), L2()):
            raise expected("norm", "Linf() or L2()", self.norm)
        if not self.epsilon >= 0:
            raise expected("epsilon", "a number ≥ 0", self.epsilon)
        if self.queries < 3:  # the example, the start, and one more
            raise expected("queries", "a whole number ≥ 3", self.queries)
        if not 0 < self.p <= 1:
            raise expected("p", "a number > 0, at most 1", self.p)
        if self.refresh < 1:
            raise expected("refresh", "a whole number ≥ 1", self.refresh)

    @property
    def gradients(self) -> int:
        """None: it sees labels or scores only."""
        return 0

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        kept = Shortlist(batch.x, KEEP if view.stochastic else 1)
        walk = _Walk(self, view, batch, kept)
        while len(walk.rows) and walk.asked < self.queries:
            walk.leave()
            walk.propose()
        return conclude(view, batch, kept)

    def size(self, asked: int, height: int, width: int) -> Size:
        """Height and width of the squares after so many questions."""
        share = self.p * 0.5 ** sum(asked > self.queries * at for at in _HALVINGS)
        return window(share, height, width, odd=self.norm == L2())


class _Walk:
    """Where each unfinished example stands: the best perturbation so far and its score."""

    def __init__(self, attack: Square, view: View, batch: Batch, kept: Shortlist) -> None:
        self.attack, self.view, self.batch, self.kept = attack, view, batch, kept
        self.rows = torch.arange(len(batch), device=batch.x.device)
        self.shape = sheet(batch.x.shape[1:])
        self.best = self.x = batch.x.view(len(batch), *self.shape)
        self.asked = self.turn = 0
        if len(batch) == 0:
            return
        self._ask(self.x, among=True)
        self.leave()
        if len(self.rows) == 0:  # misclassified as they are, all of them
            return
        self.x = self.batch.x.view(-1, *self.shape)
        start = stripes if attack.norm == Linf() else pyramids
        stream = rng.Stream("attack", self.batch.index, part="square")
        self.best = start(self.x, attack.epsilon, stream)
        self.value = self._ask(self.best, among=True)

    def propose(self) -> None:
        """Ask about one change of each example, and keep it where it is better."""
        if len(self.rows) == 0:
            return
        left = self.attack.queries - self.asked
        noisy = self.view.stochastic
        if noisy and left <= 2:  # a pair or less: the end is a fresh look at the point itself
            self._ask(self.best, among=True)
            self.asked = self.attack.queries
            return
        self.turn += 1
        new = self._changed()
        if noisy and self.turn % self.attack.refresh == 0:
            self.value, value = self._ask(torch.cat([self.best, new]), among=True).chunk(2)
        else:
            value = self._ask(new, among=not noisy)
        better = value > self.value
        self.value = torch.where(better, value, self.value)
        self.best = torch.where(better[:, None, None, None], new, self.best)

    def leave(self) -> None:
        """Examples that are adversarial leave, where that is certain."""
        if not (self.view.certain and self.view.compact):
            return
        stay = ~self.kept.fooled[:, self.rows].any(dim=0)
        if bool(stay.all()):
            return
        self.rows, self.batch = self.rows[stay], self.batch.rows(stay)
        self.x, self.best = self.x[stay], self.best[stay]
        if self.asked > 1:
            self.value = self.value[stay]

    def _changed(self) -> Tensor:
        attack = self.attack
        size = attack.size(self.asked, *self.shape[1:])
        stream = rng.Stream("attack", self.batch.index, self.turn, part="square")
        change = repainted if attack.norm == Linf() else redistributed
        return change(self.x, self.best, attack.epsilon, size, stream)

    def _ask(self, points: Tensor, *, among: bool) -> Tensor:
        """The loss of points, one or two per example; those that are `among` the candidates are offered."""
        times = len(points) // len(self.rows)
        batch = self.batch if times == 1 else repeated(self.batch, times)
        x = points.view(-1, *self.batch.x.shape[1:])
        query = self.view.query(x, batch, self.attack.loss, self.asked, gradient=False)
        slot = min(self.asked * self.kept.slots // self.attack.queries, self.kept.slots - 1)
        self.asked += times
        score = ranked(self.view, query)
        if not among:
            # A score of its own draws is luck, and a verdict of the defender's rule is not.
            score = torch.where(query.fooled & self.view.certain, score, torch.inf)
        if among or self.view.certain:
            # Of a pair only the point that stands is a candidate: it was not chosen by these draws.
            some = slice(0, len(self.rows))
            slots = torch.full_like(self.rows, slot)
            self.kept.offer(self.rows, x[some], score[some], query.fooled[some], slots)
        return query.value
