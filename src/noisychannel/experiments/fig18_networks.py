"""The networks of Figure 18: trained with a compression inside, and a plain one that gets it at test only."""

from collections.abc import Mapping

from noisychannel import zoo
from noisychannel.channels import CD, Identity
from noisychannel.defenses import BandLimited, Defense, HalfPrecision, Operated, Surgery
from noisychannel.experiments.high_pass import HighPass
from noisychannel.experiments.setting import Setting, digits_network
from noisychannel.networks import SmallNet
from noisychannel.training import Recipe
from noisychannel.types import Channel

__all__ = ["AT_TEST", "PLAIN", "TRAINED", "at_hand", "opponent"]

PLAIN = "plain"
"""The setting's network: the authors' ResNet-20, or a small one on digits."""

# The drop of 1 % is of what counts as low: the mean and the first frequency along each side of 32 pixels.
_HIGH_PASS = HighPass(1.0)

# Surgery or channel on `plain`, which was trained without. FFTs of the shortest length: the authors' are of four
# times the map, several times as slow, and the network was trained with neither.
AT_TEST: Mapping[str, Surgery | Channel] = {
    "50 % at test": BandLimited(50),
    "85 % at test": BandLimited(85),
    "RPA at test": HalfPrecision(),
    "CD 2 at test": CD(values=2),
    "CD 8 at test": CD(values=8),
    "CD 32 at test": CD(values=32),
    "high-pass at test": _HIGH_PASS,
}

# The paper's names → presets of ResNet-18s like the authors', behind the channel of their training if any.
TRAINED: Mapping[str, str] = {
    "0 %": "cifar10/resnet18-plain",
    "50 %": "cifar10/resnet18-bandlimited-50",
    "85 %": "cifar10/resnet18-bandlimited-85",
    "RPA": "cifar10/resnet18-rpa",
    "early stopping": "cifar10/resnet18-early",
    "CD 2": "cifar10/resnet18-cd-2",
    "CD 32": "cifar10/resnet18-cd-32",
}

# What is trained on digits on the spot, all alike: narrow and for few epochs, since by FFT it takes four times as long.
_NARROW, _EPOCHS = SmallNet(width=16), 5
_SMALL: Mapping[str, tuple[Surgery | None, Channel]] = {
    "0 %": (None, Identity()),
    "50 %": (BandLimited(50), Identity()),
    "85 %": (BandLimited(85), Identity()),
    "CD 2": (None, CD(values=2)),
    "high-pass": (None, _HIGH_PASS),
}


def at_hand(setting: Setting, name: str) -> Defense | None:
    """A network by its name, behind its channel if it has one; None where it was not trained."""
    if name == PLAIN:
        return Defense(setting.network)
    if (change := AT_TEST.get(name)) is not None:
        if isinstance(change, Surgery):
            return Defense(Operated(setting.network, change))
        return Defense(setting.network, change)
    if setting.scale == "smoke":
        if name not in _SMALL:
            return None
        surgery, channel = _SMALL[name]
        recipe = Recipe(_EPOCHS, channel=channel)
        return Defense(digits_network(setting.execution, surgery, recipe, _NARROW), channel)
    preset = TRAINED.get(name)
    return zoo.defense(preset) if preset is not None and zoo.has_weights(preset) else None


def opponent(name: str) -> str:
    """The network without compression that this one is compared with: of its own kind and training."""
    return PLAIN if name == PLAIN or name in AT_TEST else "0 %"
