"""Squashed logits are spread out again, whatever squashed them, and no class changes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fakes_networks as fakes
from auditing import defense, request
from linear import LinearNetwork
from noisychannel.audit.evened import evened
from noisychannel.channels import CD
from noisychannel.data import from_arrays
from noisychannel.decision import Vote
from noisychannel.defenses import Defense

X = fakes.digits().load().x
Y = fakes.digits().load().y

SQUASHES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda z: torch.tanh(0.3 * z),
    "sigmoid": lambda z: torch.sigmoid(0.6 * z),
    "exponential": torch.exp,
}


class Squashed(fakes.Wrapped):
    def __init__(self, inner: nn.Module, how: str) -> None:
        super().__init__(inner)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        return SQUASHES[self.how](self.inner(x).double()).float()


def spread(module: nn.Module) -> nn.Module:
    found = evened(request(module))
    assert found is not None
    return found.network.build()


def slope(module: nn.Module, x: Tensor) -> Tensor:
    """Of the margin of the label over the first other class, at length 1."""
    leaf = x.clone().requires_grad_()
    z = module(leaf)
    margin = z.gather(1, Y[:, None])[:, 0] - z.gather(1, (Y[:, None] + 1) % 10)[:, 0]
    (found,) = torch.autograd.grad(margin.sum(), leaf)
    return nn.functional.normalize(found.flatten(1), dim=1)


@pytest.mark.parametrize("how", SQUASHES)
def test_no_class_changes(how: str) -> None:
    module = Squashed(fakes.plain(), how)
    generator = torch.Generator().manual_seed(0)
    x = (X + 0.3 * torch.randn(X.shape, generator=generator)).clamp(0, 1)
    assert torch.equal(spread(module)(x).argmax(dim=1), module(x).argmax(dim=1))


@pytest.mark.parametrize("how", SQUASHES)
def test_slopes_are_again_those_of_a_margin(how: str) -> None:
    """Within the bends of a piecewise linear map they are those before squashing; squashed, they see one class."""
    module = Squashed(fakes.plain(), how)
    wanted = slope(fakes.plain(), X)
    again, squashed = ((slope(m, X) * wanted).sum(dim=1).median() for m in (spread(module), module))
    assert again > 0.93
    assert squashed < 0.9


def test_increasing_maps_do_not_matter() -> None:
    """Knots are quantiles, so that any squash of the same logits is spread to the same ones."""
    found = [spread(Squashed(fakes.plain(), how))(X) for how in ("tanh", "sigmoid")]
    torch.testing.assert_close(*found, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    "honest", ["plain", "smooth", "adversarially trained", "max-pooling", "batch norm"]
)
def test_honest_logits_are_left_as_they_are(honest: str) -> None:
    assert evened(request(fakes.HONEST[honest]())) is None


@pytest.mark.parametrize("count", [8, 24])
def test_few_examples_tell_as_much(count: int) -> None:
    """Two neighbours among few logits are close by chance."""
    data = fakes.digits(count=count)
    for honest in ("plain", "input noise"):
        assert evened(request(fakes.HONEST[honest](), data=data)) is None
    assert evened(request(Squashed(fakes.plain(), "tanh"), data=data)) is not None


@pytest.mark.parametrize(
    "liar", ["loud", "argmax", "thermometer", "abstaining", "dropout", "decoy slope", "logit noise"]
)
def test_what_is_no_squash_is_left_as_it_is(liar: str) -> None:
    """A factor, two answers, no gradient, no number, noise: others are told of these."""
    assert evened(request(fakes.LIARS[liar](fakes.plain()))) is None


def test_noise_is_spread_by_the_same_map_whoever_drew_before() -> None:
    made: list[Tensor] = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made.append(spread(fakes.SquashedNoise(fakes.plain())).get_buffer("values"))
    assert torch.equal(*made)


def test_only_a_strangers_logits_are_doubted() -> None:
    network = LinearNetwork(shape=fakes.SHAPE, classes=10)
    data = from_arrays(X, network.build()(X).argmax(dim=1), classes=10)
    assert evened(request(Defense(network), data=data)) is None


def test_the_rest_of_the_defense_stays() -> None:
    network = defense(Squashed(fakes.plain(), "tanh")).network
    found = evened(request(Defense(network, CD(4), Vote(3))))
    assert found is not None
    assert (found.channel, found.decision) == (CD(4), Vote(3))
