"""Adam over examples that may leave."""

import math

import torch
from torch import Tensor

__all__ = ["Adam"]

_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8


class Adam:
    """m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; step = rate·m̂/(√v̂ + 10⁻⁸), m̂ and v̂ freed of their start at 0.

    Args:
        like: examples (n, …) for shape, dtype and device.
        rate: learning rate.

    Source: Kingma & Ba 2015, algorithm 1, β₁ = .9, β₂ = .999.
    """

    def __init__(self, like: Tensor, rate: float) -> None:
        self.rate, self.count = rate, 0
        self.first, self.second = torch.zeros_like(like), torch.zeros_like(like)

    def step(self, slope: Tensor) -> Tensor:
        """The step to subtract."""
        self.count += 1
        self.first.lerp_(slope, 1 - _BETA1)
        self.second.mul_(_BETA2).addcmul_(slope, slope, value=1 - _BETA2)
        # rate/(1 − β₁ᵗ) · m / (√v/s + tiny) = rate·s/(1 − β₁ᵗ) · m / (√v + tiny·s), s = √(1 − β₂ᵗ)
        scale = math.sqrt(1 - _BETA2**self.count)
        down = self.second.sqrt().add_(_TINY * scale)
        return torch.div(self.first, down, out=down).mul_(
            self.rate * scale / (1 - _BETA1**self.count)
        )

    def rows(self, keep: Tensor) -> None:
        """Only the examples chosen by a mask or positions stay."""
        self.first, self.second = self.first[keep], self.second[keep]
