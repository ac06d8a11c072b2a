"""Networks made by us: the task that trains one, and the network spec that it then is."""

from dataclasses import dataclass, replace
from typing import ClassVar

import safetensors.torch
import torch

from noisychannel import rng
from noisychannel.data import Dataset
from noisychannel.defenses import Defense
from noisychannel.engine.store import Store
from noisychannel.engine.task import Execution, Files, Task, Tick, key_of
from noisychannel.spec import key
from noisychannel.training import Recipe, fit
from noisychannel.types import Network

__all__ = ["Train", "Trained", "named", "ready", "trainings"]


@dataclass(frozen=True)
class Train:
    """Train a network from its initial weights; artifact: `weights.safetensors`."""

    version: ClassVar[int] = 1
    network: Network
    data: Dataset
    recipe: Recipe
    seed: int = 0
    execution: Execution = Execution()

    def needs(self) -> tuple[Task, ...]:
        """Nothing."""
        return ()

    @property
    def work(self) -> float:
        """Forward and backward per image and epoch."""
        return 3.0 * self.recipe.epochs * self.data.size

    def run(self, store: Store, tick: Tick) -> Files:
        """Initial weights and shuffles are named by the seed and the recipe, not by the clock."""
        with rng.root(f"{self.seed}|{key(self.network)}|{key(self.recipe)}"):
            module = fit(
                self.network.build().to(self.execution.device),
                self.data.load().to(self.execution.device),
                self.recipe,
                progress=lambda _epoch, _loss: tick(3.0 * self.data.size),
            )
        state = {name: t.contiguous().cpu() for name, t in module.state_dict().items()}
        return {"weights.safetensors": safetensors.torch.save(state)}


@dataclass(frozen=True)
class Trained:
    """The network that a Train task makes, as a network spec."""

    version: ClassVar[int] = 1
    train: Train

    @property
    def stochastic(self) -> bool:
        """As the network that was trained."""
        return self.train.network.stochastic

    @property
    def keyed(self) -> bool:
        """As the network that was trained."""
        return self.train.network.keyed

    def build(self) -> torch.nn.Module:
        """Not without a store: use `ready`."""
        raise RuntimeError(
            "a trained network is built from its artifact; use ready(network, store)"
        )


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A trained network with its weights read."""

    trained: Trained
    module: torch.nn.Module
    stochastic: bool
    keyed: bool

    def build(self) -> torch.nn.Module:
        return self.module


def ready(defense: Defense, store: Store) -> Defense:
    """The same defense with a trained network's weights read from the store."""
    trained = defense.network
    if not isinstance(trained, Trained):
        return defense
    module = trained.train.network.build()
    module.load_state_dict(
        safetensors.torch.load(store.read(key_of(trained.train), "weights.safetensors"))
    )
    module.eval()
    loaded = _Loaded(trained, module, trained.stochastic, trained.keyed)
    return replace(defense, network=loaded)


def named(defense: Defense) -> Defense:
    """The same defense without a word of the machine that trained its network: what draws are named by."""
    if not isinstance(defense.network, Trained):
        return defense
    return replace(defense, network=Trained(replace(defense.network.train, execution=Execution())))


def trainings(defense: Defense) -> tuple[Task, ...]:
    """The training that a defense's network needs first, if it is ours."""
    return (defense.network.train,) if isinstance(defense.network, Trained) else ()
