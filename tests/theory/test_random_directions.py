"""Random points of a ball: evenly spread, within the budget, and no match for a gradient that is there."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from linear import FixedNetwork, LinearNetwork
from noisychannel import rng
from noisychannel.attacks import PGD
from noisychannel.attacks.noise import random_directions
from noisychannel.defenses import Defense
from noisychannel.norms import L2, Linf
from noisychannel.threats import DefenseView, adaptive
from noisychannel.types import Attack, Batch, Network, Status

NORMS = pytest.mark.parametrize("norm", [L2(), Linf()], ids=repr)
FEW = LinearNetwork(shape=(1, 2, 2), classes=2, gain=5.0)  # of two classes, so that PGD is exact


def test_linf_points_fill_the_cube_evenly() -> None:
    attack = random_directions(Linf(), 0.25, 1)
    with rng.root("cube"):
        noise = attack.noise(torch.zeros(3000, 1, 2, 2), torch.arange(3000), 0)
    assert stats.kstest(noise.flatten().numpy() / 0.25, stats.uniform(-1, 2).cdf).pvalue > 1e-3
    again = attack.noise(torch.zeros(3000, 1, 2, 2), torch.arange(3000), 1)
    assert float((noise * again).mean().abs()) < 4 * 0.25**2 / 3 / 12_000**0.5


def test_l2_points_lie_on_the_sphere_and_favour_no_direction() -> None:
    """Of a unit vector in d dimensions E u⁴ = 3/(d(d + 2)); of one drawn in a cube and shortened it is less."""
    n, d = 20_000, 4
    attack = random_directions(L2(), 0.25, 1)
    with rng.root("sphere"):
        noise = attack.noise(torch.zeros(n, 1, 2, 2), torch.arange(n), 0).flatten(1) / 0.25
        cube = replace(attack, law="uniform").noise(torch.zeros(n, 1, 2, 2), torch.arange(n), 0)
    torch.testing.assert_close(noise.norm(dim=1), torch.ones(n))
    assert noise.mean(dim=0).abs().max() < 4 * (1 / d / n) ** 0.5
    fourth = 3 / (d * (d + 2))
    spread = (105 / (d * (d + 2) * (d + 4) * (d + 6)) - fourth**2) ** 0.5
    assert abs(float(noise.pow(4).mean()) - fourth) < 4 * spread / n**0.5
    assert abs(float((cube.flatten(1) / 0.25).pow(4).mean()) - fourth) > 8 * spread / n**0.5


def found(attack: Attack, network: Network, who: Batch) -> Tensor:
    """Which examples (n,) it wins."""
    with rng.root("contest"):
        made = attack(DefenseView(adaptive(Defense(network))), who)
    return made.status == int(Status.FOUND)


class Blind(FixedNetwork):
    """A network whose gradient is zero, though its answers move."""

    shape = FEW.shape

    def build(self) -> nn.Module:
        return _Blind(FEW.build()).eval()


class _Blind(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).detach() + 0 * x.sum()


@NORMS
def test_they_beat_no_gradient_that_is_there_and_one_that_is_not(norm: L2 | Linf) -> None:
    who = FEW.batch(n=24)
    radius = 1.3 * float(FEW.optimum(who, 2 if norm == L2() else 1).median())
    points = random_directions(norm, radius, 60)
    steps = PGD(norm, epsilon=radius, steps=20, random_start=False)
    random = found(points, FEW, who)
    assert 0.2 < float(random.float().mean()) < 1  # in four dimensions they do find some
    assert random.sum() > found(random_directions(norm, radius, 1), FEW, who).sum()
    assert not (random & ~found(steps, FEW, who)).any()
    assert not found(steps, Blind(), who).any()
    assert torch.equal(found(points, Blind(), who), random)


class Coin(FixedNetwork):
    """A network that errs twice in five whatever it is shown."""

    stochastic = True
    shape = FEW.shape

    def build(self) -> nn.Module:
        return _Coin().eval()


class _Coin(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        wrong = (rng.uniform(x.flatten(1)[:, :1]) < 0.4).float()
        return torch.cat((1 - wrong, wrong), dim=1) + 0 * x.flatten(1)[:, :1]


def test_many_lucky_draws_are_no_success() -> None:
    """Of 100 points many err in all four label draws; judged on draws that did not choose them, few are found.

    A network right in three of five draws is wrong in most of 16 with probability .14, and so again with .02.
    """
    who = replace(FEW.batch(n=40), y=torch.zeros(40, dtype=torch.long))
    assert found(random_directions(Linf(), 0.1, 100), Coin(), who).float().mean() <= 0.1
