"""What is frozen stays as it is, whatever else is learnt."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from noisychannel import rng
from noisychannel.data import DataSpec
from noisychannel.defenses import PNI, learnt_scales
from noisychannel.errors import UserError
from noisychannel.networks import SmallNet
from noisychannel.training import FAST, Adversarial, Recipe, Watch, fit, loop

BATCH = DataSpec("digits", "train", "first:64").load()
RECIPE = Recipe(epochs=2, batch_size=32, weight_decay=0.3)
FROZEN = ("conv1.weight", "classifier.bias")


def network() -> nn.Module:
    module = SmallNet(width=4).build()
    for name in FROZEN:
        module.get_parameter(name).requires_grad_(False)
    return module


def check(before: nn.Module, after: nn.Module, frozen: tuple[str, ...] = FROZEN) -> None:
    learnt = dict(after.named_parameters())
    for name, p in before.named_parameters():
        assert torch.equal(p, learnt[name]) == (name in frozen), name
        assert p.requires_grad == learnt[name].requires_grad == (name not in frozen), name


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("adversarial", [None, FAST, Adversarial(steps=2, start_epoch=1)], ids=repr)
def test_frozen_parameters_keep_value_and_flag(
    optimizer: str, adversarial: Adversarial | None
) -> None:
    module = network()
    recipe = replace(RECIPE, optimizer=optimizer, adversarial=adversarial)  # type: ignore[arg-type]
    check(module, fit(module, BATCH, recipe).network)
    check(module, fit(module, BATCH, replace(recipe, validation=16, keep="best")).network)


def test_all_but_the_noise_scales_frozen() -> None:
    module = PNI("weight")(SmallNet(width=4).build().requires_grad_(False), (1, 8, 8))
    scales = learnt_scales(module)
    weights = tuple(name for name, _ in module.named_parameters() if name not in scales)
    assert scales
    module.requires_grad_(False)
    for name in scales:
        module.get_parameter(name).requires_grad_(True)
    check(module, fit(module, BATCH, RECIPE).network, weights)


def test_frozen_after_an_interruption_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_SAVE_SECONDS", -1.0)

    def stop(examples: int) -> None:
        ticks.append(examples)
        if len(ticks) > 2:
            raise KeyboardInterrupt

    ticks = list[int]()
    recipe = replace(RECIPE, optimizer="adam")
    with rng.root("frozen"):
        whole = fit(network(), BATCH, recipe).network
        with pytest.raises(KeyboardInterrupt):
            fit(network(), BATCH, recipe, Watch(stop, scratch=tmp_path))
        after = fit(network(), BATCH, recipe, Watch(scratch=tmp_path)).network
    check(network(), after)
    pairs = zip(whole.state_dict().values(), after.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow  # starts two processes that import torch
def test_frozen_on_two_devices() -> None:
    module = network()
    check(module, fit(module, BATCH, replace(RECIPE, adversarial=FAST), devices=2).network)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(
        UserError, match="network: expected parameters to train, got 11, all of them frozen"
    ):
        fit(SmallNet(width=4).build().requires_grad_(False), BATCH, RECIPE)
    with pytest.raises(UserError, match="network: expected parameters to train, got none"):
        fit(nn.Flatten(), BATCH, RECIPE)
