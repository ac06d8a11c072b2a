"""Training: the same seed gives the same bytes, and a recipe's every word is done."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from linear import LinearNetwork
from noisychannel import rng
from noisychannel.channels import CD, FC, Gauss, Identity
from noisychannel.data import DataSpec
from noisychannel.defenses import PNI, RobustNet, Surgery, learnt_scales
from noisychannel.errors import UserError
from noisychannel.networks import SmallNet
from noisychannel.spec import key
from noisychannel.training import FAST, Adversarial, Epoch, Fitted, Recipe, Steps, Watch, fit
from noisychannel.types import Batch, Channel

SHORT = Recipe(epochs=1, batch_size=64)


class Noisy(nn.Module):
    """A network with noise of ours and of torch's, so that both must be named."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.dropout = SmallNet(width=4).build(), nn.Dropout2d(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.dropout(Gauss(0.1)(x)))


def trained(make: Callable[[], nn.Module], root: str, recipe: Recipe = SHORT) -> dict[str, Tensor]:
    torch.manual_seed(int(time.time_ns() % 1000))  # what the process drew before must not matter
    with rng.root(root):
        return fit(
            make(), DataSpec("digits", "train", "first:300").load(), recipe
        ).network.state_dict()


def test_same_root_same_bytes() -> None:
    first, second, other = (trained(Noisy, root) for root in ("a", "a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_number_changes_the_result(optimizer: str) -> None:
    base = Recipe(epochs=2, optimizer=optimizer)  # type: ignore[arg-type]
    others = [
        Recipe(epochs=3, optimizer=optimizer), Recipe(epochs=2, optimizer=optimizer, batch_size=50),
        Recipe(epochs=2, optimizer=optimizer, learning_rate=0.05),
        Recipe(epochs=2, optimizer=optimizer, weight_decay=0.1),
    ]  # fmt: skip
    if optimizer == "sgd":
        others.append(Recipe(epochs=2, momentum=0.5))
    weights = [
        trained(lambda: SmallNet(width=4).build(), "a", recipe)["conv1.weight"]
        for recipe in [base, *others]
    ]
    assert all(not torch.equal(weights[0], other) for other in weights[1:])
    assert len({key(recipe) for recipe in [base, *others]}) == len(others) + 1


def test_digits_are_learnt() -> None:
    train, test = DataSpec("digits", "train").load(), DataSpec("digits", "test").load()
    told: list[Epoch] = []
    start = time.perf_counter()
    with rng.root("digits"):
        network = fit(
            SmallNet().build(),
            train,
            Recipe(epochs=10),
            Watch(epoch=told.append),
        ).network
    assert time.perf_counter() - start < 60  # about 3 s on two idle cores
    with torch.no_grad():
        assert float((network(test.x).argmax(dim=1) == test.y).float().mean()) >= 0.97
    assert [e.epoch for e in told] == list(range(1, 11))
    assert told[-1].loss < 0.1 < told[0].loss


def test_the_network_given_is_untouched() -> None:
    module = SmallNet(width=4).build()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    after = fit(module, DataSpec("digits", "train", "first:100").load(), SHORT).network
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not torch.equal(after.state_dict()["conv1.weight"], before["conv1.weight"])
    assert not any(m.training for m in [*module.modules(), *after.modules()])


# ---------------------------------------------------------------- what a recipe says is done
class Reporting(nn.Module):
    """A network that notes which images it is shown in training mode; their first pixel is their number.

    The first two are shown to ask whether it fits, and are not learnt from.
    """

    shown: list[int] = []  # noqa: RUF012  # of the class: copies of the module report here too

    def __init__(self) -> None:
        super().__init__()
        self.inner = SmallNet(width=4).build()

    def forward(self, x: Tensor) -> Tensor:
        numbers = (x[:, 0, 0, 0] * 1000).round().int().tolist()
        (self.shown if self.training else self.watched).extend(numbers)
        return self.inner(x)

    watched: list[int] = []  # noqa: RUF012


def numbered(n: int) -> Batch:
    batch = DataSpec("digits", "train", f"first:{n}").load()
    batch.x[:, 0, 0, 0] = torch.arange(n) / 1000
    return batch


def test_held_out_examples_are_of_the_training_set_and_never_trained_on() -> None:
    Reporting.shown.clear()
    Reporting.watched.clear()
    fit(Reporting(), numbered(100), Recipe(epochs=3, batch_size=16, validation=20))
    learnt, watched = Counter(Reporting.shown[2:]), Counter(Reporting.watched)
    assert sorted(watched.values()) == [3 * 4] * 20  # four draws of the noise an epoch
    assert sum(learnt.values()) == 3 * 5 * 16
    assert max(learnt.values()) == 3
    assert learnt.keys() | watched.keys() == set(range(100))
    assert not learnt.keys() & watched.keys()


def test_each_epoch_has_its_own_order_and_leaves_a_smaller_rest_out() -> None:
    Reporting.shown.clear()
    fit(Reporting(), numbered(50), Recipe(epochs=2, batch_size=16))
    first, second = Reporting.shown[2:50], Reporting.shown[50:]
    assert len(set(first)) == len(set(second)) == 48
    assert first != second


def test_the_best_epoch_is_kept_as_it_was() -> None:
    """At a rate at which the accuracy jumps, the weights kept are those of a training that ends at the best epoch."""
    base = Recipe(epochs=6, batch_size=32, validation=100, schedule=Steps((7,)), learning_rate=0.6)
    digits = DataSpec("digits", "train", "first:700").load()

    def run(recipe: Recipe) -> Fitted:
        with rng.root("best"):
            return fit(SmallNet(width=4).build(), digits, recipe)

    kept, last = run(replace(base, keep="best")), run(base)
    accuracies = [e.validation or 0.0 for e in kept.history]
    best = accuracies.index(max(accuracies)) + 1
    assert 1 < best < 6  # or this seed shows nothing
    states = [f.network.state_dict() for f in (kept, last, run(replace(base, epochs=best)))]
    assert kept.history == last.history
    assert all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.slow
def test_it_stops_after_the_first_epoch_that_is_good_enough() -> None:
    digits = DataSpec("digits", "train", "first:700").load()
    recipe = Recipe(epochs=12, validation=100, stop_at=0.8)
    with rng.root("stop"):
        done = [e.validation or 0.0 for e in fit(SmallNet(width=8).build(), digits, recipe).history]
    assert 1 < len(done) < 12
    assert done[-1] >= 0.8 > max(done[:-1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("channel", [Identity(), CD(2), FC(50.0)], ids=repr)
def test_smoothing_and_channel_reach_the_loss(smoothing: float, channel: Channel) -> None:
    """−Σₖ qₖ log pₖ(C(x)), q = (1 − s)·e_y + s/K: the loss of the first step, before any update."""
    network = LinearNetwork(shape=(1, 8, 8), classes=10, gain=4.0)
    batch = DataSpec("digits", "train", "first:40").load()
    recipe = Recipe(epochs=1, batch_size=40, label_smoothing=smoothing, channel=channel)
    told = fit(network.build().requires_grad_(True), batch, recipe).history
    q = (1 - smoothing) * functional.one_hot(batch.y, 10) + smoothing / 10
    wanted = -(q * network.build()(channel(batch.x)).log_softmax(dim=1)).sum(dim=1).mean()
    assert told[0].loss == pytest.approx(float(wanted), rel=1e-5)


def test_the_accuracy_held_out_is_seen_through_the_channel() -> None:
    """Of a network that knows black from white, behind a channel that turns every grey image black."""

    class Brightness(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(10.0))

        def forward(self, x: Tensor) -> Tensor:
            bright = self.gain * (x.flatten(1).mean(dim=1) - 0.2)
            return torch.stack([-bright, bright], dim=1)

    batch = Batch(
        torch.full((20, 1, 4, 4), 0.4), torch.ones(20, dtype=torch.long), torch.arange(20)
    )
    recipe = Recipe(epochs=1, batch_size=10, learning_rate=1e-6, validation=10)
    assert fit(Brightness(), batch, recipe).history[0].validation == 1.0
    rounded = fit(Brightness(), batch, replace(recipe, channel=CD(1))).history[0].validation
    assert rounded == 0.0  # one bit: 0.4 becomes 0


class Silent(nn.Module):
    """A network whose loss has no slope."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return 0 * self.inner(x)


@pytest.mark.parametrize(
    "surgery", [PNI("weight"), PNI("input", "channel"), RobustNet(learnt=True)], ids=repr
)
def test_learnt_scales_do_not_decay(surgery: Surgery) -> None:
    """Without a gradient AdamW leaves Π(1 − rate·decay) of each weight, and all of each noise scale."""
    module = Silent(surgery(SmallNet(width=4).build(), (1, 8, 8)))
    recipe = Recipe(epochs=5, batch_size=20, optimizer="adamw", weight_decay=0.3, freeze_norm=True)
    fitted = fit(module, DataSpec("digits", "train", "first:20").load(), recipe)
    left = math.prod(1 - e.rate * 0.3 for e in fitted.history)
    assert left < 0.95
    scales = learnt_scales(module)
    assert scales
    after = dict(fitted.network.named_parameters())
    for name, before in module.named_parameters():
        kept = 1.0 if name in scales else left
        assert torch.allclose(after[name], kept * before, rtol=1e-5, atol=1e-9), name


def test_frozen_norms_keep_their_statistics_and_free_ones_do_not() -> None:
    batch = DataSpec("digits", "train", "first:64").load()
    begun = SmallNet(width=4).build()
    for frozen in (True, False):
        after = fit(begun, batch, Recipe(epochs=1, freeze_norm=frozen)).network
        mean, count = (
            after.state_dict()[f"norm1.{n}"] for n in ("running_mean", "num_batches_tracked")
        )
        assert torch.equal(mean, begun.state_dict()["norm1.running_mean"]) == frozen
        assert int(count) == (0 if frozen else 1)


def test_a_loss_that_is_no_number_is_a_sentence() -> None:
    recipe = Recipe(epochs=3, learning_rate=1e30)
    sentence = (
        "training: expected a finite loss, got (nan|inf) in epoch [123]; lower the learning rate"
    )
    with pytest.raises(UserError, match=sentence):
        fit(SmallNet().build(), DataSpec("digits", "train", "first:200").load(), recipe)


# ---------------------------------------------------------------- refused
@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Recipe(epochs=0), "epochs: expected a whole number ≥ 1, got 0"),
        (lambda: Recipe(batch_size=1), "batch_size: expected a whole number ≥ 2, got 1"),
        (lambda: Recipe(learning_rate=0.0), "learning_rate: expected a number > 0, got 0.0"),
        (lambda: Recipe(weight_decay=-1.0), "weight_decay: expected a number ≥ 0, got -1.0"),
        (lambda: Recipe(epochs=5, adversarial=Adversarial()),
         "start_epoch: expected below the 5 epochs, or no adversarial example is ever made, got 5"),
        (lambda: Recipe(channel=CD(4), adversarial=FAST), "channel: expected none beside adversarial"),
        (lambda: Recipe(momentum=1.0), "momentum: expected a number in 0 … 1, got 1.0"),
        (lambda: Recipe(label_smoothing=1.0), "label_smoothing: expected a number in 0 … 1, got 1.0"),
        (lambda: Recipe(keep="best"),
         "validation: expected examples held out, since keep or stop_at need them, got 0"),
        (lambda: Recipe(stop_at=0.9), "validation: expected examples held out, since keep or stop_at"),
        (lambda: Recipe(validation=10, stop_at=1.5), r"stop_at: expected a number in \(0, 1\], got 1.5"),
        (lambda: fit(SmallNet().build(), DataSpec("digits", "train", "first:9").load(),
                     Recipe(validation=8)),
         "validation: expected at most 7 of 9 examples, got 8"),
        (lambda: fit(SmallNet().build(), DataSpec("digits", "train", "first:1").load(), SHORT),
         "training examples: expected at least 2, got 1"),
    ],
)  # fmt: skip
def test_bad_numbers(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()
