"""Gradients estimated from scores: simultaneous perturbation (SPSA) and natural evolution strategies (NES)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.adam import Adam
from noisychannel.attacks.gradient import stepped
from noisychannel.attacks.shortlist import KEEP, Shortlist, conclude, ranked
from noisychannel.attacks.variants import chunks, repeated
from noisychannel.errors import expected
from noisychannel.norms import L2, Linf, Norm
from noisychannel.objectives import Loss, Margin
from noisychannel.types import Adversarials, Batch, View

__all__ = ["SPSA"]


@dataclass(frozen=True)
class SPSA:
    """Ascend a gradient that is estimated by central differences along random directions.

    g = 1/m · Σⱼ (L(x + δ·vⱼ) − L(x − δ·vⱼ)) / (2δ) · vⱼ, whose mean is the gradient where L is linear.

    SPSA(directions="gaussian", update="steepest") is NES. An example leaves once it is adversarial, where the
    view's verdict is certain.

    Args:
        norm: of the ball, Linf() or L2().
        epsilon: its radius, pixels in [0, 1].
        steps: of the ascent.
        samples: m, pairs of questions per step.
        directions: v of independent `rademacher` (±1) or `gaussian` elements.
        spread: δ, pixels in [0, 1]. Questions leave the ball, and [0, 1], by that much, as theirs do.
        update: `adam`, each element by its own scale; `steepest`, the step of PGD.
        step_size: α, a length in the norm; default 2.5 · epsilon / steps for `steepest`, epsilon / 2 for `adam`.
        same_noise: both questions of a pair, on a random view, are answered with the same draws: what an attacker
            can do who runs a copy of the defense. One who asks a remote defense cannot. (Digits in noise of .1,
            600 questions: 24 % right with, 81 % without.)
        loss: what is made large.

    Raises:
        UserError: a number out of range.

    Source: Uesato et al. 2018, section 4 (SPSA, Adam); Ilyas et al. 2018, section 2 (NES, antithetic pairs).
    Differs: 1. Adam's step has length α in the norm: in L2 each element moves by α/√d. 2. the best iterate is
    handed over, not the last.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    norm: Norm = Linf()
    epsilon: float = 8 / 255
    steps: int = 100
    samples: int = 32
    directions: Literal["rademacher", "gaussian"] = "rademacher"
    spread: float = 0.01
    update: Literal["adam", "steepest"] = "adam"
    step_size: float | None = None
    same_noise: bool = True
    loss: Loss = Margin()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.norm not in (Linf(), L2()):
            raise expected("norm", "Linf() or L2()", self.norm)
        if not self.epsilon >= 0:
            raise expected("epsilon", "a number ≥ 0", self.epsilon)
        if self.steps < 1 or self.samples < 1:
            raise expected("steps and samples", "whole numbers ≥ 1", (self.steps, self.samples))
        if self.directions not in ("rademacher", "gaussian"):
            raise expected("directions", "rademacher or gaussian", repr(self.directions))
        if self.update not in ("adam", "steepest"):
            raise expected("update", "adam or steepest", repr(self.update))
        if not self.spread > 0:
            raise expected("spread", "a number > 0", self.spread)
        if self.step_size is not None and not self.step_size > 0:
            raise expected("step_size", "a number > 0", self.step_size)

    @property
    def gradients(self) -> int:
        """None: it sees labels or scores only."""
        return 0

    @property
    def step(self) -> float:
        """α."""
        if self.step_size is not None:
            return self.step_size
        return self.epsilon / 2 if self.update == "adam" else 2.5 * self.epsilon / self.steps

    @property
    def queries(self) -> int:
        """Questions per example at most: two for each direction, and one about each iterate."""
        return self.steps * (2 * self.samples + 1) + 1

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        kept = Shortlist(batch.x, KEEP if view.stochastic else 1)
        rows, at = torch.arange(len(batch), device=batch.x.device), batch.x
        active, adam = batch, Adam(at, self._element(at))
        for step in range(self.steps + 1):
            if len(rows) == 0:
                break
            clock = step * (2 * self.samples + 1)
            query = view.query(at, active, self.loss, clock, gradient=False)
            slot = torch.full_like(rows, step * kept.slots // (self.steps + 1))
            kept.offer(rows, at, ranked(view, query), query.fooled, slot)
            if step == self.steps:
                break
            if view.certain and view.compact and bool(query.fooled.any()):
                stay = ~query.fooled
                rows, active, at = rows[stay], active.rows(stay), at[stay]
                adam.rows(stay)
                if len(rows) == 0:
                    break
            slope = self.estimate(view, at, active, clock)
            if self.update == "steepest":
                at = stepped(self.norm, active.x, at, slope, self.step, self.epsilon)
                continue
            move = adam.step(slope)
            delta = self.norm.project(move.add_(at).sub_(active.x), self.epsilon)
            at = delta.add_(active.x).clamp_(0, 1)
        return conclude(view, batch, kept)

    def estimate(self, view: View, at: Tensor, batch: Batch, clock: int = 0) -> Tensor:
        """g at the points `at`, from 2 m questions whose draws are named by clock + 1 … clock + 2 m."""
        total = torch.zeros_like(at)
        clocks = clock + 1 + torch.arange(2 * self.samples, device=at.device)
        for chunk in chunks(range(self.samples), 2 * len(at)):
            stream = rng.Stream("attack", batch.index, clock, chunk, "directions")
            direction = self._directions(at, len(chunk), stream)
            # Both questions of a pair stand in one pass, also for networks that share one draw per pass.
            asked = at.new_empty(2, len(chunk), *at.shape)
            torch.add(at, direction, alpha=self.spread, out=asked[0])
            torch.add(at, direction, alpha=-self.spread, out=asked[1])
            plus = clocks[chunk.start : chunk.stop].repeat_interleave(len(at))
            minus = plus if self.same_noise else plus + self.samples
            query = view.query(
                asked.flatten(0, 2),
                repeated(batch, 2 * len(chunk)),
                self.loss,
                torch.cat([plus, minus]),
                gradient=False,
                verdict=False,
            )
            value = query.value.view(2, len(chunk), len(at))
            rise = (value[0] - value[1]).nan_to_num_(0.0, 0.0, 0.0)  # no number is no news
            total += torch.einsum("dn,dn...->n...", rise, direction)
        return total.div_(2 * self.spread * self.samples)

    def _directions(self, at: Tensor, count: int, stream: rng.Stream) -> Tensor:
        """v (d, n, …)."""
        like = at.new_empty(count * len(at), *at.shape[1:])
        if self.directions == "gaussian":
            drawn = rng.normal(like, stream)
        else:
            drawn = rng.uniform(like, stream).sub_(0.5).sign_()
        return drawn.view(count, *at.shape)

    def _element(self, at: Tensor) -> float:
        """What ±1 in every element is to be multiplied with to have length α."""
        return self.step if self.norm == Linf() else self.step / at.shape[1:].numel() ** 0.5
