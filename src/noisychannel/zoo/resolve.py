"""From a name to a network: trained ones that come with the package, presets to be trained, the hub's."""

from dataclasses import replace
from pathlib import Path

from noisychannel.defenses import Defense
from noisychannel.engine import Execution, Measure, Train, Trained
from noisychannel.errors import UserError
from noisychannel.networks import imagenet_resnet50
from noisychannel.training import Steps
from noisychannel.types import Network
from noisychannel.zoo.card import from_card, preset_of
from noisychannel.zoo.presets import PRESETS, Preset

__all__ = [
    "CLEAN_DRAWS",
    "clean_measure",
    "defense",
    "has_weights",
    "network",
    "preset",
    "shelf",
    "shorter",
    "train",
]

CLEAN_DRAWS = {"fixed": 10, "own": 10, "shared": 20}
"""Draws on which a random network's clean accuracy is taken, by whose its weights' draw is: an interval
over shared weights needs more."""


def preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UserError: there is none.
    """
    for one in PRESETS:
        if one.name == name:
            return one
    near = [p.name for p in PRESETS if p.name.partition("/")[0] == name.partition("/")[0]]
    known = ", ".join(near or sorted({p.name.partition("/")[0] + "/…" for p in PRESETS}))
    raise UserError(f"preset: expected one of {known}, got {name!r}; noisychannel list shows all")


def train(chosen: Preset, seed: int = 0, devices: int = 1, how: Execution | None = None) -> Train:
    """The task that trains a preset's network, and before it the one that it begins from."""
    how = how or Execution()
    start = train(preset(chosen.start), seed, devices, how) if chosen.start else None
    return Train(
        chosen.network, chosen.train, chosen.recipe, seed, start, devices=devices, execution=how
    )


def shorter(chosen: Preset, epochs: int) -> Preset:
    """A preset of fewer (or more) epochs for a trial: whatever happens at an epoch happens in proportion.

    Raises:
        UserError: fewer than 1.
    """
    recipe = chosen.recipe

    def scaled(epoch: int) -> int:
        return epoch * epochs // recipe.epochs

    schedule, attacked = recipe.schedule, recipe.adversarial
    if isinstance(schedule, Steps):
        schedule = replace(
            schedule, epochs=tuple(sorted({scaled(e) for e in schedule.epochs} - {0}))
        )
    if attacked is not None:
        attacked = replace(attacked, start_epoch=scaled(attacked.start_epoch))
    changed = replace(recipe, epochs=epochs, schedule=schedule, adversarial=attacked)
    return replace(chosen, recipe=changed)


def clean_measure(task: Train, chosen: Preset) -> Measure:
    """The trained network's answers to the test examples without any attack, behind the channel of its training."""
    how = Execution(task.execution.device, task.execution.threads)
    spec = chosen.network
    draws = CLEAN_DRAWS[spec.weights] if spec.stochastic else 1
    defense = Defense(Trained(task), chosen.recipe.channel)
    return Measure(chosen.test, defense, draws=draws, execution=how)


def shelf() -> Path:
    """The folder of trained networks: in the installed package, or at the root of a clone."""
    inside = Path(__file__).parent / "shelf"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "zoo"


def has_weights(name: str) -> bool:
    """Whether a preset's network comes trained."""
    return (shelf() / name / "weights.safetensors").is_file()


def network(name: str) -> Network:
    """A trained network: one that comes with the package, one that `noisychannel train` made, or a `hub:` one.

    Args:
        name: of a preset, of a folder with `card.json` and `weights.safetensors`, or `hub:owner/name`.

    Raises:
        UserError: no such network, it has to be trained first, or its weights are not those of its card.
    """
    if name.startswith("hub:"):
        return _from_hub(name)
    chosen, folder = _trained(name)
    return from_card(chosen, folder)


def defense(name: str) -> Defense:
    """A trained network behind the channel that it was trained with, if any.

    Raises:
        UserError: as `network`.
    """
    if name.startswith("hub:"):
        return Defense(network(name))
    chosen, folder = _trained(name)
    return Defense(from_card(chosen, folder), chosen.recipe.channel)


def _trained(name: str) -> tuple[Preset, Path]:
    """A preset and the folder with its weights. A preset's name means the shelf before it means a folder."""
    if has_weights(name):
        return preset(name), shelf() / name
    if (Path(name) / "card.json").is_file():
        return preset(preset_of(Path(name))), Path(name)
    if any(name == p.name for p in PRESETS):
        raise UserError(
            f"zoo: expected weights of {name!r} in {shelf()}, found none; train them with "
            f"noisychannel train --preset {name} --output my-zoo, and name my-zoo/{name} then"
        )
    shipped = ", ".join(p.name for p in PRESETS if has_weights(p.name))
    raise UserError(
        f"zoo: expected a network that comes trained ({shipped}) or a folder that noisychannel train "
        f"wrote, with card.json in it, got {name!r}"
    )


def _from_hub(name: str) -> Network:
    """Tensors say nothing of what computes with them, nor of their normalisation: only known ones are taken."""
    for known in (imagenet_resnet50(),):
        assert known.checkpoint is not None
        if name == known.checkpoint.name:
            return known
    raise UserError(
        f"hub: expected hub:timm/resnet50.tv_in1k, whose normalisation is known, got {name!r}; "
        "wrap other networks in a Python file: FILE.py:FUNCTION"
    )
