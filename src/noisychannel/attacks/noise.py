"""Additive noise of a given size: the least that an attack must beat."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.shortlist import KEEP, Shortlist, conclude
from noisychannel.errors import expected
from noisychannel.norms import L2, Linf, Norm, per_example
from noisychannel.objectives import fooled
from noisychannel.types import Adversarials, Batch, View

__all__ = ["AdditiveNoise", "random_directions"]


@dataclass(frozen=True)
class AdditiveNoise:
    """Add noise of a given norm: x′ = x + ε·u/‖u‖, u ~ N(0, 1) or U[−1, 1] per element, clipped to [0, 1].

    Of `repeats` draws the first that is misclassified is handed over where the answer is certain. On a random
    network the draws most often misclassified over `repeats` labels are kept, and judged on selection draws: one
    lucky answer among many is not counted.

    Args:
        law: `gauss` or `uniform`.
        norm: of the noise: `L2()` or `Linf()`. L∞ of uniform noise is its range, not rescaled: u·ε.
        epsilon: its size, ≥ 0.
        repeats: noise draws tried.
        labels: label draws per noise draw on a random network.
        squared: the amplitude is ε² instead of ε, as in foolbox 1's additive uniform noise.

    Raises:
        UserError: a number out of range, or another norm.

    Source: foolbox, (L2, Linf) × (Repeated) AdditiveGaussianNoise, AdditiveUniformNoise. The paper's authors:
    `AdditiveNoise("uniform", Linf(), epsilon=ε, squared=True)`, amplitude ε²·range.
    Differs: 1. of several draws the best is chosen honestly (theirs: the first that was ever misclassified).
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    law: Literal["gauss", "uniform"] = "gauss"
    norm: Norm = L2()
    epsilon: float = 0.5
    repeats: int = 1
    labels: int = 4
    squared: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.law not in ("gauss", "uniform"):
            raise expected("law", "gauss or uniform", repr(self.law))
        if not isinstance(self.norm, L2 | Linf):
            raise expected("norm", "L2() or Linf()", self.norm)
        if self.epsilon < 0:
            raise expected("epsilon", "a number ≥ 0", self.epsilon)
        for name in ("repeats", "labels"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))

    @property
    def gradients(self) -> int:
        """None: it sees labels or scores only."""
        return 0

    @property
    def queries(self) -> int:
        """Label draws per example at most."""
        return self.repeats * self.labels

    def noise(self, like: Tensor, index: Tensor, repeat: int) -> Tensor:
        """One draw per example, of the size wanted."""
        stream = rng.Stream("attack", index, repeat, part="additive noise")
        size = self.epsilon**2 if self.squared else self.epsilon
        draw = (
            rng.normal(like, stream) if self.law == "gauss" else rng.uniform(like, stream) * 2 - 1
        )
        if self.law == "uniform" and isinstance(self.norm, Linf):
            return draw * size
        return draw * per_example(size / self.norm.size(draw).clamp_min(1e-12), draw)

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        draws = self.labels if view.stochastic else 1
        kept = Shortlist(batch.x, min(KEEP, self.repeats) if view.stochastic else 1)
        rows = torch.arange(len(batch), device=batch.x.device)
        for repeat in range(self.repeats):
            if len(rows) == 0:
                break
            part = batch.rows(rows)
            x = (part.x + self.noise(part.x, part.index, repeat)).clamp(0, 1)
            said = view.labels(x, part, repeat, draws)
            wrong = fooled(said, part.goal).float().mean(dim=0)
            kept.offer(rows, x, -wrong, wrong >= 0.5)
            if view.compact and not view.stochastic:
                rows = rows[wrong == 0]
        return conclude(view, batch, kept)


def random_directions(norm: L2 | Linf, epsilon: float, count: int) -> AdditiveNoise:
    """So many random points around each example: L∞ uniform in the cube, L2 uniform on the sphere, cut to [0, 1].

    No attack that follows a gradient may lose to them. In many dimensions nearly all of an L2 ball lies at its
    sphere: a point uniform in it has length ε·u^(1/d). Where nothing is random the first point that is
    misclassified ends an example's search; on a random defense the points most often misclassified are judged again
    on other draws, so that 10,000 points are no 10,000 lucky draws.

    Args:
        norm: of the ball.
        epsilon: its radius, pixels in [0, 1].
        count: points per example.

    Source: Athalye et al. 2018, section 3.1 (random sampling finds what gradients do not).
    """
    # The law that fills the cube evenly, and the one whose directions are even.
    law = "uniform" if norm == Linf() else "gauss"
    return AdditiveNoise(law, norm, epsilon=epsilon, repeats=count)
