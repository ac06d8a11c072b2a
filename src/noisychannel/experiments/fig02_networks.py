"""The networks of Figure 2: small ones on digits, the authors' ResNet-20s where they fit, VGG-16s once trained."""

from typing import Literal, NamedTuple

from noisychannel import zoo
from noisychannel.defenses import BandLimited, Defense, Operated, ParamNet, RobustNet, Surgery
from noisychannel.experiments import defended
from noisychannel.experiments.setting import Setting, digits_network
from noisychannel.noise import GaussLaw
from noisychannel.training import Recipe
from noisychannel.types import Network

__all__ = [
    "CODED",
    "DEFENSES",
    "FC",
    "PARAMNETS",
    "PLACED",
    "SIGMAS",
    "UNTRAINED",
    "Member",
    "defense",
    "family",
    "made",
]

Family = Literal["digits", "resnet20", "vgg16"]

FC = "FC 50 %"
UNTRAINED = "RobustNet at test"
"""RobustNet's noise in the plain network, which never saw it: ours, for the abstract's "unless observed"."""
SIGMAS = (0.01, 0.02, 0.07)  # the three of 4.6's text


class Member(NamedTuple):
    """How a network of the figure comes about.

    Args:
        surgery: what it is trained with; None: nothing.
        preset: the zoo's VGG-16 of that kind.
        at_test: the surgery is done to the trained plain network.
        clean: accuracy in percent of the authors' VGG-16 (names of checkpoints), placed as their code does.
    """

    surgery: Surgery | None
    preset: str = ""
    at_test: bool = False
    clean: float | None = None


def _noise(init: float, inner: float, at: int = 0) -> RobustNet:
    """Gauss noise; 0 is none. The authors' VGG gives `init` to its second convolution (1) and `inner` to the image."""
    return RobustNet(
        GaussLaw(init) if init else None, GaussLaw(inner) if inner else None, init_at=at
    )


_PAIRS = ((0.2, 0.1), (0.2, 0.0), (0.3, 0.0), (0.0, 0.1))
_CLEAN_PAIRS = (87.28, 85.53, 76.18, 88.49)
_CLEAN_SIGMAS = (92.64, 89.43, 58.01)

PLACED = ("RobustNet", "0.2 0.0", "0.3 0.0", "0.0 0.1")
"""Noise in the first and in the inner layers as the text says: .2/.1 is the figure's RobustNet."""
CODED = tuple(f"{init:.1f} {inner:.1f} as coded" for init, inner in _PAIRS)
"""The same numbers as the authors' code places them."""
PARAMNETS = tuple(f"ParamNet {s:g} {how}" for how in ("trained", "at test") for s in SIGMAS)

DEFENSES: dict[str, Member] = {
    "Plain": Member(None, "plain", clean=85.23),
    FC: Member(None),
    UNTRAINED: Member(_noise(0.2, 0.1), at_test=True),
    "BandLimited": Member(BandLimited(80, size="authors"), "bandlimited-80", clean=86.03),
    **{
        name: Member(_noise(*pair), f"robustnet-{pair[0]}-{pair[1]}")
        for name, pair in zip(PLACED, _PAIRS, strict=True)
    },
    **{
        name: Member(_noise(*pair, at=1), f"robustnet-authors-{pair[0]}-{pair[1]}", clean=clean)
        for name, pair, clean in zip(CODED, _PAIRS, _CLEAN_PAIRS, strict=True)
    },
    **{
        f"ParamNet {s:g} trained": Member(ParamNet(s), f"paramnet-{s}", clean=clean)
        for s, clean in zip(SIGMAS, _CLEAN_SIGMAS, strict=True)
    },
    **{f"ParamNet {s:g} at test": Member(ParamNet(s, when="test"), at_test=True) for s in SIGMAS},
}
"""All networks of the figure, and FC in front of the plain one."""

# The authors' transforms are of four times the map, and several times as slow: for VGG-16s only, which they trained
# so. A network that was trained in space has no length of its own.
_SHORT = BandLimited(80)

# A dozen networks in half a minute: digits need little more than this, and all but Plain have the same.
_BRIEF = Recipe(epochs=4)


def family(setting: Setting) -> Family:
    """VGG-16s at `paper` scale once the plain one is on the shelf; until then what the authors published."""
    if setting.scale == "smoke":
        return "digits"
    if setting.scale == "paper" and zoo.has_weights("cifar10/vgg16-plain"):
        return "vgg16"
    return "resnet20"


def made(setting: Setting, name: str) -> str:
    """In words, how the network came about."""
    if name == FC:
        return "Plain behind the channel"
    return "Plain, changed at test only" if _late(setting, name) else "trained"


def _late(setting: Setting, name: str) -> bool:
    """Whether the surgery is done to the trained plain network; among ResNet-20s no BandLimited one was trained."""
    return DEFENSES[name].at_test or (name == "BandLimited" and family(setting) == "resnet20")


def defense(setting: Setting, name: str) -> Defense | None:
    """A defense of the figure by its name; None where its network is not trained."""
    found = _network(setting, "Plain" if name == FC else name)
    if found is None:
        return None
    return Defense(found, setting.units.fc(50)) if name == FC else Defense(found)


def _network(setting: Setting, name: str) -> Network | None:
    member, kind = DEFENSES[name], family(setting)
    surgery = _SHORT if name == "BandLimited" and kind != "vgg16" else member.surgery
    if _late(setting, name):
        plain = _network(setting, "Plain")
        assert surgery is not None
        return None if plain is None else Operated(plain, surgery)
    if kind == "vgg16":
        preset = f"cifar10/vgg16-{member.preset}"
        return zoo.network(preset) if zoo.has_weights(preset) else None
    if name == "Plain" or (name == "RobustNet" and kind == "resnet20"):
        return defended.network(setting, name)
    return digits_network(setting.execution, surgery, _BRIEF) if kind == "digits" else None
