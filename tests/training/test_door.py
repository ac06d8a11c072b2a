"""What does not fit together is one sentence, before the first step; what fits is not changed by being asked."""

import copy
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from noisychannel.channels import Gauss
from noisychannel.data import DataSpec
from noisychannel.errors import UserError
from noisychannel.networks import SmallNet
from noisychannel.training import (
    FAST,
    Adversarial,
    Augment,
    OneCycle,
    Plateau,
    Recipe,
    Steps,
    Watch,
    fit,
)
from noisychannel.types import Batch

INF, NAN = float("inf"), float("nan")
SHORT = Recipe(epochs=2, batch_size=16)


def digits(n: int = 48) -> Batch:
    return DataSpec("digits", "train", f"first:{n}").load()


def given(**changed: Tensor) -> Batch:
    """Digits with something else in them than a batch may hold."""
    batch = digits()
    for name, value in changed.items():
        object.__setattr__(batch, name, value)
    return batch


def linear(classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


@dataclass(frozen=True)
class Third(Gauss):
    """A channel that needs four colours."""

    def __call__(self, x: Tensor) -> Tensor:
        return x[:, 3]


class Telling(nn.Module):
    """Gives something else than logits."""

    def __init__(self, wrong: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner, self.wrong = linear(), wrong

    def forward(self, x: Tensor) -> object:
        return self.wrong(self.inner(x))


# ---------------------------------------------------------------- recipes
def holding(part: object, **wrong: object) -> object:
    """The part with something wrong in it, looked at as when it is made; types are checked before under pytest only."""
    other = copy.copy(part)
    for name, value in wrong.items():
        object.__setattr__(other, name, value)
    other.__post_init__()  # type: ignore[attr-defined]
    return other


@pytest.mark.parametrize(
    ("part", "wrong", "sentence"),
    [
        (Recipe(), {"learning_rate": INF}, "learning_rate: expected a number > 0, got inf"),
        (Recipe(), {"weight_decay": INF}, "weight_decay: expected a number ≥ 0, got inf"),
        (Adversarial(), {"step_size": INF}, "step_size: expected a number > 0, got inf"),
        (Adversarial(), {"epsilon": INF}, "epsilon: expected a number > 0, got inf"),
        (Recipe(), {"learning_rate": NAN}, "learning_rate: expected a number > 0, got nan"),
        (Recipe(), {"learning_rate": "0.1"}, "learning_rate: expected a number > 0, got 0.1"),
        (Recipe(), {"epochs": 2.5}, "epochs: expected a whole number ≥ 1, got 2.5"),
        (Recipe(), {"batch_size": 2.5}, "batch_size: expected a whole number ≥ 2, got 2.5"),
        (Recipe(), {"validation": 1.5}, "validation: expected a whole number ≥ 0, got 1.5"),
        (Recipe(), {"momentum": None}, "momentum: expected a number in 0 … 1, got None"),
        (Recipe(), {"schedule": None}, r"schedule: expected a schedule, such as OneCycle\(\), got None"),
        (Recipe(), {"schedule": OneCycle}, "schedule: expected a schedule, such as .* got <class"),
        (Recipe(), {"channel": "gauss"}, r"channel: expected a channel, such as Gauss\(0.1\), got gauss"),
        (Recipe(), {"channel": Gauss}, "channel: expected a channel, such as .* got <class"),
        (Recipe(), {"augment": True}, r"augment: expected Augment\(\) or None, got True"),
        (Recipe(), {"adversarial": True}, r"adversarial: expected Adversarial\(\) or None, got True"),
        (Adversarial(), {"steps": 1.5}, "steps: expected a whole number ≥ 1, got 1.5"),
        (Adversarial(), {"start_epoch": 0.5}, "start_epoch: expected a whole number ≥ 0"),
        (Adversarial(), {"mix": None}, r"mix: expected a number in \(0, 1\], got None"),
        (Augment(), {"pad": 1.5}, "pad: expected a whole number ≥ 0, got 1.5"),
        (Augment(), {"early_size": 4.5}, "early_size: expected a whole number ≥ 0, got 4.5"),
        (Augment(), {"early_share": "1"}, "early_share: expected a number in 0 … 1, got 1"),
        (Plateau(), {"patience": None}, "patience: expected a whole number ≥ 0, got None"),
        (Steps(), {"epochs": 80}, "epochs of the drops: expected ascending numbers, got 80"),
        (Steps(), {"epochs": ("a", "b")}, "epochs of the drops: expected ascending numbers"),
        (OneCycle(), {"warmup": "0.3"}, r"warmup: expected a number in \(0, 1\), got 0.3"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_numbers_that_are_none(part: object, wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        holding(part, **wrong)


# ---------------------------------------------------------------- network, examples and recipe
@pytest.mark.parametrize(
    ("module", "batch", "recipe", "sentence"),
    [
        (lambda: Telling(lambda z: {"logits": z}), digits, SHORT,
         r"network: expected logits of shape \(2, classes\), got dict; wrap it"),
        (lambda: Telling(lambda z: z[:, 0]), digits, SHORT, r"network: expected logits .* got shape \(2,\)"),
        (lambda: Telling(lambda z: z.detach()), digits, SHORT,
         "network: expected logits that depend on parameters to train, got none that do; remove no_grad"),
        (lambda: linear().half(), digits, SHORT,
         r"network: expected one that takes 2 .*; 1.weight is torch.float16: bring .* as with .float\(\)"),
        (linear, lambda: given(x=torch.zeros(48, 1, 8, 8, dtype=torch.uint8)), SHORT,
         r"images: expected floating-point pixels in \[0, 1\], got torch.uint8; divide"),
        (lambda: linear(5), digits, SHORT,
         "labels: expected 0 … 4, since the network gives 5 logits, got 9; choose a network with as many"),
        (linear, lambda: given(y=digits().y - 1), SHORT, "labels: expected 0 … 9, since .*, got -1"),
        (linear, lambda: given(y=digits().y.float()), SHORT,
         r"labels: expected one whole number per example, got torch.float32 of shape \(48,\)"),
        (linear, lambda: given(y=digits(40).y), SHORT,
         "training examples: expected as many labels and indices as images, got 48 images, 40 labels"),
        (linear, digits, replace(SHORT, augment=Augment(1, early_size=6)),
         r"expected one that takes 2 training images of shape \(1, 6, 6\) .*; windows of early_size need"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 10)), digits,
         replace(SHORT, augment=Augment(1, early_size=6, early_share=0.5)),
         r"network: expected one that takes 2 training images of shape \(1, 8, 8\)"),
        (lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)), digits,
         Recipe(batch_size=2, adversarial=FAST),
         "network: expected one that takes 1 training images .* Expected more than 1 value per channel"),
        (linear, digits, replace(SHORT, channel=Third(0.1)),
         r"recipe: expected augment and channel that take images of shape \(1, 8, 8\), got IndexError"),
    ],
)  # fmt: skip
def test_misfits(
    module: Callable[[], nn.Module], batch: Callable[[], Batch], recipe: Recipe, sentence: str
) -> None:
    ticks = list[int]()
    with pytest.raises(UserError, match=sentence):
        fit(module(), batch(), recipe, Watch(ticks.append))
    assert ticks == []


@pytest.mark.parametrize(
    ("recipe", "devices", "sentence"),
    [
        (Recipe(), 3, "batch_size: expected a multiple of 3 devices, got 64"),
        (Recipe(batch_size=3, adversarial=FAST), 3,
         r"batch_size: expected at least 6, so that each of 3 devices .* \(paired=False\), got 3"),
        (Recipe(validation=79), 2, "validation: expected at most 78 of 80 examples, got 79"),
        (Recipe(), 0, "devices: expected a whole number ≥ 1, got 0"),
    ],
)  # fmt: skip
def test_devices_are_counted_before_any_process_is_started(
    recipe: Recipe, devices: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("a process was started")

    module = importlib.import_module(
        "noisychannel.training.fit"
    )  # the package has a function of its name
    monkeypatch.setattr(module, "train_in_processes", started)
    with pytest.raises(UserError, match=sentence):
        fit(linear(), digits(80), recipe, devices=devices)


# ---------------------------------------------------------------- what fits
def test_being_asked_changes_nothing() -> None:
    """Neither the network given, statistics of batch norm included, nor torch's generator."""
    module = nn.Sequential(nn.Dropout(0.1), SmallNet(width=4).build()).eval()
    before = {name: t.clone() for name, t in module.state_dict().items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    frozen = fit(module, digits(), replace(SHORT, freeze_norm=True, channel=Gauss(0.1))).network
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    assert not any(m.training for m in module.modules())
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(before[f"1.norm1.{name}"], frozen.state_dict()[f"1.norm1.{name}"])
    learning = fit(module, digits(), SHORT).network
    assert int(learning.state_dict()["1.norm1.num_batches_tracked"]) == 2 * 3


# ---------------------------------------------------------------- what is handed over
def test_weights_that_are_no_numbers_are_not_handed_over() -> None:
    """The last step of all blows up, and no loss is computed after it."""
    recipe = Recipe(
        epochs=1, batch_size=330, learning_rate=1e38, weight_decay=100, schedule=Steps((1,))
    )
    with pytest.raises(
        UserError,
        match=r"training: expected finite weights, got others in 1.weight at the end; lower",
    ):
        fit(linear(), digits(330), recipe)


class Masked(nn.Module):
    """Minus infinity in a mask is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()
        self.register_buffer("mask", torch.full((3,), -INF))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_infinity_in_a_mask_is_handed_over() -> None:
    assert fit(Masked(), digits(), SHORT).network.state_dict()["mask"].tolist() == [-INF] * 3


def test_statistics_that_are_no_numbers_are_not_handed_over() -> None:
    module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    module[1].running_var.fill_(INF)  # type: ignore[union-attr, operator]
    with pytest.raises(UserError, match=r"expected finite weights, got others in 1.running_var"):
        fit(module, digits(), SHORT)
