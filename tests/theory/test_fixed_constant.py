"""One constant and no search: on a linear network it must end where the formula says."""

from dataclasses import replace

import pytest
import torch

from linear import LinearNetwork
from noisychannel.attacks import FixedConstant, authors_fixed_constant
from noisychannel.defenses import Defense
from noisychannel.norms import L2
from noisychannel.threats import DefenseView, non_adaptive
from noisychannel.types import Adversarials, Batch, Status

PAIR = LinearNetwork(gain=5.0, classes=2)
LENGTH = float((PAIR.weight()[0] - PAIR.weight()[1]).norm())
# Small steps and enough of them, so that Adam is at rest where the formula says.
CLEAN = FixedConstant(steps=300, learning_rate=0.004)
BOTH = pytest.mark.parametrize(
    "attack",
    [CLEAN, replace(CLEAN, keep="last", freeze=True, rectified=True)],
    ids=["clean", "authors'"],
)


def attacked(attack: FixedConstant, batch: Batch, network: LinearNetwork = PAIR) -> Adversarials:
    return attack(DefenseView(non_adaptive(Defense(network))), batch)


def positive(batch: Batch) -> Batch:
    """Examples whose own logit is positive all the way to the boundary (there both are equal: z₀ + z₁ > 0)."""
    return batch.rows(PAIR.build()(batch.x).sum(dim=1) > 0.3)


@BOTH
def test_too_small_a_constant_goes_as_far_as_it_pays(attack: FixedConstant) -> None:
    """min ‖δ‖² + c(m − w·δ): ‖δ‖ = c‖w‖/2, short of the boundary: NOT_FOUND there."""
    batch = positive(PAIR.batch(n=48))
    optimum = PAIR.optimum(batch, 2.0)
    batch, optimum = batch.rows(optimum > 0.03), optimum[optimum > 0.03]
    assert len(batch) >= 5
    constant = float(optimum.min()) / LENGTH  # half of the least c that reaches anybody's boundary
    found = attacked(replace(attack, constant=constant), batch)
    assert (found.status == int(Status.NOT_FOUND)).all()
    moved = L2().distance(found.x, batch.x)
    if attack.keep == "last":
        torch.testing.assert_close(
            moved, torch.full_like(moved, constant * LENGTH / 2), rtol=0.02, atol=0
        )
    else:  # what came nearest to the boundary on the way, Adam's first overshoot perhaps
        assert (moved >= 0.98 * constant * LENGTH / 2).all()


def test_large_enough_a_constant_finds_the_boundary() -> None:
    """c > 2m/‖w‖²: the hinge holds it at the boundary, margin/‖w‖ away."""
    batch = PAIR.batch(n=24)
    optimum = PAIR.optimum(batch, 2.0)
    batch, optimum = batch.rows(optimum > 0.03), optimum[optimum > 0.03]
    constant = 4 * float(optimum.max()) / LENGTH
    found = attacked(replace(CLEAN, constant=constant), batch)
    assert (found.status == int(Status.FOUND)).all()
    ratio = L2().distance(found.x, batch.x) / optimum
    assert (ratio >= 0.999).all()
    assert (ratio <= 1.05).all()  # Adam swings about the boundary by a few of its steps


def test_confidence_buys_margin() -> None:
    batch = PAIR.batch(n=24)
    constant = 8 * float(PAIR.optimum(batch, 2.0).max()) / LENGTH
    found = attacked(replace(CLEAN, constant=constant + 4 / LENGTH**2, confidence=0.3), batch)
    logits = PAIR.build()(found.x)
    gap = logits.gather(1, 1 - batch.y[:, None]) - logits.gather(1, batch.y[:, None])
    assert (found.status == int(Status.FOUND)).all()
    assert (gap >= 0.3 - 1e-4).all()


@pytest.mark.parametrize(
    "attack", [FixedConstant(0.0), authors_fixed_constant(0.0)], ids=["clean", "authors'"]
)
def test_no_constant_is_no_attack(attack: FixedConstant) -> None:
    """c = 0 reports clean accuracy and L2 ≈ 0: the sanity anchor of Figures 2 and 3."""
    batch = PAIR.batch(n=16)
    y = batch.y.clone()
    y[:3] = 1 - y[:3]
    found = attacked(attack, replace(batch, y=y))
    assert torch.equal(found.status == int(Status.FOUND), torch.arange(16) < 3)
    assert (L2().distance(found.x, batch.x) < 1e-5).all()


def test_saturated_pixels_freeze_for_the_authors_only() -> None:
    """w = arctanh(±1) is infinite: such a pixel never moves; a field that shrinks by 1e-6 lets it, slowly."""
    batch = PAIR.batch(n=8)
    x = batch.x.clone()
    x[:, :, :4] = x[:, :, :4].round()
    y = PAIR.build()(x).argmax(dim=1)
    black_and_white = (x == 0) | (x == 1)
    for freeze in (True, False):
        attack = FixedConstant(1.0, steps=400, learning_rate=0.05, keep="last", freeze=freeze)
        moved = (attacked(attack, replace(batch, x=x, y=y)).x - x)[black_and_white].abs()
        assert (moved == 0).all() if freeze else moved.max() > 0.05


def test_the_authors_hand_over_the_last_iterate_adversarial_or_not() -> None:
    """A c at which the clean attack passes the boundary, and Adam swings about it: the last is on either side."""
    batch = PAIR.batch(n=32)
    constant = 4 * float(PAIR.optimum(batch, 2.0).max()) / LENGTH
    best = attacked(replace(CLEAN, constant=constant), batch)
    last = attacked(replace(CLEAN, constant=constant, keep="last"), batch)
    assert (best.status == int(Status.FOUND)).all()
    assert set(last.status.tolist()) == {int(Status.FOUND), int(Status.NOT_FOUND)}


def test_a_negative_logit_draws_no_authors() -> None:
    """max(z_y, 0) has no gradient where z_y < 0: what is left is the other logit's alone."""
    batch = PAIR.batch(n=48)
    logits = PAIR.build()(batch.x).gather(1, batch.y[:, None])[:, 0]
    batch = batch.rows((logits < -0.2) & (PAIR.optimum(batch, 2.0) > 0.03))
    assert len(batch) >= 3
    constant = 0.03 / LENGTH  # reaches nobody's boundary
    for rectified in (False, True):
        attack = FixedConstant(
            constant, steps=600, learning_rate=0.002, keep="last", rectified=rectified
        )
        moved = attacked(attack, batch).x - batch.x
        w = PAIR.weight()
        other = w[1 - batch.y] - (0 if rectified else w[batch.y])
        away = (moved.flatten(1) - constant / 2 * other).norm(dim=1)
        assert (away < 0.02 * constant / 2 * other.norm(dim=1)).all()
