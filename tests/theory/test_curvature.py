"""Input gradients and Hessians beside autograd's own, on small networks, in double precision."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.channels import Gauss, Identity
from noisychannel.defenses import Defense
from noisychannel.errors import UserError
from noisychannel.measures import (
    AUTHORS_POWER,
    Asked,
    Curvature,
    Jacobian,
    Loss,
    TaylorTerms,
    eigenvalues,
    gradient_norms,
    is_piecewise_linear,
)
from noisychannel.networks import Foreign
from noisychannel.types import Batch, Channel

SCALE = (0.3, 0.7)


def small(bend: Callable[[], nn.Module], classes: int = 4, sharp: float = 1.0) -> nn.Sequential:
    """Two colours of 3 × 3, a few ReLU units; `sharp` multiplies the logits."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(18, 16), bend(), nn.Linear(16, classes))
    with torch.no_grad():
        net[3].weight.mul_(3 * sharp)
    return net.eval()


def asked(network: nn.Module, channel: Channel | None = None, n: int = 6) -> Asked:
    torch.manual_seed(0)
    x = torch.rand(n, 2, 3, 3)
    batch = Batch(x, torch.zeros(n, dtype=torch.long), torch.arange(n))
    defense = Defense(Foreign(network, (2, 3, 3)), channel or Identity())
    return Asked(defense, network, x, batch)


def loss_of(network: nn.Module, chosen: int, loss: Loss) -> Callable[[Tensor], Tensor]:
    def value(x: Tensor) -> Tensor:
        said = network(x[None]).log_softmax(dim=1)[0, chosen]
        return said.exp() if loss == "confidence" else -said

    return value


def true_ends(
    network: nn.Module, x: Tensor, loss: Loss, scale: tuple[float, ...] = ()
) -> tuple[float, float]:
    """Extreme eigenvalues of autograd's Hessian in double precision."""
    double = network.double()
    chosen = int(double(x[None].double()).argmax())
    hessian = torch.autograd.functional.hessian(loss_of(double, chosen, loss), x.double())
    network.float()
    flat = hessian.reshape(x.numel(), x.numel())
    if scale:
        factor = torch.tensor(scale).double().repeat_interleave(9)
        flat = factor[:, None] * flat * factor[None]
    found = torch.linalg.eigvalsh(flat)
    return float(found[0]), float(found[-1])


@pytest.mark.parametrize("sharp", [1.0, 6.0])
@pytest.mark.parametrize("scale", [(), SCALE])
@pytest.mark.parametrize("loss", ["cross-entropy", "confidence"])
def test_the_exact_method_is_autograds_hessian(
    loss: Loss, scale: tuple[float, ...], sharp: float
) -> None:
    network = small(nn.ReLU, sharp=sharp)
    here = asked(network)
    found = eigenvalues(Jacobian(scale=scale)(here), loss)
    for i, x in enumerate(here.x):
        low, high = true_ends(network, x, loss, scale)
        largest = max(-low, high)  # the network computes in float32
        assert found[i] == pytest.approx([low, high], rel=1e-4, abs=1e-6 * largest)


@pytest.mark.parametrize("loss", ["cross-entropy", "confidence"])
def test_gradient_norms_of_every_class(loss: Loss) -> None:
    network = small(nn.ReLU)
    here = asked(network)
    norms = gradient_norms(Jacobian()(here), loss)
    for i, x in enumerate(here.x):
        for k in range(4):
            leaf = x.clone().requires_grad_()
            (true,) = torch.autograd.grad(loss_of(network, k, loss)(leaf), leaf)
            assert norms[i, k] == pytest.approx(float(true.norm()), rel=1e-4)


def test_a_network_that_is_sure_loses_no_digits() -> None:
    """p of the others about 1e−8: the top eigenvalue is about that small, to three digits."""
    network = small(nn.ReLU)
    with torch.no_grad():
        network[3].bias[2] += 22
    here = asked(network)
    rows = Jacobian()(here)
    found = eigenvalues(rows)[:, 1]
    for i, x in enumerate(here.x):
        _, high = true_ends(network, x, "cross-entropy")
        assert 0 < high < 1e-4
        assert found[i] == pytest.approx(high, rel=1e-3)


