"""Adversarial examples within training: closed forms on a linear network, and nothing left behind."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from linear import LinearNetwork
from noisychannel import rng
from noisychannel.defenses import RobustNet
from noisychannel.errors import UserError
from noisychannel.networks import SmallNet
from noisychannel.training import FAST, Adversarial, Epoch, Recipe, Watch, fit, loop
from noisychannel.training.adversarial import craft
from noisychannel.types import Batch

EPSILON = 0.05


def stream(n: int, step: int = 0) -> rng.Stream:
    return rng.Stream("train", torch.arange(n), step=step, part="adversarial")


def small(seed: int = 0) -> nn.Module:
    """A network with batch norm, in training mode but for one layer, one parameter of it frozen."""
    module = SmallNet(width=4, seed=seed).build().train().requires_grad_(True)
    module.get_submodule("norm2").eval()
    module.get_parameter("conv1.weight").requires_grad_(False)
    return module


def pictures(n: int = 12) -> Batch:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(x, torch.arange(n) % 10, torch.arange(n))


def cross_entropies(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return functional.cross_entropy(module(x), y, reduction="none")


def start(x: Tensor, epsilon: float) -> Tensor:
    """The random start of `craft` on this stream, before its first step."""
    noise = rng.uniform(x, stream(len(x)).named("start"))
    return (x + epsilon * (2 * noise - 1)).clamp(0, 1)


# ---------------------------------------------------------------- what is found
@pytest.mark.parametrize("how", [Adversarial(epsilon=EPSILON, step_size=0.02), FAST], ids=repr)
def test_examples_stay_in_the_ball_and_are_images(how: Adversarial) -> None:
    given = pictures()
    x = given.x.clone()
    x[0], x[1] = 0.0, 1.0  # black and white, at the edges of the box
    found = craft(small(), x, given.y, how, stream(12))
    assert float((found - x).abs().max()) <= how.epsilon * (1 + 1e-5)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert float((found - x).flatten(1).abs().amax(dim=1).min()) > 0.9 * how.epsilon  # and use it


@pytest.mark.parametrize("classes", [2, 5])
def test_one_step_on_a_linear_network_is_the_closed_form(classes: int) -> None:
    """∇ₓ CE(Wx + b, y) = Wᵀ(softmax(Wx + b) − e_y)."""
    network = LinearNetwork(shape=(1, 6, 6), classes=classes, gain=3.0)
    given, w = network.batch(), network.weight()
    module = network.build()
    y = (given.y + 1) % classes
    how = Adversarial(steps=1, epsilon=EPSILON, step_size=0.7 * EPSILON, labels="true")
    begun = start(given.x, EPSILON)
    probabilities = module(begun).softmax(dim=1)
    gradient = ((probabilities - functional.one_hot(y, classes)) @ w).reshape(begun.shape)
    moved = begun + how.step_size * gradient.sign()
    wanted = torch.maximum(torch.minimum(moved, given.x + EPSILON), given.x - EPSILON).clamp(0, 1)
    found = craft(module, given.x, y, how, stream(16))
    # Where the gradient is so small that rounding may turn its sign, either sign is right.
    clear = gradient.abs() > 1e-5
    assert float(clear.float().mean()) > 0.99
    assert torch.allclose(found[clear], wanted[clear], atol=1e-6)


def test_many_steps_on_two_classes_reach_the_optimum() -> None:
    """Of two classes the worst point of the ball is its corner x − ε·sign(w_y − w_other)."""
    network = LinearNetwork(shape=(1, 6, 6), classes=2, gain=3.0)
    given, w = network.batch(), network.weight()
    how = Adversarial(steps=7, epsilon=EPSILON, step_size=EPSILON / 3)
    found = craft(network.build(), given.x, given.y, how, stream(16))
    wanted = given.x - EPSILON * (w[given.y] - w[1 - given.y]).sign().reshape(given.x.shape)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_the_loss_of_the_network_as_it_stands_rises() -> None:
    module, given = small().eval(), pictures()
    begun = start(given.x, EPSILON)
    before = cross_entropies(module, begun, given.y)
    found = craft(module, given.x, given.y, Adversarial(epsilon=EPSILON, labels="true"), stream(12))
    assert bool((cross_entropies(module, found, given.y) > before).all())


def test_predicted_labels_leak_nothing_and_true_ones_count() -> None:
    module, given = small().eval(), pictures()
    predicted = module(given.x).argmax(dim=1)
    other = (given.y + 1) % 10
    by = {
        (labels, name): craft(module, given.x, y, Adversarial(labels=labels), stream(12))
        for labels in ("predicted", "true")
        for name, y in (("own", given.y), ("other", other), ("predicted", predicted))
    }
    assert torch.equal(by["predicted", "own"], by["predicted", "other"])
    assert torch.equal(by["predicted", "own"], by["true", "predicted"])
    assert not torch.equal(by["true", "own"], by["true", "other"])


# ---------------------------------------------------------------- what is left behind
class Fails(nn.Module):
    """Batch norm and dropout, and an error at the forward pass of a given number."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.inner, self.drop, self.last, self.passes = small(), nn.Dropout(0.5), last, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == self.last:
            raise ArithmeticError("no more")
        return self.inner(self.drop(x))


