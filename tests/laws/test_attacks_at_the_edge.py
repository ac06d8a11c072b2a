"""Inputs at the edge, for every member of ATTACKS: a defined answer each, never a crash."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fakes_attacks as fakes
from attack_table import TABLE, entry, short
from attacking import BARE, EVERY, INDEX, NETWORK, THREATS, attacked, batch, same, taken
from linear import FixedNetwork, LinearNetwork
from noisychannel import rng
from noisychannel.attacks import ATTACKS
from noisychannel.channels import Gauss
from noisychannel.decision import Vote
from noisychannel.defenses import Defense, Operated, ParamNet
from noisychannel.networks import SmallNet as Small
from noisychannel.threats import DefenseView, Threat, adaptive, non_adaptive
from noisychannel.types import Attack, Batch, Status

OTHERS = torch.tensor([0, 1, 3, 4, 5])


# ---------------------------------------------------------------- votes, shared weights, and nobody left to attack


@EVERY
@pytest.mark.parametrize("kind", ["deterministic", "a vote is asked each time"])
def test_all_are_misclassified(attack: Attack, kind: str) -> None:
    """Every example leaves, or is found where it stands: no attack may stumble over an empty batch of its own."""
    who = batch()
    who = replace(who, y=(who.y + 1) % NETWORK.classes)
    voted = adaptive(Defense(NETWORK, Gauss(0.01), Vote(4)), success="rule")
    found = attacked(short(attack), who, BARE if kind == "deterministic" else voted)
    assert found.x.isfinite().all()
    if attack.kind == "minimal":
        assert (found.status == int(Status.FOUND)).all()


@pytest.mark.slow
@EVERY
def test_a_shared_draw_of_weights_is_attacked(attack: Attack) -> None:
    """One network for all in each pass: a defined answer, and the same one again."""
    shared = Operated(Small(), ParamNet(0.01))
    assert shared.weights == "shared"
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    who = Batch(x, shared.network.build()(x).argmax(dim=1), INDEX[:4])
    threat = adaptive(Defense(shared), draws=2)
    first = attacked(short(attack), who, threat)
    assert first.x.isfinite().all()
    assert (first.status <= int(Status.BUDGET_EXHAUSTED)).all()
    same(attacked(short(attack), who, threat), first)


class _Whole(DefenseView):
    """A view of which nobody may leave, as of a stranger's random module; it notes how many rows each pass has."""

    def __init__(self, threat: Threat) -> None:
        super().__init__(threat)
        self.rows: set[int] = set()
        self.fast.register_forward_hook(lambda _m, args, _out: self.rows.add(len(args[0])))

    @property
    def compact(self) -> bool:
        return False


@pytest.mark.slow
@EVERY
def test_whoever_is_done_stays_where_nobody_may_leave(attack: Attack) -> None:
    """Of easy and hopeless examples: no question is about some of them only, and the easy ones are found."""
    who = batch()
    easy, hopeless = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])
    x = who.x.clone()
    x[easy] = 0.5 + (x[easy] - 0.5) / 100  # as good as on the boundary
    x[hopeless] = x[hopeless] * 0.5 + 0.25
    who = replace(who, x=x, y=NETWORK.build()(x).argmax(dim=1))
    view = _Whole(adaptive(Defense(NETWORK, Gauss(1e-4)), draws=2))
    with rng.root("whole"):
        found = short(attack)(view, who)
    assert all(rows % len(who) == 0 for rows in view.rows)
    assert found.x.isfinite().all()
    assert (found.status <= int(Status.BUDGET_EXHAUSTED)).all()
    if attack.kind == "minimal":
        assert (found.status[easy] == int(Status.FOUND)).all()


# ---------------------------------------------------------------- one bad example


class _NaNLogits(nn.Module):
    """NaN for bright images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        bad = x.flatten(1).mean(dim=1) > 0.7
        return self.inner(x) + torch.where(bad, torch.nan, 0.0)[:, None]


class _NaNGradients(nn.Module):
    """Good logits everywhere, but for bright images their derivative is √′(0)·0 = NaN."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        bad = (x.flatten(1).mean(dim=1) > 0.7).nonzero()[:, 0]
        nothing = (x[bad] - x[bad].detach()).flatten(1).square().sum(dim=1).sqrt()
        return self.inner(x).index_add(0, bad, nothing[:, None].expand(-1, NETWORK.classes))


