"""Noise laws, each with the number that the paper gives it: Gauss by σ, Uniform by its bound, Laplace by its scale."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from noisychannel import rng
from noisychannel.errors import expected

__all__ = ["LAWS", "GaussLaw", "LaplaceLaw", "NoiseLaw", "UniformLaw"]


@runtime_checkable
class NoiseLaw(Protocol):
    """A symmetric law of additive noise; all numbers are in units of what it is added to."""

    version: ClassVar[int]

    @property
    def std(self) -> float:
        """Standard deviation of one element."""
        ...

    def sample(self, like: Tensor) -> Tensor:
        """Independent noise of the shape, dtype and device of `like`, which is not touched."""
        ...


def _check(name: str, value: object) -> None:
    if not (isinstance(value, Real) and 0 <= float(value) < math.inf):
        raise expected(name, "a finite number ≥ 0", repr(value))


@dataclass(frozen=True)
class GaussLaw:
    """N(0, σ²).   Args: sigma: standard deviation.   Raises: UserError if negative.   Source: paper E."""

    version: ClassVar[int] = 1
    sigma: float

    def __post_init__(self) -> None:
        _check("sigma", self.sigma)

    @property
    def std(self) -> float:
        """σ."""
        return self.sigma

    def sample(self, like: Tensor) -> Tensor:
        """σ·z with z standard normal."""
        return rng.normal(like).mul_(self.sigma)


@dataclass(frozen=True)
class UniformLaw:
    """U(−w, w).   Args: bound: w.   Raises: UserError if negative.   Source: paper E."""

    version: ClassVar[int] = 1
    bound: float

    def __post_init__(self) -> None:
        _check("bound", self.bound)

    @property
    def std(self) -> float:
        """w/√3."""
        return self.bound / math.sqrt(3)

    def sample(self, like: Tensor) -> Tensor:
        """w·(2u − 1)."""
        return rng.uniform(like).mul_(2 * self.bound).sub_(self.bound)


@dataclass(frozen=True)
class LaplaceLaw:
    """Laplace(0, b), density exp(−|t|/b)/(2b).   Args: scale: b.   Raises: UserError if negative.   Source: paper E."""

    version: ClassVar[int] = 1
    scale: float

    def __post_init__(self) -> None:
        _check("scale", self.scale)

    @property
    def std(self) -> float:
        """b·√2."""
        return self.scale * math.sqrt(2)

    def sample(self, like: Tensor) -> Tensor:
        """Inverse of the distribution: −b·sign(v)·ln(1 − 2|v|), v = u − ½."""
        # torch's own generator, outside of a bracket, may give exactly 0, whose logarithm is infinite.
        # In float32 whatever `like` is: half precision rounds uniforms to 0 and 1.
        centred = rng.uniform(like.float()).clamp_min_(2.0**-25).sub_(0.5)
        noise = centred.abs().mul_(-2).log1p_().mul_(-self.scale).mul_(centred.sign())
        return noise.to(like.dtype)


LAWS: tuple[NoiseLaw, ...] = (GaussLaw(0.1), UniformLaw(0.1), LaplaceLaw(0.1))
