"""Their models under our attacks, our defenses under their eyes, and our attacks called as theirs."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from linear import LinearNetwork
from noisychannel import rng
from noisychannel.attacks import DDN, PGD
from noisychannel.channels import Gauss
from noisychannel.decision import Single, Vote
from noisychannel.defenses import Defense
from noisychannel.errors import UserError
from noisychannel.interop import as_callable, from_art, from_foolbox, to_art, to_foolbox
from noisychannel.networks import Foreign
from noisychannel.norms import L2, Linf
from noisychannel.objectives import Margin
from noisychannel.spec import key
from noisychannel.threats import DefenseView, adaptive, non_adaptive
from noisychannel.types import Adversarials, Attack, Batch, Network

# foolbox imports a name from where SciPy has deprecated it.
pytestmark = pytest.mark.filterwarnings("ignore:Please import `gaussian_filter`:DeprecationWarning")

OURS = LinearNetwork(gain=5.0)
ATTACKS = (PGD(Linf(), 0.03, steps=5), PGD(L2(), 0.3, steps=5), DDN(steps=20))
BOUNDS = pytest.mark.parametrize("bounds", [(0, 1), (-1, 1), (0, 255)], ids=str)


def foolbox() -> Any:
    return pytest.importorskip("foolbox", reason="pip install 'noisychannel[foolbox]'")


def art() -> Any:
    return pytest.importorskip(
        "art.estimators.classification", reason="pip install 'noisychannel[art]'"
    )


def theirs(bounds: tuple[float, float], mean: Any, std: Any) -> nn.Module:
    """Our network of their normalised pixels u, solved by hand: z = W·x + b, x = (std·u + mean − low)/(high − low)."""
    low, high = bounds
    width = high - low
    made = OURS.build()
    weight = made.weight.view(OURS.classes, *OURS.shape)  # type: ignore[union-attr]
    mean, std = (torch.as_tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (mean, std))
    bias = made.bias + ((mean - low) / width * weight).sum(dim=(1, 2, 3))  # type: ignore[operator]
    weight = weight * std / width
    return Affine(weight.flatten(1), bias).eval().requires_grad_(False)


class Affine(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


MEAN, STD = np.array([0.4, 0.5, 0.6], np.float32), np.array([0.2, 0.25, 0.3], np.float32)


def attacked(attack: Attack, network: Network, who: Batch) -> Adversarials:
    with rng.root("models"):
        return attack(DefenseView(non_adaptive(Defense(network))), who)


def the_same_as_ours(network: Network) -> None:
    """Logits to 1e-4, and what three attacks find."""
    who = OURS.batch(6)
    torch.testing.assert_close(network.build()(who.x), OURS.build()(who.x), rtol=1e-4, atol=1e-4)
    for attack in ATTACKS:
        here, there = (attacked(attack, n, who) for n in (OURS, network))
        torch.testing.assert_close(there.x, here.x, rtol=0, atol=1e-4)
        assert torch.equal(there.status, here.status)
        assert torch.equal(there.cost.backwards, here.cost.backwards)


# ---------------------------------------------------------------- foolbox


@BOUNDS
@pytest.mark.parametrize("normal", [False, True], ids=["plain", "mean and std"])
def test_our_attacks_on_a_foolbox_model(bounds: tuple[float, float], normal: bool) -> None:
    mean, std = (MEAN * bounds[1], STD * bounds[1]) if normal else (0.0, 1.0)
    how = {"mean": mean, "std": std, "axis": -3} if normal else None
    model = foolbox().PyTorchModel(theirs(bounds, mean, std), bounds, preprocessing=how)
    network = from_foolbox(model, OURS.shape)
    the_same_as_ours(network)
    assert not network.stochastic
    stretched = from_foolbox(model.transform_bounds((-3, 5)), OURS.shape)
    the_same_as_ours(stretched)
    the_same_as_ours(from_foolbox(model.transform_bounds((-3, 5), wrapper=True), OURS.shape))


def test_flipped_colours() -> None:
    inner = theirs((0, 1), 0.0, 1.0)
    with torch.no_grad():
        inner.weight.copy_(inner.weight.view(5, 3, 8, 8).flip(1).flatten(1))  # type: ignore[operator, union-attr]
    model = foolbox().PyTorchModel(inner, (0, 1), preprocessing={"flip_axis": -3})
    the_same_as_ours(from_foolbox(model, OURS.shape))


def test_a_foolbox_model_has_a_key_and_is_a_copy() -> None:
    inner = theirs((0, 255), MEAN, STD)
    how = {"mean": MEAN, "std": STD, "axis": -3}
    made = [
        from_foolbox(foolbox().PyTorchModel(inner, b, preprocessing=how), OURS.shape)
        for b in ((0, 255), (0, 255), (0, 256))
    ]
    assert key(made[0]) == key(made[1])
    assert key(made[0]) != key(made[2])
    before = made[0].build()(OURS.batch(2).x)
    with torch.no_grad():
        inner.weight.zero_()  # type: ignore[operator]
    assert torch.equal(made[0].build()(OURS.batch(2).x), before)


@pytest.mark.filterwarnings(
    "ignore:network 'foolbox model'. cannot read:UserWarning"
)  # it has no key: as said
@pytest.mark.parametrize("framework", ["autograd", "value_and_grad"])
def test_a_foolbox_model_of_another_kind(framework: str) -> None:
    """Through autograd where it takes tensors; else through arrays and its own gradient (TensorFlow's, JAX's)."""
    fb = foolbox()
    import eagerpy as ep

    inner, shown = theirs((-1, 1), 0.0, 1.0), []

    class Custom(fb.models.base.Model):  # type: ignore[misc]
        bounds = fb.types.Bounds(-1, 1)

        def __call__(self, inputs: Any) -> Any:
            x, restore = ep.astensor_(inputs)
            shown.append(type(inputs))
            return restore(ep.astensor(inner(x.raw)))

    model = Custom()
    if (
        framework == "value_and_grad"
    ):  # a dummy of another framework, whose tensors are torch's after all
        model._dummy = SimpleNamespace(
            raw=None, from_numpy=lambda x: ep.astensor(torch.from_numpy(x))
        )
    the_same_as_ours(from_foolbox(model, OURS.shape))
    assert set(shown) == ({Tensor} if framework == "autograd" else {ep.PyTorchTensor})


def test_a_foolbox_model_without_gradients_refuses_attacks_that_need_them() -> None:
    fb = foolbox()
    inner = theirs((0, 1), 0.0, 1.0)
    model = fb.NumPyModel(lambda x: inner(torch.tensor(x)).numpy(), bounds=(0, 1))
    network = from_foolbox(model, OURS.shape)
    assert not network.differentiable
    who, view, ours = OURS.batch(4), *(DefenseView(adaptive(Defense(n))) for n in (network, OURS))
    said, true = (v.query(who.x, who, Margin(), gradient=False).margin for v in (view, ours))
    torch.testing.assert_close(said, true)
    with pytest.raises(UserError, match="expected gradients with respect to the input, got none"):
        PGD(Linf(), 0.1, steps=2)(view, who)


def test_what_is_no_foolbox_model_is_refused() -> None:
    foolbox()
    with pytest.raises(UserError, match="model: expected a foolbox Model, got a _Affine"):
        from_foolbox(OURS.build(), OURS.shape)


def test_foolbox_sees_the_defense_as_it_decides() -> None:
    """Accuracy in foolbox is that of the rule; a call is a question with draws of its own."""
    fb = foolbox()
    who = OURS.batch(200)
    bare = to_foolbox(Defense(OURS))
    assert torch.equal(bare(who.x), OURS.build()(who.x))
    assert fb.accuracy(bare, who.x, who.y) == 1.0
    x = who.x[:1].repeat(400, 1, 1, 1)
    one, many = (to_foolbox(Defense(OURS, Gauss(0.5), r)) for r in (Single(), Vote(25)))
    single, vote = (model(x).argmax(dim=1) == who.y[0] for model in (one, many))
    assert not torch.equal(one(x), one(x))
    # A vote of 25 is right where single draws are right half of the time and more often than any other class.
    assert vote.float().mean() > single.float().mean() + 0.05
    # Its answer is the shares of 25 votes (and a half of a mean probability, for ties), not a mean of 25 answers.
    assert ((many(x).exp() * 25 + 1e-3).floor().sum(dim=1) == 25).all()
    found = fb.attacks.LinfPGD(steps=3)(many, who.x[:4], who.y[:4], epsilons=0.1)[1]
    assert (found != who.x[:4]).any()


# ---------------------------------------------------------------- ART


def classifier(inner: nn.Module, clip: Any, **arguments: Any) -> Any:
    return art().PyTorchClassifier(
        inner, nn.CrossEntropyLoss(), OURS.shape, OURS.classes, clip_values=clip, **arguments
    )


@BOUNDS
@pytest.mark.parametrize("normal", [False, True], ids=["plain", "mean and std"])
def test_our_attacks_on_an_art_classifier(bounds: tuple[float, float], normal: bool) -> None:
    mean, std = (MEAN * bounds[1], STD * bounds[1]) if normal else (0.0, 1.0)
    made = classifier(theirs(bounds, mean, std), bounds, preprocessing=(mean, std))
    network = from_art(made)
    the_same_as_ours(network)
    assert key(network) == key(from_art(made))


def test_bounds_of_each_element() -> None:
    low, high = np.zeros(OURS.shape, np.float32), np.full(OURS.shape, 255.0, np.float32)
    the_same_as_ours(from_art(classifier(theirs((0, 255), 0.0, 1.0), (low, high))))


@pytest.mark.filterwarnings(
    "ignore:network 'ART classifier'. cannot read:UserWarning"
)  # it has no key: as said
def test_an_art_classifier_of_another_kind() -> None:
    """Asked by predict, differentiated by class_gradient: with a defence of ART's own before it."""
    art()
    from art.defences.preprocessor.preprocessor import Preprocessor

    class Rounds(Preprocessor):  # type: ignore[misc]
        def __call__(self, x: Any, y: Any = None) -> Any:
            return (x * 16).round() / 16, y

    squeeze = Rounds(apply_fit=False)
    made = classifier(OURS.build(), (0.0, 1.0), preprocessing_defences=squeeze)
    network = from_art(made)
    who = OURS.batch(4)
    squeezed = torch.from_numpy(squeeze(who.x.numpy())[0])
    torch.testing.assert_close(network.build()(who.x), OURS.build()(squeezed), rtol=1e-4, atol=1e-4)
    x = who.x.clone().requires_grad_()
    slope = torch.autograd.grad(network.build()(x)[:, 1].sum(), x)[0]
    # ART's own estimate for a rounding is the identity: the slope is that of the bare network.
    torch.testing.assert_close(slope, OURS.weight()[1].view(1, *OURS.shape).expand_as(slope))
    found = attacked(PGD(Linf(), 0.05, steps=3), network, who)
    assert (made.predict(found.x.numpy()).argmax(axis=1) != who.y.numpy()).any()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: from_art(OURS.build()), "classifier: expected an ART classifier with class grad"),
        (lambda: from_art(classifier(OURS.build(), None)), "clip_values: expected the classifier"),
    ],
)
def test_what_is_no_art_classifier_is_refused(make: Any, sentence: str) -> None:
    art()
    with pytest.raises(UserError, match=sentence):
        make()


