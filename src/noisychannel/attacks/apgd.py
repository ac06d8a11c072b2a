"""Auto-PGD: gradient ascent with momentum that halves its own steps, per example."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.gradient import random_start, stepped
from noisychannel.attacks.lanes import keep_rows
from noisychannel.attacks.shortlist import KEEP, Shortlist, conclude, ranked
from noisychannel.errors import expected
from noisychannel.norms import Linf, Norm, per_example
from noisychannel.objectives import DLR, CrossEntropy, Loss, margin
from noisychannel.types import Adversarials, Batch, Goal, Objective, View

__all__ = ["APGD", "TargetedAPGD", "checkpoints"]

_MOMENTUM, _RISES = 0.75, 0.75


def checkpoints(steps: int) -> list[int]:
    """w_j = ⌈p_j·steps⌉ with p_0 = 0, p_1 = .22, p_{j+1} = p_j + max(p_j − p_{j−1} − .03, .06), while p_j < 1."""
    # In hundredths, so that nothing is rounded before it is rounded up.
    before, share, out = 0, 22, [0]
    while share < 100:  # all of them
        out.append(-(-share * steps // 100))
        before, share = share, share + max(share - before - 3, 6)
    return out


def _refuse(norm: Norm, epsilon: float, steps: int) -> None:
    if epsilon < 0:
        raise expected("epsilon", "a number ≥ 0", epsilon)
    if steps < 1:
        raise expected("steps", "a whole number ≥ 1", steps)
    if norm.steepest(torch.ones(1, 2)).count_nonzero() < 2:  # both must move
        raise expected("norm", "one in which all elements move, such as Linf() or L2()", norm)


@dataclass(frozen=True)
class APGD:
    """Ascend with momentum, and at checkpoints w_j halve η and return to the best point where it pays no more.

    z = Π(x_k + η·steepest(∇L(x_k))); x_{k+1} = Π(x_k + ¾·(z − x_k) + ¼·(x_k − x_{k−1})); η₀ = 2ε. Per example,
    η is halved at w_j if fewer than ¾ of the steps since w_{j−1} raised the loss, or if neither η nor the
    best loss has changed since w_{j−1}.

    Args:
        norm: of the ball, Linf() or L2().
        epsilon: its radius, pixels in [0, 1].
        steps: gradients per example and restart.
        loss: what is made large.
        restarts: runs, each from its own random start; where the view's verdict is certain, of the examples
            not yet won.
        stop_early: examples leave as soon as they are adversarial, where the verdict is certain.

    Raises:
        UserError: a number out of range.

    Source: Croce & Hein 2020, algorithm 1 and section 3.
    Differs: 1. on a random view η and the best point follow the loss averaged over the view's draws, and the
    five best iterates are re-tested: theirs marks an example broken by one lucky draw, and restarts only the others.
    2. starts are uniform in the ball (the authors' code: on its sphere). 3. after a return to the best point the
    next step counts as a rise if it betters the iterate before the return, as in the authors' code (algorithm 1:
    if it betters the best point).
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    norm: Norm = Linf()
    epsilon: float = 8 / 255
    steps: int = 100
    loss: Loss = CrossEntropy()
    restarts: int = 1
    stop_early: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        _refuse(self.norm, self.epsilon, self.steps)
        if self.restarts < 1:
            raise expected("restarts", "a whole number ≥ 1", self.restarts)

    @property
    def gradients(self) -> int:
        """Gradients per example at most."""
        return self.steps * self.restarts

    @property
    def queries(self) -> int:
        """The check of each restart's last iterate."""
        return self.restarts

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        kept = Shortlist(batch.x, KEEP if view.stochastic else 1)
        rows = torch.arange(len(batch), device=batch.x.device)
        for restart in range(self.restarts):
            if view.certain and view.compact:
                rows = rows[~kept.fooled[:, rows].any(dim=0)]
            _Climb(self, restart, batch.rows(rows), rows, self.loss).run(view, kept)
        return conclude(view, batch, kept)


