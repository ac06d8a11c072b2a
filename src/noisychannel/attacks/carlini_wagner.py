"""Carlini & Wagner's L2 attack, every example on its own clock."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.adam import Adam
from noisychannel.attacks.lanes import keep_rows
from noisychannel.attacks.shortlist import Shortlist, conclude, nearest
from noisychannel.errors import expected
from noisychannel.norms import L2, per_example
from noisychannel.objectives import Hinge
from noisychannel.types import Adversarials, Batch, Query, View

__all__ = ["INSIDE", "CarliniWagner"]

INSIDE = 0.999999
"""Pixels of 0 and 1 have an infinite arctanh; the field shrinks by this factor first."""

# Looks at whether a search still pays, per search. On the authors' ResNet-20 and 24 images 14 looks cost 136 gradients
# of 500, 10 looks 198; the median L2 was .3585 and .3574 (foolbox's .3578).
_LOOKS = 14


@dataclass(frozen=True)
class CarliniWagner:
    """Minimise ‖x′ − x‖₂² + c·max(margin(x′) + κ, 0) over w, x′ = (tanh w + 1)/2, and search c.

    Per example: c grows tenfold until a search succeeds, then bisects; each search goes on from where the last
    one ended. Fourteen times a search is looked at. Where nothing is random it ends early if since the last look
    neither the loss fell by 1e-4 of itself nor the best distance by 1e-3, or if the margin falls too slowly to
    reach the boundary in the steps that are left; a random loss does either by chance. A search has succeeded if
    it did so since the last look: Adam's first steps overshoot, and a c that let them would be too small. On a
    random view only successes count at which a running mean of them, over about four looks, is ½ or more. No
    example's fate depends on its batch mates.

    Args:
        searches: values of c tried.
        steps: Adam steps per search at most.
        learning_rate: of Adam, in w.
        constant: first c.
        confidence: κ, in logits.
        abort_early: end stalled and hopeless searches, where nothing is random.

    Raises:
        UserError: a number out of range.

    Source: Carlini & Wagner 2017, section VI.
    Differs: 1. early stop per example (theirs and foolbox's: on the batch's sum), and of hopeless searches too.
    2. a search starts where the last one ended, with its Adam (theirs: at x): a third of the gradients for the
    same distance. 3. what counts as success of a search (theirs: any iterate). 4. candidates of a random view
    are re-tested (one kept per search), and its searches have all their steps.
    """

    version: ClassVar[int] = 3
    kind: ClassVar[Literal["budget", "minimal"]] = "minimal"
    searches: int = 5
    steps: int = 100
    learning_rate: float = 0.01
    constant: float = 0.01
    confidence: float = 0.0
    abort_early: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if self.searches < 1 or self.steps < 1:
            raise expected("searches and steps", "whole numbers ≥ 1", (self.searches, self.steps))
        for name in ("learning_rate", "constant"):
            if getattr(self, name) <= 0:
                raise expected(name, "a number > 0", getattr(self, name))
        if self.confidence < 0:
            raise expected("confidence", "a number ≥ 0", self.confidence)

    @property
    def gradients(self) -> int:
        """Gradients per example at most."""
        return self.searches * self.steps

    @property
    def queries(self) -> int:
        """Questions without a gradient: none."""
        return 0

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        objective = Hinge(self.confidence)
        lanes = _Lanes(self, batch)
        kept, strongest = nearest(view, batch.x), Shortlist(batch.x, 1)
        while len(lanes.rows):
            query = view.query(lanes.at, lanes.batch, objective, lanes.count)
            distance = L2().distance(lanes.at, lanes.batch.x)
            success = lanes.sound(query.fooled & (query.margin <= -self.confidence), view)
            score = torch.where(success, distance, torch.inf)
            slot = lanes.search % kept.slots if view.stochastic else None
            kept.offer(lanes.rows, lanes.at, score, success, slot)
            strongest.offer(lanes.rows, lanes.at, query.margin, query.fooled)
            query = query._replace(gradient=kept.sighted(lanes.rows, query.gradient))
            lanes.advance(query, success, view)
        return conclude(view, batch, kept, strongest, L2())


_STATE = (
    "rows", "w", "base", "inside", "constant", "low", "high", "best",
    "loss", "margin", "nearest", "search", "step", "succeeded", "rate",
)  # fmt: skip


class _Lanes:
    """Where each unfinished example stands: its c, its search, its step; all took equally many steps of Adam."""

    def __init__(self, attack: CarliniWagner, batch: Batch) -> None:
        self.attack, self.batch, n = attack, batch, len(batch)
        device = batch.x.device
        self.every = max(1, attack.steps // _LOOKS)
        self.count = 0
        self.rows = torch.arange(n, device=device)
        self.w = ((2 * batch.x - 1) * INSIDE).atanh()
        self.at = batch.x  # not `inside`: the shrink alone moves nobody
        # Distance is from here: Adam would blow up the rounding error of x to steps of its full rate.
        self.base = self.inside = (self.w.tanh() + 1).div_(2)
        self.adam = Adam(batch.x, attack.learning_rate)
        self.constant = torch.full((n,), attack.constant, device=device)
        self.low = torch.zeros(n, device=device)
        self.high = torch.full((n,), torch.inf, device=device)
        self.best = torch.full((n,), torch.inf, device=device)
        # At the last look: loss, margin, and the best distance so far.
        self.loss, self.margin, self.nearest = (
            torch.full_like(self.best, torch.inf) for _ in "123"
        )
        self.search = torch.zeros(n, dtype=torch.int64, device=device)
        self.step = torch.zeros(n, dtype=torch.int64, device=device)
        self.succeeded = torch.zeros(n, dtype=torch.bool, device=device)
        self.rate = torch.zeros(n, device=device)

    def sound(self, success: Tensor, view: View) -> Tensor:
        """Which successes count: on a random view those that luck does not explain."""
        if not view.stochastic:
            return success
        self.rate = torch.lerp(self.rate, success.float(), 0.25 / self.every)
        return success & ((self.rate >= 0.5) | (view.certain and self.count == 0))

    def advance(self, query: Query, success: Tensor, view: View) -> None:
        """One Adam step; then, for examples whose search ended, the next c; drop those that are done."""
        over = success & (view.certain and self.count == 0)  # misclassified as they are
        away = self.inside - self.base
        distance = L2().size(away)
        loss = distance**2 - self.constant * query.value
        self.best = torch.where(success, torch.minimum(self.best, distance), self.best)
        slope = query.gradient.mul_(per_example(-self.constant, away)).add_(away, alpha=2)
        # dx′/dw = (1 − tanh²)/2 = 2x′(1 − x′)
        slope.mul_(self.inside).mul_((1 - self.inside).mul_(2))
        self.w.sub_(self.adam.step(slope))
        self.count += 1
        self.step = self.step + 1
        self.succeeded = self.succeeded | success
        ended = self.step >= self.attack.steps
        if self.attack.abort_early and not view.stochastic:
            ended = ended | self._stalled(loss, query.margin)
        self._next_constant(ended)
        self._drop(over | (self.search >= self.attack.searches), compact=view.compact)
        self.at = self.inside = self.w.tanh().add_(1).div_(2)

    def _stalled(self, loss: Tensor, margin: Tensor) -> Tensor:
        """Which searches no longer pay, by what has changed since the last look."""
        due = self.step % self.every == 0
        stalled = due & (loss > 0.9999 * self.loss) & ~(self.best < 0.999 * self.nearest)
        looks = (self.attack.steps - self.step) / self.every
        within = (self.margin - margin) * looks - self.attack.confidence
        stalled = stalled | (due & ~self.succeeded & self.margin.isfinite() & (margin > within))
        self.loss = torch.where(due, loss, self.loss)
        self.margin = torch.where(due, margin, self.margin)
        self.nearest = torch.where(due, self.best, self.nearest)
        return stalled

    def _next_constant(self, ended: Tensor) -> None:
        self.high = torch.where(ended & self.succeeded, self.constant, self.high)
        self.low = torch.where(ended & ~self.succeeded, self.constant, self.low)
        following = torch.where(self.high.isinf(), self.constant * 10, (self.low + self.high) / 2)
        self.constant = torch.where(ended, following, self.constant)
        self.search = self.search + ended
        self.step = torch.where(ended, 0, self.step)
        self.loss = torch.where(ended, torch.inf, self.loss)
        self.margin = torch.where(ended, torch.inf, self.margin)
        self.succeeded = self.succeeded & (self.step % self.every != 0)

    def _drop(self, over: Tensor, *, compact: bool) -> None:
        """Examples leave as they finish, or, where rows must stay, all at once at the end."""
        if not bool(over.any() if compact else over.all()):
            return
        stay = ~over
        self.batch = self.batch.rows(stay)
        self.adam.rows(stay)
        keep_rows(self, _STATE, stay)
