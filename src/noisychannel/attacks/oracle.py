"""Is it adversarial? A question to a random network, answered by a sequential test with stated error rates."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from noisychannel.admission import check_fields
from noisychannel.decision import Single
from noisychannel.errors import expected
from noisychannel.objectives import fooled
from noisychannel.types import Batch, View

__all__ = ["Doubt", "Oracle"]

_CHUNK = 4  # draws asked at once after the first: a batch of undecided examples soon is a small one
_ROUNDING = 1e-5  # of sums of up to some hundred logarithms; a tie counts as reached


@dataclass(frozen=True)
class Doubt:
    """A truncated sequential probability ratio test of p ≤ p₀ = c − zone against p ≥ p₁ = c + zone.

    S = wins · ln(p₁/p₀) + losses · ln((1−p₁)/(1−p₀)); yes once S ≥ ln(1/error), no once S ≤ ln(missed);
    no, and counted as truncated, if `draws` pass without either. A draw that takes the example for neither of
    two compared classes is no evidence.

    Where the defender decides by a `Single` draw, p is the probability of a wrong draw (or of the target) and
    c = target. Under a vote or a mean, p is the share of the strongest rival among the draws for the label or that
    rival (targeted: of the target among the draws for it or its strongest rival), and c = ½.

    Args:
        target: c, the error rate from which an example under a `Single` draw counts as adversarial, in (0, 1).
        indifference: the zone to each side of c within which either answer is right.
        error: probability of a yes at p ≤ p₀, at most (for each rival class; truncated or not).
        missed: probability of a no at p ≥ p₁, at most, before truncation.
        draws: budget of one question, ≥ 1.

    Raises:
        UserError: a number out of range.

    Source: Wald 1945, section 3.
    Differs: 1. thresholds 1/error and missed, not (1−missed)/error and missed/(1−error): the rates are bounds then,
    not approximations. 2. looks at the evidence after the first draws that can decide, then after every fourth,
    which lowers the rates. 3. truncated, with no as the answer.
    """

    version: ClassVar[int] = 1
    target: float = 0.5
    indifference: float = 0.1
    error: float = 0.05
    missed: float = 0.2
    draws: int = 64

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.target < 1:
            raise expected("target", "a number between 0 and 1", self.target)
        widest = min(self.target, 1 - self.target, 0.5)
        if not 0 < self.indifference < widest:
            raise expected("indifference", f"a number between 0 and {widest:g}", self.indifference)
        for name in ("error", "missed"):
            if not 0 < getattr(self, name) < 0.5:  # a coin errs as often
                raise expected(name, "a number between 0 and 0.5", getattr(self, name))
        if self.draws < 1:
            raise expected("draws", "a whole number ≥ 1", self.draws)

    def evidence(self, centre: float) -> tuple[float, float]:
        """What a win adds to S, and what a loss adds (a number < 0)."""
        low, high = centre - self.indifference, centre + self.indifference
        return math.log(high / low), math.log((1 - high) / (1 - low))

    @property
    def bounds(self) -> tuple[float, float]:
        """S from which the answer is yes, and S to which it is no."""
        return -math.log(self.error), math.log(self.missed)

    def first(self, centre: float) -> int:
        """The fewest draws that can decide: nothing is lost by asking them at once."""
        (win, loss), (yes, no) = self.evidence(centre), self.bounds
        fewest = min(math.ceil(yes / win - 1e-9), math.ceil(no / loss - 1e-9))
        return max(1, min(fewest, self.draws))


class Oracle:
    """Answers about the examples of one batch, each on its own clock, and what they have cost.

    Args:
        view: whom to ask.
        batch: all examples that will ever be asked about.
        doubt: the test; None believes a single draw. A deterministic view is asked once in any case.
        budget: draws that may be spent on each example; `solvent` says who has enough left.
    """

    def __init__(self, view: View, batch: Batch, doubt: Doubt | None, budget: int) -> None:
        self.view, self.batch, self.budget = view, batch, budget
        # No example that is not exhausted has less, and whether any is: saves asking the device at every step.
        self._surely_left, self._refusing = budget, False
        self.doubt = doubt if view.stochastic else None
        self.centre = doubt.target if doubt and isinstance(view.rule, Single) else 0.5
        zeros = torch.zeros_like(batch.y)
        self.clock, self.asked = zeros.clone(), zeros.clone()
        """Questions put and draws spent so far, per example (n,)."""
        self.truncated = zeros.clone()
        """Tests that ended without a decision, per example (n,)."""
        self.silent = torch.zeros_like(batch.y, dtype=torch.bool)
        """Whether the network gave NaN in the first draws of the last question, per example (n,)."""
        self.exhausted = torch.zeros_like(batch.y, dtype=torch.bool)
        """Whether an example was turned away for want of budget (n,)."""

    @property
    def most(self) -> int:
        """Draws that one question can cost."""
        return self.doubt.draws if self.doubt else 1

    def solvent(self, rows: Tensor, draws: int) -> Tensor:
        """Those of the examples `rows` whose budget still pays `draws`; the others are exhausted for good."""
        if len(rows) == 0:
            return rows
        if self._surely_left < draws:
            left = self.budget - self.asked
            self.exhausted[rows] |= left[rows] < draws
            others = left[~self.exhausted]
            self._surely_left = int(others.min()) if len(others) else 0
            self._refusing = len(others) < len(left)
        if not self._refusing or not bool(self.exhausted[rows].any()):
            return rows
        return rows[~self.exhausted[rows]]

    def labels(self, x: Tensor, rows: Tensor, draws: int = 1) -> Tensor:
        """Labels (draws, m) of fresh draws about x (m, …), candidates for the examples `rows` (m,), ascending."""
        self._surely_left -= draws
        if len(rows) == len(self.batch):
            said = self.view.labels(x, self.batch, self.clock, draws)
        elif self.view.compact:
            said = self.view.labels(x, self.batch.rows(rows), self.clock[rows], draws)
        else:  # a stranger's random module needs all rows; answers about the others are not looked at
            whole = self.batch.x.clone()
            whole[rows] = x
            said = self.view.labels(whole, self.batch, self.clock, draws)[:, rows]
            rows = torch.arange(len(self.batch), device=rows.device)
        self.clock[rows] += 1
        self.asked[rows] += draws
        return said

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        """Whether each of x (m, …), candidates for the examples `rows` (m,), is adversarial (m,)."""
        if len(rows) == 0:
            return torch.zeros_like(rows, dtype=torch.bool)
        doubt = self.doubt
        said = self.labels(x, rows, doubt.first(self.centre) if doubt else 1)
        self.silent[rows] = (said < 0).all(dim=0)
        part = self.batch if len(rows) == len(self.batch) else self.batch.rows(rows)
        if doubt is None:
            return fooled(said[0], part.goal)
        answer = torch.zeros_like(rows, dtype=torch.bool)
        tally = _Tally(part, versus=not isinstance(self.view.rule, Single))
        (win, loss), (yes, no) = doubt.evidence(self.centre), doubt.bounds
        spent, left = len(said), torch.arange(len(rows), device=rows.device)
        while True:
            wins, losses = tally.add(said)
            score = wins * win + losses * loss
            answer[left] = score >= yes - _ROUNDING
            stay = ((score > no + _ROUNDING) & (score < yes - _ROUNDING)).nonzero()[:, 0]
            left = left[stay]
            draws = min(_CHUNK, doubt.draws - spent)
            if len(left) == 0 or draws == 0:
                self.truncated[rows[left]] += 1
                return answer
            tally.keep(stay)
            said = self.labels(x[left], rows[left], draws)
            spent += draws

    def if_paid(self, x: Tensor, rows: Tensor) -> Tensor:
        """The same, with no for an answer where the budget does not pay for the question."""
        able = self.solvent(rows, self.most)
        if able is rows:
            return self(x, rows)
        asked = ~self.exhausted[rows]
        return torch.zeros_like(asked).masked_scatter(asked, self(x[asked], able))


class _Tally:
    """Draws for and against the attacker, per example.

    Args:
        batch: the examples asked about.
        versus: compare with the strongest rival class, instead of with all draws.
    """

    def __init__(self, batch: Batch, *, versus: bool) -> None:
        self.goal, self.versus = batch.goal, versus
        self.own = self.goal.y if self.goal.target is None else self.goal.target
        self.counts = torch.zeros(len(batch), 0, dtype=torch.int64, device=batch.y.device)

    def add(self, said: Tensor) -> tuple[Tensor, Tensor]:
        """Count the labels of further draws (d, m): wins and losses of the attacker so far (m,)."""
        classes = max(self.counts.shape[1], int(torch.cat([said.flatten(), self.own]).max()) + 1)
        known = (said >= 0)[..., None]  # a draw without an answer is no evidence
        seen = (functional.one_hot(said.clamp_min(0), classes) * known).sum(dim=0)
        self.counts = functional.pad(self.counts, (0, classes - self.counts.shape[1])) + seen
        own = self.counts.gather(1, self.own[:, None])[:, 0]
        others = self.counts.scatter(1, self.own[:, None], 0)
        rest = others.amax(dim=1) if self.versus else others.sum(dim=1)
        return (rest, own) if self.goal.target is None else (own, rest)

    def keep(self, stay: Tensor) -> None:
        """Go on with some of the examples."""
        self.own, self.counts = self.own[stay], self.counts[stay]
