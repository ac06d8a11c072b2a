"""The Boundary attack, for defenders who answer with a label only, and not always the same."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.lanes import keep_rows
from noisychannel.attacks.oracle import Doubt, Oracle
from noisychannel.attacks.shortlist import Shortlist
from noisychannel.attacks.starts import Began, BlendedNoise, beyond, grainy, listed, outcome
from noisychannel.errors import expected
from noisychannel.norms import L2
from noisychannel.types import Adversarials, Batch, View

__all__ = ["Boundary", "authors_boundary"]

# On a locally flat boundary in d dimensions a proposal with orthogonal step δ and source step ε is adversarial
# if z ≥ (ε + δ²/2)/(δT), z ~ N(0, 1), T = tan(angle to the normal)/√d. For given ε the best δ is √(2ε); then the
# gain per question, ε·P(z ≥ √(2ε)/T), is largest where a proposal succeeds with probability Q(1.19) = .12.
# Where boundaries curve a smaller step pays: ResNet-20, 1,000 steps, 16 images: 1.10 with .12, 1.04 with .2.
_SUCCESS = 0.2
_GAIN = 0.3
# Pixels: in d/16 dimensions T is four times as large, and networks hear coarse noise better.
_GRAINS = (1, 4)
_LOOK = 100  # steps between looks at who has converged: each look waits for the device


@dataclass(frozen=True)
class Boundary:
    """Walk along the boundary towards the example: x′ ← x + (1 − ε)·(δ·r·η + x′ − x)/√(1 + δ²), if adversarial.

    r = ‖x′ − x‖₂, η a random unit vector orthogonal to x′ − x; the source step ε of each example follows its
    own successes (ln ε += .3·(success − .2)), the orthogonal step δ = √(2ε) follows ε. On a random network every
    proposal is put to the sequential test `doubt`; the incumbent is asked again on fresh draws every `retest` steps,
    and one that fails gives way to the last that passed. That one, and points beyond it, stand for the final choice.

    Args:
        steps: proposals per example at most.
        queries: label draws per example at most, those for the start included; an example whose budget
            ends before its steps and that is not won has status `budget_exhausted`.
        doubt: the sequential test; None believes single draws and tests nothing again.
        source_step: first ε, in (0, 1).
        converged: ε below which an example is done.
        retest: steps between two tests of the incumbent.
        coarse: every second η has a grain of 4 pixels, and an ε of its own.
        start: how a starting point is sought.

    Raises:
        UserError: a number out of range.

    Source: Brendel, Rauber & Bethge 2018; `authors_boundary` is what the paper's authors ran.
    Differs: 1. δ follows ε (see above), so nothing is asked about proposals on the sphere; both adapt at every
    step (foolbox: after 300 and 1000). 2. each example has its own noise and leaves when done. 3. a random
    network. 4. coarse noise: 1,000 steps on CIFAR-10 end at three quarters of the distance that white noise leaves.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "minimal"
    steps: int = 25_000
    queries: int = 100_000
    doubt: Doubt | None = Doubt()
    source_step: float = 0.05
    converged: float = 1e-7
    retest: int = 20
    coarse: bool = True
    start: BlendedNoise = BlendedNoise()

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("steps", "queries", "retest"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))
        if not 0 < self.source_step < 1:
            raise expected("source_step", "a number between 0 and 1", self.source_step)
        if self.converged <= 0:
            raise expected("converged", "a number > 0", self.converged)

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
        walk = _Walk(self, oracle, began, kept)
        for step in range(self.steps):
            if len(walk.rows) == 0:
                break
            walk.step(step)
        walk.leave(torch.ones_like(walk.rows, dtype=torch.bool))
        return outcome(oracle, began.x, began.found, kept, L2())


def authors_boundary(steps: int = 25_000, queries: int = 100_000) -> Boundary:
    """The paper authors' attack: every single draw is believed, from a start found by 1000 blends of uniform noise.

    Args:
        steps: proposals per example at most.
        queries: label draws per example at most.

    Source: details §3.6 (foolbox 3.0.0; Figure 4).
    Differs: 1. 1000 directions, theirs without end.
    """
    blind = BlendedNoise(directions=1000, steps=1000, search="linear", coarse=False, doubt=None)
    return Boundary(steps, queries, doubt=None, coarse=False, start=blind)


