"""Ways to differentiate a channel that has no useful derivative."""

from typing import Any

import torch
from torch import Tensor

from noisychannel.types import Channel, Images

__all__ = ["straight_through"]


def straight_through(channel: Channel, x: Images) -> Images:
    """C(x), differentiated as if C were the identity (BPDA): forward C(x), backward ∂/∂x = 1.

    Source: Athalye et al. 2018, §4.1.
    """
    with torch.no_grad():
        seen = channel(x)
    return _PassGradient.apply(x, seen)  # pyright: ignore[reportReturnType]


class _PassGradient(torch.autograd.Function):
    """(x, C(x)) ↦ C(x) to the last bit, which x + (C(x) − x) would not be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: Tensor) -> Tensor:  # noqa: ARG004  # pyright: ignore[reportIncompatibleMethodOverride]
        return seen.view_as(seen)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad, None
