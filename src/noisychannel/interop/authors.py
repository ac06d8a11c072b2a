"""The paper authors' units, turned into ours: their ε, values and percents → channels on pixels in [0, 1].

Their input channels act on normalised images: x_norm = (x − mean)/std per colour. Noise there has
one strength for all colours, so in [0, 1] each colour has its own, strength · std_colour. Our
additive channels have one number: it is taken with the mean of the three stds, which keeps the
expected L2 to 1 % (the root mean square of the three is what would keep it exactly).

Source: bandlimited-cnns @81aaa27f, `robustness/channels/channels_definition.py`, `utils/complex_mask.py`,
`utils/svd2d.py`, `datasets/transformations/denorm_round_norm.py`; details §1, §2.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from noisychannel.channels import CD, FC, SVD, Gauss, Laplace, Uniform
from noisychannel.defenses import AUTHORS_FIRST_BLOCKS, PNI, Operated, RobustNet, Surgery
from noisychannel.errors import expected
from noisychannel.networks import AUTHORS_NAMES, Checkpoint, ResNet20, authors_resnet20
from noisychannel.noise import GaussLaw
from noisychannel.types import Channel, Network

__all__ = [
    "CIFAR10",
    "IMAGENET",
    "AuthorsUnits",
    "authors_network",
    "table1_channels",
    "table3_channels",
]


@dataclass(frozen=True)
class AuthorsUnits:
    """The numbers of a data set on which the authors' strengths rest, and the conversions.

    Args:
        mean: of each colour, pixels in [0, 1]; empty for data sets that they did not use.
        std: of each colour, pixels in [0, 1].
        range: max − min of the normalised pixels as given to foolbox, one number for all colours.
    """

    version: ClassVar[int] = 1
    mean: tuple[float, ...]
    std: tuple[float, float, float]
    range: float

    @property
    def pixel(self) -> float:
        """One unit of normalised space in [0, 1]: the mean of the three stds (CIFAR-10: .2009)."""
        return sum(self.std) / 3

    def gauss(self, epsilon: float) -> Gauss:
        """Their Gauss ε is N(0, s), s = ε/√3 · range in normalised space: not σ = ε, as the paper says."""
        return Gauss(_checked(epsilon) / math.sqrt(3) * self.range * self.pixel)

    def uniform(self, epsilon: float) -> Uniform:
        """Their Uniform ε is U(−w, w), w = ε · range in normalised space."""
        return Uniform(_checked(epsilon) * self.range * self.pixel)

    def laplace(self, epsilon: float) -> Laplace:
        """Their Laplace ε is of scale b = ε/√3 · range in normalised space: √2 × the std of Gauss at that ε."""
        return Laplace(_checked(epsilon) / math.sqrt(3) * self.range * self.pixel)

    def fc(self, percent: float) -> FC:
        """Their mask; FC keeps the mean and is linear, so normalisation does not matter."""
        return FC(percent, mask="authors")

    def cd(self, values: int) -> CD:
        """Their unit is values per colour, rounded in [0, 1]."""
        return CD(values=values)

    def svd(self, percent: float) -> SVD:
        """Truncated around the mean of the data set."""
        return SVD(percent, self.mean)


CIFAR10 = AuthorsUnits((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), 5.5)
"""Bounds −2.6 … 2.9 (since 2019-05-23)."""
IMAGENET = AuthorsUnits((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 4.758)
"""Bounds −2.1179 … 2.64."""


def authors_network(name: str) -> Network:
    """One of the paper authors' ten ResNet-20s in `$NOISYCHANNEL_WEIGHTS`, with the noise that it was trained with.

    Their tensors load through our surgery; inputs in [0, 1], not normalised. In their SVHN networks the
    first block of each stage has Gauss 0.1, whatever the name says.

    Args:
        name: the file's, e.g. `cifar10-resnet20-robustnet-0.2-0.1`.

    Raises:
        UserError: none of the ten.

    Source: details §4; weights/README.
    """
    surgeries: dict[str, Surgery | None] = {
        "cifar10-resnet20-plain": None,
        "cifar10-resnet20-advtrain": None,
        "cifar10-resnet20-pni-w-adv": PNI(),
        "cifar10-resnet20-robustnet-0.2-0.1": RobustNet(GaussLaw(0.2), GaussLaw(0.1)),
        "cifar10-resnet20-robustnetadv-0.1-0.1": RobustNet(GaussLaw(0.1), GaussLaw(0.1)),
        "svhn-resnet20-plain": None,
        "svhn-resnet20-advtrain": None,
        "svhn-resnet20-pni-w-adv": PNI(),
        "svhn-resnet20-robustnet-0.08-0.07": _SVHN_NOISE,
        "svhn-resnet20-robustnetadv-0.08-0.07": _SVHN_NOISE,
    }
    if name not in surgeries:
        raise expected("authors' network", f"one of {', '.join(surgeries)}", repr(name))
    surgery = surgeries[name]
    if surgery is None:
        return authors_resnet20(name)
    return Operated(ResNet20(), surgery, Checkpoint(name, AUTHORS_NAMES))


_SVHN_NOISE = RobustNet(GaussLaw(0.08), GaussLaw(0.07), exceptions=AUTHORS_FIRST_BLOCKS)


def table1_channels(units: AuthorsUnits = CIFAR10) -> dict[str, Channel]:
    """The six channels of the paper's Table 1 (CIFAR-10), by the names of its rows, in our units."""
    return _six(units, gauss=0.03)


def table3_channels() -> dict[str, Channel]:
    """The six channels of the paper's Table 3 (ImageNet), by the names of its rows, in our units."""
    return _six(IMAGENET, gauss=0.04)


def _six(units: AuthorsUnits, *, gauss: float) -> dict[str, Channel]:
    return {
        "FC": units.fc(30),
        "CD": units.cd(16),
        "SVD": units.svd(50),
        "Gauss": units.gauss(gauss),
        "Uniform": units.uniform(0.04),
        "Laplace": units.laplace(0.03),
    }


def _checked(epsilon: float) -> float:
    if not epsilon >= 0:
        raise expected("epsilon", "a number ≥ 0", epsilon)
    return epsilon
