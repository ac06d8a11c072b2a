"""The panels of Figure 18: for each attack its strengths, how many images, and which networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from noisychannel.attacks import (
    FGSM,
    AdditiveNoise,
    ContrastReduction,
    LocalSearch,
    MultiplePixels,
    SinglePixel,
    Spatial,
)
from noisychannel.channels import Gauss
from noisychannel.experiments.fig18_networks import PLAIN
from noisychannel.experiments.setting import Scale, Setting
from noisychannel.norms import Linf
from noisychannel.types import Attack

__all__ = ["PANELS", "PanelSpec", "noise", "strengths"]

# The order in which names appear decides colours: neighbours of one panel should not share one of the seven.
_NOISE = (PLAIN, "0 %", "50 %", "85 % at test", "RPA at test", "85 %", "50 % at test",
          "RPA", "early stopping")  # fmt: skip
_SPATIAL = (PLAIN, "0 %", "85 %", "CD 2", "CD 32", "50 % at test", "CD 8 at test")
# The paper's two; band limiting at test only beside them.
_TWO = (PLAIN, "0 %", "85 %", "50 % at test")


@dataclass(frozen=True)
class PanelSpec:
    """One attack and what it is tried on.

    Args:
        name: in places and claims.
        title: above the axes.
        x_label: of the strength, with the unit.
        where: the paper's section.
        networks: by name; those that a scale has none of are left out there.
        images: the first so many of the setting's.
        strengths: above 0, which is no attack.
        aim: `blind`: the attack sees no answer, so its images are made once and shown to all networks; `aimed`:
            made against each network with its channel; `noise`: no attack but noise before the channel.
        attack: strength → attack; None: Gaussian noise.
        log_x: strengths span decades: no attack is in the table, not on the axis.
    """

    name: str
    title: str
    x_label: str
    where: str
    networks: tuple[str, ...]
    images: Mapping[Scale, int]
    strengths: Mapping[Scale, tuple[float, ...]]
    aim: Literal["blind", "aimed", "noise"]
    attack: Callable[[Setting, float], Attack] | None
    log_x: bool = False


def noise(setting: Setting, sigma: float) -> Gauss:
    """Their N(0, σ) in normalised space, on pixels in [0, 1]; not clipped, as theirs."""
    return Gauss(sigma * setting.units.pixel)


def strengths(panel: PanelSpec, scale: Scale) -> tuple[float, ...]:
    """The columns of the table, few enough to be read: those of `desk` at `paper` too, where it has them."""
    mine = panel.strengths[scale]
    return (
        tuple(s for s in panel.strengths["desk"] if s in mine) or mine if scale == "paper" else mine
    )


def _span(setting: Setting) -> float:
    """Max − min of the bounds that the authors give to foolbox, on pixels in [0, 1]: 1.1."""
    return setting.units.range * setting.units.pixel


def _uniform(setting: Setting, epsilon: float) -> Attack:
    # foolbox 1 multiplies by ε twice: the amplitude is ε²·span.
    return AdditiveNoise("uniform", Linf(), epsilon * _span(setting) ** 0.5, squared=True)


def _contrast(_setting: Setting, share: float) -> Attack:
    # The middle of their bounds is .50 too.
    return ContrastReduction(share)


def _fgsm(setting: Setting, epsilon: float) -> Attack:
    return FGSM(Linf(), epsilon * _span(setting))


def _pixels(_setting: Setting, count: float) -> Attack:
    return MultiplePixels(int(count), trials=1)


def _single(_setting: Setting, places: float) -> Attack:
    return SinglePixel(int(places))


def _rotation(_setting: Setting, angle: float) -> Attack:
    # foolbox's grid of 10 along whatever moves.
    return Spatial(angle, 0.0, angles=10, shifts=1)


def _translation(_setting: Setting, pixels: float) -> Attack:
    return Spatial(0.0, pixels, angles=1, shifts=10)


# Rounds, and pixels probed in each: foolbox's 150 of 128 are up to 19,351 questions an image, 60 of 20 are 1,261. Ten
# rounds of 128 broke one of 20 images; what counts is how many pixels are moved in all.
_ROUNDS: Mapping[Scale, tuple[int, int]] = {
    "smoke": (10, 10),
    "desk": (60, 20),
    "paper": (150, 128),
}


def _local(setting: Setting, pixels: float) -> Attack:
    rounds, probed = _ROUNDS[setting.scale]
    return LocalSearch(int(pixels), rounds=rounds, most=probed)


def _grid(start: float, stop: float, count: int) -> tuple[float, ...]:
    """Evenly spaced, both ends included, without the dust of floating point."""
    return tuple(round(start + (stop - start) * i / (count - 1), 6) for i in range(count))


_TENTHS = _grid(0.1, 1.0, 10)
# A forward pass per image, network and strength; what is made, is made once.
_MANY: Mapping[Scale, int] = {"smoke": 200, "desk": 1000, "paper": 10000}
_THOUSAND: Mapping[Scale, int] = {"smoke": 200, "desk": 1000, "paper": 1000}

PANELS: tuple[PanelSpec, ...] = (
    PanelSpec("gauss", "Gaussian noise", "σ, normalised pixels", "Q.1.1", _NOISE, _MANY,
              {"smoke": (0.3, 0.5, 1.0, 2.0), "desk": (0.1, 0.3, 0.5, 0.7, 1.0, 2.0),
               "paper": _grid(0.1, 2.0, 20)}, "noise", None),
    PanelSpec("uniform", "Additive uniform noise", "ε; the amplitude is ε²·range", "Q.1.1", _NOISE, _MANY,
              {"smoke": (0.3, 0.5, 0.6, 1.0), "desk": (0.2, 0.3, 0.4, 0.5, 0.6, 1.0), "paper": _TENTHS},
              "blind", _uniform),
    PanelSpec("contrast-cd", "Contrast reduction: colour depth", "share of grey", "Q.1.2",
              (PLAIN, "0 %", "CD 2 at test", "CD 32 at test", "CD 2", "CD 8 at test", "CD 32"), _THOUSAND,
              {"smoke": (0.4, 0.7, 0.8, 0.9), "desk": (0.4, 0.7, 0.8, 0.9, 1.0), "paper": _TENTHS},
              "blind", _contrast),
    PanelSpec("contrast", "Contrast reduction: filters", "share of grey", "Q.1.2",
              (PLAIN, "0 %", "85 %", "high-pass", "50 % at test", "high-pass at test"), _THOUSAND,
              {"smoke": (0.4, 0.7, 0.8, 0.9), "desk": (0.4, 0.7, 0.8, 0.9, 1.0), "paper": _TENTHS},
              "blind", _contrast),
    # Made against each network: seven passes an image and strength, of which band limiting's cost four times as much.
    # A tenth of the pixels is 6 of 64 and 100 of 1,024: what a claim compares at.
    PanelSpec("pixels", "Multiple pixels", "pixels set to black or white", "Q.1.3", _TWO,
              {"smoke": 100, "desk": 300, "paper": 10000},
              {"smoke": (1, 6, 20, 50), "desk": (10, 30, 100, 300, 1000), "paper": _grid(10, 1000, 100)},
              "aimed", _pixels, log_x=True),
    # Two questions per place, and no curve in the paper: of its 1,000 places a tenth on a desk.
    PanelSpec("single", "Single pixel", "places tried", "Q.1.3", (PLAIN, "0 %"),
              {"smoke": 100, "desk": 100, "paper": 1000},
              {"smoke": (64,), "desk": (100,), "paper": (1000,)}, "aimed", _single),
    # Eleven questions at most; of translations a hundred and one, so fewer images of those.
    PanelSpec("rotation", "Rotation", "largest angle (degrees)", "Q.2", _SPATIAL,
              {"smoke": 100, "desk": 300, "paper": 200},
              {"smoke": (5, 10, 20), "desk": (5, 10, 20), "paper": _grid(1, 20, 20)}, "aimed", _rotation),
    PanelSpec("translation", "Translation", "largest shift (pixels)", "Q.2", _SPATIAL,
              {"smoke": 60, "desk": 100, "paper": 200},
              {"smoke": (1, 2), "desk": (2, 4, 8), "paper": _grid(1, 20, 20)}, "aimed", _translation),
    # A thousand questions: the paper's two networks alone.
    PanelSpec("local", "Local search", "pixels moved per round", "Q.3.1", (PLAIN, "0 %", "85 %"),
              {"smoke": 20, "desk": 30, "paper": 100},
              {"smoke": (1, 5), "desk": (1, 5, 21), "paper": _grid(1, 21, 21)}, "aimed", _local),
    PanelSpec("fgsm", "FGSM (not in the paper's figure)", "ε, of the range", "–", _TWO,
              {"smoke": 100, "desk": 200, "paper": 1000},
              {"smoke": (0.05, 0.1, 0.2), "desk": (0.001, 0.01, 0.03, 0.1),
               "paper": (*_grid(0.001, 0.009, 9), *_grid(0.01, 0.2, 20))}, "aimed", _fgsm, log_x=True),
)  # fmt: skip
"""In the order of section Q."""
