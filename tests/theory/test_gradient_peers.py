"""Our gradient attacks beside the peers' on one small trained network: as strong, or as near, at equal length."""

import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from digits_networks import Digits, recognised, right, trained
from noisychannel import rng
from noisychannel.attacks import APGD, DDN, FMN, MIFGSM, PGD, CarliniWagner, TargetedAPGD
from noisychannel.attacks.gradient import random_start
from noisychannel.defenses import Defense
from noisychannel.norms import L2, Linf, Norm
from noisychannel.objectives import DLR
from noisychannel.threats import DefenseView, non_adaptive
from noisychannel.types import Attack, Batch

pytestmark = pytest.mark.slow

EPSILON, ROUNDING = 0.1, 1e-5


@pytest.fixture(scope="module")
def network() -> tuple[nn.Module, Batch]:
    """A network for handwritten digits, and 96 test images that it gets right."""
    return trained(), recognised(96)


def crafted(attack: Attack, batch: Batch, root: str = "peers") -> Tensor:
    with rng.root(root):
        return attack(DefenseView(non_adaptive(Defense(Digits()))), batch).x


def robust(batch: Batch, x: Tensor) -> int:
    assert (x >= 0).all()
    assert (x <= 1).all()
    return right(x, batch)


def foolbox() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own imports warn
        return pytest.importorskip("foolbox", reason="foolbox is not installed")


def test_pgd_is_as_strong_as_foolbox(network: tuple[nn.Module, Batch]) -> None:
    """From the same start with the same steps: the same images break but for ties of a sign; ours keeps its best."""
    module, batch = network
    theirs = foolbox()
    with rng.root("peers"):
        start = random_start(Linf(), batch.x, EPSILON, batch.index, 0)

    class Fixed(theirs.attacks.LinfProjectedGradientDescentAttack):  # type: ignore[name-defined, misc]
        def get_random_start(self, x0: Any, epsilon: float) -> Any:
            return theirs.models.base.ep.astensor(start)

    peer = theirs.PyTorchModel(module, bounds=(0, 1), device="cpu")
    x = Fixed(steps=20, abs_stepsize=0.0125)(peer, batch.x, batch.y, epsilons=EPSILON)[1]
    ours = crafted(PGD(epsilon=EPSILON, steps=20), batch)
    last = crafted(PGD(epsilon=EPSILON, steps=20, keep="last"), batch)
    assert 0 < robust(batch, x) < len(batch)
    assert robust(batch, ours) <= robust(batch, x)
    same = (last - x).flatten(1).abs().amax(dim=1) < ROUNDING
    assert same.float().mean() > 0.9


def test_momentum_is_as_strong_as_foolbox(network: tuple[nn.Module, Batch]) -> None:
    module, batch = network
    theirs = foolbox()
    peer = theirs.PyTorchModel(module, bounds=(0, 1), device="cpu")
    attack = theirs.attacks.LinfMomentumIterativeFastGradientMethod(
        momentum=1.0, steps=10, abs_stepsize=EPSILON / 10, random_start=False
    )
    x = attack(peer, batch.x, batch.y, epsilons=EPSILON)[1]
    ours = crafted(MIFGSM(epsilon=EPSILON), batch)
    assert robust(batch, ours) <= robust(batch, x) < len(batch)


@pytest.mark.parametrize("norm", [L2(), Linf()], ids=repr)
def test_fmn_is_as_near_as_foolbox(network: tuple[nn.Module, Batch], norm: Norm) -> None:
    """Median within 1 % or below, and every image found."""
    module, batch = network
    theirs = foolbox()
    peer = theirs.PyTorchModel(module, bounds=(0, 1), device="cpu")
    kind = theirs.attacks.L2FMNAttack if norm == L2() else theirs.attacks.LInfFMNAttack
    x = kind(steps=100)(peer, batch.x, batch.y, epsilons=None)[1]
    ours = crafted(FMN(norm), batch)
    assert robust(batch, ours) == 0
    assert norm.distance(ours, batch.x).median() <= 1.01 * norm.distance(x, batch.x).median()


def test_carlini_wagner_is_as_near_as_foolbox(network: tuple[nn.Module, Batch]) -> None:
    """At equal numbers and a fraction of the gradients: median and mean within 1 % or below, every image found."""
    module, batch = network
    theirs = foolbox()
    peer = theirs.PyTorchModel(module, bounds=(0, 1), device="cpu")
    attack = theirs.attacks.L2CarliniWagnerAttack(
        binary_search_steps=5, steps=100, stepsize=0.01, initial_const=0.01
    )
    x = attack(peer, batch.x, batch.y, epsilons=None)[1]
    ours = crafted(CarliniWagner(), batch)
    assert robust(batch, ours) <= robust(batch, x)
    near, far = (L2().distance(p, batch.x) for p in (ours, x))
    assert near.median() <= 1.01 * far.median()
    assert near.mean() <= 1.01 * far.mean()


@pytest.mark.parametrize("norm", [Linf(), L2()], ids=repr)
@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted"])
def test_apgd_is_as_strong_as_torchattacks(
    network: tuple[nn.Module, Batch], norm: Norm, loss: str
) -> None:
    """Same length, means of four random starts each: at most one image of 96 more is left standing.

    Single starts leave 50 to 56 images (DLR, Linf) on either side.
    """
    module, batch = network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("torchattacks", reason="torchattacks is not installed")
    epsilon = EPSILON if norm == Linf() else 0.6
    numbers = {"norm": "Linf" if norm == Linf() else "L2", "eps": epsilon, "steps": 30}
    ours: Attack
    if loss == "targeted":
        peer = partial(theirs.APGDT, module, n_classes=10, n_restarts=1, **numbers)
        ours = TargetedAPGD(norm, epsilon, steps=30)
    else:
        peer = partial(theirs.APGD, module, loss=loss, n_restarts=1, **numbers)
        ours = APGD(norm, epsilon, steps=30) if loss == "ce" else APGD(norm, epsilon, 30, DLR())
    left = {"ours": 0.0, "theirs": 0.0}
    for seed in range(4):
        with torch.random.fork_rng(), torch.enable_grad():
            x = peer(seed=seed)(batch.x, batch.y)
        found = crafted(ours, batch, f"peers {seed}")
        assert (norm.distance(found, batch.x) <= epsilon * (1 + ROUNDING) + 1e-7).all()
        left["theirs"] += robust(batch, x) / 4
        left["ours"] += robust(batch, found) / 4
    assert 0 < left["theirs"] < len(batch)
    assert left["ours"] <= left["theirs"] + 1


def test_ddn_beside_foolbox(network: tuple[nn.Module, Batch]) -> None:
    """With their constant γ the same norms; with ours, falling, 50 steps come as near as their 100."""
    module, batch = network
    theirs = pytest.importorskip("foolbox")
    model = theirs.PyTorchModel(module, bounds=(0, 1), device="cpu")
    found, _, won = theirs.attacks.DDNAttack(steps=100)(model, batch.x, batch.y, epsilons=None)
    assert won.all()
    peer = L2().distance(found, batch.x)
    constant, falling = (
        L2().distance(crafted(attack, batch), batch.x)
        for attack in (DDN(100, gamma=0.05, last_gamma=0.05), DDN())
    )
    assert float(constant.median()) == pytest.approx(float(peer.median()), rel=0.01)
    assert float(falling.median()) <= 1.01 * float(peer.median())
    assert float(falling.mean()) <= 1.01 * float(peer.mean())
