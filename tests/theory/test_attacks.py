"""Every attack against networks whose answer is known: the linear optimum, and a network that ignores its input."""

from dataclasses import replace

import pytest
import torch

from fakes_attacks import FAKE_ATTACKS
from linear import LinearNetwork
from noisychannel import rng
from noisychannel.attacks import ATTACKS, DDN, PGD, CarliniWagner, Minimise
from noisychannel.channels import Gauss
from noisychannel.defenses import Defense
from noisychannel.norms import L2, Linf
from noisychannel.threats import DefenseView, adaptive, non_adaptive
from noisychannel.types import Attack, Batch, Status

NETWORK = LinearNetwork(gain=5.0)
PAIR = LinearNetwork(gain=5.0, classes=2)
# Promised factor of the optimum margin/‖w‖ on a two-class linear network. The searched PGD starts at random
# and walks 40/30 of its radius, so that a sign step gains on average 8/9 of it: 9/8, and some scatter.
FACTOR = {"Minimise": 1.2, "DDN": 1.02, "CarliniWagner": 1.02}


def dual(attack: Attack) -> float:
    return 1.0 if getattr(getattr(attack, "attack", attack), "norm", L2()) == Linf() else 2.0


def tuned(attack: Attack, optimum: torch.Tensor) -> Attack:
    """A minimal attack as it is (C&W with the searches it needs); a budget attack at 1.05 × the largest optimum."""
    if isinstance(attack, CarliniWagner):
        return CarliniWagner(searches=9, steps=200, learning_rate=0.001)
    if isinstance(attack, PGD):
        return replace(attack, epsilon=1.05 * float(optimum.max()))
    return attack


def solves(attack: Attack) -> bool:
    """The oracle: found on every example, adversarial in fact, in [0, 1], at most FACTOR × the optimum away."""
    batch = PAIR.batch(n=24)
    batch = batch.rows(
        PAIR.optimum(batch, 2.0) > 0.03
    )  # DDN's radius falls to .95^100 = .006 at most
    optimum = PAIR.optimum(batch, dual(attack))
    attack = tuned(attack, optimum)
    view = DefenseView(non_adaptive(Defense(PAIR)))
    with rng.root("oracle"):
        found = attack(view, batch)
    norm = Linf() if dual(attack) == 1.0 else L2()
    distance = norm.distance(found.x, batch.x)
    wrong = PAIR.build()(found.x).argmax(dim=1) != batch.y
    bound = (
        attack.epsilon
        if isinstance(attack, PGD)
        else FACTOR.get(type(attack).__name__, 1.0) * optimum
    )
    inside = (found.x >= 0).all() and (found.x <= 1).all()
    status = (found.status == int(Status.FOUND)).all()
    return bool(wrong.all() and (distance <= bound + 1e-5).all() and inside and status)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_reaches_the_linear_optimum(attack: Attack) -> None:
    assert solves(attack)


@pytest.mark.parametrize("attack", FAKE_ATTACKS, ids=lambda a: type(a).__name__)
def test_oracle_refuses_liars(attack: Attack) -> None:
    assert not solves(attack)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_no_attack_finds_what_is_not_there(attack: Attack) -> None:
    """On a constant network nothing is adversarial: status not_found, and the candidate is still inside the box."""
    constant = LinearNetwork(gain=0.0)
    batch = replace(constant.batch(), y=torch.zeros(16, dtype=torch.int64))
    if isinstance(attack, Minimise):
        attack = replace(attack, expansions=4)
    view = DefenseView(non_adaptive(Defense(constant)))
    with rng.root("oracle"):
        found = attack(view, batch)
    assert (found.status == int(Status.NOT_FOUND)).all()


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_budget_is_never_exceeded_and_targets_are_hit(attack: Attack) -> None:
    """Targeted at the next class with a budget that suffices: found means predicted = target."""
    batch = NETWORK.batch()
    batch = replace(batch, target=(batch.y + 1) % NETWORK.classes)
    if isinstance(attack, PGD):
        attack = replace(attack, epsilon=0.4 if attack.norm == Linf() else 4.0)
    if isinstance(attack, CarliniWagner):
        attack = CarliniWagner(searches=9, steps=200)
    view = DefenseView(non_adaptive(Defense(NETWORK)))
    with rng.root("oracle"):
        found = attack(view, batch)
    assert (found.status == int(Status.FOUND)).all()
    assert (NETWORK.build()(found.x).argmax(dim=1) == batch.target).all()
    if isinstance(attack, PGD):
        assert (attack.norm.distance(found.x, batch.x) <= attack.epsilon * (1 + 1e-5)).all()


