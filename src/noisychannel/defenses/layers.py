"""Layers after surgery: a convolution or linear map that adopts another's parameters and has an effect."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "ALTERED",
    "CONVOLUTIONS",
    "LAYERS",
    "Altered",
    "AlteredConv1d",
    "AlteredConv2d",
    "AlteredLinear",
    "Effect",
    "Site",
]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)


class Site(NamedTuple):
    """A layer as the probe met it.

    `position` counts the layers in the order in which they first fire, from 0 (the one that sees the
    image); the shapes are those of one example.
    """

    name: str
    layer: nn.Module
    position: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


@runtime_checkable
class Effect(Protocol):
    """What an altered layer does instead of y = W∗x + b: a frozen dataclass of numbers."""

    def scale(self, site: Site) -> tuple[str, Tensor] | None:
        """Name and initial value of a learnt scale that the layer shall own, or None."""
        ...

    def __call__(self, layer: "Altered", x: Tensor) -> Tensor: ...


@runtime_checkable
class Altered(Protocol):
    """A layer after surgery, as effects see it."""

    training: bool
    effect: Effect

    @property
    def weight(self) -> Tensor:
        """W."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """b."""
        ...

    def get_parameter(self, target: str) -> nn.Parameter:
        """One of its parameters by name."""
        ...

    def affine(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's own arithmetic with other weights."""
        ...

    def affine_each(self, x: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """The same with weights (n, …) of each example's own."""
        ...


Probed = Callable[[Altered, Tensor], Tensor]
"""What the probe puts in an effect's place while it looks: not a hook, since torch asks for hooks before it
takes its fused paths, and would be seen only where it takes none."""


class AlteredConv1d(nn.Conv1d):
    """A Conv1d with an effect."""

    effect: Effect
    probed: Probed | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        return (self.probed or self.effect)(self, input)

    def affine(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with other weights."""
        return self._conv_forward(x, weight, bias)

    def affine_each(self, x: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """One group of channels per example and group of the layer."""
        return _each(self, functional.conv1d, x, weights, bias)


class AlteredConv2d(nn.Conv2d):
    """A Conv2d with an effect."""

    effect: Effect
    probed: Probed | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        return (self.probed or self.effect)(self, input)

    def affine(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with other weights."""
        return self._conv_forward(x, weight, bias)

    def affine_each(self, x: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """One group of channels per example and group of the layer."""
        return _each(self, functional.conv2d, x, weights, bias)


class AlteredLinear(nn.Linear):
    """A Linear with an effect."""

    effect: Effect
    probed: Probed | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        return (self.probed or self.effect)(self, input)

    def affine(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The linear map with other weights."""
        return functional.linear(x, weight, bias)

    def affine_each(self, x: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """A batched matrix product."""
        rows = x.reshape(len(x), -1, x.shape[-1])
        y = torch.bmm(rows, weights.transpose(1, 2)).view(*x.shape[:-1], -1)
        return y if bias is None else y + bias


ALTERED = {nn.Conv1d: AlteredConv1d, nn.Conv2d: AlteredConv2d, nn.Linear: AlteredLinear}


def _each(
    layer: nn.Conv1d | nn.Conv2d,
    convolve: Callable[..., Tensor],
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None,
) -> Tensor:
    padding = layer.padding
    if layer.padding_mode != "zeros":
        x = functional.pad(x, layer._reversed_padding_repeated_twice, layer.padding_mode)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        padding = 0
    n = len(x)
    y = convolve(
        x.reshape(1, n * x.shape[1], *x.shape[2:]), weights.flatten(0, 1), None,
        layer.stride, padding, layer.dilation, n * layer.groups,
    )  # fmt: skip
    y = y.view(n, -1, *y.shape[2:])
    return y if bias is None else y + bias.view(-1, *[1] * (x.ndim - 2))
