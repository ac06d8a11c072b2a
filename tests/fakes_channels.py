"""Channels that lie; each must fail the law that it breaks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.types import Gradient


@dataclass(frozen=True)
class _Base:
    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    gradients: ClassVar[tuple[Gradient, ...]] = ("exact", "straight_through")
    sigma: float = 0.1

    def identity(self) -> "_Base | None":
        return type(self)(0.0)

    def expected_l2(self, shape: tuple[int, ...]) -> float | None:
        return None


@dataclass(frozen=True)
class InPlace(_Base):
    """Writes its noise into the caller's images, as RobustNet's first layer did."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.add_(rng.normal(x) * self.sigma)


@dataclass(frozen=True)
class GlobalRandomness(_Base):
    """Draws from torch's global generator, whatever stream is open."""

    def __call__(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) * self.sigma


@dataclass(frozen=True)
class BatchCoupled(_Base):
    """Takes the batch's mean off: what an example becomes depends on its neighbours."""

    stochastic: ClassVar[bool] = False

    def __call__(self, x: Tensor) -> Tensor:
        return x - self.sigma * x.mean(dim=0, keepdim=True)


@dataclass(frozen=True)
class WrongIdentity(_Base):
    """Says that sigma = 0 changes nothing, but halves the contrast."""

    def __call__(self, x: Tensor) -> Tensor:
        return x / 2 + rng.normal(x) * self.sigma


@dataclass(frozen=True)
class SecretlyRandom(_Base):
    """Random, and says that it is not."""

    stochastic: ClassVar[bool] = False

    def __call__(self, x: Tensor) -> Tensor:
        return x + rng.normal(x) * self.sigma


@dataclass(frozen=True)
class SecretlyDouble(_Base):
    """Gives float64 whatever it gets."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.double() + rng.normal(x).double() * self.sigma


@dataclass(frozen=True)
class WrongGradient(_Base):
    """Offers an exact gradient, but cuts it."""

    def __call__(self, x: Tensor) -> Tensor:
        return (x + rng.normal(x) * self.sigma).detach() + 0 * x


@dataclass(frozen=True)
class LayoutDependent(_Base):
    """Adds noise in the order of memory, not of the elements."""

    def __call__(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(0, self.sigma, x.numel(), dtype=x.dtype)
        return x + ramp.as_strided(x.shape, x.stride())


@dataclass(frozen=True)
class OneNoiseForAllDraws(_Base):
    """Uses its first draw again for every further one."""

    def __call__(self, x: Tensor) -> Tensor:
        noise = rng.normal(x)
        return x + noise[: len(noise) // 2].repeat(2, 1, 1, 1)[: len(x)] * self.sigma
