"""RobustNet: additive noise on what every convolution is shown."""

import re
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from noisychannel.defenses.layers import Altered, Effect, Site
from noisychannel.defenses.surgery import check_matches, check_patterns, operate
from noisychannel.errors import expected
from noisychannel.noise import GaussLaw, NoiseLaw
from noisychannel.types import Sharing

__all__ = ["AUTHORS_FIRST_BLOCKS", "NoisyInput", "RobustNet", "When", "active", "check_when"]

When = Literal["always", "train", "test"]
"""When a defense is random: it says so itself, whatever mode the network is in."""

Placement = tuple[str, NoiseLaw | None]

AUTHORS_FIRST_BLOCKS: tuple[Placement, ...] = ((r"stage\d\.0\.", GaussLaw(0.1)),)
"""In the authors' ResNet-20 the first block of each stage ignores the settings: always Gauss 0.1 (details §4)."""


@dataclass(frozen=True)
class RobustNet:
    """Noise before every convolution: y = W∗(x + ε) + b, ε of law `init` for the image, `inner` for the rest.

    Args:
        init: law of the noise on the image; None: none.
        inner: law of the noise on the input of every other convolution; None: none.
        when: `always`, `train` or `test`.
        learnt: whether each layer learns a factor of its noise, y = W∗(x + α·ε) + b, from α = 1.
        init_at: the convolution, in the order in which they fire, that counts as the image's. The
            authors' VGG gives `init` to its second (1) and `inner` to the image (details §4).
        exceptions: pairs (pattern of layer names, law) that override the two, such as
            `AUTHORS_FIRST_BLOCKS`; with None as law the layer is left as it is.

    Noise is in units of the layer's input: behind a normalising first layer, in normalised pixels.

    Raises:
        UserError: no noise anywhere, a word out of its list, or a placement that no convolution has.

    Source: paper 4.6, Figure 2 D; Liu et al. 2018 (RSE). Section 4.7 says that learnt factors shrink too far.
    """

    version: ClassVar[int] = 1
    init: NoiseLaw | None = GaussLaw(0.2)
    inner: NoiseLaw | None = GaussLaw(0.1)
    when: When = "always"
    learnt: bool = False
    init_at: int = 0
    exceptions: tuple[Placement, ...] = ()

    def __post_init__(self) -> None:
        check_when(self.when)
        for name in ("init", "inner"):
            _check_law(name, getattr(self, name))
        _check_placements(self.exceptions)
        if not self._laws:
            raise expected("init and inner", "a noise law in one of them", "none")
        _check_position(self.init_at)

    @property
    def _laws(self) -> list[NoiseLaw]:
        laws = (self.init, self.inner, *(law for _, law in self.exceptions))
        return [law for law in laws if law is not None]

    @property
    def stochastic(self) -> bool:
        """Whether two equal questions may have different answers."""
        return self.when != "train" and any(law.std > 0 for law in self._laws)

    @property
    def weights(self) -> Sharing:
        """No noise on weights."""
        return "fixed"

    def identity(self) -> "RobustNet":
        """Noise of strength zero, everywhere."""
        silent = GaussLaw(0.0)
        return replace(self, init=silent, inner=silent, exceptions=())

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        """A copy of the network with noisy convolutions."""
        names: list[str] = []

        def choose(site: Site) -> Effect | None:
            names.append(site.name)
            law = self.init if site.position == self.init_at else self.inner
            for pattern, other in self.exceptions:
                if re.match(pattern, site.name):
                    law = other
                    break
            return None if law is None else NoisyInput(law, self.when, self.learnt)

        # A layer without noise need not be one that can be operated.
        skip = tuple(pattern for pattern, law in self.exceptions if law is None)
        noisy = operate(module, choose, shape, skip=skip)
        if self.init is not None and self.init_at >= len(names):
            raise expected("init_at", f"one of the {len(names)} convolutions, from 0", self.init_at)
        patterns = tuple(pattern for pattern, law in self.exceptions if law is not None)
        check_matches("exceptions", patterns, names)
        return noisy


@dataclass(frozen=True)
class NoisyInput:
    """y = W∗(x + α·ε) + b, α = 1 unless learnt."""

    law: NoiseLaw
    when: When
    learnt: bool

    def scale(self, site: Site) -> tuple[str, Tensor] | None:
        """α, one number per layer."""
        return ("alpha_i", torch.ones(1)) if self.learnt else None

    def __call__(self, layer: Altered, x: Tensor) -> Tensor:
        if not (active(self.when, training=layer.training) and self.law.std > 0):
            return layer.affine(x, layer.weight, layer.bias)
        noise = self.law.sample(x)
        if self.learnt:
            alpha: Tensor = getattr(layer, "alpha_i")  # noqa: B009  # under ParamNet it is not a Parameter
            noise = noise * alpha
        return layer.affine(x + noise, layer.weight, layer.bias)


def _check_position(value: object) -> None:
    if not (isinstance(value, int) and value >= 0):
        raise expected("init_at", "a whole number ≥ 0", repr(value))


def _check_law(name: str, law: object) -> None:
    if law is not None and not isinstance(law, NoiseLaw):
        raise expected(name, "a noise law such as GaussLaw(0.2), or None", repr(law))


def _check_placements(exceptions: object) -> None:
    """Refuse what is not a tuple of pairs (pattern, law or None)."""
    pair = '(("stem", GaussLaw(0.1)),)'
    if not isinstance(exceptions, tuple):
        raise expected("exceptions", f"a tuple of pairs such as {pair}", repr(exceptions))
    for item in exceptions:  # pyright: ignore[reportUnknownVariableType]
        if not (isinstance(item, tuple) and len(item) == 2):  # pyright: ignore[reportUnknownArgumentType]
            raise expected("exceptions", f"a tuple of pairs such as {pair}", repr(exceptions))  # pyright: ignore[reportUnknownArgumentType]
        check_patterns("exceptions", item[:1])
        _check_law("exceptions", item[1])  # pyright: ignore[reportUnknownArgumentType]


def active(when: When, *, training: bool) -> bool:
    """Whether noise of this kind is on."""
    return when == "always" or (when == "train") == training


def check_when(when: str) -> None:
    """Refuse other words."""
    if when not in ("always", "train", "test"):
        raise expected("when", "always, train or test", repr(when))