@pytest.mark.parametrize("fails_at", [1, 3, 99])
def test_modes_gradients_and_statistics_are_as_before_even_after_an_error(fails_at: int) -> None:
    module, given = Fails(fails_at), pictures()
    module.get_parameter("inner.conv2.weight").grad = torch.ones(8, 4, 3, 3)

    def standing() -> dict[str, object]:
        return {
            "modes": [(name, m.training) for name, m in module.named_modules()],
            "learnt": [(name, p.requires_grad) for name, p in module.named_parameters()],
            "gradients": [(n, None if p.grad is None else p.grad.tolist())
                          for n, p in module.named_parameters()],
            "tensors": [(name, t.tolist()) for name, t in module.state_dict().items()],
        }  # fmt: skip

    before = standing()
    assert len({training for _, training in before["modes"]}) == 2  # type: ignore[attr-defined]
    assert len({learnt for _, learnt in before["learnt"]}) == 2  # type: ignore[attr-defined]
    if fails_at == 99:
        assert not craft(module, given.x, given.y, Adversarial(), stream(12)).requires_grad
    else:
        with pytest.raises(ArithmeticError):
            craft(module, given.x, given.y, Adversarial(), stream(12))
    assert standing() == before


class Watching(nn.Module):
    """What a linear layer is shown, with its mode, and Gauss noise that says when it is on."""

    seen: list[tuple[bool, Tensor]] = []  # noqa: RUF012  # of the class: copies of the module report here too

    def __init__(self) -> None:
        super().__init__()
        self.inner = RobustNet()(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten()), (1, 8, 8))
        self.last = nn.Linear(108, 10)

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((self.training, x.detach().clone()))
        return self.last(self.inner(x))


def test_noise_is_on_while_crafting_and_other_at_every_step() -> None:
    """A network whose only layer is noisy: its gradient's sign at one point differs between steps."""
    module = Watching().eval()
    points: list[Tensor] = []
    hook = module.last.register_forward_pre_hook(lambda _m, given: points.append(given[0].detach()))
    x = torch.full((4, 1, 8, 8), 0.5)
    how = Adversarial(steps=3, epsilon=1e-7, step_size=1e-7)  # hardly a move: only noise can differ
    craft(module, x, torch.zeros(4, dtype=torch.long), how, stream(4))
    hook.remove()
    assert len(points) == 4  # one forward for the labels, three for the steps
    for i, one in enumerate(points):
        for other in points[i + 1 :]:
            assert float((one - other).abs().max()) > 0.1
    # And other for each example, whose images are equal here.
    assert float((points[0][0] - points[0][1]).abs().max()) > 0.1


# ---------------------------------------------------------------- in the loop
def passes(recipe: Recipe) -> list[tuple[bool, Tensor]]:
    """All forward passes of a training but the one that asks if it fits: in training mode?, and what was shown."""
    Watching.seen.clear()
    with rng.root("passes"):
        fit(Watching(), pictures(), recipe)
    return Watching.seen[1:]


def test_no_example_is_crafted_before_the_start_epoch() -> None:
    how = Adversarial(steps=2, start_epoch=2, labels="true", epsilon=EPSILON)
    seen = passes(Recipe(epochs=4, batch_size=6, adversarial=how))
    modes = [training for training, _ in seen]
    # Two clean epochs of two steps; then 2 steps of PGD in eval mode and two passes to learn from.
    assert modes == [True] * 4 + [False, False, True, True] * 4


