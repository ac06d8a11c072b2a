"""What Figures 12 to 16 are made of: attacks on the undefended network, and Jacobians behind Gaussian noise."""

from noisychannel.attacks import CarliniWagner
from noisychannel.channels import Identity
from noisychannel.data import Dataset
from noisychannel.defenses import Defense
from noisychannel.engine import Analyse, Craft
from noisychannel.experiments.setting import Scale, Setting
from noisychannel.measures import Jacobian
from noisychannel.threats import non_adaptive
from noisychannel.types import Attack

__all__ = ["asked_of", "crafts", "default_cw", "jacobian", "jacobians"]


def default_cw(scale: Scale) -> Attack:
    """foolbox's default C&W L2 of the authors: 5 searches of 1,000 steps, c₀ .01, Adam .005.

    Below `paper` scale 100 steps, which Figure 1 asks for too: the attack stops where it stalls.
    """
    steps = 1000 if scale == "paper" else 100
    return CarliniWagner(searches=5, steps=steps, learning_rate=0.005, constant=0.01)


def crafts(setting: Setting, attack: Attack, target_offset: int = 0) -> tuple[Craft, ...]:
    """The attack on the bare network, slice by slice; with an offset towards class (y + offset) mod K."""
    threat = non_adaptive(Defense(setting.network))
    how = setting.execution
    return tuple(
        Craft(part, threat, attack, target_offset, execution=how) for part in setting.parts()
    )


def jacobian(setting: Setting) -> Jacobian:
    """Gradients in the authors' units: with respect to the normalised input, whose unit is a colour's std."""
    return Jacobian(scale=setting.units.std if setting.units.mean else ())


def jacobians(
    setting: Setting, crafted: tuple[Craft, ...] | None, epsilon: float
) -> tuple[Analyse, ...]:
    """Jacobians at clean images (None) or at those of crafts, behind Gaussian noise of the authors' ε (0: none)."""
    channel = setting.units.gauss(epsilon) if epsilon else Identity()
    defense = Defense(setting.network, channel)
    parts = setting.parts()
    made = (None,) * len(parts) if crafted is None else crafted
    return tuple(
        asked_of(setting, part, defense, craft) for part, craft in zip(parts, made, strict=True)
    )


def asked_of(setting: Setting, data: Dataset, defense: Defense, craft: Craft | None) -> Analyse:
    """One Jacobian task."""
    return Analyse(data, defense, jacobian(setting), craft, execution=setting.execution)
