"""The words: what crosses from room to room, and the roles that parts play.

data ─Batch→ attack(view) ─Adversarials→ defense ─Logits→ measure ─Rows→ store ─Rows→ report
"""

from collections.abc import Callable
from enum import IntEnum
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from noisychannel.batch import Batch, Goal, Images, Labels
from noisychannel.decision import Decision

__all__ = [
    "Adversarials",
    "Attack",
    "Backward",
    "Batch",
    "Channel",
    "Cost",
    "Goal",
    "Gradient",
    "Images",
    "Labels",
    "Logits",
    "Network",
    "Objective",
    "PerExample",
    "Query",
    "Sharing",
    "Status",
    "Trial",
    "View",
]

Logits = Float[Tensor, "n k"]
PerExample = Float[Tensor, "n"]

Gradient = Literal["exact", "straight_through"]
"""How a channel may be differentiated: through its formula, or as if it were the identity (BPDA)."""

Backward = Literal["default", "exact", "straight_through", "at_input"]
"""How a view differentiates its channel: as the channel declares, one of the two ways of `Gradient`,
or as the paper's authors did: loss at C(x), network differentiated at x."""


class Status(IntEnum):
    """What became of one example under attack."""

    FOUND = 0
    NOT_FOUND = 1
    INIT_FAILED = 2
    LOST_ON_RESCORING = 3
    BUDGET_EXHAUSTED = 4
    FAILED = 5

    @property
    def word(self) -> str:
        """The status as it stands in tables, e.g. `not_found`."""
        return self.name.lower()


class Cost(NamedTuple):
    """Passes through the network that each example has cost, and its sequential tests cut off by their budget."""

    forwards: Labels
    backwards: Labels
    truncated: Labels

    @classmethod
    def passes(cls, forwards: Labels, backwards: Labels) -> "Cost":
        """No test was cut off."""
        return cls(forwards, backwards, torch.zeros_like(forwards))


class Adversarials(NamedTuple):
    """What an attack hands over: one candidate per example, found or not, never the clean image by default."""

    x: Images
    status: Labels
    cost: Cost


class Query(NamedTuple):
    """A view's answer about one point per example, averaged over the view's draws.

    `value` is the objective (larger is better for the attacker), `gradient` its derivative,
    `margin` the logit margin of the defender (negative when adversarial), `fooled` the class decision.
    """

    value: PerExample
    gradient: Images
    margin: PerExample
    fooled: Tensor


class Trial(NamedTuple):
    """How candidates did on selection draws, all (r, n): most decisions wrong?, share of draws wrong, mean margin."""

    won: Tensor
    rate: Tensor
    margin: Tensor


Sharing = Literal["fixed", "shared", "own"]
"""Whose draw of a network's weights an answer comes from: nobody's (they are not random), one `shared`
by all examples of a pass, so that their errors are correlated, or each example's `own`."""

Objective = Callable[[Tensor, Goal], Tensor]
"""(logits (n, k), goal) → what the attacker wants large, per example (n,)."""


@runtime_checkable
class Channel(Protocol):
    """An input perturbation C(x): a frozen dataclass of numbers with one `__call__`."""

    version: ClassVar[int]
    stochastic: ClassVar[bool]
    gradients: ClassVar[tuple[Gradient, ...]]
    """The useful ways to differentiate it, the default first."""

    def __call__(self, x: Images) -> Images: ...

    def identity(self) -> "Channel | None":
        """The same channel at the setting where it changes nothing, or None if it has no such setting."""
        ...

    def expected_l2(self, shape: tuple[int, ...]) -> float | None:
        """Expected ‖C(x) − x‖₂ for one example of this shape, where a formula exists."""
        ...


@runtime_checkable
class Network(Protocol):
    """The spec of a classifier: `.build()` gives a module from [0, 1] inputs to logits, in eval mode."""

    @property
    def stochastic(self) -> bool:
        """Whether two equal forward passes may differ."""
        ...

    @property
    def keyed(self) -> bool:
        """Whether each example's noise is its own, named by `rng` (a stranger's comes from torch's generator)."""
        ...

    @property
    def weights(self) -> "Sharing":
        """Whose draw of its weights an answer comes from."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, for a probe; it may take others."""
        ...

    def build(self) -> torch.nn.Module: ...


@runtime_checkable
class View(Protocol):
    """What an attacker assumes and can ask; made only by `threats.py`."""

    @property
    def stochastic(self) -> bool:
        """Whether two equal questions may have different answers."""
        ...

    @property
    def compact(self) -> bool:
        """Whether finished examples may leave the batch (a stranger's random module needs them to stay)."""
        ...

    @property
    def certain(self) -> bool:
        """Whether `fooled` is the defender's own verdict: nothing is random, or his rule is asked each time."""
        ...

    @property
    def rule(self) -> Decision:
        """How the assumed defender decides (`Single` where nothing is random)."""
        ...

    def query(
        self,
        x: Images,
        batch: Batch,
        objective: Objective,
        step: int | Labels = 0,
        *,
        gradient: bool = True,
        verdict: bool = True,
    ) -> Query:
        """Objective, gradient (zero if not asked for) and margin at x.

        `step`, one for all or one per example, names the draws. Without `verdict` the defender's rule is
        spared where it would be asked whether x is `fooled`, which is then the view's own opinion.
        """
        ...

    def labels(
        self, x: Images, batch: Batch, step: int | Labels = 0, draws: int = 1
    ) -> Int[Tensor, "draws n"]:
        """The classes that independent draws answer at x, −1 where the network gave no number.

        All that a decision-based attacker sees; each draw is billed as one forward.
        """
        ...

    def trial(
        self, candidates: Tensor, opinion: Tensor, batch: Batch, *, final: bool = False
    ) -> Trial:
        """Judge (r, n, …) candidates by the defender's decision rule, on selection draws of the plain network.

        `opinion` (r, n) is whether the attack itself took each for adversarial; only a threat that
        declares no selection draws believes it. `final`: of candidates that were chosen for how they did before,
        on draws of their own, as many decisions as there are selection draws.
        """
        ...

    def cost(self, batch: Batch) -> Cost:
        """What the view has been asked so far for these examples."""
        ...


@runtime_checkable
class Attack(Protocol):
    """(view, batch) → Adversarials; knows nothing of defenses, EOT, BPDA or threat settings."""

    version: ClassVar[int]
    kind: ClassVar[Literal["budget", "minimal"]]

    @property
    def gradients(self) -> int:
        """Gradients per example at most, each over the view's draws."""
        ...

    @property
    def queries(self) -> int:
        """Questions without a gradient per example at most: draws of labels, or scores over the view's draws."""
        ...

    def __call__(self, view: View, batch: Batch) -> Adversarials: ...
