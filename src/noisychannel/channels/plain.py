"""The channel that does nothing, and the one that keeps pixels in their range."""

import math
from dataclasses import dataclass
from typing import ClassVar

from noisychannel.errors import expected
from noisychannel.types import Gradient, Images

__all__ = ["Clip", "Identity"]


@dataclass(frozen=True)
class Identity:
    """Nothing happens: C(x) = x."""

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    gradients: ClassVar[tuple[Gradient, ...]] = ("exact", "straight_through")

    def __call__(self, x: Images) -> Images:
        return x

    def identity(self) -> "Identity":
        """Itself."""
        return self

    def expected_l2(self, shape: tuple[int, ...]) -> float:
        """Zero."""
        return 0.0


@dataclass(frozen=True)
class Clip:
    """Elements are brought into a range: C(x) = min(max(x, low), high).

    The exact gradient is 0 where an element was outside.

    Args:
        low: smallest element after the channel, pixels in [0, 1].
        high: largest element after the channel, pixels in [0, 1].

    Raises:
        UserError: not low < high.
    """

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    gradients: ClassVar[tuple[Gradient, ...]] = ("exact", "straight_through")
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise expected("clip", "low < high", f"low {self.low} and high {self.high}")

    def __call__(self, x: Images) -> Images:
        return x.clamp(self.low, self.high)

    def identity(self) -> "Clip":
        """Clip(−∞, ∞)."""
        return Clip(-math.inf, math.inf)

    def expected_l2(self, shape: tuple[int, ...]) -> None:
        """Unknown: it depends on how far the input is outside."""
        return
