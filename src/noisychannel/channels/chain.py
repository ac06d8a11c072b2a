"""Channels one after another."""

import math
from dataclasses import dataclass
from typing import ClassVar

from noisychannel.errors import expected
from noisychannel.types import Channel, Gradient, Images

__all__ = ["Chain"]


@dataclass(frozen=True, init=False, repr=False)
class Chain:
    """C(x) = C_m(… C_2(C_1(x))): `Chain(Gauss(0.1), Clip())`.

    It is stochastic if any part is; its gradient is exact if every part's is, and straight-through
    means through the chain as a whole.

    Args:
        parts: at least one channel, the first one first.

    Raises:
        UserError: no parts.
    """

    version: ClassVar[int] = 1
    # For every other channel these two belong to the class, and `types.Channel` says so; here they
    # follow from the parts, so each instance sets its own.
    stochastic: ClassVar[bool]
    gradients: ClassVar[tuple[Gradient, ...]]
    parts: tuple[Channel, ...]

    def __init__(self, *parts: Channel) -> None:
        if not parts:
            raise expected("chain", "at least one channel", "none")
        object.__setattr__(self, "parts", parts)
        object.__setattr__(self, "stochastic", any(part.stochastic for part in parts))
        object.__setattr__(self, "gradients", _gradients(parts))

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.parts))})"

    def __call__(self, x: Images) -> Images:
        for part in self.parts:
            x = part(x)
        return x

    def identity(self) -> "Chain | None":
        """The chain of the parts' identities, or None if a part has none."""
        found = [part.identity() for part in self.parts]
        identities = [part for part in found if part is not None]
        return Chain(*identities) if len(identities) == len(found) else None

    def expected_l2(self, shape: tuple[int, ...]) -> float | None:
        """√(Σ of squares), for parts whose errors are uncorrelated; None if a part has no formula."""
        lengths = [part.expected_l2(shape) for part in self.parts]
        known = [length for length in lengths if length is not None]
        return math.hypot(*known) if len(known) == len(lengths) else None


def _gradients(parts: tuple[Channel, ...]) -> tuple[Gradient, ...]:
    """Exact where every part offers it, first where it is every part's default."""
    if not all("exact" in part.gradients for part in parts):
        return ("straight_through",)
    first = all(part.gradients[0] == "exact" for part in parts)
    return ("exact", "straight_through") if first else ("straight_through", "exact")
