"""Carlini & Wagner's L2 attack, every example on its own clock."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel.attacks.shortlist import KEEP, Shortlist, conclude
from noisychannel.errors import expected
from noisychannel.norms import L2, per_example
from noisychannel.objectives import Hinge
from noisychannel.types import Adversarials, Batch, Query, View

__all__ = ["CarliniWagner"]

# Pixels of 0 and 1 have an infinite arctanh; the field shrinks by this factor first.
_INSIDE = 0.999999
_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8
_CHECKS = 10


@dataclass(frozen=True)
class CarliniWagner:
    """Minimise ‖x′ − x‖₂² + c·max(margin(x′) + κ, 0) over w, x′ = (tanh w + 1)/2, and search c.

    Per example: c grows tenfold until a search succeeds, then bisects; a search ends early once the
    loss has not fallen by 1e-4 of itself in a tenth of its steps. No example's fate depends on its batch mates.

    Args:
        searches: values of c tried.
        steps: Adam steps per search.
        learning_rate: of Adam, in w.
        constant: first c.
        confidence: κ, in logits.
        abort_early: end stalled searches.

    Raises:
        UserError: a number out of range.

    Source: Carlini & Wagner 2017, section VI.
    Differs: 1. early stop per example (theirs and foolbox's: on the batch's sum). 2. candidates of a
    random view are re-tested (one kept per search).
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "minimal"
    searches: int = 5
    steps: int = 100
    learning_rate: float = 0.01
    constant: float = 0.01
    confidence: float = 0.0
    abort_early: bool = True

    def __post_init__(self) -> None:
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

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        objective = Hinge(self.confidence)
        lanes = _Lanes(self, batch)
        kept, strongest = Shortlist(batch.x, min(KEEP, self.searches)), Shortlist(batch.x, 1)
        while len(lanes.rows):
            at = lanes.point()
            query = view.query(at, lanes.batch, objective, lanes.clock)
            distance = L2().distance(at, lanes.base)
            success = query.fooled & (query.margin <= -self.confidence)
            score = torch.where(success, distance, torch.inf)
            kept.offer(lanes.rows, at, score, success, lanes.search % len(kept.score))
            strongest.offer(lanes.rows, at, query.margin, query.fooled)
            alone = view.compact and not view.stochastic
            lanes.advance(at, distance, query, success, alone=alone, compact=view.compact)
        return conclude(view, batch, kept, strongest, L2())


_STATE = (
    "rows", "origin", "base", "move", "first", "second", "constant", "low", "high",
    "before", "search", "step", "succeeded",
)  # fmt: skip


class _Lanes:
    """Where each unfinished example stands: its c, its search, its step, its Adam."""

    def __init__(self, attack: CarliniWagner, batch: Batch) -> None:
        self.attack, self.batch, n = attack, batch, len(batch)
        device, x = batch.x.device, batch.x
        self.rows = torch.arange(n, device=device)
        self.origin = ((2 * x - 1) * _INSIDE).atanh()
        self.base = (self.origin.tanh() + 1) / 2
        self.move, self.first, self.second = (torch.zeros_like(x) for _ in range(3))
        self.constant = torch.full((n,), attack.constant, device=device)
        self.low = torch.zeros(n, device=device)
        self.high = torch.full((n,), torch.inf, device=device)
        self.before = torch.full((n,), torch.inf, device=device)
        self.search = torch.zeros(n, dtype=torch.int64, device=device)
        self.step = torch.zeros(n, dtype=torch.int64, device=device)
        self.succeeded = torch.zeros(n, dtype=torch.bool, device=device)

    @property
    def clock(self) -> Tensor:
        """A number that no two questions about one example share."""
        return self.search * self.attack.steps + self.step

    def point(self) -> Tensor:
        """x′ = (tanh w + 1)/2."""
        moved = ((self.origin + self.move).tanh_() + 1).div_(2)
        return torch.where(self.move == 0, self.batch.x, moved)  # the shrink alone moves nobody

    def advance(
        self,
        at: Tensor,
        distance: Tensor,
        query: Query,
        success: Tensor,
        *,
        alone: bool,
        compact: bool,
    ) -> None:
        """One Adam step; then, for examples whose search ended, the next c; drop those that are done."""
        untouched = alone & success & (self.clock == 0)  # misclassified as they are
        loss = distance**2 - self.constant * query.value
        slope = 2 * (at - self.base) - per_example(self.constant, at) * query.gradient
        self._adam(slope * (2 * at * (1 - at)))  # dx′/dw = (1 − tanh²)/2 = 2x′(1 − x′)
        self.succeeded = self.succeeded | success
        self.step = self.step + 1
        ended = self.step >= self.attack.steps
        if self.attack.abort_early:
            due = self.step % max(1, self.attack.steps // _CHECKS) == 0
            ended = ended | (due & (loss > 0.9999 * self.before))
            self.before = torch.where(due, loss, self.before)
        self._next_constant(ended)
        self._drop((self.search >= self.attack.searches) | untouched, compact=compact)

    def _adam(self, slope: Tensor) -> None:
        self.first.mul_(_BETA1).add_(slope, alpha=1 - _BETA1)
        self.second.mul_(_BETA2).addcmul_(slope, slope, value=1 - _BETA2)
        count = (self.step + 1).to(slope.dtype)
        size = self.attack.learning_rate / (1 - _BETA1**count)
        scale = (1 - _BETA2**count).sqrt()
        denominator = self.second.sqrt().div_(per_example(scale, slope)).add_(_TINY)
        self.move.sub_(per_example(size, slope) * self.first / denominator)

    def _next_constant(self, ended: Tensor) -> None:
        if not bool(ended.any()):
            return
        self.high = torch.where(ended & self.succeeded, self.constant, self.high)
        self.low = torch.where(ended & ~self.succeeded, self.constant, self.low)
        following = torch.where(self.high.isinf(), self.constant * 10, (self.low + self.high) / 2)
        self.constant = torch.where(ended, following, self.constant)
        self.search = self.search + ended
        self.step = torch.where(ended, 0, self.step)
        self.before = torch.where(ended, torch.inf, self.before)
        self.succeeded = self.succeeded & ~ended
        running = per_example((~ended).to(self.move.dtype), self.move)
        for state in (self.move, self.first, self.second):
            state.mul_(running)

    def _drop(self, over: Tensor, *, compact: bool) -> None:
        """Examples leave as they finish, or, where rows must stay, all at once at the end."""
        if not bool(over.any() if compact else over.all()):
            return
        stay = ~over
        self.batch = self.batch.rows(stay)
        for name in _STATE:
            setattr(self, name, getattr(self, name)[stay])
