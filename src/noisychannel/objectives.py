"""What an attacker wants large, as functions of logits; with a goal: away from y, or towards a target."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from noisychannel.errors import expected
from noisychannel.types import Goal

__all__ = ["DLR", "CrossEntropy", "Hinge", "Loss", "Margin", "fooled", "label_margin", "margin"]


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
    """Whether a predicted class is what the attacker wants: ≠ y, or = target. Any shape that ends in n.

    No answer (−1) is no success: a network that gives NaN was not fooled.
    """
    if goal.target is not None:
        return predicted == goal.target
    return (predicted != goal.y) & (predicted >= 0)


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


@dataclass(frozen=True)
class Margin:
    """−margin: unlike `Hinge` it goes on rising once the goal is reached, as an attack within a budget needs."""

    version: ClassVar[int] = 1

    def __call__(self, logits: Tensor, goal: Goal) -> Tensor:
        return -margin(logits, goal)


@dataclass(frozen=True)
class DLR:
    """Difference of logits ratio: the margin over the spread of the largest logits, so that no scale or shift matters.

    Untargeted −(z_y − max_{i≠y} z_i) / (z_π1 − z_π3); targeted −(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2),
    where z_π1 ≥ z_π2 ≥ … are the sorted logits. Where the denominator is 0 (constant logits), the value and
    its gradient are 0.

    Source: Croce & Hein 2020, equations 6 and 7.
    Differs: 1. three classes and a target: z_π3 stands for z_π4. 2. two classes, where a ratio would be ±1
    whatever x is: the numerator alone, as `Margin`.
    """

    version: ClassVar[int] = 1

    def __call__(self, logits: Tensor, goal: Goal) -> Tensor:
        classes = logits.shape[1]
        if goal.target is None:
            numerator = -label_margin(logits, goal.y)
        else:
            own, wanted = (logits.gather(1, k[:, None])[:, 0] for k in (goal.y, goal.target))
            numerator = wanted - own
        if classes < 3:  # as many as the ratio needs
            return numerator
        top = logits.topk(min(4, classes), dim=1).values
        low = top[:, 2] if goal.target is None else (top[:, 2] + top[:, -1]) / 2
        spread = top[:, 0] - low
        flat = spread <= 0  # not of NaN, which goes through
        return torch.where(flat, 0.0, numerator / torch.where(flat, 1.0, spread))


Loss = CrossEntropy | Hinge | Margin | DLR
"""What an attack may be told to make large: parts, so that they stand in its name."""