def test_confidence_buys_margin() -> None:
    batch = NETWORK.batch()
    view = DefenseView(non_adaptive(Defense(NETWORK)))
    logits = NETWORK.build()(CarliniWagner(searches=9, steps=300, confidence=0.3)(view, batch).x)
    top = logits.topk(2, dim=1).values
    assert (logits.argmax(dim=1) != batch.y).all()
    assert (top[:, 0] - logits.gather(1, batch.y[:, None])[:, 0] >= 0.3 - 1e-4).all()


def test_a_random_view_is_not_won_by_luck() -> None:
    """Noise so strong that single draws err often: a budget of zero must not be reported as found.

    The clean margin is 2 standard deviations of the logit noise, so each draw errs with p ≈ .02 to .1; over
    60 steps almost every example errs in some draw. Only an attack that counts luck calls that found.
    """
    network = LinearNetwork(classes=2, gain=5.0)
    batch = network.batch(n=32)
    w = network.weight()
    margin = network.build()(batch.x).diff(dim=1).abs()[:, 0]
    sigma = float((margin / (w[0] - w[1]).norm()).median()) / 2
    keep = margin / (w[0] - w[1]).norm() > 1.2 * sigma
    batch = batch.rows(keep)
    view = DefenseView(adaptive(Defense(network, Gauss(sigma))))
    with rng.root("luck"):
        found = PGD(L2(), epsilon=0.0, steps=60, step_size=1e-9)(view, batch)
    assert (found.status == int(Status.NOT_FOUND)).all()


def test_votes_of_a_linear_network_follow_phi() -> None:
    """P(one draw correct) = Φ(margin / (σ‖w‖)) for Gauss noise on a two-class linear network."""
    from noisychannel.defenses import answers

    network, sigma, draws = LinearNetwork(classes=2, gain=5.0), 0.3, 4000
    batch = network.batch(n=8, spread=0.02)
    w = network.weight()
    logits = network.build()(batch.x)
    margin = logits.gather(1, batch.y[:, None])[:, 0] - logits.gather(1, 1 - batch.y[:, None])[:, 0]
    expected = torch.distributions.Normal(0.0, 1.0).cdf(margin / (sigma * (w[0] - w[1]).norm()))
    with rng.root("phi"):
        said = answers(
            Defense(network, Gauss(sigma)), network.build(), batch.x, batch, "scoring", draws
        )
    rate = (said.logits.argmax(dim=2) == batch.y).float().mean(dim=0)
    error = (expected * (1 - expected) / draws).sqrt()
    assert ((rate - expected).abs() < 4.5 * error).all()


def test_eot_error_shrinks_with_the_root_of_draws() -> None:
    """‖g − g′‖ of two independent EOT-n gradients ∝ n^(−1/2): slope of the log-log fit within ±.1."""
    network = LinearNetwork(gain=20.0)
    batch = network.batch(n=16)
    sizes = [1, 4, 16, 64, 256]
    gaps = []
    for n in sizes:
        view = DefenseView(adaptive(Defense(network, Gauss(0.3)), draws=n))
        loss = PGD().loss
        with rng.root("eot"):
            a, b = (view.query(batch.x, batch, loss, step).gradient for step in (0, 1))
        gaps.append(float((a - b).norm()))
    x, y = torch.tensor(sizes).log(), torch.tensor(gaps).log()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    assert abs(slope + 0.5) < 0.1


def test_minimise_searches_down_to_the_boundary() -> None:
    """After 20 halvings the radius brackets the optimum to better than a percent on every example."""
    batch = PAIR.batch()
    view = DefenseView(non_adaptive(Defense(PAIR)))
    for norm, dual_norm in ((L2(), 2.0), (Linf(), 1.0)):
        pgd = PGD(norm, epsilon=0.5, steps=40, step_size=0.05, random_start=False)
        found = Minimise(pgd)(view, batch)
        optimum = PAIR.optimum(batch, dual_norm)
        assert (norm.distance(found.x, batch.x) <= 1.005 * optimum).all()
        assert (norm.distance(found.x, batch.x) >= optimum * (1 - 1e-3)).all()


def test_what_is_misclassified_is_found_where_it_stands() -> None:
    batch: Batch = NETWORK.batch()
    wrong = replace(batch, y=(batch.y + 1) % NETWORK.classes)
    view = DefenseView(non_adaptive(Defense(NETWORK)))
    for attack in (DDN(), Minimise(), CarliniWagner()):
        found = attack(view, wrong)
        assert (found.status == int(Status.FOUND)).all()
        assert (L2().distance(found.x, batch.x) < 1e-4).all()
        assert (found.cost.backwards <= 1).all()