@dataclass(frozen=True)
class TargetedAPGD:
    """APGD towards each of the likeliest wrong classes in turn, with the targeted DLR loss.

    Any class other than y is a success, whichever was aimed at. A batch that has a target of its own is
    attacked towards that one alone.

    Args:
        norm: of the ball, Linf() or L2().
        epsilon: its radius, pixels in [0, 1].
        steps: gradients per example and target.
        targets: classes aimed at: those of largest logit at the clean example, y left out; fewer where the
            network has fewer.
        stop_early: examples leave as soon as they are adversarial, where the view's verdict is certain (they
            leave between targets in any case).

    Raises:
        UserError: a number out of range.

    Source: Croce & Hein 2020, sections 3 and 5 (APGD-T of AutoAttack: 9 targets, 100 steps, one start each).
    Differs: 1. as `APGD`. 2. on a random view the classes are those of largest mean logit over the view's draws.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    norm: Norm = Linf()
    epsilon: float = 8 / 255
    steps: int = 100
    targets: int = 9
    stop_early: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        _refuse(self.norm, self.epsilon, self.steps)
        if self.targets < 1:
            raise expected("targets", "a whole number ≥ 1", self.targets)

    @property
    def gradients(self) -> int:
        """Gradients per example at most."""
        return self.steps * self.targets

    @property
    def queries(self) -> int:
        """The clean example, and the check of the last iterate towards each target."""
        return self.targets + 1

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        kept = Shortlist(batch.x, KEEP if view.stochastic else 1)
        rows = torch.arange(len(batch), device=batch.x.device)
        aims = self._aims(view, batch, rows, kept)
        for turn in range(aims.shape[1]):
            if view.certain and view.compact:
                rows = rows[~kept.fooled[:, rows].any(dim=0)]
            _Climb(self, turn, batch.rows(rows), rows, DLR(), aims[rows, turn]).run(view, kept)
        return conclude(view, batch, kept)

    def _aims(self, view: View, batch: Batch, rows: Tensor, kept: Shortlist) -> Tensor:
        """The classes to aim at, likeliest first (n, t); the clean example is the first candidate."""
        if len(batch) == 0:
            return batch.y[:, None]
        seen = _Seen(len(batch))
        query = view.query(batch.x, batch, seen, (self.steps + 1) * self.targets, gradient=False)
        score = ranked(view, query, losses_differ=True)
        kept.offer(rows, batch.x, score, query.fooled)
        if batch.target is not None:
            return batch.target[:, None]
        assert seen.logits is not None
        own = functional.one_hot(batch.y, seen.logits.shape[1]).bool()
        order = seen.logits.masked_fill(own, -torch.inf).argsort(
            dim=1, descending=True, stable=True
        )
        return order[:, : min(self.targets, order.shape[1] - 1)]


class _Seen:
    """The untargeted margin as an objective, that remembers the logits it was shown, averaged over draws."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.logits: Tensor | None = None

    def __call__(self, logits: Tensor, goal: Goal) -> Tensor:
        self.logits = logits.detach().view(-1, self.rows, logits.shape[1]).mean(dim=0)
        return -margin(logits, goal)


