"""Fast minimum-norm attack: a step on the loss and a step on the radius in turn, for any norm."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.shortlist import RUN, Shortlist, conclude, nearest, stretch
from noisychannel.errors import expected
from noisychannel.norms import L0, L2, Norm
from noisychannel.objectives import Margin
from noisychannel.types import Adversarials, Batch, View

__all__ = ["FMN"]

# What the authors' own code decays to.
_LAST_ALPHA, _LAST_GAMMA = 0.01, 0.001


@dataclass(frozen=True)
class FMN:
    """Walk down the margin inside a ball whose radius shrinks while adversarial and grows while not.

    δ ← Π_ε(δ + α_k·g/‖g‖₂), clipped to [0, 1]; ε ← min((1 − γ_k)·ε, ‖δ*‖) while adversarial, else (1 + γ_k)·ε,
    and before anything was found at least (1 + γ_k)·(‖δ‖ + margin/‖g‖_q), just beyond where the linear network
    through δ has its boundary (q dual to the norm). α_k falls to .01 α, γ_k from γ to .001 along a cosine.

    Args:
        norm: what is made small, Linf() or L2().
        steps: gradients per example.
        alpha: first step length α in L2, pixels in [0, 1].
        gamma: first relative change of the radius, in (0, 1).

    Raises:
        UserError: a number out of range.

    Source: Pintor et al. 2021, algorithm 1.
    Differs: 1. no start from another class. 2. before anything was found, the factor (1 + γ_k), without which
    rounding may hold δ on the wrong side of the boundary for good, and a radius that never shrinks, without which
    steps longer than the radius may wander inside it to the end (4 of 96 digits). 3. on a random view the radius
    shrinks, and a point is kept, only from the fifth success in a row on (where the verdict is not certain, one with
    a mean margin below 0); earlier ones leave the radius as it is; and ‖δ*‖ is no bound: a lucky draw at x would
    hold it at 0. 4. candidates of a random view are re-tested (five kept along the way; x first if a draw erred there).
    """

    version: ClassVar[int] = 2
    kind: ClassVar[Literal["budget", "minimal"]] = "minimal"
    norm: Norm = L2()
    steps: int = 100
    alpha: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        check_fields(self)
        if self.norm == L0():
            raise expected("norm", "Linf() or L2()", self.norm)
        if self.steps < 1:
            raise expected("steps", "a whole number ≥ 1", self.steps)
        if self.alpha <= 0:
            raise expected("alpha", "a number > 0", self.alpha)
        if not 0 < self.gamma < 1:
            raise expected("gamma", "a number between 0 and 1", self.gamma)

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
        norm, x, steps = self.norm, batch.x, self.steps
        kept, strongest = nearest(view, x), Shortlist(x, 1)
        rows = torch.arange(len(batch), device=x.device)
        at, active = x, batch
        radius = best = torch.full((len(batch),), torch.inf, device=x.device)
        run = torch.zeros_like(rows)
        for step in range(steps + 1):
            if len(rows) == 0:
                break
            last = step == steps
            query = view.query(at, active, Margin(), step, gradient=not last)
            size = norm.distance(at, active.x)
            run = torch.where(query.fooled & ((query.margin < 0) | view.certain), run + 1, 0)
            sound = run >= (RUN if view.stochastic else 1)
            offered = query.fooled if step == 0 else sound
            score = torch.where(offered, size, torch.inf)
            kept.offer(rows, at, score, offered, stretch(view, rows, step / (steps + 1)))
            strongest.offer(rows, at, query.margin, query.fooled)
            if last:
                break
            gradient = kept.sighted(rows, query.gradient)
            best = torch.where(sound, torch.minimum(best, size), best)
            bound = torch.full_like(best, torch.inf) if view.stochastic else best
            move = L2().steepest(gradient)
            linear = self._linear(query.margin, gradient, move, size).where(best.isinf(), 0.0)
            gamma = _cosine(self.gamma, _LAST_GAMMA, step / steps)
            grown = torch.maximum(linear, radius.nan_to_num(posinf=0.0)) * (1 + gamma)
            grown = torch.where(query.fooled & radius.isfinite(), radius, grown)
            radius = torch.where(sound, torch.minimum(radius * (1 - gamma), bound), grown)
            if step == 0 and view.certain and view.compact:
                stay = ~query.fooled  # misclassified as they are: nothing to search
                rows, active, at = rows[stay], active.rows(stay), at[stay]
                radius, best, run, move = radius[stay], best[stay], run[stay], move[stay]
            alpha = self.alpha * _cosine(1.0, _LAST_ALPHA, step / steps)
            at = at + move.mul_(alpha)
            at = norm.project(at.sub_(active.x), radius).add_(active.x).clamp_(0, 1)
        return conclude(view, batch, kept, strongest, norm)

    def _linear(self, margin: Tensor, gradient: Tensor, move: Tensor, size: Tensor) -> Tensor:
        """How far the boundary of the linear network through δ is from x; `move` is the gradient's L2 direction."""
        steepest = move if self.norm == L2() else self.norm.steepest(gradient)
        # ⟨g, steepest(g)⟩ is the dual norm of g, whatever the norm.
        slope = (gradient * steepest).flatten(1).sum(dim=1).clamp_min(1e-12)
        return size + margin.abs() / slope


def _cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2