class _Brightness(nn.Module):
    """Sees nothing but the mean pixel, so that its gradient is one number expanded over the image."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.slopes = torch.linspace(-1, 1, NETWORK.classes)

    def forward(self, x: Tensor) -> Tensor:
        return (x.sum(dim=(1, 2, 3)) / x[0].numel() - 0.5)[:, None] * self.slopes


@dataclass(frozen=True)
class BrokenNetwork(FixedNetwork):
    """The linear network, but broken for bright images."""

    broken: type[nn.Module] = _NaNLogits

    def build(self) -> nn.Module:
        make: Any = self.broken
        return make(NETWORK.build()).eval()


def healthy_and_broken(broken: type[nn.Module], noisy: bool) -> tuple[Threat, Threat]:
    pair = (Defense(NETWORK), Defense(BrokenNetwork(broken)))
    healthy, bad = (adaptive(d.through(Gauss(0.02)) if noisy else d) for d in pair)
    return healthy, bad


@EVERY
@pytest.mark.parametrize("noisy", [False, True], ids=["deterministic", "Gauss"])
@pytest.mark.parametrize("label", [0, 3])
def test_nan_fails_one_example_only(attack: Attack, noisy: bool, label: int) -> None:
    """argmax of NaN is class 0: whether that is the label or not, the example is FAILED and the others are as ever."""
    attack = entry(attack).timid(short(attack))
    who = batch()
    x, y = who.x.clone(), who.y.clone()
    x[2], y[2] = 0.95, label
    healthy, broken = healthy_and_broken(_NaNLogits, noisy)
    found = attacked(attack, replace(who, x=x, y=y), broken)
    assert found.status[2] == int(Status.FAILED)
    assert found.x.isfinite().all()
    # The streams' root is given by hand here, so both defenses have the same draws.
    same(taken(found, OTHERS), taken(attacked(attack, who, healthy), OTHERS), exact=False)


@EVERY
@pytest.mark.parametrize("noisy", [False, True], ids=["deterministic", "Gauss"])
def test_nan_gradient_is_no_robustness(attack: Attack, noisy: bool) -> None:
    """An attack that was told no direction has not failed to find anything: FAILED, not NOT_FOUND."""
    attack = entry(attack).timid(short(attack))
    who = batch()
    x, y = who.x.clone(), who.y.clone()
    x[2] = 0.95
    y[2] = NETWORK.build()(x[2:3]).argmax()
    healthy, broken = healthy_and_broken(_NaNGradients, noisy)
    who = replace(who, x=x, y=y)
    found = attacked(attack, who, broken)
    assert found.x.isfinite().all()
    assert (found.x >= 0).all()
    assert (found.x <= 1).all()
    expected = attacked(attack, who, healthy)
    if attack.gradients:
        assert found.status[2] == int(Status.FAILED)
        same(taken(found, OTHERS), taken(expected, OTHERS), exact=False)
    else:
        same(found, expected, exact=False)


@EVERY
def test_nan_gradient_hides_no_error(attack: Attack) -> None:
    """What is misclassified as it stands is FOUND, whatever its gradient."""
    attack = entry(attack).timid(short(attack))
    who = batch()
    x, y = who.x.clone(), who.y.clone()
    x[2] = 0.95
    y[2] = (NETWORK.build()(x[2:3]).argmax() + 1) % NETWORK.classes
    _, broken = healthy_and_broken(_NaNGradients, False)
    assert attacked(attack, replace(who, x=x, y=y), broken).status[2] == int(Status.FOUND)


# ---------------------------------------------------------------- laws at the edge


def nobody_is_an_answer(attack: Attack, threat: Threat) -> None:
    """An empty batch has empty Adversarials, targeted or not."""
    for targeted in (False, True):
        who = batch(targeted=targeted).rows(slice(0, 0))
        found = attacked(attack, who, threat)
        assert found.x.shape == who.x.shape
        assert found.x.dtype == who.x.dtype
        assert found.status.shape == (0,)
        assert found.status.dtype == torch.int64
        assert found.cost.forwards.shape == found.cost.backwards.shape == (0,)


def one_is_a_batch(attack: Attack, threat: Threat) -> None:
    """Targeted, where the batch's shape says least; untargeted alone is `ignores_batch_mates`."""
    who = batch(targeted=True)
    whole = attacked(attack, who, threat)
    alone = attacked(attack, who.rows(torch.tensor([3])), threat)
    assert alone.x.shape == (1, *who.x.shape[1:])
    same(alone, taken(whole, torch.tensor([3])), exact=False)