def _towards(loss: Loss, aim: Tensor) -> Objective:
    """The loss with the class aimed at as its target, while the goal (what counts as success) stays the batch's."""

    def objective(logits: Tensor, goal: Goal) -> Tensor:
        return loss(logits, Goal(goal.y, aim.repeat(len(logits) // len(aim))))

    return objective


_STATE = (
    "rows", "at", "before", "size", "value", "best", "best_at", "best_gradient",
    "mark_best", "rises", "halved",
)  # fmt: skip


class _Climb:
    """One run from one random start: where each example stands, its η, and its best point."""

    def __init__(
        self,
        attack: "APGD | TargetedAPGD",
        turn: int,
        batch: Batch,
        rows: Tensor,
        loss: Loss,
        aim: Tensor | None = None,
    ) -> None:
        self.attack, self.turn, self.batch, self.rows = attack, turn, batch, rows
        self.loss, self.aim, n, device = loss, aim, len(batch), rows.device
        self.at = random_start(attack.norm, batch.x, attack.epsilon, batch.index, turn)
        self.before = self.best_at = self.best_gradient = self.at
        self.size = torch.full((n,), 2 * attack.epsilon, device=device)
        self.value = self.best = self.mark_best = torch.full((n,), -torch.inf, device=device)
        self.rises = torch.zeros(n, dtype=torch.int64, device=device)
        self.halved = torch.ones(n, dtype=torch.bool, device=device)

    def run(self, view: View, kept: Shortlist) -> None:
        """Climb; every iterate is offered to `kept`."""
        attack = self.attack
        leaving = attack.stop_early and view.certain and view.compact
        marks = sorted(set(checkpoints(attack.steps)))
        since = dict(zip(marks[1:], marks, strict=False))
        for step in range(attack.steps + 1):
            if len(self.rows) == 0:
                return
            last = step == attack.steps
            loss = self.loss if self.aim is None else _towards(self.loss, self.aim)
            clock = self.turn * (attack.steps + 1) + step
            query = view.query(self.at, self.batch, loss, clock, gradient=not last)
            score = ranked(view, query, losses_differ=self.aim is not None)
            kept.offer(self.rows, self.at, score, query.fooled)
            if last:
                return
            gradient = self._note(
                query.value, kept.sighted(self.rows, query.gradient), first=step == 0
            )
            if step in since:
                gradient = self._mark(gradient, step - since[step])
            self._move(gradient, first=step == 0)
            if leaving and bool(query.fooled.any()):
                self._drop(query.fooled)

    def _note(self, value: Tensor, gradient: Tensor, *, first: bool) -> Tensor:
        """Count rises of the loss, and keep the best point with its gradient."""
        self.rises = self.rises + (value > self.value)
        better = value > self.best
        self.value, self.best = value, torch.where(better, value, self.best)
        if first:
            self.rises = torch.zeros_like(self.rises)
            self.best_at, self.best_gradient = self.at, gradient
        else:
            self.best_at = _chosen(better, self.at, self.best_at)
            self.best_gradient = _chosen(better, gradient, self.best_gradient)
        return gradient

    def _mark(self, gradient: Tensor, window: int) -> Tensor:
        """A checkpoint: halve η and return to the best point where the last steps paid too little."""
        stuck = ~self.halved & (self.best <= self.mark_best)
        self.halved = (self.rises < _RISES * window) | stuck
        self.size = torch.where(self.halved, self.size / 2, self.size)
        self.mark_best, self.rises = self.best, torch.zeros_like(self.rises)
        self.at = _chosen(self.halved, self.best_at, self.at)
        return _chosen(self.halved, self.best_gradient, gradient)

    def _move(self, gradient: Tensor, *, first: bool) -> None:
        norm, x, epsilon = self.attack.norm, self.batch.x, self.attack.epsilon
        moved = stepped(norm, x, self.at, gradient, self.size, epsilon)
        if not first:
            # x_k + ¾·(z − x_k) + ¼·(x_k − x_{k−1})
            moved.mul_(_MOMENTUM).add_(self.at, alpha=2 * (1 - _MOMENTUM))
            moved.sub_(self.before, alpha=1 - _MOMENTUM)
            moved = norm.project(moved.sub_(x), epsilon).add_(x).clamp_(0, 1)
        self.before, self.at = self.at, moved

    def _drop(self, gone: Tensor) -> None:
        stay = ~gone
        self.batch = self.batch.rows(stay)
        keep_rows(self, _STATE, stay)
        self.aim = None if self.aim is None else self.aim[stay]


def _chosen(condition: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """New where the condition (n,) holds, else old: exact at weights 0 and 1, and five times as fast as `where`."""
    return torch.lerp(old, new, per_example(condition, old))
