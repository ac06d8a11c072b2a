"""Every attack against networks whose answer is known: the linear optimum, and a network that ignores its input."""

from dataclasses import replace

import pytest
import torch

from attack_table import as_it_is, entry, itself, norm_of
from fakes_attacks import FAKE_ATTACKS
from linear import LinearNetwork
from noisychannel import rng
from noisychannel.attacks import ATTACKS, PGD, CarliniWagner, Minimise
from noisychannel.channels import Gauss
from noisychannel.defenses import Defense
from noisychannel.norms import L2, Linf
from noisychannel.threats import DefenseView, adaptive, non_adaptive
from noisychannel.types import Attack, Batch, Status

NETWORK = LinearNetwork(gain=5.0)
PAIR = LinearNetwork(gain=5.0, classes=2)
ORACLE = [attack for attack in ATTACKS if entry(attack).oracle is not None]
AIMED = [attack for attack in ATTACKS if entry(attack).wide is not None]


def solves(attack: Attack) -> bool:
    """The oracle: found on every example, adversarial in fact, in [0, 1], at most FACTOR × the optimum away."""
    norm = norm_of(attack)
    dual = 1.0 if norm == Linf() else 2.0
    batch = PAIR.batch(n=24)
    batch = batch.rows(
        PAIR.optimum(batch, 2.0) > 0.03
    )  # DDN's radius falls to .95^100 = .006 at most
    optimum = PAIR.optimum(batch, dual)
    tune = entry(attack).oracle or as_it_is
    attack = tune(attack, float(optimum.max()))
    view = DefenseView(non_adaptive(Defense(PAIR)))
    with rng.root("oracle"):
        found = attack(view, batch)
    distance = norm.distance(found.x, batch.x)
    wrong = PAIR.build()(found.x).argmax(dim=1) != batch.y
    bound = getattr(attack, "epsilon", None)
    if bound is None:
        bound = entry(attack).factor * optimum
    inside = (found.x >= 0).all() and (found.x <= 1).all()
    status = (found.status == int(Status.FOUND)).all()
    return bool(wrong.all() and (distance <= bound + 1e-5).all() and inside and status)


@pytest.mark.parametrize("attack", ORACLE, ids=repr)
def test_reaches_the_linear_optimum(attack: Attack) -> None:
    assert solves(attack)


@pytest.mark.parametrize("attack", FAKE_ATTACKS, ids=lambda a: type(a).__name__)
def test_oracle_refuses_liars(attack: Attack) -> None:
    assert not solves(attack)


@pytest.mark.parametrize("attack", AIMED, ids=repr)
def test_budget_is_never_exceeded_and_targets_are_hit(attack: Attack) -> None:
    """Targeted at the next class with a budget that suffices: found means predicted = target."""
    batch = NETWORK.batch()
    batch = replace(batch, target=(batch.y + 1) % NETWORK.classes)
    attack = (entry(attack).wide or itself)(attack)
    view = DefenseView(non_adaptive(Defense(NETWORK)))
    with rng.root("oracle"):
        found = attack(view, batch)
    assert (found.status == int(Status.FOUND)).all()
    assert (NETWORK.build()(found.x).argmax(dim=1) == batch.target).all()
    if attack.kind == "budget":
        bound = getattr(attack, "epsilon", float("inf"))
        assert (norm_of(attack).distance(found.x, batch.x) <= bound * (1 + 1e-5)).all()


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


@pytest.mark.parametrize(
    "attack", [a for a in ATTACKS if a.kind == "minimal" and entry(a).looks(a)], ids=repr
)
def test_what_is_misclassified_is_found_where_it_stands(attack: Attack) -> None:
    batch: Batch = NETWORK.batch()
    wrong = replace(batch, y=(batch.y + 1) % NETWORK.classes)
    found = attack(DefenseView(non_adaptive(Defense(NETWORK))), wrong)
    assert (found.status == int(Status.FOUND)).all()
    assert (L2().distance(found.x, batch.x) < 1e-4).all()
    assert (found.cost.backwards <= 1).all()


class _Whole(DefenseView):
    """A view of which nobody may leave, as of a stranger's random module."""

    @property
    def compact(self) -> bool:
        return False


def test_minimise_searches_on_beside_those_who_are_done() -> None:
    """Who is done and may not leave goes on halving, for as long as the others grow their radius."""
    batch = PAIR.batch(n=4)
    near, far = batch.x[:2], batch.x[2:]
    x = torch.cat([0.5 + (near - 0.5) / 100, far])
    batch = replace(batch, x=x, y=PAIR.build()(x).argmax(dim=1))
    attack = Minimise(PGD(L2(), epsilon=1e-4, steps=10), expansions=40, bisections=1, growth=1.3)
    with rng.root("whole"):
        found = attack(_Whole(adaptive(Defense(PAIR, Gauss(1e-6)))), batch)
    assert (found.status == int(Status.FOUND)).all()
    distance = L2().distance(found.x, batch.x)
    assert (distance <= 1.5 * PAIR.optimum(batch, 2.0)).all()  # a growth of 1.3, and ten steps