@pytest.mark.parametrize("bend", [nn.ReLU, nn.Softplus, nn.SiLU])
@pytest.mark.parametrize("loss", ["cross-entropy", "confidence"])
def test_lanczos_is_autograds_hessian(loss: Loss, bend: Callable[[], nn.Module]) -> None:
    network = small(bend)
    here = asked(network)
    rows = Curvature(loss, steps=18)(here)
    for i, x in enumerate(here.x):
        low, high = true_ends(network, x, loss)
        got = [rows["smallest"][i].as_py(), rows["largest"][i].as_py()]
        assert got == pytest.approx([low, high], rel=1e-3, abs=1e-5)


def test_power_iteration_finds_the_largest_magnitude() -> None:
    network = small(nn.ReLU)
    here = asked(network)
    rows = Curvature(method="power", steps=200, tolerance=1e-7)(here)
    exact = eigenvalues(Jacobian()(here))[:, 1]
    assert rows["largest"].to_numpy() == pytest.approx(exact, rel=1e-3)
    few = AUTHORS_POWER(here)
    assert (few["products"].to_numpy() <= 20).all()
    assert (few["largest"].to_numpy() <= exact * 1.001).all()


def test_a_bent_network_is_told_from_a_piecewise_linear_one() -> None:
    for bend, straight in ((nn.ReLU, True), (nn.Softplus, False), (nn.Identity, True)):
        (look,) = asked(small(bend)).looks(1)
        assert is_piecewise_linear(look) == straight, bend


def test_eigenvalues_of_a_bent_network_are_refused() -> None:
    """JᵀSJ is not its Hessian: a number would be wrong."""
    rows = Jacobian()(asked(small(nn.Softplus)))
    assert gradient_norms(rows).shape == (6, 4)  # gradients are right for any network
    with pytest.raises(UserError, match="Curvature"):
        eigenvalues(rows)


def test_each_draw_of_a_random_defense_has_its_own_hessian() -> None:
    here = asked(small(nn.ReLU), Gauss(0.5))
    with rng.root("two"):
        rows = Jacobian(draws=2)(here)
    first, second = (rows.filter(pa.compute.equal(rows["draw"], d)) for d in (0, 1))
    assert not np.allclose(eigenvalues(first), eigenvalues(second))


def test_taylor_terms_predict_small_changes() -> None:
    """Piecewise linear logits: what two terms leave over shrinks with the third power of the length."""
    here = asked(small(nn.Softplus), n=64)
    straight = asked(small(nn.ReLU), n=64)
    lengths = (0.01, 0.02, 0.04)
    with rng.root("taylor"):
        rows = TaylorTerms(lengths, draws=1)(straight)
        with pytest.raises(UserError, match="a piecewise linear network"):
            TaylorTerms(lengths, draws=1)(here)  # its own curvature is not in the formula

    def left(rows: pa.Table, terms: tuple[str, ...]) -> list[float]:
        gap = rows["changed"].to_numpy() - sum(rows[t].to_numpy() for t in terms)
        return [float(np.median(np.abs(gap[rows["length"].to_numpy() == s]))) for s in lengths]

    one, two = left(rows, ("first",)), left(rows, ("first", "second"))
    assert two[2] < one[2] / 20
    assert one[2] / one[0] == pytest.approx(16, rel=0.2)


def test_too_many_classes_name_the_other_method() -> None:
    with pytest.raises(UserError, match="Curvature"):
        Jacobian()(asked(small(nn.ReLU, classes=101)))


def test_a_scale_of_another_number_of_colours_is_refused() -> None:
    with pytest.raises(UserError, match="scale"):
        Jacobian(scale=(1.0, 1.0, 1.0))(asked(small(nn.ReLU)))
