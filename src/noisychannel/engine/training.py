"""Networks made by us: the task that trains one, and the network spec that it then is."""

import json
from dataclasses import dataclass, replace
from typing import ClassVar

import safetensors.torch
import torch

from noisychannel import rng
from noisychannel.data import Dataset
from noisychannel.defenses import Defense, FixedNetwork, Operated, learnt_scales
from noisychannel.engine.store import Store
from noisychannel.engine.task import Execution, Files, Task, Tick, key_of
from noisychannel.errors import expected
from noisychannel.training import Epoch, Recipe, Watch, fit
from noisychannel.types import Network, Sharing

__all__ = ["Train", "Trained", "history", "named", "ready", "trainings", "untrained"]

_PASSES = 3.0
"""A step costs a forward pass and a backward pass of twice its cost."""


@dataclass(frozen=True)
class Train:
    """Train a network; artifacts: `weights.safetensors`, `history.json`.

    A killed training goes on from the state that it saved last, to the same bytes.

    Args:
        network: what is trained, after surgery or not; it may hold another trained network.
        data: the training examples.
        recipe: how.
        seed: root of all draws; the order of examples and their crops depend on nothing else.
        start: a training whose weights this one begins from; None: the network's own.
        devices: processes that share each batch (Lightning Fabric, DDP).
        execution: threads are those of each process.

    Raises:
        UserError: devices below 1.
    """

    version: ClassVar[int] = 2
    network: Network
    data: Dataset
    recipe: Recipe
    seed: int = 0
    start: "Train | None" = None
    devices: int = 1
    execution: Execution = Execution()

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise expected("devices", "a whole number ≥ 1", self.devices)

    def needs(self) -> tuple[Task, ...]:
        """The trainings that it begins from."""
        begun = () if self.start is None else (self.start,)
        return (*_inside(self.network), *begun)

    @property
    def work(self) -> float:
        """Forward and backward per image and epoch, adversarial examples included."""
        how, recipe = self.recipe.adversarial, self.recipe
        images = _PASSES * recipe.epochs * self.data.size
        if how is None:
            return images
        attacked = max(0, recipe.epochs - how.start_epoch) / recipe.epochs
        share = 1.0 if how.paired else 0.5
        extra = share * (how.steps + (how.labels == "predicted") / 3) + how.paired
        return images * (1 + attacked * extra)

    def run(self, store: Store, tick: Tick) -> Files:
        """Initial weights are named by the network's seed, all else by this one's, nothing by the clock."""
        device, scratch = self.execution.device, store.scratch(key_of(self))
        module = _resolved(self.network, store).build()
        if self.start is not None:
            begun = safetensors.torch.load(store.read(key_of(self.start), "weights.safetensors"))
            _begin_from(module, begun)
        data = self.data.load()
        used = len(data) - self.recipe.validation
        used -= used % min(self.recipe.batch_size, used)  # a rest smaller than a batch is left out
        per_example = self.work / (self.recipe.epochs * used)
        watch = Watch(
            tick=lambda examples: tick(per_example * examples),
            scratch=scratch,
            logs=store.logs(key_of(self)),
        )
        with rng.root(f"training {self.seed}"):
            fitted = fit(module.to(device), data.to(device), self.recipe, watch, self.devices)
        state = {name: t.contiguous().cpu() for name, t in fitted.network.state_dict().items()}
        return {
            "weights.safetensors": safetensors.torch.save(state),
            "history.json": json.dumps([e._asdict() for e in fitted.history], indent=1).encode(),
        }


def _begin_from(module: torch.nn.Module, begun: dict[str, torch.Tensor]) -> None:
    """Load the weights that a training begins from; only learnt noise scales may be new."""
    own = module.state_dict()
    wrong = [n for n in own.keys() & begun.keys() if own[n].shape != begun[n].shape]
    wrong += [*(own.keys() - begun.keys() - learnt_scales(module)), *(begun.keys() - own.keys())]
    if wrong:
        raise expected("start", "a training of the same network", f"another {min(wrong)}")
    module.load_state_dict({**own, **begun})


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

    @property
    def weights(self) -> Sharing:
        """As the network that was trained."""
        return self.train.network.weights

    @property
    def shape(self) -> tuple[int, ...]:
        """As the network that was trained."""
        return self.train.network.shape

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

    @property
    def stochastic(self) -> bool:
        return self.trained.stochastic

    @property
    def keyed(self) -> bool:
        return self.trained.keyed

    @property
    def weights(self) -> Sharing:
        return self.trained.weights

    @property
    def shape(self) -> tuple[int, ...]:
        return self.trained.shape

    def build(self) -> torch.nn.Module:
        return self.module


def ready(defense: Defense, store: Store) -> Defense:
    """The same defense with its trained networks' weights read from the store."""
    return replace(defense, network=_resolved(defense.network, store))


def history(train: Train, store: Store) -> tuple[Epoch, ...]:
    """The epochs of a finished training."""
    return tuple(Epoch(**e) for e in json.loads(store.read(key_of(train), "history.json")))


def named(defense: Defense) -> Defense:
    """The same defense without a word of the machine that trained its network: what draws are named by."""
    return replace(defense, network=_anywhere(defense.network))


def trainings(defense: Defense) -> tuple[Task, ...]:
    """The training that a defense's network needs first, if it is ours."""
    return _inside(defense.network)


def untrained(network: Network) -> Network:
    """The same network before our training: as fast, and built without a store."""
    if isinstance(network, Operated | FixedNetwork):
        return replace(network, network=untrained(network.network))
    return untrained(network.train.network) if isinstance(network, Trained) else network


def _resolved(network: Network, store: Store) -> Network:
    if isinstance(network, Operated | FixedNetwork):
        return replace(network, network=_resolved(network.network, store))
    if not isinstance(network, Trained):
        return network
    module = _resolved(network.train.network, store).build()
    module.load_state_dict(
        safetensors.torch.load(store.read(key_of(network.train), "weights.safetensors"))
    )
    return _Loaded(network, module.eval())


def _anywhere(network: Network) -> Network:
    if isinstance(network, Operated | FixedNetwork):
        return replace(network, network=_anywhere(network.network))
    if not isinstance(network, Trained):
        return network
    return Trained(_unplaced(network.train))


def _unplaced(train: Train) -> Train:
    start = None if train.start is None else _unplaced(train.start)
    network = _anywhere(train.network)
    return replace(train, network=network, start=start, execution=Execution(), devices=1)


def _inside(network: Network) -> tuple[Task, ...]:
    if isinstance(network, Operated | FixedNetwork):
        return _inside(network.network)
    return (network.train,) if isinstance(network, Trained) else ()