_STATE = ("rows", "x", "index", "at", "source", "passed")


class _Walk:
    """Where each unfinished example stands: its incumbent, its last incumbent that passed a test, its ε."""

    def __init__(self, attack: Boundary, oracle: Oracle, began: Began, kept: Shortlist) -> None:
        self.attack, self.oracle, self.kept = attack, oracle, kept
        here = began.here.nonzero()[:, 0]
        beyond(kept, here, began.x[here], began.x[here], L2())
        self.rows = (began.found & ~began.here).nonzero()[:, 0]
        self.x, self.index = oracle.batch.x[self.rows], oracle.batch.index[self.rows]
        self.at = self.passed = began.x[self.rows]
        self.grains = _GRAINS if attack.coarse and self.x.ndim > 2 else (1,)  # not (n, features)
        self.source = self.x.new_full((len(self.rows), len(self.grains)), attack.source_step)
        # A doubted step can cost a proposal and a re-test, and a re-test as the example leaves.
        self.dearest = 3 * oracle.most if oracle.doubt else 1
        self.leave(oracle.exhausted[self.rows])

    def step(self, step: int) -> None:
        """One proposal for each example, and what follows from the answers."""
        if self.oracle.solvent(self.rows, self.dearest) is not self.rows:
            self.leave(self.oracle.exhausted[self.rows])
        proposal = self._proposal(step)
        yes = self.oracle(proposal, self.rows)
        self.at = torch.where(yes.view(-1, *([1] * (self.x.ndim - 1))), proposal, self.at)
        learnt = (_GAIN * (yes.to(self.source.dtype) - _SUCCESS)).exp()
        kind = step % len(self.grains)
        self.source[:, kind] = (self.source[:, kind] * learnt).clamp_max(0.5)
        if self.oracle.doubt is not None and (step + 1) % self.attack.retest == 0:
            self._confirm(torch.arange(len(self.rows), device=self.rows.device))
        if (step + 1) % _LOOK == 0:
            self.leave((self.source < self.attack.converged).all(dim=1))

    def leave(self, done: Tensor) -> None:
        """The examples marked go, their incumbents tested once more where the oracle doubts."""
        which = done.nonzero()[:, 0]
        if len(which) == 0:
            return
        if self.oracle.doubt is not None:
            self._confirm(which)
        beyond(self.kept, self.rows[which], self.x[which], self.at[which], L2())
        self._stay(~done)

    def _proposal(self, step: int) -> Tensor:
        """(1 − ε)·(δ·r·η + x′ − x)/√(1 + δ²) from x, clipped to [0, 1]."""
        ahead = self.at - self.x
        flat = ahead.flatten(1)
        kind = step % len(self.grains)
        source, stream = self.source[:, kind], rng.Stream("attack", self.index, step, part="eta")
        eta = grainy(rng.normal, self.x, self.grains[kind], stream)
        noise = eta.flatten(1)
        square = flat.square().sum(dim=1).clamp_min(1e-24)
        noise.sub_(flat * ((noise * flat).sum(dim=1) / square)[:, None])
        sideways = (2 * source).sqrt() * square.sqrt() / noise.norm(dim=1).clamp_min(1e-12)
        shrink = (1 - source) / (1 + 2 * source).sqrt()
        noise.mul_(sideways[:, None]).add_(flat).mul_(shrink[:, None])
        return noise.view_as(ahead).add_(self.x).clamp_(0, 1)

    def _confirm(self, which: Tensor) -> None:
        """Ask about the incumbents again, if they have changed; those that fail give way to the last that passed."""
        which = which[(self.at[which] != self.passed[which]).flatten(1).any(dim=1)]
        yes = self.oracle(self.at[which], self.rows[which])
        self.passed = self.passed.index_copy(0, which[yes], self.at[which[yes]])
        self.at = self.at.index_copy(0, which[~yes], self.passed[which[~yes]])

    def _stay(self, stay: Tensor) -> None:
        keep_rows(self, _STATE, stay)
