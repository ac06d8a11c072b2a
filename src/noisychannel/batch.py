"""Examples with their labels and identities, and what an attacker wants of each."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from noisychannel.admission import check_examples

__all__ = ["Batch", "Goal", "Images", "Labels"]

Images = Float[Tensor, "n *shape"]
"""Examples in [0, 1]: images are (n, c, h, w), series (n, c, l)."""
Labels = Int[Tensor, "n"]


class Goal(NamedTuple):
    """What the attacker wants of each example: away from `y`, or, if given, towards `target`."""

    y: Labels
    target: Labels | None = None

    def repeat(self, draws: int) -> "Goal":
        """The same goals for `draws` copies of the examples, draw-major."""
        return Goal(
            self.y.repeat(draws), None if self.target is None else self.target.repeat(draws)
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples with their labels and their identity.

    Args:
        x: examples in [0, 1].
        y: true labels, 0 … K−1.
        index: position of each example in its data set; its identity everywhere after.
        target: the class each example shall be taken for, or None for untargeted attacks.

    Raises:
        UserError: values outside [0, 1], another dtype than float32 and int64, numbers that do not fit the
            examples, or one index twice.
    """

    x: Images
    y: Labels
    index: Labels
    target: Labels | None = None

    def __post_init__(self) -> None:
        check_examples(self.x, self.y, self.index, self.target)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def goal(self) -> Goal:
        """What the attacker wants of each example."""
        return Goal(self.y, self.target)

    def rows(self, select: Tensor | slice) -> "Batch":
        """The examples chosen by a mask, positions (one may stand in several), or a slice."""
        target = None if self.target is None else self.target[select]
        return _known(self.x[select], self.y[select], self.index[select], target)

    def to(self, device: torch.device | str) -> "Batch":
        """The same examples on another device."""
        target = None if self.target is None else self.target.to(device)
        return _known(self.x.to(device), self.y.to(device), self.index.to(device), target)


def _known(x: Tensor, y: Tensor, index: Tensor, target: Tensor | None) -> Batch:
    """Examples that were let in before."""
    batch = object.__new__(Batch)
    vars(batch).update(x=x, y=y, index=index, target=target)
    return batch
