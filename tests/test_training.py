"""Training: the same seed gives the same bytes, and the digits are learnt in seconds."""

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.channels import Gauss
from noisychannel.data import DataSpec
from noisychannel.errors import UserError
from noisychannel.networks import SmallNet
from noisychannel.spec import key
from noisychannel.training import Recipe, fit

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
        return fit(make(), DataSpec("digits", "train", "first:300").load(), recipe).state_dict()


def test_same_root_same_bytes() -> None:
    first, second, other = (trained(Noisy, root) for root in ("a", "a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
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
    told: list[tuple[int, float]] = []
    start = time.perf_counter()
    with rng.root("digits"):
        network = fit(
            SmallNet().build(),
            train,
            Recipe(epochs=10),
            progress=lambda *told_now: told.append(told_now),
        )
    assert time.perf_counter() - start < 60  # about 3 s on two idle cores
    with torch.no_grad():
        assert float((network(test.x).argmax(dim=1) == test.y).float().mean()) >= 0.97
    assert [epoch for epoch, _ in told] == list(range(1, 11))
    assert told[-1][1] < 0.1 < told[0][1]


def test_the_network_given_is_untouched() -> None:
    module = SmallNet(width=4).build().requires_grad_(requires_grad=False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    after = fit(module, DataSpec("digits", "train", "first:100").load(), SHORT)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not torch.equal(after.state_dict()["conv1.weight"], before["conv1.weight"])
    assert not any(m.training for m in [*module.modules(), *after.modules()])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Recipe(epochs=0), "epochs: expected a whole number ≥ 1, got 0"),
        (lambda: Recipe(batch_size=1), "batch_size: expected a whole number ≥ 2, got 1"),
        (lambda: Recipe(learning_rate=0.0), "learning_rate: expected a number > 0, got 0.0"),
        (lambda: Recipe(weight_decay=-1.0), "weight_decay: expected a number ≥ 0, got -1.0"),
        (lambda: Recipe(momentum=1.0), "momentum: expected a number in 0 … 1, got 1.0"),
        (lambda: fit(SmallNet().build(), DataSpec("digits", "train", "first:1").load(), SHORT),
         "training examples: expected at least 2, got 1"),
    ],
)  # fmt: skip
def test_bad_numbers(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()