def one_class_is_a_batch(attack: Attack, threat: Threat) -> None:
    """A batch of one class has what its examples have in a mixed one (starts are not taken from batch mates)."""
    rows = (batch().y == batch().y.mode().values).nonzero()[:, 0]
    assert len(rows) > 1
    same(
        attacked(attack, batch().rows(rows), threat),
        taken(attacked(attack, threat=threat), rows),
        exact=False,
    )


def no_budget_is_no_change(attack: Attack, threat: Threat) -> None:
    """Epsilon 0 hands over the example itself: found where the defender errs there already, else not."""
    zero = entry(attack).zero
    assert (zero is None) == (attack.kind == "minimal")
    if zero is None:
        return
    attack, who = zero(attack), batch()
    y = who.y.clone()
    y[1] = (y[1] + 1) % NETWORK.classes
    found = attacked(attack, replace(who, y=y), threat)
    torch.testing.assert_close(found.x, who.x, rtol=0, atol=1e-6)
    if not threat.assumed.stochastic:
        assert found.status[1] == int(Status.FOUND)
        assert (found.status[torch.tensor([0, 2, 3, 4, 5])] != int(Status.FOUND)).all()


def constant_is_not_found(attack: Attack, threat: Threat) -> None:
    """A network that ignores its input is never fooled; the candidate stays in the box."""
    constant = LinearNetwork(gain=0.0)
    who = replace(batch(constant), y=torch.zeros(6, dtype=torch.int64))
    assumed = replace(threat.assumed, network=constant)
    found = attacked(attack, who, replace(threat, assumed=assumed))
    assert set(found.status.tolist()) <= {int(Status.NOT_FOUND), int(Status.INIT_FAILED)}
    assert (found.x >= 0).all()
    assert (found.x <= 1).all()


LAWS = (
    nobody_is_an_answer,
    one_is_a_batch,
    one_class_is_a_batch,
    no_budget_is_no_change,
    constant_is_not_found,
)
Law = Callable[[Attack, Threat], None]


@EVERY
@THREATS
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(attack: Attack, threat: Threat, law: Law) -> None:
    law(short(attack), threat)


@pytest.mark.parametrize(
    ("liar", "law"),
    [
        (fakes.NeedsSomebody(), nobody_is_an_answer),
        (fakes.ForgetsTheBatch(), one_is_a_batch),
        (fakes.StartsFromBatchMates(), one_class_is_a_batch),
        (fakes.BlindRandomness(), no_budget_is_no_change),
        (fakes.NoOp(), constant_is_not_found),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_liar_breaks_its_law(liar: Attack, law: Law) -> None:
    with pytest.raises(AssertionError):
        law(liar, BARE)


def test_liar_takes_nan_gradients_for_robustness() -> None:
    with pytest.raises(AssertionError):
        test_nan_gradient_is_no_robustness(fakes.StandsStill(), False)


@EVERY
def test_a_gradient_may_be_an_expanded_number(attack: Attack) -> None:
    network: Any = BrokenNetwork(_Brightness)
    who = batch(NETWORK)
    found = attacked(short(attack), who, non_adaptive(Defense(network)))
    assert (found.status != int(Status.FAILED)).all()


@EVERY
@pytest.mark.parametrize("classes", [2, 3, 4], ids=lambda k: f"{k} classes")
def test_few_classes(attack: Attack, classes: int) -> None:
    """Losses over the third and the fourth logit, and lists of targets, have an answer where there are fewer."""
    network = LinearNetwork(gain=5.0, classes=classes)
    for targeted in (False, True):
        who = batch(network, targeted)
        found = attacked(short(attack), who, non_adaptive(Defense(network)))
        assert found.x.isfinite().all()
        assert (found.status != int(Status.FAILED)).all()


def test_every_attack_has_its_entry() -> None:
    assert {type(attack) for attack in ATTACKS} <= set(TABLE)
