"""Momentum iterative FGSM: steps along the accumulated direction of the gradients."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.gradient import stepped
from noisychannel.attacks.shortlist import KEEP, Shortlist, conclude, ranked
from noisychannel.errors import expected
from noisychannel.norms import Linf, Norm, per_example
from noisychannel.objectives import CrossEntropy, Loss
from noisychannel.types import Adversarials, Batch, View

__all__ = ["MIFGSM"]


@dataclass(frozen=True)
class MIFGSM:
    """Ascend along gradients that remember: g ← μ·g + ∇L/‖∇L‖₁; x ← Π(x + α·steepest(g)), from x itself.

    Args:
        norm: of the ball.
        epsilon: its radius, pixels in [0, 1].
        steps: gradients per example; α = epsilon / steps unless `step_size` is given.
        step_size: α.
        decay: μ, ≥ 0; 0 is iterative FGSM.
        loss: what is made large.
        keep: `best`: the best iterates are re-tested and the best handed over; `last`: the last one,
            as the authors do, who craft for transfer to other networks.

    Raises:
        UserError: a number out of range.

    Source: Dong et al. 2018, algorithm 1 (10 steps, μ = 1).
    Differs: 1. any norm. 2. hands over the best iterate, not the last, unless told otherwise.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    norm: Norm = Linf()
    epsilon: float = 8 / 255
    steps: int = 10
    step_size: float | None = None
    decay: float = 1.0
    loss: Loss = CrossEntropy()
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.epsilon < 0:
            raise expected("epsilon", "a number ≥ 0", self.epsilon)
        if self.steps < 1:
            raise expected("steps", "a whole number ≥ 1", self.steps)
        if self.step_size is not None and self.step_size <= 0:
            raise expected("step_size", "a number > 0", self.step_size)
        if self.decay < 0:
            raise expected("decay", "a number ≥ 0", self.decay)
        if self.keep not in ("best", "last"):
            raise expected("keep", "best or last", repr(self.keep))

    @property
    def step(self) -> float:
        """α."""
        return self.epsilon / self.steps if self.step_size is None else self.step_size

    @property
    def gradients(self) -> int:
        """Gradients per example at most."""
        return self.steps

    @property
    def queries(self) -> int:
        """The last iterate's check: one."""
        return 1

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        kept = Shortlist(batch.x, KEEP if view.stochastic and self.keep == "best" else 1)
        rows = torch.arange(len(batch), device=batch.x.device)
        at, memory = batch.x, torch.zeros_like(batch.x)
        dims = tuple(range(1, at.ndim))
        # Nobody is no question; everybody stays to the end.
        for step in range(self.steps + 1 if len(batch) else 0):
            last = step == self.steps
            query = view.query(at, batch, self.loss, step, gradient=not last)
            if self.keep == "best" or last:
                kept.offer(rows, at, ranked(view, query), query.fooled)
            if last:
                break
            gradient = kept.sighted(rows, query.gradient)
            # Scaled by its largest element first, so that a tiny gradient's sum does not underflow.
            least = torch.finfo(gradient.dtype).tiny
            gradient = gradient / per_example(Linf().size(gradient).clamp_min(least), gradient)
            size = gradient.abs().sum(dim=dims).clamp_min(1e-12)
            memory.mul_(self.decay).add_(gradient.div_(per_example(size, gradient)))
            at = stepped(self.norm, batch.x, at, memory, self.step, self.epsilon)
        return conclude(view, batch, kept)
