"""CD: fewer values per colour."""

import math
from dataclasses import dataclass
from typing import ClassVar

from noisychannel.errors import expected
from noisychannel.types import Gradient, Images

__all__ = ["CD"]


@dataclass(frozen=True)
class CD:
    """Colour depth: C(x) = round((v − 1) x) / (v − 1), v = 2^bits values, halves to even.

    The exact gradient is 0 almost everywhere, hence useless: only straight-through is offered.

    Args:
        bits: bits per colour, 1 … 8. Give this or `values`.
        values: values per colour v, 2 … 256 (the authors' unit); a power of two is stored as bits.

    Raises:
        UserError: both or neither given, or out of range.

    Source: paper D; details §2.
    """

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    gradients: ClassVar[tuple[Gradient, ...]] = ("straight_through",)
    bits: int | None = None
    values: int | None = None

    def __post_init__(self) -> None:
        if (self.bits is None) == (self.values is None):
            raise expected("CD", "either bits or values", f"bits {self.bits}, values {self.values}")
        if self.bits is not None and not (_whole(self.bits) and 1 <= self.bits <= 8):
            raise expected("bits", "a whole number, 1 … 8", self.bits)
        if self.values is not None and not (_whole(self.values) and 2 <= self.values <= 256):
            raise expected("values", "a whole number, 2 … 256", self.values)
        if self.values is not None and self.values.bit_count() == 1:  # one behaviour, one spec
            object.__setattr__(self, "bits", self.values.bit_length() - 1)
            object.__setattr__(self, "values", None)

    @property
    def levels(self) -> int:
        """v, the number of values per colour."""
        return self.values if self.bits is None else 2**self.bits  # pyright: ignore[reportReturnType]

    def __call__(self, x: Images) -> Images:
        return (x * (self.levels - 1)).round_().div_(self.levels - 1)

    def identity(self) -> None:
        """None: it always rounds."""
        return

    def expected_l2(self, shape: tuple[int, ...]) -> float:
        """√(d/12) / (v − 1), for inputs spread evenly between neighbouring values."""
        return math.sqrt(math.prod(shape) / 12) / (self.levels - 1)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
