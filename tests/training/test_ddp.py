"""Two processes that share each batch give what one gives, and their progress and errors reach the parent.

The modules are the library's own, since a process that is started anew must import them.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from noisychannel import rng
from noisychannel.data import DataSpec
from noisychannel.defenses import RobustNet
from noisychannel.errors import UserError
from noisychannel.networks import SmallNet
from noisychannel.training import (
    FAST,
    Adversarial,
    Augment,
    Epoch,
    Fitted,
    OneCycle,
    Recipe,
    Watch,
    fit,
)
from noisychannel.types import Batch

PLAIN = Recipe(
    epochs=2, batch_size=32, learning_rate=0.05, augment=Augment(1), freeze_norm=True,
    schedule=OneCycle(), validation=30,
)  # fmt: skip
"""Batch norm is frozen, since each process would have the statistics of its share."""


def digits() -> Batch:
    return DataSpec("digits", "train", "first:350").load()  # 10 steps of 32 with 30 held out


def trained(recipe: Recipe, devices: int, watch: Watch | None = None) -> Fitted:
    module = RobustNet()(SmallNet(width=4).build(), (1, 8, 8))
    with rng.root("two are one"):
        return fit(module, digits(), recipe, watch, devices)


def gap(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def check(recipe: Recipe, tmp_path: Path) -> None:
    ticks: list[int] = []
    told: list[Epoch] = []
    one = trained(recipe, 1)
    watch = Watch(ticks.append, told.append, tmp_path / "scratch", tmp_path / "logs")
    two = trained(recipe, 2, watch)
    assert gap(one.network, two.network) < 1e-5
    begun = RobustNet()(SmallNet(width=4).build(), (1, 8, 8))
    assert gap(one.network, begun) > 1e-2  # 20 steps moved the weights
    assert [e.epoch for e in two.history] == [1, 2]
    for a, b in zip(one.history, two.history, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=1e-5)
        assert (a.rate, a.validation) == (b.rate, b.validation)
    assert told == list(two.history)
    assert ticks == [0] + [32] * 20  # images of all devices
    assert not any(m.training for m in two.network.modules())
    assert (tmp_path / "scratch" / "training.safetensors").is_file()
    assert list((tmp_path / "logs").rglob("events.out.tfevents.*"))
    assert "MASTER_PORT" not in os.environ


def test_two_are_one_adversarial_examples_included(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    check(replace(PLAIN, adversarial=FAST), tmp_path)
    said = capfd.readouterr()
    assert said.out + said.err == ""  # Lightning keeps its greetings to itself


@pytest.mark.slow  # each starts two processes that import torch
@pytest.mark.parametrize("adversarial", [None, Adversarial(steps=2, start_epoch=1)], ids=repr)
def test_two_are_one(adversarial: Adversarial | None, tmp_path: Path) -> None:
    """SGD only: Adam's first update is ± the rate whatever the gradient, so rounding turns signs of tiny ones."""
    check(replace(PLAIN, adversarial=adversarial), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("adversarial", [None, Adversarial(steps=1, start_epoch=0)], ids=repr)
def test_two_with_batch_norm_that_learns(adversarial: Adversarial | None) -> None:
    """Each has its own statistics, all stop where the first one does, and the digits are learnt."""
    recipe = Recipe(epochs=12, batch_size=32, validation=60, stop_at=0.6, adversarial=adversarial)
    fitted = trained(recipe, 2)
    assert fitted.history[-1].validation is not None
    assert fitted.history[-1].validation >= 0.6
    assert all((e.validation or 0) < 0.6 for e in fitted.history[:-1])


@pytest.mark.slow
def test_the_state_of_one_device_is_not_for_two(tmp_path: Path) -> None:
    """Batch norm has other statistics on two; `test_processes.py` says that two go on from their own."""
    trained(PLAIN, 1, Watch(scratch=tmp_path))
    with pytest.raises(UserError, match="of a training with another number of devices; choose"):
        trained(PLAIN, 2, Watch(scratch=tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (Recipe(batch_size=33), "batch_size: expected a multiple of 2 devices, got 33"),
        (Recipe(epochs=3, learning_rate=1e30), "expected a finite loss, got .* in epoch"),
    ],
)
def test_an_error_of_a_process_is_the_parents_sentence(recipe: Recipe, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        trained(recipe, 2)


@pytest.mark.slow
def test_an_error_of_a_listener_is_raised_and_stops_nobody_for_ever() -> None:
    def broken(_examples: int) -> None:
        raise ArithmeticError("a bar that broke")

    with pytest.raises(ArithmeticError, match="a bar that broke"):
        trained(PLAIN, 2, Watch(broken))
