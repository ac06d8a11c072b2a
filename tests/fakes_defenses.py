"""Surgeries that lie; each must fail the law that it breaks."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.defenses import operate
from noisychannel.defenses.layers import Altered, Site
from noisychannel.types import Sharing


@dataclass(frozen=True)
class Bend:
    """y = W∗f(x) + b with any function f of (layer, x)."""

    function: Callable[[Altered, Tensor], Tensor]

    def scale(self, site: Site) -> None:
        return

    def __call__(self, layer: Altered, x: Tensor) -> Tensor:
        return layer.affine(self.function(layer, x), layer.weight, layer.bias)


@dataclass(frozen=True)
class _Base:
    """Noise on what every convolution is shown, told truly."""

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    weights: ClassVar[Sharing] = "fixed"
    sigma: float = 0.1
    when: str = "always"

    def identity(self) -> "_Base | None":
        return replace(self, sigma=0.0)

    def bend(self, layer: Altered, x: Tensor) -> Tensor:
        return x + self.sigma * rng.normal(x)

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        return operate(module, lambda _: Bend(self.bend), shape)


@dataclass(frozen=True)
class OnlyInTraining(_Base):
    """Its noise goes with `.eval()`, as RobustNet's did."""

    def bend(self, layer: Altered, x: Tensor) -> Tensor:
        return x + self.sigma * rng.normal(x) if layer.training else x


@dataclass(frozen=True)
class InPlace(_Base):
    """Writes its noise into the caller's images, as RobustNet's first layer did."""

    def bend(self, layer: Altered, x: Tensor) -> Tensor:
        return x.add_(self.sigma * rng.normal(x))


@dataclass(frozen=True)
class BatchCoupled(_Base):
    """Scales its noise by the std of the whole batch, as PNI's inputs did."""

    def bend(self, layer: Altered, x: Tensor) -> Tensor:
        return x + self.sigma * x.std() * rng.normal(x)


@dataclass(frozen=True)
class OneNoiseForAll(_Base):
    """Adds the first example's noise to every example."""

    def bend(self, layer: Altered, x: Tensor) -> Tensor:
        return x + self.sigma * rng.normal(x)[:1]


@dataclass(frozen=True)
class GlobalRandomness(_Base):
    """Draws from torch's global generator, whatever stream is open."""

    def bend(self, layer: Altered, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x)


@dataclass(frozen=True)
class SecretlyRandom(_Base):
    """Random, and says that it is not."""

    stochastic: ClassVar[bool] = False


@dataclass(frozen=True)
class WrongIdentity(_Base):
    """Says that sigma = 0 changes nothing, but takes off a hundredth of the contrast."""

    def bend(self, layer: Altered, x: Tensor) -> Tensor:
        return 0.99 * x + self.sigma * rng.normal(x)


@dataclass(frozen=True)
class SecretlySingle(_Base):
    """Gives float32 whatever the network's own type."""

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        operated = super().__call__(module, shape)
        operated.register_forward_hook(_single)
        return operated


def _single(_module: nn.Module, _given: tuple[Tensor, ...], made: Tensor) -> Tensor:
    return made.float()


@dataclass(frozen=True)
class Prefixed(_Base):
    """Puts a prefix before every name of the state dict."""

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(super().__call__(module, shape))


@dataclass(frozen=True)
class Forgetful(_Base):
    """Leaves out the second convolution."""

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        return operate(module, lambda s: None if s.position == 1 else Bend(self.bend), shape)


@dataclass(frozen=True)
class OnTheOriginal(_Base):
    """Operates on the caller's own network."""

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        operated = super().__call__(module, shape)
        vars(module)["_modules"].update(vars(operated)["_modules"])
        return module


@dataclass(frozen=True)
class Draws(_Base):
    """Leaves torch's generator elsewhere than it was."""

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        torch.rand(1)
        return super().__call__(module, shape)


@dataclass(frozen=True)
class Stale(_Base):
    """Shows the network's names, but answers by a hidden copy that no state dict reaches."""

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        shown = super().__call__(module, shape)
        shown.forward = copy.deepcopy(shown).forward
        return shown