def test_art_sees_the_defense() -> None:
    who = OURS.batch(6)
    made = to_art(Defense(OURS, Gauss(0.01)), draws=3)
    assert made.nb_classes == OURS.classes
    assert (made.predict(who.x.numpy()).argmax(axis=1) == who.y.numpy()).mean() >= 0.5
    slope = made.class_gradient(who.x.numpy(), label=1)
    assert slope.shape == (6, 1, *OURS.shape)
    with pytest.raises(UserError, match="draws: expected a whole number ≥ 1, got 0"):
        to_art(Defense(OURS), draws=0)


# ---------------------------------------------------------------- ours, called as theirs


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_our_attack_as_a_function(attack: Attack) -> None:
    who, model = OURS.batch(6), OURS.build()
    with rng.root("models"):
        x = as_callable(attack)(model, who.x, who.y)
        aimed = as_callable(attack)(model, who.x, who.y, targets=(who.y + 1) % 5, targeted=True)
    torch.testing.assert_close(x, attacked(attack, OURS, who).x)
    hits = [model(at).argmax(dim=1) == (who.y + 1) % 5 for at in (x, aimed)]
    assert hits[1].sum() > hits[0].sum()
    with pytest.raises(UserError, match="targets: expected a class for each example"):
        as_callable(attack)(model, who.x, who.y, targeted=True)


def test_it_finds_out_that_a_model_is_random() -> None:
    """Each gradient then takes as many passes as draws were asked for."""
    asked: list[int] = []

    def noisy(x: Tensor) -> Tensor:
        asked.append(1)
        return OURS.build()(x + 0.01 * torch.randn_like(x))

    who, passes = OURS.batch(4), []
    module = Foreign(noisy, OURS.shape).build()
    for draws in (1, 5):
        asked.clear()
        x = as_callable(PGD(Linf(), 0.03, steps=2), draws=draws)(module, who.x, who.y)
        assert (x != who.x).any()
        passes.append(len(asked))
    assert passes[1] - passes[0] == 3 * 4  # 2 gradients and a last look


def test_a_second_call_of_a_callable_draws_anew() -> None:
    """AttackBench asks batch by batch: image i of every batch must not have the same start."""
    network = LinearNetwork(gain=5.0)
    who, module = network.batch(n=4), network.build()
    called = as_callable(PGD(Linf(), 0.05, steps=1))
    with rng.root("calls"):
        first, second = called(module, who.x, who.y), called(module, who.x, who.y)
        again = as_callable(PGD(Linf(), 0.05, steps=1))(module, who.x, who.y)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
