"""From a name to a network: trained ones that come with the package, presets to be trained, the hub's."""

from dataclasses import replace
from pathlib import Path
from typing import cast

from noisychannel.defenses import Defense, Operated
from noisychannel.engine import Execution, Measure, Train, Trained
from noisychannel.errors import UserError
from noisychannel.networks import NETWORKS, Checkpoint, imagenet_resnet50
from noisychannel.types import Network
from noisychannel.zoo.presets import PRESETS, Preset

__all__ = [
    "CLEAN_DRAWS",
    "clean_measure",
    "defense",
    "has_weights",
    "network",
    "preset",
    "shelf",
    "train",
    "with_weights",
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
    """The trained network of a preset that comes with the package, or a `hub:` network.

    Raises:
        UserError: no such preset, or it has to be trained first.
    """
    if name.startswith("hub:"):
        return _from_hub(name)
    chosen = preset(name)
    if not has_weights(name):
        raise UserError(
            f"zoo: expected weights of {name!r} in {shelf()}, found none; train them with "
            f"noisychannel train --preset {name} --output {shelf()}"
        )
    return with_weights(chosen.network, shelf() / name / "weights.safetensors")


def defense(name: str) -> Defense:
    """The trained network of a preset behind the channel that it was trained with, if any.

    Raises:
        UserError: as `network`.
    """
    if name.startswith("hub:"):
        return Defense(network(name))
    return Defense(network(name), preset(name).recipe.channel)


def with_weights(spec: Network, file: Path) -> Network:
    """A network spec of ours with stored weights.

    Raises:
        UserError: a stranger's network, whose weights are its own.
    """
    ours: tuple[type, ...] = (Operated, *map(type, NETWORKS))
    if isinstance(spec, ours):
        return replace(cast("Operated", spec), checkpoint=Checkpoint(str(file)))
    raise UserError(f"weights: expected a network of ours, got {type(spec).__name__}")


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
