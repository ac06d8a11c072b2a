"""Carlini & Wagner's L2 attack at one fixed constant: a point on the trade of distance for success."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.adam import Adam
from noisychannel.attacks.carlini_wagner import INSIDE
from noisychannel.attacks.shortlist import Shortlist, conclude, nearest, stretch
from noisychannel.errors import expected
from noisychannel.norms import L2
from noisychannel.objectives import Hinge, margin
from noisychannel.types import Adversarials, Batch, Goal, Objective, View

__all__ = ["FixedConstant", "authors_fixed_constant"]


@dataclass(frozen=True)
class FixedConstant:
    """Minimise ‖x′ − x‖₂² + c·max(margin(x′) + κ, 0) over w by Adam, x′ = (tanh w + 1)/2, with the c given.

    On a linear network it moves by min(c‖w_y − w_o‖/2, margin/‖w_y − w_o‖): too small a c finds nothing, c = 0
    stays where it is. It is of the kind `minimal`, since no distance bounds it and its distance is an outcome;
    but it does not look for the least: a curve over c does.

    Args:
        constant: c, ≥ 0.
        steps: iterates looked at, of which the first is x: steps − 1 gradients.
        learning_rate: of Adam, in w.
        confidence: κ, in logits.
        keep: `best`: the nearest adversarial iterate; `last`: the last iterate, adversarial or not.
        freeze: pixels of exactly 0 or 1 stay as they are (w is infinite there; else the field shrinks by 1e-6).
        rectified: max(logit, 0) stands for the logit of the label, so that a negative one has no gradient.

    Raises:
        UserError: a number out of range.

    Source: Carlini & Wagner 2017, section VI; Liu et al. 2018 (RSE), section 4, for the fixed c.
    Differs: 1. without `keep="last"`, `freeze` and `rectified` it is a clean attack; `authors_fixed_constant` has
    all three, as the code behind the paper's Figures 2 and 3. 2. that code averages logits over draws: `mean_logit`.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "minimal"
    constant: float = 1.0
    steps: int = 200
    learning_rate: float = 0.01
    confidence: float = 0.0
    keep: Literal["best", "last"] = "best"
    freeze: bool = False
    rectified: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps < 1:
            raise expected("steps", "a whole number ≥ 1", self.steps)
        if self.learning_rate <= 0:
            raise expected("learning_rate", "a number > 0", self.learning_rate)
        for name in ("constant", "confidence"):
            if getattr(self, name) < 0:
                raise expected(name, "a number ≥ 0", getattr(self, name))
        if self.keep not in ("best", "last"):
            raise expected("keep", "best or last", repr(self.keep))

    @property
    def gradients(self) -> int:
        """Gradients per example at most."""
        return self.steps - 1

    @property
    def queries(self) -> int:
        """The last iterate's check: one."""
        return 1

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        objective: Objective = Hinge(self.confidence)
        if self.rectified:
            objective = _Rectified(self.confidence)
        kept, strongest = nearest(view, batch.x), Shortlist(batch.x, 1)
        rows, active = torch.arange(len(batch), device=batch.x.device), batch
        origin = ((2 * batch.x - 1) * (1.0 if self.freeze else INSIDE)).atanh()
        w, adam = origin, Adam(batch.x, self.learning_rate)
        at = batch.x
        # Distance is from here, not from x: Adam would blow up their rounding error to steps of its full rate.
        base = inside = (origin.tanh() + 1).div_(2)
        for step in range(self.steps):
            if len(rows) == 0:
                break
            last = step == self.steps - 1
            query = view.query(at, active, objective, step, gradient=not last)
            success = query.fooled & (query.margin <= -self.confidence)
            if self.keep == "best":
                score = torch.where(success, L2().distance(at, active.x), torch.inf)
                kept.offer(rows, at, score, success, stretch(view, rows, step / self.steps))
            if self.keep == "best" or last:
                strongest.offer(rows, at, query.margin, query.fooled)
            if last:
                break
            gradient = kept.sighted(rows, query.gradient)
            if step == 0 and self.keep == "best" and view.certain and view.compact:
                stay = ~success  # misclassified as they are: nothing to search
                rows, active, gradient = rows[stay], active.rows(stay), gradient[stay]
                w, origin, base, inside = w[stay], origin[stay], base[stay], inside[stay]
                adam.rows(stay)
            slope = (inside - base).mul_(2).sub_(gradient, alpha=self.constant)
            # dx′/dw = 2x′(1 − x′)
            w = w - adam.step(slope.mul_(inside * (1 - inside)).mul_(2))
            inside = (w.tanh() + 1).div_(2)
            at = torch.where(w == origin, active.x, inside)  # the shrink alone moves nobody
        return conclude(view, batch, kept, strongest, L2())


class _Rectified:
    """Hinge in which max(z, 0) stands for the label's logit z."""

    def __init__(self, confidence: float) -> None:
        self.confidence = confidence

    def __call__(self, logits: Tensor, goal: Goal) -> Tensor:
        label = (goal.y if goal.target is None else goal.target)[:, None]
        own = logits.gather(1, label).clamp_min(0)
        return -(margin(logits.scatter(1, label, own), goal) + self.confidence).clamp_min(0)


def authors_fixed_constant(constant: float) -> FixedConstant:
    """The attack of the paper's Figures 2 and 3: 200 iterates at Adam's 1e-3, the last of them whatever it is.

    Source: details of the authors' code; c from 0 to 100.
    """
    return FixedConstant(constant, 200, 1e-3, 0.0, "last", freeze=True, rectified=True)
