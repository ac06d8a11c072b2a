"""What section R runs on: series, and networks for them with and without noise and adversarial training.

The paper's set, NonInvasiveFetalECGThorax1, is read at scale `paper` from $NOISYCHANNEL_DATA/ucr, where
NonInvasiveFetalECGThorax1_TRAIN.tsv and NonInvasiveFetalECGThorax1_TEST.tsv of the UCR archive (2018) have to lie.
It could not be had here; `desk` has ECG5000 of the same archive, `smoke` a synthetic set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from noisychannel import zoo
from noisychannel.data import ArrayData, Dataset, DataSpec, from_arrays, series_range
from noisychannel.defenses import Operated, RobustNet
from noisychannel.engine import Execution, Train, Trained
from noisychannel.errors import DataError
from noisychannel.experiments.setting import Scale, Setting
from noisychannel.networks import FCN
from noisychannel.noise import GaussLaw
from noisychannel.training import AUTHORS_FCN, Adversarial, OneCycle, Recipe
from noisychannel.types import Network

__all__ = ["MISSING", "NETWORKS", "WORDS", "Ground", "bell", "ground"]

_PAPER = "ucr/NonInvasiveFetalECGThorax1"
_HERE = "ucr/ECG5000"

WORDS: dict[Scale, str] = {
    "smoke": "STAND-IN: synthetic series (cylinder, bell, funnel), small trainings on the spot",
    "desk": "STAND-IN for NonInvasiveFetalECGThorax1, which could not be had: ECG5000 (UCR), FCN",
    "paper": "NonInvasiveFetalECGThorax1 (UCR), FCN",
}
"""Data and network of each scale, as figures and tables say them; the number of series stands before them."""

MISSING: dict[Scale, str] = {
    "smoke": "",
    "desk": "ECG5000_TRAIN.tsv and ECG5000_TEST.tsv (or .tsv.gz) in the folder ucr of $NOISYCHANNEL_DATA",
    "paper": "NonInvasiveFetalECGThorax1_TRAIN.tsv and NonInvasiveFetalECGThorax1_TEST.tsv of the UCR archive "
    "(timeseriesclassification.com) in the folder ucr of $NOISYCHANNEL_DATA",
}
"""What has to be there where a scale is not run."""

NETWORKS = ("Plain", "AdvTrain", "RobustNet", "RobustNetAdv")
"""By the paper's names. Noise .06 on the series, .05 before the other two convolutions, in z-normalised units."""

_NOISE = RobustNet(GaussLaw(0.06), GaussLaw(0.05))
_STRENGTH = 0.04  # L∞ of adversarial training, in z-normalised units


@dataclass(frozen=True)
class Ground:
    """Series, networks, and their unit.

    Args:
        setting: its `data` are the test series, its `network` the plain one.
        networks: by the names of `NETWORKS`; those whose weights are not at hand are not there.
        unit: one unit of z-normalised series in [0, 1].
    """

    setting: Setting
    networks: Mapping[str, Network]
    unit: float


def ground(setting: Setting) -> Ground | None:
    """What a scale runs on; None where its series are not at hand."""
    if setting.scale == "smoke":
        return _smoke(setting)
    name = _HERE if setting.scale == "desk" else _PAPER
    assert isinstance(setting.data, DataSpec)
    test = replace(setting.data, name=name)
    try:
        assert test.size
        low, high = series_range(name)
    except DataError:
        return None
    found = _tuned(setting) if setting.scale == "desk" else _trained(setting, low, high)
    return _ground(setting, test, found, 1 / (high - low))


def _ground(
    setting: Setting, test: Dataset, networks: dict[str, Network], unit: float
) -> Ground | None:
    if "Plain" not in networks:
        return None
    words = WORDS[setting.scale]
    here = replace(setting, data=test, network=networks["Plain"], words=words)
    return Ground(here, networks, unit)


