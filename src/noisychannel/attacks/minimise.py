"""The smallest budget at which a budget attack succeeds, searched per example."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.gradient import PGD, random_start, stepped
from noisychannel.attacks.lanes import keep_rows
from noisychannel.attacks.shortlist import RUN, Shortlist, conclude, nearest
from noisychannel.errors import expected
from noisychannel.types import Adversarials, Batch, Query, View

__all__ = ["Minimise"]


@dataclass(frozen=True)
class Minimise:
    """Search the radius of a PGD per example: grow it until it succeeds, then bisect.

    ε ← growth · ε until adversarial (at most `expansions` trials); then ε ← (good + bad)/2.

    Every example has its own clock: as soon as its trial ends (adversarial, or out of steps) it
    starts its next one, so that the batch stays full until most examples are done. On a random view a trial
    is adversarial once five questions in a row were (fewer where it has not so many).

    Args:
        attack: the budget attack; its epsilon is where the search begins, its step size scales with ε.
        expansions: trials while growing.
        bisections: trials while bisecting.
        growth: factor between growing trials.

    Raises:
        UserError: a number out of range, or an attack whose radius cannot be searched.

    Source: paper B (attacks "tuned to minimise the distance"); the authors' PGD: ε .3, 40 steps of .01, 20 + 20 trials.
    Differs: 1. on a random view five in a row, where one lucky draw of 41 would end the trial at any radius;
    candidates are re-tested (the nearest of each fifth of the bisections).
    """

    version: ClassVar[int] = 3
    kind: ClassVar[Literal["budget", "minimal"]] = "minimal"
    attack: PGD = field(default=PGD(epsilon=0.3, steps=40, step_size=0.01))
    expansions: int = 20
    bisections: int = 20
    growth: float = 1.5

    def __post_init__(self) -> None:
        check_fields(self)
        if self.attack.epsilon <= 0:
            raise expected("epsilon of the searched attack", "a number > 0", self.attack.epsilon)
        if self.expansions < 1 or self.bisections < 0:
            raise expected(
                "trials", "expansions ≥ 1 and bisections ≥ 0", (self.expansions, self.bisections)
            )
        if self.growth <= 1:
            raise expected("growth", "a number > 1", self.growth)

    @property
    def gradients(self) -> int:
        """Gradients per example at most: the clean example's, and those of every trial."""
        return 1 + (self.expansions + self.bisections) * (self.attack.steps + 1)

    @property
    def queries(self) -> int:
        """Questions without a gradient: none."""
        return 0

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        lanes = _Lanes(self, batch)
        kept, strongest = nearest(view, batch.x), Shortlist(batch.x, 1)
        while len(lanes.rows):
            query = view.query(lanes.at, lanes.batch, self.attack.loss, lanes.clock)
            distance = self.attack.norm.distance(lanes.at, lanes.batch.x)
            success = lanes.sound(query.fooled, 1 if not view.stochastic else RUN)
            score = torch.where(success, distance, torch.inf)
            slot = None
            if view.stochastic:
                # Where finished examples stay in the batch, they go on halving; their finds have no slot.
                done = lanes.halvings.clamp_max(self.bisections + 1)
                slot = done * kept.slots // (self.bisections + 1)
            kept.offer(lanes.rows, lanes.at, score, success, slot)
            strongest.offer(lanes.rows, lanes.at, query.margin, query.fooled)
            query = query._replace(gradient=kept.sighted(lanes.rows, query.gradient))
            lanes.advance(query, success, alone=view.certain, compact=view.compact)
        return conclude(view, batch, kept, strongest, self.attack.norm)


_STATE = ("rows", "at", "radius", "good", "bad", "trial", "halvings", "step", "over", "run")


class _Lanes:
    """Where each unfinished example stands in its search."""

    def __init__(self, search: Minimise, batch: Batch) -> None:
        self.search, self.batch, n = search, batch, len(batch)
        device = batch.x.device
        self.rows = torch.arange(n, device=device)
        self.at = batch.x
        self.radius = torch.full((n,), search.attack.epsilon, device=device)
        self.good = torch.full((n,), torch.inf, device=device)
        self.bad = torch.zeros(n, device=device)
        # Trial 0, step 0 asks about the clean example itself; trials proper are counted from 1.
        self.trial = torch.zeros(n, dtype=torch.int64, device=device)
        self.halvings = torch.zeros(n, dtype=torch.int64, device=device)
        self.step = torch.full((n,), search.attack.steps, dtype=torch.int64, device=device)
        self.over = torch.zeros(n, dtype=torch.bool, device=device)
        self.run = torch.zeros(n, dtype=torch.int64, device=device)

    @property
    def clock(self) -> Tensor:
        """A number that no two questions about one example share."""
        return self.trial * (self.search.attack.steps + 1) + self.step

    def sound(self, fooled: Tensor, run: int) -> Tensor:
        """Which trials (and which clean examples) are adversarial: `run` questions in a row."""
        self.run = torch.where(fooled, self.run + 1, 0)
        return fooled & ((self.run >= min(run, self.search.attack.steps + 1)) | (self.trial == 0))

    def advance(self, query: Query, success: Tensor, *, alone: bool, compact: bool) -> None:
        """Take the step, or end the trial and begin the next; drop examples whose search is over."""
        attack, search = self.search.attack, self.search
        first = self.trial == 0
        ended = success | (self.step >= attack.steps)
        self.run = torch.where(ended, 0, self.run)
        failure = ended & ~success & ~first
        self.good = torch.where(success & ~first, self.radius, self.good)
        self.bad = torch.where(failure & self.good.isfinite(), self.radius, self.bad)
        growing = self.good.isinf()
        self.halvings = self.halvings + (ended & ~first & ~growing)
        grown = torch.where(first, self.radius, self.radius * search.growth)
        following = torch.where(growing, grown, (self.good + self.bad) / 2)
        self.radius = torch.where(ended, following, self.radius)
        self.trial = self.trial + ended
        self.step = torch.where(ended, 0, self.step + 1)
        # The trial that ended the growth is not a bisection, hence bisections + 1 halvings.
        spent = growing & (self.trial > search.expansions)
        self.over = self.over | spent | (self.halvings > search.bisections)
        if alone:
            self.over = self.over | (
                first & query.fooled
            )  # misclassified as it is: nothing to search
        size = attack.step / attack.epsilon
        start = self.batch.x
        if attack.random_start and bool(ended.any()):
            start = start.clone()
            start[ended] = random_start(
                attack.norm,
                start[ended],
                self.radius[ended],
                self.batch.index[ended],
                self.trial[ended],
            )
        moved = stepped(
            attack.norm, self.batch.x, self.at, query.gradient, size * self.radius, self.radius
        )
        shaped = ended.view(-1, *([1] * (start.ndim - 1)))
        self.at = torch.where(shaped, start, moved)
        self._drop(compact=compact)

    def _drop(self, *, compact: bool) -> None:
        """Examples leave as they finish, or, where rows must stay, all at once at the end."""
        if not bool(self.over.any() if compact else self.over.all()):
            return
        stay = ~self.over
        self.batch = self.batch.rows(stay)
        keep_rows(self, _STATE, stay)
