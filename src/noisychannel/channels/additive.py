"""Additive noise on every element, independent and of one law: Gauss, Uniform, Laplace.

Pixels are not clipped after (nor were the paper's authors'): chain with `Clip()` where that is meant.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from noisychannel.noise import GaussLaw, LaplaceLaw, UniformLaw
from noisychannel.types import Gradient, Images

__all__ = ["Gauss", "Laplace", "Uniform"]


def _length(std: float, kurtosis: float, shape: tuple[int, ...]) -> float:
    """√d · std · (1 − (κ − 1)/(8d)): the length of d independent elements, to second order in 1/d."""
    d = math.prod(shape)
    return math.sqrt(d) * std * (1 - (kurtosis - 1) / (8 * d))


@dataclass(frozen=True)
class Gauss:
    """Gaussian noise: C(x) = x + ε, ε ~ N(0, σ²) per element.

    Args:
        sigma: standard deviation σ ≥ 0, pixels in [0, 1].

    Raises:
        UserError: sigma negative or not finite.

    Source: paper E.
    Differs: 1. the authors' ε of their input channels is not σ; `interop/authors.py` converts.
    """

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    gradients: ClassVar[tuple[Gradient, ...]] = ("exact", "straight_through")
    sigma: float

    def __post_init__(self) -> None:
        GaussLaw(self.sigma)

    def __call__(self, x: Images) -> Images:
        return x + GaussLaw(self.sigma).sample(x)

    def identity(self) -> "Gauss":
        """σ = 0."""
        return Gauss(0.0)

    def expected_l2(self, shape: tuple[int, ...]) -> float:
        """√2 · Γ((d+1)/2) / Γ(d/2) · σ, the mean of a χ law with d degrees of freedom."""
        d = math.prod(shape)
        return math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2)) * self.sigma


@dataclass(frozen=True)
class Uniform:
    """Uniform noise: C(x) = x + ε, ε ~ U(−w, w) per element.

    Args:
        bound: largest change w ≥ 0, pixels in [0, 1].

    Raises:
        UserError: bound negative or not finite.

    Source: paper E.
    """

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    gradients: ClassVar[tuple[Gradient, ...]] = ("exact", "straight_through")
    bound: float

    def __post_init__(self) -> None:
        UniformLaw(self.bound)

    def __call__(self, x: Images) -> Images:
        return x + UniformLaw(self.bound).sample(x)

    def identity(self) -> "Uniform":
        """w = 0."""
        return Uniform(0.0)

    def expected_l2(self, shape: tuple[int, ...]) -> float:
        """≈ √(d/3) · w · (1 − 1/(10d))."""
        return _length(UniformLaw(self.bound).std, 1.8, shape)


@dataclass(frozen=True)
class Laplace:
    """Laplace noise: C(x) = x + ε, ε of density exp(−|t|/b)/(2b) per element.

    Args:
        scale: b ≥ 0, pixels in [0, 1]; the standard deviation is b·√2.

    Raises:
        UserError: scale negative or not finite.

    Source: paper E.
    """

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    gradients: ClassVar[tuple[Gradient, ...]] = ("exact", "straight_through")
    scale: float

    def __post_init__(self) -> None:
        LaplaceLaw(self.scale)

    def __call__(self, x: Images) -> Images:
        return x + LaplaceLaw(self.scale).sample(x)

    def identity(self) -> "Laplace":
        """The noise-free scale b = 0."""
        return Laplace(0.0)

    def expected_l2(self, shape: tuple[int, ...]) -> float:
        """≈ √(2d) · b · (1 − 5/(8d))."""
        return _length(LaplaceLaw(self.scale).std, 6.0, shape)