def _attacked(recipe: Recipe, unit: float, start_epoch: int, steps: int = 7) -> Recipe:
    """The recipe with PGD examples of strength .04, steps of .01 as on images."""
    how = Adversarial(steps, _STRENGTH * unit, 0.01 * unit, start_epoch)
    return replace(recipe, adversarial=how)


def _make(setting: Setting, network: Network, data: Dataset, recipe: Recipe) -> Trained:
    how = Execution(setting.execution.device, setting.execution.threads)
    return Trained(Train(network, data, recipe, execution=how))


def _tuned(setting: Setting) -> dict[str, Network]:
    """The zoo's two, and eight epochs of adversarial training of each: minutes of a core, not forty."""
    unit = zoo.preset("ecg5000/plain-fast").network
    assert isinstance(unit, FCN)
    recipe = replace(AUTHORS_FCN, epochs=8, learning_rate=5e-4, schedule=OneCycle())
    tuned = _attacked(recipe, unit.std[0], start_epoch=0)
    out: dict[str, Network] = {}
    for name, shelf in (("Plain", "plain-fast"), ("RobustNet", "robustnet-fast")):
        if zoo.has_weights(f"ecg5000/{shelf}"):
            out[name] = zoo.network(f"ecg5000/{shelf}")
            trained = "AdvTrain" if name == "Plain" else "RobustNetAdv"
            out[trained] = _make(setting, out[name], DataSpec(_HERE, "train"), tuned)
    return out


def _trained(setting: Setting, low: float, high: float) -> dict[str, Network]:
    """The authors' recipe of 1,000 epochs, with and without adversarial examples from the fifth on."""
    data, unit = DataSpec(_PAPER, "train"), 1 / (high - low)
    plain = FCN(data.classes, mean=(-low * unit,), std=(unit,))
    return _four(setting, plain, data, AUTHORS_FCN, _attacked(AUTHORS_FCN, unit, start_epoch=5))


def _four(
    setting: Setting, plain: FCN, data: Dataset, recipe: Recipe, attacked: Recipe
) -> dict[str, Network]:
    random = Operated(plain, _NOISE)
    return {
        "Plain": _make(setting, plain, data, recipe),
        "AdvTrain": _make(setting, plain, data, attacked),
        "RobustNet": _make(setting, random, data, recipe),
        "RobustNetAdv": _make(setting, random, data, attacked),
    }


# z-normalised series lie in −5 … 5, which [0, 1] is the picture of, as `data/series.py` makes it.
_LENGTH, _UNIT = 32, 0.1


def _smoke(setting: Setting) -> Ground | None:
    plain = FCN(3, length=_LENGTH, mean=(0.5,), std=(_UNIT,))
    recipe = replace(AUTHORS_FCN, epochs=6, schedule=OneCycle())
    attacked = _attacked(recipe, _UNIT, start_epoch=2, steps=3)
    four = _four(setting, plain, bell(96, seed=0), recipe, attacked)
    return _ground(setting, bell(30, seed=1), four, _UNIT)


def bell(count: int, seed: int) -> ArrayData:
    """Cylinder, bell and funnel in turn: a plateau, a rise and a fall of random place and height, in noise.

    Args:
        count: series.
        seed: of their draws.

    Source: Saito 1994, section 4. Differs: 1. 32 steps, not 128; noise of half the strength. 2. z-normalised.
    """
    generator = np.random.default_rng(seed)
    y = np.arange(count) % 3
    time = np.arange(_LENGTH)[None]
    start = generator.integers(4, 9, size=count)[:, None]
    end = start + generator.integers(8, 20, size=count)[:, None]
    rise = (time - start) / (end - start)
    shape = np.select([y[:, None] == 0, y[:, None] == 1], [np.ones_like(rise), rise], 1 - rise)
    height = 6 + generator.standard_normal((count, 1))
    x = height * shape * ((time >= start) & (time <= end))
    x = x + generator.standard_normal((count, _LENGTH)) / 2
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    x = (0.5 + _UNIT * x).clip(0, 1).astype(np.float32)
    return from_arrays(x[:, None], y, name="cylinder-bell-funnel")
