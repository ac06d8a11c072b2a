"""Less contrast: every example towards grey, by a given share or by the smallest that is adversarial."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.oracle import Doubt, Oracle
from noisychannel.attacks.shortlist import Shortlist, conclude
from noisychannel.attacks.starts import beyond, listed, outcome
from noisychannel.errors import expected
from noisychannel.norms import L2, Norm, per_example
from noisychannel.types import Adversarials, Batch, Status, View

__all__ = ["ContrastReduction", "MinimalContrast"]


@dataclass(frozen=True)
class ContrastReduction:
    """Blend every example with grey: x′ = (1 − share)·x + share·level.

    Args:
        share: of grey, in [0, 1].
        level: the grey, in [0, 1].

    Raises:
        UserError: a number out of range.

    Source: foolbox 1, ContrastReductionAttack, whose ε is the share (foolbox 3: an L2 distance).
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    share: float = 0.5
    level: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("share", "level"):
            if not 0 <= getattr(self, name) <= 1:
                raise expected(name, "a number between 0 and 1", getattr(self, name))

    @property
    def gradients(self) -> int:
        """None: it sees labels or scores only."""
        return 0

    @property
    def queries(self) -> int:
        """None: its one point is judged at the end."""
        return 0

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch: there is nothing to ask, and one candidate to judge."""
        check_role("view", view, View)
        kept = Shortlist(batch.x, 1)
        x = batch.x + self.share * (self.level - batch.x)
        every = torch.arange(len(batch), device=batch.x.device)
        kept.offer(
            every, x, batch.x.new_zeros(len(batch)), torch.zeros_like(every, dtype=torch.bool)
        )
        return conclude(view, batch, kept)


@dataclass(frozen=True)
class MinimalContrast:
    """The smallest share t of grey that is adversarial: x′ = (1 − t)·x + t·level.

    t = 0, 1/scan, 2/scan, …, 1 until adversarial, then bisection of the last interval.

    Args:
        scan: intervals looked at from the example to grey, ≥ 1.
        halvings: of the interval in which the example gives in: t is known to 2^−halvings / scan.
        level: the grey, in [0, 1].
        norm: in which the distance counts.
        doubt: the sequential test of a random network; None believes single draws.

    Raises:
        UserError: a number out of range.

    Source: foolbox, BinarySearchContrastReductionAttack.
    Differs: 1. scans before it bisects: grey itself need not be adversarial.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "minimal"
    scan: int = 20
    halvings: int = 10
    level: float = 0.5
    norm: Norm = L2()
    doubt: Doubt | None = Doubt()

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("scan", "halvings"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))
        if not 0 <= self.level <= 1:
            raise expected("level", "a number between 0 and 1", self.level)

    @property
    def gradients(self) -> int:
        """None: it sees labels or scores only."""
        return 0

    @property
    def queries(self) -> int:
        """Label draws per example at most."""
        return (self.scan + 1 + self.halvings) * (self.doubt.draws if self.doubt else 1)

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        oracle = Oracle(view, batch, self.doubt, self.queries)
        share = self._smallest(oracle)
        found = share <= 1
        rows = found.nonzero()[:, 0]
        grey = torch.full_like(batch.x, self.level)
        share = torch.where(oracle.silent & ~found, 0.0, share.clamp_max(1.0))
        at = torch.lerp(batch.x, grey, per_example(share, batch.x))
        kept = listed(oracle)
        beyond(kept, rows, batch.x[rows], at[rows], self.norm)
        # Of many tests on the way one may be won by luck; grey itself stands in where all draws refuse that.
        end = torch.where((oracle.silent & ~found)[(...,) + (None,) * (at.ndim - 1)], at, grey)
        return outcome(oracle, end, found, kept, self.norm, Status.NOT_FOUND)

    def _smallest(self, oracle: Oracle) -> Tensor:
        """The smallest adversarial share of each example (n,); infinite where there is none."""
        x = oracle.batch.x
        grey = torch.full_like(x, self.level)
        good = x.new_full((len(x),), torch.inf)
        left = torch.arange(len(x), device=x.device)
        for step in range(self.scan + 1):
            yes = oracle(torch.lerp(x[left], grey[left], step / self.scan), left)
            good[left[yes]] = step / self.scan
            # Where the network says nothing about the example itself, nothing is to be learnt on the way.
            left = left[~yes & ~(oracle.silent[left] & (step == 0))]
        rows = (good.isfinite() & (good > 0)).nonzero()[:, 0]
        high, low = good[rows], good[rows] - 1 / self.scan
        for _ in range(self.halvings):
            middle = (high + low) / 2
            yes = oracle(torch.lerp(x[rows], grey[rows], per_example(middle, x)), rows)
            high, low = torch.where(yes, middle, high), torch.where(yes, low, middle)
        good[rows] = high
        return good
