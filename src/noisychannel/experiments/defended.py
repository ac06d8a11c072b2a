"""The networks of Figures 3, 4 and 10: the paper authors' ResNet-20s, or small ones trained like them on digits."""

from collections.abc import Mapping

import numpy as np

from noisychannel.decision import Decision, Single
from noisychannel.defenses import PNI, RobustNet, Surgery
from noisychannel.errors import CheckpointError
from noisychannel.experiments.setting import Result, Scale, Setting, digits_network
from noisychannel.interop.authors import authors_network
from noisychannel.networks import AUTHORS_NAMES, Checkpoint
from noisychannel.noise import GaussLaw
from noisychannel.report.figure import Series
from noisychannel.report.stats import Estimate, accuracy
from noisychannel.training import Adversarial, Recipe
from noisychannel.types import Network

__all__ = ["NOT_RUN", "WORDS", "at_hand", "curve", "network", "points", "said"]

NOT_RUN = "not run"
"""What stands where a network's weights are not at hand."""

_AUTHORS = "CIFAR-10 test images, the paper authors' own ResNet-20s"
WORDS: dict[Scale, str] = {
    "smoke": "digits (8 × 8, scikit-learn), small networks trained on the spot in the authors' manner",
    "desk": _AUTHORS,
    "paper": _AUTHORS,
}

# The paper's names → the authors' files.
_FILES = {
    "Plain": "cifar10-resnet20-plain",
    "AdvTrain": "cifar10-resnet20-advtrain",
    "PNI-W-Adv": "cifar10-resnet20-pni-w-adv",
    "RobustNet": "cifar10-resnet20-robustnet-0.2-0.1",
    "RobustNetAdv": "cifar10-resnet20-robustnetadv-0.1-0.1",
}

# Few and short: a minute for all networks. Digits stand more than .031: ε and steps are three times the authors'.
_ADVERSARIAL = Recipe(
    epochs=8, adversarial=Adversarial(steps=4, epsilon=0.1, step_size=0.04, start_epoch=2)
)
_SMALL: dict[str, tuple[Surgery | None, Recipe]] = {
    "Plain": (None, Recipe()),
    "AdvTrain": (None, _ADVERSARIAL),
    "PNI-W-Adv": (PNI(), _ADVERSARIAL),
    "RobustNet": (RobustNet(GaussLaw(0.2), GaussLaw(0.1)), Recipe()),
    "RobustNetAdv": (RobustNet(GaussLaw(0.1), GaussLaw(0.1)), _ADVERSARIAL),
}


def network(setting: Setting, name: str) -> Network | None:
    """A network by the paper's name; None where the authors' weights are not at hand.

    Args:
        setting: `smoke` has its own, trained on digits.
        name: `Plain`, `AdvTrain`, `PNI-W-Adv`, `RobustNet` or `RobustNetAdv`.
    """
    if setting.scale == "smoke":
        return digits_network(setting.execution, *_SMALL[name])
    return at_hand(_FILES[name])


def at_hand(file: str) -> Network | None:
    """A network of the authors by its file; None where their weights are not at hand."""
    try:
        Checkpoint(file, AUTHORS_NAMES).path()
    except CheckpointError:
        return None
    return authors_network(file)


def said(result: Result, rule: Decision) -> Estimate:
    """Accuracy under a rule; a deterministic network has one draw, and all rules agree about it."""
    draws = np.unique(result.draws["draw"].to_numpy())
    return accuracy(result.draws, rule if len(draws) > 1 else Single())


def curve(name: str, values: Mapping[float, Estimate]) -> Series:
    """Accuracies in percent by their place on the x axis, with their intervals."""
    xs = tuple(sorted(values))
    ends = ((v.value, v.low, v.high) for v in (values[x] for x in xs))
    middle, low, high = zip(*((100 * a, 100 * b, 100 * c) for a, b, c in ends), strict=True)
    return Series(name, xs, middle, low, high)


def points(difference: Estimate) -> str:
    """A difference of accuracies in percentage points, with its interval."""
    value, low, high = (100 * v for v in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
