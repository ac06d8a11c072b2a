"""HopSkipJump: the direction of the boundary from many answers, each of which may be noisy."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.oracle import Doubt, Oracle
from noisychannel.attacks.starts import BlendedNoise, beyond, listed, outcome
from noisychannel.errors import expected
from noisychannel.norms import L2, Linf, Norm, per_example
from noisychannel.objectives import fooled
from noisychannel.types import Adversarials, Batch, View

__all__ = ["HopSkipJump"]

_AT_ONCE = 16  # probes made at once: a fixed number, so that sums are the same in any batch
_TRIES = 10  # of a jump, each half as long, before it is given up


@dataclass(frozen=True)
class HopSkipJump:
    """Estimate the boundary's normal by random probes, jump along it, and search back towards the example.

    g = mean over b of (φ_b − mean φ)·u_b, u_b random unit vectors, φ_b = ±1: is x′ + δ·u_b adversarial?
    x′ ← x′ + ξ·steepest(g), ξ = r/√t halved until adversarial; then bisection between x and x′ to the boundary.
    The number of probes grows as √t; the mean over them averages a random network's noise as well, so each probe
    is one draw, and only jumps and bisections are put to the sequential test. Answers that are all equal are not
    centred: they have a direction too.

    Args:
        norm: `L2()` or `Linf()`.
        steps: rounds of probes, jump and search.
        probes: of the first round.
        most_probes: of any round at most.
        reach: δ as a share of the distance r; on a random network `noisy_reach`.
        noisy_reach: see above; wide enough for the answers to change more than the noise does.
        halvings: questions of each search for the boundary.
        queries: label draws per example at most, those for the start included; an example whose budget
            ends before its steps and that is not won has status `budget_exhausted`.
        doubt: the sequential test; None believes single draws.
        start: how a starting point is sought.

    Raises:
        UserError: a number out of range, or another norm.

    Source: Chen, Jordan & Wainwright 2020, algorithm 2.
    Differs: 1. every example has its own jump and leaves its own loop: a jump that fails ten times is not taken.
    2. δ = reach · r (theirs r/d and r/d²: below float32's resolution on large images). 3. the search halves
    a fixed number of times, not to a tolerance of d^(−3/2).
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "minimal"
    norm: Norm = L2()
    steps: int = 64
    probes: int = 100
    most_probes: int = 10_000
    reach: float = 0.05
    noisy_reach: float = 0.5
    halvings: int = 14
    queries: int = 100_000
    doubt: Doubt | None = Doubt()
    start: BlendedNoise = BlendedNoise()

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("steps", "probes", "most_probes", "halvings", "queries"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))
        for name in ("reach", "noisy_reach"):
            if getattr(self, name) <= 0:
                raise expected(name, "a number > 0", getattr(self, name))
        if not isinstance(self.norm, L2 | Linf):
            raise expected("norm", "L2() or Linf()", self.norm)

    @property
    def gradients(self) -> int:
        """None: it sees labels or scores only."""
        return 0

    def __call__(self, view: View, batch: Batch, start: Tensor | None = None) -> Adversarials:
        """Attack every example of the batch.

        `start` holds points to begin at where they are adversarial (`nearest_starts` finds some), else at noise.
        """
        check_role("view", view, View)
        oracle = Oracle(view, batch, self.doubt, self.queries)
        began = self.start.begin(oracle, start)
        kept = listed(oracle)
        here = began.here.nonzero()[:, 0]
        beyond(kept, here, batch.x[here], batch.x[here], self.norm)
        walking = began.found & ~began.here
        rows = (walking & ~oracle.exhausted).nonzero()[:, 0]
        at, stood = began.x.clone(), began.x.clone()
        for step in range(self.steps + 1):
            # The search for the boundary comes first, so that the last point handed over stands on it.
            at[rows] = self._search(oracle, at[rows], rows)
            # Whom the budget left on the way back may stand farther out than before.
            before, now = (self.norm.distance(z[rows], batch.x[rows]) for z in (stood, at))
            taken = rows[~oracle.exhausted[rows] | (now < before)]
            stood[taken] = at[taken]
            probes = min(int(self.probes * math.sqrt(step + 1)), self.most_probes)
            rows = oracle.solvent(rows, probes)
            if len(rows) == 0 or step == self.steps:
                break
            at[rows] = self._jump(oracle, at[rows], rows, step, probes)
        rows = walking.nonzero()[:, 0]
        beyond(kept, rows, batch.x[rows], stood[rows], self.norm)
        return outcome(oracle, began.x, began.found, kept, self.norm)

    def _search(self, oracle: Oracle, at: Tensor, rows: Tensor) -> Tensor:
        """The point nearest to the example that is adversarial: on the way there (L2), or of those clipped (L∞)."""
        x = oracle.batch.x[rows]
        ahead = at - x
        size = self.norm.size(ahead)
        good, bad = x.new_ones(len(x)), x.new_zeros(len(x))
        for _ in range(self.halvings):
            middle = (good + bad) / 2
            yes = oracle.if_paid(x + self._shortened(ahead, middle, size), rows)
            good, bad = torch.where(yes, middle, good), torch.where(yes, bad, middle)
        return (x + self._shortened(ahead, good, size)).clamp(0, 1)

    def _shortened(self, ahead: Tensor, share: Tensor, size: Tensor) -> Tensor:
        return self.norm.project(ahead, share * size)

    def _jump(self, oracle: Oracle, at: Tensor, rows: Tensor, step: int, probes: int) -> Tensor:
        """From the boundary along its estimated normal, as far as it stays adversarial."""
        distance = self.norm.distance(at, oracle.batch.x[rows])
        move = self.norm.steepest(self._normal(oracle, at, rows, step, probes))
        size = distance / math.sqrt(step + 1)
        left = torch.arange(len(rows), device=rows.device)
        out = at.clone()
        for _ in range(_TRIES):
            point = (at[left] + per_example(size[left], at) * move[left]).clamp(0, 1)
            yes = oracle.if_paid(point, rows[left])
            out[left[yes]] = point[yes]
            left = left[~yes]
            if len(left) == 0:
                break
            size = size / 2
        return out

    def _normal(self, oracle: Oracle, at: Tensor, rows: Tensor, step: int, probes: int) -> Tensor:
        """Σ (φ_b − mean φ)·u_b over the probes; where all answers are equal, Σ φ_b·u_b."""
        reach = self.noisy_reach if oracle.view.stochastic else self.reach
        delta = reach * L2().distance(at, oracle.batch.x[rows])
        part, goal = oracle.batch.rows(rows), oracle.batch.rows(rows).goal
        with_sign, plain = torch.zeros_like(at), torch.zeros_like(at)
        share = at.new_zeros(len(at))
        for first in range(0, probes, _AT_ONCE):
            draws = range(first, min(first + _AT_ONCE, probes))
            stream = rng.Stream("attack", part.index, step, draws, part="probe")
            many = at.repeat(len(draws), *([1] * (at.ndim - 1)))
            length = per_example(delta.repeat(len(draws)), many)
            probe = (many + length * L2().steepest(rng.normal(many, stream))).clamp_(0, 1)
            moved = ((probe - many) / length.clamp_min(1e-12)).view(len(draws), *at.shape)
            said = torch.cat([oracle.labels(x, rows) for x in probe.view_as(moved)])
            sign = fooled(said, goal).to(at.dtype) * 2 - 1
            with_sign += (sign.view(*sign.shape, *([1] * (at.ndim - 1))) * moved).sum(dim=0)
            plain += moved.sum(dim=0)
            share += sign.sum(dim=0)
        mean = share / probes
        mean = torch.where(mean.abs() == 1, 0.0, mean)
        return with_sign - per_example(mean, at) * plain
