"""Points that an examination asks about: on the 8-bit grid, beside it, and moved by named draws."""

import torch
from torch import Tensor

from noisychannel import rng

__all__ = ["between", "inside", "rounded", "signs", "uniform"]


def between(x: Tensor, reach: float) -> Tensor:
    """Shrunk towards grey, so that steps of `reach` stay in [0, 1]: a network that clips bends at its ends."""
    return x * (1 - 2 * reach) + reach


def rounded(x: Tensor) -> Tensor:
    """The nearest points on the 8-bit grid."""
    return (x * 255).round() / 255


def inside(x: Tensor) -> Tensor:
    """Points outside of [0, 1] mirrored at its ends."""
    return 1 - (1 - x.abs()).abs()


def uniform(like: Tensor, part: str) -> Tensor:
    """Numbers in (0, 1), the same whenever this part of an examination asks for them."""
    index = torch.arange(len(like))
    with rng.root("examination"):
        return rng.uniform(like, rng.Stream("selection", index, part=part))


def signs(like: Tensor, part: str) -> Tensor:
    """Random signs, likewise."""
    return 2 * (uniform(like, part) > 0.5).to(like.dtype) - 1
