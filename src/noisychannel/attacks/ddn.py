"""Decoupled direction and norm: a fast search for the smallest L2 perturbation."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.shortlist import Shortlist, conclude, nearest, stretch
from noisychannel.errors import expected
from noisychannel.norms import L2, per_example
from noisychannel.objectives import CrossEntropy
from noisychannel.types import Adversarials, Batch, View

__all__ = ["DDN"]


@dataclass(frozen=True)
class DDN:
    """Walk on a sphere whose radius shrinks while adversarial and grows while not.

    δ ← δ + α_k·g/‖g‖; ε ← (1 ∓ γ_k)·ε; δ ← ε·δ/‖δ‖, clipped to [0, 1]; along a cosine α_k falls from 1 to .01 and
    γ_k from `gamma` to `last_gamma`.

    Args:
        steps: gradients per example.
        initial: first radius, pixels in [0, 1].
        gamma: relative change of the radius in the first step, in (0, 1).
        last_gamma: that in the last step, in (0, gamma].

    Raises:
        UserError: a number out of range.

    Source: Rony et al. 2019, algorithm 1.
    Differs: 1. no quantisation to 256 levels. 2. candidates of a random view are re-tested (five kept along the way).
    3. γ_k falls: 50 steps
    then come as near, within 1 %, as 100 of theirs (steps=100, gamma=last_gamma=.05).
    """

    version: ClassVar[int] = 3
    kind: ClassVar[Literal["budget", "minimal"]] = "minimal"
    steps: int = 50
    initial: float = 1.0
    gamma: float = 0.2
    last_gamma: float = 0.01

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps < 1:
            raise expected("steps", "a whole number ≥ 1", self.steps)
        if self.initial <= 0:
            raise expected("initial", "a number > 0", self.initial)
        if not 0 < self.gamma < 1:
            raise expected("gamma", "a number between 0 and 1", self.gamma)
        if not 0 < self.last_gamma <= self.gamma:
            raise expected("last_gamma", f"a number between 0 and {self.gamma:g}", self.last_gamma)

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
        norm, x = L2(), batch.x
        kept, strongest = nearest(view, x), Shortlist(x, 1)
        rows = torch.arange(len(batch), device=x.device)
        at, active = x, batch
        radius = torch.full((len(batch),), self.initial, device=x.device)
        for step in range(self.steps + 1):
            if len(rows) == 0:
                break
            last = step == self.steps
            query = view.query(at, active, CrossEntropy(), step, gradient=not last)
            score = torch.where(query.fooled, norm.distance(at, active.x), torch.inf)
            slot = stretch(view, rows, step / (self.steps + 1))
            kept.offer(rows, at, score, query.fooled, slot)
            strongest.offer(rows, at, query.margin, query.fooled)
            if last:
                break
            gradient, fooled = kept.sighted(rows, query.gradient), query.fooled
            if step == 0 and view.certain and view.compact:
                stay = ~fooled  # misclassified as they are: nothing to search
                rows, active, at, radius = rows[stay], active.rows(stay), at[stay], radius[stay]
                gradient, fooled = gradient[stay], fooled[stay]
            falling = (1 + math.cos(math.pi * step / self.steps)) / 2
            alpha = 0.01 + 0.99 * falling
            gamma = self.last_gamma + (self.gamma - self.last_gamma) * falling
            radius = radius * torch.where(fooled, 1 - gamma, 1 + gamma)
            delta = norm.steepest(gradient).mul_(alpha).add_(at).sub_(active.x)
            delta.mul_(per_example(radius / norm.size(delta).clamp_min(1e-12), delta))
            at = delta.add_(active.x).clamp_(0, 1)
        return conclude(view, batch, kept, strongest, norm)
