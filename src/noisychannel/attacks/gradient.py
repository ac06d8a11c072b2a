"""Projected gradient descent: the loop written once for every norm and every threat."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.attacks.shortlist import KEEP, Shortlist, conclude
from noisychannel.errors import expected
from noisychannel.norms import Linf, Norm, per_example
from noisychannel.objectives import CrossEntropy, Hinge
from noisychannel.types import Adversarials, Batch, View

__all__ = ["PGD", "random_start", "stepped"]


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
    moved = at + norm.steepest(gradient) * per_example(size, x)
    return (x + norm.project(moved - x, radius)).clamp(0, 1)


@dataclass(frozen=True)
class PGD:
    """Ascend the loss inside a ball: x ← Π(x + α·steepest(∇ₓ L)).

    Args:
        norm: of the ball.
        epsilon: its radius, pixels in [0, 1].
        steps: gradients per example.
        step_size: α; default 2.5 · epsilon / steps.
        random_start: begin at a random point of the ball (else at x).
        loss: what is made large.
        keep: `best`: the five best iterates are re-tested and the best of them handed over; `last`:
            the last iterate, as most code bases (and the paper's authors) do.
        stop_early: examples leave as soon as they are adversarial (deterministic views only).

    Raises:
        UserError: a number out of range.

    Source: Madry et al. 2018, section 2.1.
    Differs: 1. hands over the best iterate, not the last, unless told otherwise.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    norm: Norm = Linf()
    epsilon: float = 8 / 255
    steps: int = 40
    step_size: float | None = None
    random_start: bool = True
    loss: CrossEntropy | Hinge = CrossEntropy()
    keep: Literal["best", "last"] = "best"
    stop_early: bool = False

    def __post_init__(self) -> None:
        if self.epsilon < 0:
            raise expected("epsilon", "a number ≥ 0", self.epsilon)
        if self.steps < 1:
            raise expected("steps", "a whole number ≥ 1", self.steps)
        if self.keep not in ("best", "last"):
            raise expected("keep", "best or last", repr(self.keep))
        if self.step_size is not None and self.step_size <= 0:
            raise expected("step_size", "a number > 0", self.step_size)

    @property
    def step(self) -> float:
        """α."""
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size

    @property
    def gradients(self) -> int:
        """Gradients per example at most."""
        return self.steps

    def __call__(self, view: View, batch: Batch, start: Tensor | None = None) -> Adversarials:
        """Attack every example of the batch; `start` overrides the random start."""
        at = batch.x if start is None else start
        if start is None and self.random_start:
            at = random_start(self.norm, batch.x, self.epsilon, batch.index, 0)
        kept = Shortlist(batch.x, KEEP if self.keep == "best" else 1)
        rows, active = torch.arange(len(batch), device=batch.x.device), batch
        leaving = self.stop_early and view.compact and not view.stochastic
        for step in range(self.steps + 1):
            last = step == self.steps
            query = view.query(at, active, self.loss, step, gradient=not last)
            if self.keep == "best" or last:
                # A deterministic margin decides success itself; a random one is a lucky draw, so the loss ranks.
                score = -query.value if view.stochastic else query.margin
                kept.offer(rows, at, score, query.fooled)
            if leaving and bool(query.fooled.any()):
                gone, stay = query.fooled, ~query.fooled
                kept.offer(rows[gone], at[gone], query.margin[gone], gone[gone])
                rows, active, at = rows[stay], active.rows(stay), at[stay]
                query = query._replace(gradient=query.gradient[stay])
            if last or len(rows) == 0:
                break
            at = stepped(self.norm, active.x, at, query.gradient, self.step, self.epsilon)
        return conclude(view, batch, kept, None, self.norm)
