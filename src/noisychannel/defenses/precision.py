"""RPA, reduced precision arithmetic: layers that compute with 16-bit numbers."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from noisychannel.defenses.layers import LAYERS, Altered, Site
from noisychannel.defenses.surgery import check_patterns, operate
from noisychannel.errors import expected
from noisychannel.types import Sharing

__all__ = ["HalfPrecision", "HalfType", "RoundedLayer", "rounded"]

HalfType = Literal["float16", "bfloat16"]


@dataclass(frozen=True)
class HalfPrecision:
    """Layers in half precision: y = r(r(W)∗r(x) + r(b)), r rounding to the nearest 16-bit number (RPA).

    Every convolution and linear layer; sums are accumulated in float32, as tensor cores do. r is
    emulated on float32 numbers, so the result is that of a half-precision unit on any device.
    Gradients are straight-through: those of W∗x + b at the rounded operands, themselves not rounded.

    Args:
        dtype: `float16` (11 significant bits; |v| ≥ 65520 becomes infinite) or `bfloat16` (8
            significant bits, the range of float32).
        skip: patterns of names of layers that are left alone.

    Raises:
        UserError: another dtype.

    Source: details §4 (RPA: plain FP16 training and inference).
    Differs: 1. the authors ran the whole network and its gradients in FP16 on a GPU; here batch
    norm and activations stay in float32, and gradients cannot underflow.
    """

    version: ClassVar[int] = 1
    dtype: HalfType = "float16"
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_patterns("skip", self.skip)
        if self.dtype not in ("float16", "bfloat16"):
            raise expected("dtype", "float16 or bfloat16", repr(self.dtype))

    @property
    def stochastic(self) -> bool:
        """No."""
        return False

    @property
    def weights(self) -> Sharing:
        """No noise on weights."""
        return "fixed"

    def identity(self) -> None:
        """None: both types round."""
        return

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        """A copy of the network whose convolutions and linear layers round."""
        effect = RoundedLayer(self.dtype)
        return operate(module, lambda _site: effect, shape, LAYERS, self.skip)


@dataclass(frozen=True)
class RoundedLayer:
    """y = r(r(W)∗r(x) + r(b))."""

    dtype: HalfType

    def scale(self, site: Site) -> None:
        """Nothing is learnt."""
        return

    def __call__(self, layer: Altered, x: Tensor) -> Tensor:
        bias = None if layer.bias is None else rounded(layer.bias, self.dtype)
        y = layer.affine(rounded(x, self.dtype), rounded(layer.weight, self.dtype), bias)
        return rounded(y, self.dtype)


def rounded(x: Tensor, dtype: HalfType) -> Tensor:
    """r(x) in x's own type, ties to even; the gradient is that of the identity, and never rounded."""
    half = torch.float16 if dtype == "float16" else torch.bfloat16
    return _Round.apply(x, half)  # pyright: ignore[reportReturnType]


class _Round(torch.autograd.Function):
    """Rounding forward, identity backward. x + (r(x) − x).detach() would turn infinities into nan."""

    generate_vmap_rule = True  # so that ParamNet with each example's own draw works on top

    @staticmethod
    def forward(x: Tensor, half: torch.dtype) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.to(half).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing to keep."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad, None
