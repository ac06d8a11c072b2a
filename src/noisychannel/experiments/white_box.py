"""What Figures 2 and 3 share: the authors' C&W at a fixed constant, its distances, and accuracy on fresh draws."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from noisychannel.attacks.fixed_constant import FixedConstant, authors_fixed_constant
from noisychannel.data import DataSpec
from noisychannel.decision import Single
from noisychannel.defenses import Defense
from noisychannel.engine import Craft, Measure
from noisychannel.experiments.defended import said
from noisychannel.experiments.setting import Result, Scale, Setting
from noisychannel.report.numbers import mean_of
from noisychannel.report.stats import Estimate, paired_difference
from noisychannel.threats import Threat
from noisychannel.types import Attack, Backward

__all__ = [
    "DRAWS",
    "believing",
    "cw",
    "further",
    "gap",
    "length",
    "measures",
    "on",
    "single",
]

DRAWS = 32
"""Per image of a random network, as in Figure 10. Noisy weights are shared by all images of a pass: fewer than 20
draws would make too narrow an interval."""


def cw(scale: Scale, constant: float) -> FixedConstant:
    """The authors' C&W: 200 iterates of Adam at 1e-3, the last one. Digits take six times the way, in fewer steps."""
    attack = authors_fixed_constant(constant)
    return replace(attack, steps=40, learning_rate=0.03) if scale == "smoke" else attack


def believing(defense: Defense, backward: Backward = "default") -> Threat:
    """Knows the defense whole, one draw per gradient; the last iterate is handed over whatever it is, as theirs."""
    return Threat(defense, backward=backward, selection_draws=0)


def on(setting: Setting, subset: str, name: str = "") -> Setting:
    """The same setting with other images: of another subset, and of another data set if one is named."""
    assert isinstance(setting.data, DataSpec)
    return replace(
        setting, data=replace(setting.data, subset=subset, name=name or setting.data.name)
    )


def measures(
    setting: Setting, defense: Defense, threat: Threat | None, attack: Attack | None
) -> tuple[Measure, ...]:
    """What a defense answers to the setting's images, clean (None) or attacked under the threat."""
    how, draws = setting.execution, DRAWS if defense.stochastic else 1
    return tuple(
        Measure(
            part,
            defense,
            None
            if threat is None or attack is None
            else Craft(part, threat, attack, execution=how),
            draws=draws,
            execution=how,
        )
        for part in setting.parts()
    )


def length(result: Result) -> Estimate:
    """Mean L2 over all images, those included that were wrong before and those that the attack did not turn."""
    if result.examples is None:
        clean = len(np.unique(result.draws["index"].to_numpy()))
        return Estimate(0.0, 0.0, 0.0, clean, "bootstrap")
    return mean_of(result.examples["l2"].to_numpy())


def further(one: Result, other: Result) -> Estimate:
    """Mean L2 of the one less that of the other, image by image."""
    assert one.examples is not None
    assert other.examples is not None
    both = [e.sort_by("index") for e in (one.examples, other.examples)]
    assert both[0]["index"].equals(both[1]["index"])
    return mean_of(both[0]["l2"].to_numpy() - both[1]["l2"].to_numpy())


def single(result: Result) -> Estimate:
    """Accuracy of single answers."""
    return said(result, Single())


def gap(one: Result, other: Result) -> Estimate:
    """Accuracy of the one less that of the other, single answers, on the images that both have."""
    common = np.intersect1d(*(r.draws["index"].to_numpy() for r in (one, other)))
    mine, theirs = (
        r.draws.filter(pa.array(np.isin(r.draws["index"].to_numpy(), common))) for r in (one, other)
    )
    return paired_difference(mine, theirs, Single())
