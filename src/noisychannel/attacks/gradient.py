"""Projected gradient descent: the loop written once for every norm and every threat; its first step alone is FGSM."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.shortlist import KEEP, Shortlist, conclude, ranked
from noisychannel.errors import expected
from noisychannel.norms import Linf, Norm, per_example
from noisychannel.objectives import CrossEntropy, Loss
from noisychannel.types import Adversarials, Batch, View

__all__ = ["FGSM", "PGD", "random_start", "stepped"]


def random_start(
    norm: Norm, x: Tensor, radius: float | Tensor, index: Tensor, step: Tensor | int
) -> Tensor:
    """A point of [0, 1] at random inside the ball of `radius` around x."""
    stream = rng.Stream("attack", index, step, part="start")
    return (x + norm.sample(x, radius, stream)).clamp(0, 1)


def stepped(
    norm: Norm,
    x: Tensor,
    at: Tensor,
    gradient: Tensor,
    size: float | Tensor,
    radius: float | Tensor,
) -> Tensor:
    """One step of length `size` up the gradient, back into the ball around x and into [0, 1]."""
    move = norm.steepest(gradient)
    move = move * (size if not isinstance(size, Tensor) else per_example(size, x))
    return norm.project(move.add_(at).sub_(x), radius).add_(x).clamp_(0, 1)


@dataclass(frozen=True)
class PGD:
    """Ascend the loss inside a ball: x ← Π(x + α·steepest(∇ₓ L)).

    Args:
        norm: of the ball.
        epsilon: its radius, pixels in [0, 1].
        steps: gradients per example and restart.
        step_size: α; default 2.5 · epsilon / steps.
        random_start: begin at a random point of the ball (else at x).
        loss: what is made large.
        keep: `best`: the best iterates (five on a random view) are re-tested and the best of them handed over;
            `last`: the last iterate, as most code bases (and the paper's authors) do.
        stop_early: examples leave as soon as they are adversarial, where the view's verdict is certain.
        restarts: runs, each from its own random start; where the verdict is certain, of the examples not yet won.

    Raises:
        UserError: a number out of range.

    Source: Madry et al. 2018, section 2.1.
    Differs: 1. hands over the best iterate, not the last, unless told otherwise.
    """

    version: ClassVar[int] = 2
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    norm: Norm = Linf()
    epsilon: float = 8 / 255
    steps: int = 40
    step_size: float | None = None
    random_start: bool = True
    loss: Loss = CrossEntropy()
    keep: Literal["best", "last"] = "best"
    stop_early: bool = False
    restarts: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if self.epsilon < 0:
            raise expected("epsilon", "a number ≥ 0", self.epsilon)
        if self.steps < 1:
            raise expected("steps", "a whole number ≥ 1", self.steps)
        if self.keep not in ("best", "last"):
            raise expected("keep", "best or last", repr(self.keep))
        if self.step_size is not None and self.step_size <= 0:
            raise expected("step_size", "a number > 0", self.step_size)
        if self.restarts < 1:
            raise expected("restarts", "a whole number ≥ 1", self.restarts)
        if self.restarts > 1 and not self.random_start:
            raise expected("restarts", "1 where no start is random", self.restarts)

    @property
    def step(self) -> float:
        """α."""
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size

    @property
    def gradients(self) -> int:
        """Gradients per example at most."""
        return self.steps * self.restarts

    @property
    def queries(self) -> int:
        """The check of each restart's last iterate."""
        return self.restarts

    def __call__(self, view: View, batch: Batch, start: Tensor | None = None) -> Adversarials:
        """Attack every example of the batch; `start` overrides the first restart's random start."""
        check_role("view", view, View)
        # A deterministic view needs no re-test of several: the lowest margin is the best.
        slots = KEEP if view.stochastic and self.gradients > 1 else 1
        kept = Shortlist(batch.x, slots if self.keep == "best" else min(slots, self.restarts))
        rows = torch.arange(len(batch), device=batch.x.device)
        for restart in range(self.restarts):
            self._ascend(view, batch.rows(rows), rows, kept, restart, start)
            start = None
            if view.certain and view.compact and restart + 1 < self.restarts:
                rows = rows[~kept.fooled[:, rows].any(dim=0)]
        return conclude(view, batch, kept)

    def _ascend(
        self,
        view: View,
        batch: Batch,
        rows: Tensor,
        kept: Shortlist,
        restart: int,
        start: Tensor | None,
    ) -> None:
        """One restart: every iterate (or the last) of the examples `rows` is offered to `kept`."""
        at = batch.x if start is None else start
        if start is None and self.random_start:
            at = random_start(self.norm, batch.x, self.epsilon, batch.index, restart)
        leaving = self.stop_early and view.certain and view.compact
        for step in range(self.steps + 1):
            if len(rows) == 0:
                return
            last = step == self.steps
            clock = restart * (self.steps + 1) + step
            query = view.query(at, batch, self.loss, clock, gradient=not last)
            if self.keep == "best" or last:
                kept.offer(rows, at, ranked(view, query), query.fooled)
            if last:
                return
            gradient = kept.sighted(rows, query.gradient)
            if leaving and bool(query.fooled.any()):
                gone, stay = query.fooled, ~query.fooled
                if self.keep == "last":  # theirs is the last; `best` was offered it above
                    kept.offer(rows[gone], at[gone], ranked(view, query)[gone], gone[gone])
                rows, batch, at, gradient = rows[stay], batch.rows(stay), at[stay], gradient[stay]
            at = stepped(self.norm, batch.x, at, gradient, self.step, self.epsilon)


@dataclass(frozen=True)
class FGSM:
    """One step to the edge of the ball: x + ε·steepest(∇ₓ L(x)), clipped to [0, 1]: x + ε·sign(∇ₓ L) for L∞.

    Args:
        norm: of the ball.
        epsilon: its radius, pixels in [0, 1].
        loss: what is made large.

    Raises:
        UserError: a number out of range.

    Source: Goodfellow, Shlens & Szegedy 2015, section 4.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    norm: Norm = Linf()
    epsilon: float = 8 / 255
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.epsilon < 0:
            raise expected("epsilon", "a number ≥ 0", self.epsilon)

    @property
    def gradients(self) -> int:
        """One."""
        return 1

    @property
    def queries(self) -> int:
        """The check of the point that is handed over: one."""
        return 1

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        # α = 2.5 ε leads from x out of the ball, and projection back to its edge; ε = 0 is no step.
        one = PGD(self.norm, self.epsilon, steps=1, random_start=False, loss=self.loss, keep="last")
        return one(view, batch)
