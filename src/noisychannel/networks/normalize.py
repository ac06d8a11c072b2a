"""Normalisation as a network's first layer, so that pixels are in [0, 1] everywhere else."""

import torch
from torch import Tensor, nn

from noisychannel.errors import expected

__all__ = ["Normalize", "normalized"]


class Normalize(nn.Module):
    """(x − mean) / std per colour.

    Args:
        mean: one number per colour, pixels in [0, 1].
        std: one number > 0 per colour, pixels in [0, 1].

    Raises:
        UserError: lengths that differ, or a std that is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise expected("normalisation", "as many positive stds as means", f"{mean} and {std}")
        # Numbers of the spec, not of the checkpoint: they stay out of the state dict.
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)


def normalized(mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    """The normalising layer, or nothing where mean and std are empty."""
    return Normalize(mean, std) if mean or std else nn.Identity()
