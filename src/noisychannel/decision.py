"""How a random defender makes up its mind: reductions of independent draws to one class per example."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import functional

from noisychannel.admission import check_fields
from noisychannel.errors import expected

__all__ = ["DECISIONS", "Decision", "MeanProb", "Single", "Vote", "parse_decision"]


@runtime_checkable
class Decision(Protocol):
    """A decision rule."""

    version: ClassVar[int]

    @property
    def draws(self) -> int:
        """Draws that one decision takes."""
        ...

    def decide(self, labels: Tensor, probabilities: Tensor) -> Tensor:
        """Predicted classes (n, k) and their probabilities (n, k, c) of k draws → one class each (n,)."""
        ...


@dataclass(frozen=True)
class Single:
    """The class of one draw: what a deployed random network answers when asked once."""

    version: ClassVar[int] = 1

    @property
    def draws(self) -> int:
        """One."""
        return 1

    def decide(self, labels: Tensor, probabilities: Tensor) -> Tensor:
        """The first draw's class."""
        return labels[:, 0]


@dataclass(frozen=True)
class Vote:
    """The most frequent class of k draws; ties go to the larger summed probability.   Source: paper K."""

    version: ClassVar[int] = 1
    k: int

    def __post_init__(self) -> None:
        check_fields(self)
        if self.k < 1:
            raise expected("vote", "at least 1 draw", self.k)

    @property
    def draws(self) -> int:
        """k."""
        return self.k

    def decide(self, labels: Tensor, probabilities: Tensor) -> Tensor:
        """Plurality of the draws' classes."""
        classes = probabilities.shape[2]
        # A draw without an answer (−1) is no vote.
        votes = functional.one_hot(labels.clamp_min(0), classes) * (labels >= 0)[..., None]
        counts = votes.sum(dim=1).double()
        # A mean probability is below 1, so it can only order classes of equal count.
        ties = 0.5 * probabilities.double().nan_to_num().mean(dim=1)
        return (counts + ties).argmax(dim=1).where((labels >= 0).any(dim=1), -1)


@dataclass(frozen=True)
class MeanProb:
    """The class of largest mean probability over k draws.   Source: paper 4.6 (ensemble of softmax outputs)."""

    version: ClassVar[int] = 1
    k: int

    def __post_init__(self) -> None:
        check_fields(self)
        if self.k < 1:
            raise expected("mean_prob", "at least 1 draw", self.k)

    @property
    def draws(self) -> int:
        """k."""
        return self.k

    def decide(self, labels: Tensor, probabilities: Tensor) -> Tensor:
        """argmax of the mean probability."""
        mean = probabilities.double().nan_to_num().mean(dim=1)
        return mean.argmax(dim=1).where((labels >= 0).any(dim=1), -1)


DECISIONS: tuple[Decision, ...] = (Single(), Vote(4), MeanProb(4))


def parse_decision(text: str) -> Decision:
    """A decision rule from its name: `single`, `vote:16`, `mean_prob:16`.

    Raises:
        UserError: any other text.
    """
    name, _, count = text.partition(":")
    if name == "single" and not count:
        return Single()
    if name in ("vote", "mean_prob") and count.isdecimal():
        return Vote(int(count)) if name == "vote" else MeanProb(int(count))
    raise expected("decision", "single, vote:K or mean_prob:K with a whole K ≥ 1", repr(text))
