"""Ways to differentiate a channel that has no useful derivative."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from noisychannel.errors import expected
from noisychannel.types import Channel, Images

__all__ = ["straight_through", "substituted"]


def straight_through(channel: Channel, x: Images) -> Images:
    """C(x), differentiated as if C were the identity (BPDA): forward C(x), backward ∂/∂x = 1.

    Source: Athalye et al. 2018, §4.1.
    """
    with torch.no_grad():
        seen = channel(x)
    return _PassGradient.apply(x, seen)  # pyright: ignore[reportReturnType]


def substituted(
    stage: Callable[[Tensor], Tensor], substitute: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """stage(x), differentiated as if it were substitute(x) (BPDA): forward s(x), backward ∂g/∂x.

    Args:
        stage: what is run; it may have no derivative, or a useless one.
        substitute: differentiable, of the stage's output shape.
        x: input (n, …).

    Raises:
        UserError: the two give different shapes.

    Source: Athalye et al. 2018, §4.1.2.
    """
    with torch.no_grad():
        seen = stage(x.detach().clone())  # a stranger's stage may write into its input
    if not torch.is_grad_enabled():
        return seen
    stand_in = substitute(x)
    if stand_in.shape != seen.shape:
        raise expected(
            "substitute", f"the stage's output shape {tuple(seen.shape)}", tuple(stand_in.shape)
        )
    return _PassGradient.apply(stand_in, seen)  # pyright: ignore[reportReturnType]


class _PassGradient(torch.autograd.Function):
    """(x, C(x)) ↦ C(x) to the last bit, which x + (C(x) − x) would not be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: Tensor) -> Tensor:  # noqa: ARG004  # pyright: ignore[reportIncompatibleMethodOverride]
        return seen.view_as(seen)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad, None
