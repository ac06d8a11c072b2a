"""What attackers make large: signs, invariances, and a defined answer where a ratio has none."""

import pytest
import torch
from torch import Tensor

from noisychannel.objectives import DLR, CrossEntropy, Hinge, Loss, Margin, fooled
from noisychannel.types import Goal

LOSSES = (CrossEntropy(), Hinge(), Margin(), DLR())


def logits(rows: int = 32, classes: int = 6) -> Tensor:
    return 5 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(3))


def goals(z: Tensor) -> list[Goal]:
    y = torch.arange(len(z)) % z.shape[1]
    return [Goal(y), Goal(y, (y + 1) % z.shape[1])]


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_larger_is_better_for_the_attacker(loss: Loss) -> None:
    """Its slope: never up in the label; up in the target. A ratio is held to it where its denominator has neither."""
    z = logits().requires_grad_()
    for goal in goals(z):
        which = goal.y if goal.target is None else goal.target
        sign = -1.0 if goal.target is None else 1.0
        (slope,) = torch.autograd.grad(loss(z, goal).sum(), z)
        along = sign * slope.gather(1, which[:, None])[:, 0]
        rank = (z > z.gather(1, which[:, None])).sum(dim=1)
        if isinstance(loss, DLR):
            along = along[(rank == 1) | (rank > 3)]  # not z_π1, z_π3, z_π4
        assert len(along) > 5
        assert (along >= 0).all()
        assert (along > 0).any()


def test_margin_and_dlr_agree_with_success() -> None:
    """−margin > 0 where the goal is reached; so is the untargeted ratio (the targeted one compares with y only)."""
    z = logits()
    for goal in goals(z):
        success = fooled(z.argmax(dim=1), goal)
        assert ((Margin()(z, goal) > 0) == success).all()
        assert success.any()
    goal = goals(z)[0]
    assert ((DLR()(z, goal) > 0) == fooled(z.argmax(dim=1), goal)).all()


def test_dlr_by_hand() -> None:
    z = torch.tensor([[4.0, 1.0, 3.0, 0.0]])
    y, t = torch.tensor([0]), torch.tensor([2])
    assert float(DLR()(z, Goal(y))) == pytest.approx(-(4 - 3) / (4 - 1))
    assert float(DLR()(z, Goal(y, t))) == pytest.approx(-(4 - 3) / (4 - (1 + 0) / 2))
    assert float(DLR()(z, Goal(t))) == pytest.approx(-(3 - 4) / (4 - 1))
    assert float(DLR()(z[:, :3], Goal(y, t))) == pytest.approx(-(4 - 3) / (4 - 1))  # z_π3 for z_π4


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_dlr_knows_neither_scale_nor_shift(scale: float) -> None:
    """Cross entropy's gradient dies of scale (p_y → 1); the ratio's is the same direction, 1/scale as long."""
    z = logits()
    for goal in goals(z):
        torch.testing.assert_close(
            DLR()(scale * z + 7 * scale, goal), DLR()(z, goal), rtol=1e-4, atol=1e-5
        )
        slopes: list[Tensor] = []
        for factor in (1.0, scale):
            leaf = (factor * z).requires_grad_()
            slopes.append(torch.autograd.grad(DLR()(leaf, goal).sum(), leaf)[0] * factor)
        torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(slopes[0].sum(dim=1), torch.zeros(len(z)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 10])
def test_dlr_of_equal_logits_is_nothing(classes: int) -> None:
    """0/0 is 0 with gradient 0 (of two classes the margin, which is 0 there)."""
    z = torch.full((2, classes), 3.0, requires_grad=True)
    for goal in (
        Goal(torch.tensor([0, classes - 1])),
        Goal(torch.tensor([0, 0]), torch.tensor([classes - 1, 0])),
    ):
        if classes == 1 and goal.target is None:
            continue  # no other class to be taken for
        value = DLR()(z, goal)
        (slope,) = torch.autograd.grad(value.sum(), z)
        assert torch.equal(value, torch.zeros(2))
        assert slope.isfinite().all()
        if classes >= 3:
            assert torch.equal(slope, torch.zeros_like(slope))


def test_dlr_of_two_classes_is_the_margin() -> None:
    z = logits(classes=2)
    for goal in goals(z):
        torch.testing.assert_close(DLR()(z, goal), Margin()(z, goal))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_nan_stays_nan_and_alone(loss: Loss) -> None:
    z = logits()
    bad = z.clone()
    bad[4] = torch.nan
    others = torch.arange(len(z)) != 4
    for goal in goals(z):
        assert loss(bad, goal)[4].isnan()
        assert torch.equal(loss(bad, goal)[others], loss(z, goal)[others])
