"""Foretold times: each network has a rate of its own, from its finished tasks, else from a trial of it."""

import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from linear import FixedNetwork, LinearNetwork
from noisychannel.attacks import PGD
from noisychannel.data import DataSpec
from noisychannel.defenses import Defense, Operated, ParamNet
from noisychannel.engine import (
    Craft,
    Execution,
    Measure,
    Store,
    Task,
    Train,
    Trained,
    key_of,
    pace,
    plan,
)
from noisychannel.networks import FCN, SmallNet
from noisychannel.norms import L2
from noisychannel.spec import canonical
from noisychannel.threats import non_adaptive
from noisychannel.training import Recipe
from noisychannel.types import Network

MODULE = importlib.import_module("noisychannel.engine.pace")  # the package's `pace` is the function
DATA = DataSpec("digits", subset="first:20")
FAST, SLOW = (LinearNetwork(shape=(1, 8, 8), classes=10, gain=g) for g in (1.0, 2.0))
HOW = Execution(threads=1)


def measure(network: Network, draws: int = 1) -> Measure:
    return Measure(DATA, Defense(network), draws=draws, execution=HOW)


def finished(root: Path, seconds: dict[str, tuple[Task, float]]) -> Store:
    store = Store(root)
    for task, took in seconds.values():
        store.put(key_of(task), {"x": b""}, canonical(task), {"seconds": took})
    return store


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> list[Network]:
    """No second is spent: a trial says 50 passes per second, and is written down."""
    tried: list[Network] = []
    monkeypatch.setattr(MODULE, "_trial", lambda network, _: tried.append(network) or 50.0)
    return tried


def test_each_network_has_its_own_rate(tmp_path: Path, untried: list[Network]) -> None:
    """100 passes/s and 10: 2,000 passes of each that are left take 20 s and 200 s, 18 passes/s over all."""
    done = {"fast": (measure(FAST, 500), 100.0), "slow": (measure(SLOW, 50), 100.0)}
    store = finished(tmp_path, done)
    left = [measure(FAST, 100), measure(SLOW, 100)]
    found = pace(plan([*left, *(t for t, _ in done.values())]), store)
    assert [found.seconds([t]) for t in left] == pytest.approx([20, 200])
    assert found.seconds(left) == pytest.approx(220)
    assert found.rate == pytest.approx(4000 / 220)
    assert found.source == "measured network by network: 2 on finished tasks"
    assert untried == []


def test_what_was_not_made_is_tried_once(tmp_path: Path, untried: list[Network]) -> None:
    """Twenty seconds and less are start-up: they do not count. A network is tried before its training too."""
    train = Train(SmallNet(width=2), DATA, Recipe(epochs=1, batch_size=20), execution=HOW)
    store = finished(
        tmp_path, {"fast": (measure(FAST, 500), 100.0), "slow": (measure(SLOW, 50), 20.0)}
    )
    craft = Craft(DATA, non_adaptive(Defense(SLOW)), PGD(L2(), steps=5), execution=HOW)
    trained = measure(Operated(Trained(train), ParamNet(0.1)))
    whole = plan([measure(n, d) for n in (FAST, SLOW) for d in (50, 500)] + [craft, trained])
    found = pace(whole, store)
    surgery = Operated(train.network, ParamNet(0.1))
    assert untried == [SLOW, train.network, surgery]
    assert found.seconds([craft]) == pytest.approx(craft.work / 50)
    assert found.source == (
        "measured network by network: 1 on finished tasks, 3 for a second; attacks that end early take less"
    )
    left = whole.todo(store)
    assert found.seconds(left.tasks) == pytest.approx(left.work / found.rate)


def test_training_is_a_kind_of_its_own(tmp_path: Path, untried: list[Network]) -> None:
    recipe = Recipe(epochs=100, batch_size=20)
    first, second = (Train(SmallNet(width=2), DATA, recipe, seed, execution=HOW) for seed in (0, 1))
    store = finished(tmp_path, {"first": (first, 100.0)})
    asked = [measure(Trained(t)) for t in (first, second)]
    found = pace(plan(asked), store)
    assert found.seconds([second]) == pytest.approx(100)
    assert found.seconds(asked) == pytest.approx(40 / 50)
    assert untried == [SmallNet(width=2)]  # both are as fast as it


def test_nothing_is_left(tmp_path: Path, untried: list[Network]) -> None:
    store = finished(tmp_path, {"fast": (measure(FAST, 5), 2.0)})
    found = pace(plan([measure(FAST, 5)]), store)
    assert found[:2] == (50.0, "measured on 1 finished tasks")
    assert pace(plan([]), store).rate > 0
    assert untried == []


class Silent(nn.Module):
    """No gradient goes through it."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.detach().flatten(1) > 0.5).float()


class Constant(nn.Module):
    """A gradient goes through it, but not to the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight.expand(len(x), 10)


@dataclass(frozen=True)
class Blunt(FixedNetwork):
    """A network that tells attacks nothing."""

    shape: ClassVar[tuple[int, ...]] = (1, 8, 8)
    silent: bool

    def build(self) -> nn.Module:
        return (Silent() if self.silent else Constant()).eval()


@pytest.mark.parametrize(
    "network",
    [
        Operated(SmallNet(width=2), ParamNet(0.1)),
        FCN(),
        Blunt(silent=True),
        Blunt(silent=False),
    ],
    ids=["random", "series", "no gradient", "no gradient of the image"],
)
def test_every_network_can_be_tried(network: Network, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    task = replace(measure(FAST), defense=Defense(network))
    found = pace(plan([task]), Store(tmp_path))
    assert found.rate > 0
    assert found.source.startswith("measured network by network: 1 for a second")
    assert torch.equal(torch.get_rng_state(), state)
