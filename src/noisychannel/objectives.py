"""What an attacker wants large, as functions of logits; with a goal: away from y, or towards a target."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from noisychannel.errors import expected
from noisychannel.types import Goal

__all__ = ["CrossEntropy", "Hinge", "fooled", "label_margin", "margin"]


def label_margin(logits: Tensor, label: Tensor) -> Tensor:
    """z_label − max over the other classes, per example: (n, k), (n,) → (n,)."""
    own = logits.gather(1, label[:, None])[:, 0]
    mask = functional.one_hot(label, logits.shape[1]).bool()
    return own - logits.masked_fill(mask, -torch.inf).amax(dim=1)


def margin(logits: Tensor, goal: Goal) -> Tensor:
    """The defender's margin, negative when the attacker has his goal.

    Untargeted z_y − max_{j≠y} z_j; targeted max_{j≠t} z_j − z_t.
    """
    if goal.target is None:
        return label_margin(logits, goal.y)
    return -label_margin(logits, goal.target)


def fooled(predicted: Tensor, goal: Goal) -> Tensor:
    """Whether a predicted class is what the attacker wants: ≠ y, or = target. Any shape that ends in n."""
    return predicted != goal.y if goal.target is None else predicted == goal.target


@dataclass(frozen=True)
class CrossEntropy:
    """−ln p_y to be made large; targeted: ln p_t.   Source: Madry et al. 2018."""

    version: ClassVar[int] = 1

    def __call__(self, logits: Tensor, goal: Goal) -> Tensor:
        if goal.target is None:
            return functional.cross_entropy(logits, goal.y, reduction="none")
        return -functional.cross_entropy(logits, goal.target, reduction="none")


@dataclass(frozen=True)
class Hinge:
    """−max(margin + κ, 0): zero once the goal is reached with confidence κ ≥ 0 (in logits).

    Source: Carlini & Wagner 2017, f₆.
    """

    version: ClassVar[int] = 1
    confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.confidence < 0:
            raise expected("confidence", "a number ≥ 0", self.confidence)

    def __call__(self, logits: Tensor, goal: Goal) -> Tensor:
        return -(margin(logits, goal) + self.confidence).clamp_min(0)