@pytest.mark.parametrize("mix", [0.5, 1.0])
@pytest.mark.parametrize("paired", [True, False])
def test_who_is_attacked(mix: float, *, paired: bool) -> None:
    """Paired: all, and all clean besides; unpaired: the second half, and only the first half clean."""
    how = Adversarial(
        steps=1, start_epoch=0, labels="true", epsilon=EPSILON, mix=mix, paired=paired
    )
    given = pictures()
    learnt = [
        x for training, x in passes(Recipe(epochs=1, batch_size=12, adversarial=how)) if training
    ]
    order = first_order(12)
    attacked, clean = (order, order) if paired else (order[6:], order[:6])
    assert len(learnt) == (1 if mix == 1.0 else 2)
    gap = (learnt[0] - given.x[attacked]).abs()
    assert 0 < float(gap.max()) <= EPSILON * (1 + 1e-5)
    assert float(gap.flatten(1).amax(dim=1).min()) > 0
    if mix < 1.0:
        assert torch.equal(learnt[1], given.x[clean])


def first_order(n: int) -> Tensor:
    with rng.root("passes"):
        return torch.randperm(n, generator=rng.generator("train", "order of epoch 0"))


@pytest.mark.parametrize("mix", [0.25, 1.0])
@pytest.mark.parametrize("paired", [True, False])
def test_the_loss_is_the_mix(mix: float, monkeypatch: pytest.MonkeyPatch, *, paired: bool) -> None:
    """(1 − mix)·CE(f(x), y) + mix·CE(f(x_adv), y), with a stub that turns each attacked image black."""

    def stub(_m: nn.Module, x: Tensor, _y: Tensor, _how: Adversarial, _s: rng.Stream) -> Tensor:
        return torch.zeros_like(x)

    monkeypatch.setattr(loop, "craft", stub)
    network = LinearNetwork(shape=(1, 8, 8), classes=10, gain=4.0)
    module, given, told = network.build().requires_grad_(True), pictures(), list[Epoch]()
    how = Adversarial(start_epoch=0, mix=mix, paired=paired)
    with rng.root("passes"):
        fit(
            module,
            given,
            Recipe(epochs=1, batch_size=12, adversarial=how),
            Watch(epoch=told.append),
        )
    order = first_order(12)
    attacked, clean = (order, order) if paired else (order[6:], order[:6])
    black = cross_entropies(module, torch.zeros_like(given.x)[attacked], given.y[attacked]).mean()
    plain = cross_entropies(module, given.x[clean], given.y[clean]).mean()
    assert told[0].loss == pytest.approx(float(mix * black + (1 - mix) * plain), rel=1e-5)


def test_crafting_shares_no_noise_with_learning() -> None:
    """The noise that PGD saw is not the noise that the same image then is learnt with."""
    inputs: list[Tensor] = []

    class Listening(Watching):
        def forward(self, x: Tensor) -> Tensor:
            made = self.inner(x)
            inputs.append(
                (
                    made
                    - nn.functional.conv2d(x, self.inner[0].weight, self.inner[0].bias).flatten(1)
                ).detach()
            )  # type: ignore[index, union-attr]
            return self.last(made)

    how = Adversarial(steps=2, start_epoch=0, epsilon=EPSILON)
    with rng.root("passes"):
        fit(Listening(), pictures(), Recipe(epochs=1, batch_size=12, adversarial=how))
    del inputs[0]  # of the pass that asks if the network fits
    assert len(inputs) == 1 + 2 + 2
    normed = torch.stack([functional.normalize(e.flatten(), dim=0) for e in inputs])
    # Directions of 1296 numbers, 60-odd of them free: unrelated ones have cosines of a few percent.
    assert float((normed @ normed.T - torch.eye(5)).abs().max()) < 0.2
    assert all(math.isfinite(float(e.sum())) for e in inputs)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Adversarial(steps=0), "steps: expected a whole number ≥ 1, got 0"),
        (lambda: Adversarial(epsilon=0.0), "epsilon: expected a number > 0, got 0.0"),
        (lambda: Adversarial(step_size=-1.0), "step_size: expected a number > 0, got -1.0"),
        (lambda: Adversarial(start_epoch=-1), "start_epoch: expected a whole number ≥ 0, got -1"),
        (lambda: Adversarial(mix=0.0), r"mix: expected a number in \(0, 1\], got 0.0"),
    ],
)
def test_bad_numbers(make: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()  # type: ignore[operator]
