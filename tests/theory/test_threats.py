"""Views against autograd by hand: what is averaged, how a channel is differentiated, and what is counted."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from linear import FixedNetwork, LinearNetwork
from noisychannel import rng
from noisychannel.attacks import DDN, PGD
from noisychannel.channels import CD, FC, SVD, Chain, Gauss, Identity, Laplace, straight_through
from noisychannel.decision import Decision, MeanProb, Single, Vote
from noisychannel.defenses import Defense, answers
from noisychannel.errors import UserError
from noisychannel.norms import L2
from noisychannel.objectives import CrossEntropy, Hinge, margin
from noisychannel.threats import Averaged, DefenseView, Threat, adaptive, assumes, non_adaptive
from noisychannel.types import Backward, Batch, Channel, Goal, Objective

SIGMA = 0.3
DRAWS = 6
AVERAGED = pytest.mark.parametrize("averaged", ["mean_loss", "mean_prob", "mean_logit"])
LOSSES = pytest.mark.parametrize("loss", [CrossEntropy(), Hinge(0.5)], ids=repr)


class _Bent(nn.Module):
    """Two layers, so that the gradient depends on the point at which it is taken."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh((x - 0.5).flatten(1) @ self.first.T) @ self.second.T


@dataclass(frozen=True)
class BentNetwork(FixedNetwork):
    """A small curved network of fixed weights on images (3, 8, 8)."""

    gain: float = 3.0
    outer: float = 1.0

    def build(self) -> nn.Module:
        made = torch.Generator().manual_seed(5)
        first = self.gain * torch.randn(24, 192, generator=made) / 192**0.5
        second = self.outer * torch.randn(5, 24, generator=made)
        return _Bent(first, second).eval().requires_grad_(False)


NETWORK = BentNetwork()


def batch(n: int = 7, targeted: bool = False) -> Batch:
    made = torch.Generator().manual_seed(1)
    x = torch.rand(n, 3, 8, 8, generator=made)
    y = torch.randint(0, 5, (n,), generator=made)
    index = torch.tensor([40, 3, 77, 12, 5, 999, 1])[:n]
    return Batch(x, y, index, (y + 1) % 5 if targeted else None)


def noisy_logits(
    x: Tensor, who: Batch, channel: Channel, draws: int, step: int | Tensor = 0
) -> Tensor:
    """Logits (d, n, k) of the curved network, each draw taken on its own, by hand."""
    seen = []
    for d in range(draws):
        with rng.bracket(rng.Stream("attacked-defense", who.index, step, range(d, d + 1))):
            seen.append(NETWORK.build()(channel(x)))
    return torch.stack(seen)


def stated(z: Tensor, goal: Goal, loss: Objective, averaged: Averaged) -> Tensor:
    """L̄ of the docstring of Threat, written out."""
    if averaged == "mean_loss":
        return torch.stack([loss(one, goal) for one in z]).mean(dim=0)
    if averaged == "mean_prob":
        return loss(z.softmax(dim=2).mean(dim=0).log(), goal)
    return loss(z.mean(dim=0), goal)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-3))


# ---------------------------------------------------------------- the gradient is that of the objective


@AVERAGED
@LOSSES
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("max_rows", [512, 14, 1])
@pytest.mark.parametrize("waiting", [0, 1, 2 << 30])
def test_query_is_autograd_of_the_stated_objective(
    averaged: Averaged, loss: Any, targeted: bool, max_rows: int, waiting: int
) -> None:
    """All draws in one pass, two at a time, and one at a time; no graph may wait, one, or all."""
    who, steps = batch(targeted=targeted), torch.tensor([3, 3, 0, 1, 4, 1, 5])
    with rng.root("by hand"):
        view = DefenseView(
            adaptive(Defense(NETWORK, Gauss(SIGMA)), DRAWS, averaged),
            max_rows=max_rows,
            waiting=waiting,
        )
        query = view.query(who.x, who, loss, steps)
        x = who.x.clone().requires_grad_()
        z = noisy_logits(x, who, Gauss(SIGMA), DRAWS, steps)
        value = stated(z, who.goal, loss, averaged)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        blind = view.query(who.x, who, loss, steps, gradient=False)
    assert close(query.value, value.detach())
    assert close(query.gradient, gradient)
    margins = torch.stack([margin(one, who.goal) for one in z.detach()])
    assert close(query.margin, margins.mean(dim=0))
    wrong = (margins < 0).float().mean(dim=0) >= 0.5
    assert torch.equal(query.fooled, wrong)
    assert close(blind.value, query.value)
    assert not blind.gradient.any()


@AVERAGED
@pytest.mark.parametrize("flushed", [False, True], ids=["denormals", "flushed"])
def test_a_class_without_probability_is_no_nan(averaged: Averaged, flushed: bool) -> None:
    """Logits so far apart that softmax underflows, as every task meets them: with denormals flushed."""
    torch.set_flush_denormal(flushed)
    far, who = BentNetwork(outer=300.0), batch(targeted=True)
    view = DefenseView(adaptive(Defense(far, Gauss(SIGMA)), DRAWS, averaged))
    with rng.root("far"):
        query = view.query(who.x, who, CrossEntropy())
    assert bool(query.value.isfinite().all() & query.gradient.isfinite().all())


@AVERAGED
def test_an_examples_gradient_is_its_own(averaged: Averaged) -> None:
    """Trap 3, a hinge on the batch's sum: whoever else is asked about changes nobody's gradient."""
    who, some = batch(), torch.tensor([5, 2])
    view = DefenseView(adaptive(Defense(NETWORK, Gauss(SIGMA)), DRAWS, averaged))
    with rng.root("mates"):
        whole = view.query(who.x, who, Hinge(0.5))
        part = view.query(who.x[some], who.rows(some), Hinge(0.5))
    assert close(part.gradient, whole.gradient[some])
    assert close(part.value, whole.value[some])


def test_hinge_is_clamped_per_example() -> None:
    """Trap 3: one example far beyond the boundary must not hide that another is before it."""
    z = torch.tensor([[100.0, 0.0], [0.0, 1.0]], requires_grad=True)
    value = Hinge()(z, Goal(torch.tensor([1, 1])))
    (slope,) = torch.autograd.grad(value.sum(), z)
    assert value.tolist() == [0.0, -1.0]
    assert slope.tolist() == [[0.0, 0.0], [1.0, -1.0]]


def test_averages_are_three_different_objectives() -> None:
    """Trap 9: the gradient of the loss of mean logits is not the mean gradient of the loss."""
    who = batch()
    with rng.root("trap 9"):
        gradients = [
            DefenseView(adaptive(Defense(NETWORK, Gauss(SIGMA)), 16, averaged))
            .query(who.x, who, CrossEntropy())
            .gradient.flatten(1)
            for averaged in ("mean_loss", "mean_prob", "mean_logit")
        ]
    for i, a in enumerate(gradients):
        for b in gradients[i + 1 :]:
            gap = (a - b).norm(dim=1) / b.norm(dim=1)
            assert (gap > 0.02).all()  # and yet all three point uphill
            assert (torch.cosine_similarity(a, b) > 0.5).all()


def test_one_draw_makes_the_averages_one() -> None:
    who = batch()
    with rng.root("one draw"):
        one, *others = [
            DefenseView(adaptive(Defense(NETWORK, Gauss(SIGMA)), 1, averaged)).query(
                who.x, who, CrossEntropy()
            )
            for averaged in ("mean_loss", "mean_prob", "mean_logit")
        ]
    assert all(torch.equal(one.gradient, other.gradient) for other in others)


# ---------------------------------------------------------------- through, past, and at the input


def by_hand(channel: Channel, backward: Backward, who: Batch) -> Tensor:
    """∇ of the loss at C(x), for the three ways, from their one-line definitions."""
    network, loss = NETWORK.build(), CrossEntropy()
    x = who.x.clone().requires_grad_()
    if backward == "exact":
        (gradient,) = torch.autograd.grad(loss(network(channel(x)), who.goal).sum(), x)
        return gradient
    seen = channel(who.x).detach().requires_grad_()
    if backward == "straight_through":
        (gradient,) = torch.autograd.grad(loss(network(seen), who.goal).sum(), seen)
        return gradient
    z = network(seen).detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(z, who.goal).sum(), z)
    (gradient,) = torch.autograd.grad(network(x), x, slope)
    return gradient


@pytest.mark.parametrize("channel", [FC(60.0), SVD(60.0), CD(1), Chain(FC(60.0), CD(2))], ids=repr)
def test_three_ways_back_through_a_channel(channel: Channel) -> None:
    who = batch()
    ways: list[Backward] = ["straight_through", "at_input"]
    ways += ["exact"] if "exact" in channel.gradients else []
    found = {}
    for way in ways:
        view = DefenseView(Threat(Defense(NETWORK, channel), backward=way))
        found[way] = view.query(who.x, who, CrossEntropy())
        assert close(found[way].gradient, by_hand(channel, way, who))
        assert torch.equal(found[way].value, found["straight_through"].value)
    gradients = [q.gradient.flatten(1) for q in found.values()]
    for i, a in enumerate(gradients):
        for b in gradients[i + 1 :]:
            assert ((a - b).norm(dim=1) > 0.05 * b.norm(dim=1)).all()
    default = DefenseView(adaptive(Defense(NETWORK, channel))).query(who.x, who, CrossEntropy())
    assert torch.equal(default.gradient, found[channel.gradients[0]].gradient)


@AVERAGED
@pytest.mark.parametrize("max_rows", [512, 7])
def test_at_input_with_noise(averaged: Averaged, max_rows: int) -> None:
    """Slopes from the noisy logits, the network differentiated at x itself, draw by draw."""
    who = batch()
    threat = replace(adaptive(Defense(NETWORK, Gauss(SIGMA)), DRAWS, averaged), backward="at_input")
    with rng.root("at input"):
        query = DefenseView(threat, max_rows=max_rows).query(who.x, who, CrossEntropy())
        z = noisy_logits(who.x, who, Gauss(SIGMA), DRAWS).detach().requires_grad_()
        value = stated(z, who.goal, CrossEntropy(), averaged)
    (slope,) = torch.autograd.grad(value.sum(), z)
    x = who.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(NETWORK.build()(x), x, slope.sum(dim=0))
    assert close(query.gradient, gradient)
    assert close(query.value, value.detach())


def test_straight_through_noise_is_noise() -> None:
    """Additive noise has the identity's derivative: exact and straight-through agree to the last bit."""
    who = batch()
    with rng.root("additive"):
        one, other = [
            DefenseView(Threat(Defense(NETWORK, Laplace(0.2)), 3, backward=way)).query(
                who.x, who, CrossEntropy()
            )
            for way in ("exact", "straight_through")
        ]
    assert close(one.gradient, other.gradient, 1e-6)
    x = who.x.clone().requires_grad_()
    assert straight_through(CD(4), x).requires_grad


# ---------------------------------------------------------------- threats are values

DRAWN: list[tuple[str, Tensor]] = []


@dataclass(frozen=True)
class Recorder:
    """Gauss noise that keeps a copy of what it drew and how many inputs it has seen."""

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True
    gradients: ClassVar[tuple[str, ...]] = ("exact", "straight_through")
    name: str = "true"
    sigma: float = 0.1

    def __call__(self, x: Tensor) -> Tensor:
        noise = rng.normal(x)
        DRAWN.append((self.name, noise.clone()))
        return x + self.sigma * noise

    def identity(self) -> "Recorder":
        return replace(self, sigma=0.0)

    def expected_l2(self, shape: tuple[int, ...]) -> None:
        return None


@pytest.fixture(autouse=True)
def _nothing_drawn() -> None:
    DRAWN.clear()


def test_each_threat_sees_what_it_assumes() -> None:
    defense, who = Defense(NETWORK, Recorder(), Vote(4)), batch()

    def names(threat: Threat) -> set[str]:
        DRAWN.clear()
        with rng.root("names"):
            PGD(steps=2)(DefenseView(threat), who)
        return {name for name, _ in DRAWN}

    assert names(non_adaptive(defense)) == set()
    assert names(assumes(defense, Recorder("guess"))) == {"guess"}
    assert names(adaptive(defense)) == {"true"}
    assert non_adaptive(defense).assumed == Defense(NETWORK, Identity(), Single())
    assert assumes(defense, Laplace(0.1)).assumed == Defense(NETWORK, Laplace(0.1), Single())
    assert adaptive(defense).assumed == defense


def test_the_average_follows_the_decision_rule() -> None:
    assert adaptive(Defense(NETWORK, Gauss(0.1), MeanProb(4))).averaged == "mean_prob"
    assert adaptive(Defense(NETWORK, Gauss(0.1), Vote(4))).averaged == "mean_loss"
    assert adaptive(Defense(NETWORK, Gauss(0.1))).averaged == "mean_loss"
    asked = adaptive(Defense(NETWORK, Gauss(0.1), MeanProb(4)), averaged="mean_logit")
    assert asked.averaged == "mean_logit"


def test_roles_share_no_draws() -> None:
    """Attack, selection and scoring noise of one example: no element in common, no correlation."""
    defense, who = Defense(NETWORK, Recorder()), batch()
    view = DefenseView(adaptive(defense, draws=4))
    drawn = {}
    with rng.root("roles"):
        for step in (0, 1):
            view.query(who.x, who, CrossEntropy(), step)
            drawn[f"query {step}"] = torch.cat([z for _, z in DRAWN])
            DRAWN.clear()
        view.trial(who.x[None], torch.zeros(1, len(who), dtype=torch.bool), who)
        drawn["selection"] = torch.cat([z for _, z in DRAWN])
        DRAWN.clear()
        answers(defense, NETWORK.build(), who.x, who, "scoring", 16)
        drawn["scoring"] = torch.cat([z for _, z in DRAWN])
    assert len(drawn["selection"]) == len(drawn["scoring"]) == 16 * len(who)
    rows = torch.cat(list(drawn.values())).flatten(1)
    assert rows.flatten().unique().numel() > 0.99 * rows.numel()
    alike = rows @ rows.T / rows.shape[1] - torch.eye(len(rows))
    off = alike.masked_fill(torch.eye(len(rows), dtype=torch.bool), 0)
    assert off.abs().max() < 6 / rows.shape[1] ** 0.5


def test_scoring_draws_do_not_depend_on_how_many_are_asked_for() -> None:
    defense, who = Defense(NETWORK, Gauss(SIGMA)), batch()
    with rng.root("prefix"):
        many = answers(defense, NETWORK.build(), who.x, who, "scoring", 20).logits
        few = answers(defense, NETWORK.build(), who.x, who, "scoring", 5, max_rows=7).logits
    assert close(few, many[:5])


def test_noise_is_there_in_eval_mode_and_leaves_its_input() -> None:
    """Traps 1 and 2: a defense is random because it says so, not because of `.training`."""
    defense, who = Defense(NETWORK, Gauss(SIGMA)), batch()
    view, before = DefenseView(adaptive(defense)), who.x.clone()
    assert not view.plain.training
    assert not view.fast.training
    with rng.root("eval"):
        logits = {}
        for mode in (False, True):
            module = NETWORK.build().train(mode)
            logits[mode] = answers(defense, module, who.x, who, "scoring", 2).logits
        first, second = [view.query(who.x, who, CrossEntropy(), step) for step in (0, 1)]
    assert torch.equal(logits[True], logits[False])
    assert not torch.allclose(logits[True][0], logits[True][1])
    assert not torch.allclose(first.value, second.value)
    assert torch.equal(who.x, before)


def test_moved_is_what_the_network_was_shown() -> None:
    defense, who = Defense(NETWORK, Recorder()), batch()
    with rng.root("moved"):
        said = answers(defense, NETWORK.build(), who.x + 0.1, who, "scoring", 2)
    noise = torch.cat([z for _, z in DRAWN]).view(2, len(who), -1)
    torch.testing.assert_close(said.moved, (0.1 * noise + 0.1).norm(dim=2))


# ---------------------------------------------------------------- trial


@pytest.mark.parametrize("decision", [Single(), Vote(9), MeanProb(5)], ids=repr)
@pytest.mark.parametrize("final", [False, True])
def test_trial_is_the_defenders_rule_on_selection_draws(decision: Decision, final: bool) -> None:
    """Whole decisions of 4 draws and more; a final one is 4 decisions, on draws of their own."""
    who = batch()
    points = torch.stack([who.x, 1 - who.x])
    opinion = torch.zeros(2, len(who), dtype=torch.bool)
    defense = Defense(NETWORK, Gauss(2.0), decision)
    decisions = 4 if final or decision.draws == 1 else 1
    draws = decisions * decision.draws
    with rng.root("trial"):
        view = DefenseView(replace(adaptive(defense), selection_draws=4))
        trial = view.trial(points, opinion, who, final=final)
        cost = view.cost(who)
        z = torch.stack(
            [
                answers(
                    defense, NETWORK.build(), p, who, "selection", draws, step=int(final)
                ).logits
                for p in points
            ]
        )
    assert cost.forwards.tolist() == [2 * draws] * len(who)
    wrong = z.argmax(dim=3) != who.y
    torch.testing.assert_close(trial.rate, wrong.float().mean(dim=1))
    for i in range(2):
        said = [
            decision.decide(part.argmax(dim=2).T, part.softmax(dim=2).transpose(0, 1))
            for part in z[i].split(decision.draws)
        ]
        won = (torch.stack(said) != who.y).float().mean(dim=0)
        assert torch.equal(trial.won[i], won > 0.5)  # half is not most
    margins = torch.stack([torch.stack([margin(one, who.goal) for one in draw]) for draw in z])
    torch.testing.assert_close(trial.margin, margins.mean(dim=1))


@pytest.mark.parametrize(
    "attack",
    [
        PGD(L2(), epsilon=0.0, steps=3),
        DDN(steps=3),
    ],
    ids=lambda a: type(a).__name__,
)
def test_without_selection_draws_the_attacks_own_draws_are_believed(attack: Any) -> None:
    """On noise too small to matter nothing near is adversarial, so nobody can believe that it is."""
    network = LinearNetwork(gain=50.0)
    who = network.batch()
    who = who.rows(network.optimum(who, 2.0) > 0.03)
    if isinstance(attack, DDN):
        attack = replace(attack, initial=1e-3)
    view = DefenseView(replace(adaptive(Defense(network, Gauss(1e-6))), selection_draws=0))
    with rng.root("own"):
        found = attack(view, who)
    assert (found.status == 1).all()


# ---------------------------------------------------------------- costs


def counted(view: DefenseView) -> list[int]:
    """Rows that pass through the prepared and the plain network, counted by hooks."""
    rows = [0]
    for module in (view.fast, view.plain):
        module.register_forward_hook(
            lambda _m, args, _out: rows.__setitem__(0, rows[0] + len(args[0]))
        )
    return rows


@AVERAGED
@pytest.mark.parametrize("max_rows", [512, 7, 1])
@pytest.mark.parametrize("backward", ["exact", "at_input"])
@pytest.mark.parametrize("waiting", [0, 1, 2 << 30])
def test_cost_is_what_passes_through_the_network(
    averaged: Averaged, max_rows: int, backward: Backward, waiting: int
) -> None:
    who = batch()
    threat = replace(adaptive(Defense(NETWORK, Gauss(SIGMA)), DRAWS, averaged), backward=backward)
    view = DefenseView(threat, max_rows=max_rows, waiting=waiting)
    rows = counted(view)
    with rng.root("cost"):
        view.query(who.x, who, CrossEntropy(), 0)
        view.query(who.x, who, CrossEntropy(), 1, gradient=False)
        one = view.cost(who)
    assert (one.backwards == DRAWS).all()
    assert int(one.forwards.sum()) == rows[0]
    assert one.forwards.unique().numel() == 1
    assert not view.cost(who).forwards.any()  # counted since the last call


def test_a_graph_that_waits_spares_a_second_pass() -> None:
    """mean_logit of 5 draws, one a pass: 5 forwards where all graphs wait, 9 where one does, 10 where none."""
    who, found = batch(), {}
    for waiting in (2 << 30, 1, 0):
        threat = adaptive(Defense(NETWORK, Gauss(SIGMA)), 5, "mean_logit")
        view = DefenseView(threat, max_rows=1, waiting=waiting)
        with rng.root("waiting"):
            gradient = view.query(who.x, who, CrossEntropy()).gradient
        found[waiting] = gradient, int(view.cost(who).forwards[0])
    assert [forwards for _, forwards in found.values()] == [5, 9, 10]
    assert all(torch.equal(gradient, found[0][0]) for gradient, _ in found.values())


def test_cost_follows_examples_that_leave() -> None:
    who = batch()
    view = DefenseView(adaptive(Defense(NETWORK, Gauss(SIGMA)), draws=3))
    some = torch.tensor([6, 0, 3])
    with rng.root("leave"):
        view.query(who.x, who, CrossEntropy(), 0)
        view.query(who.x[some], who.rows(some), CrossEntropy(), 1)
        view.query(who.x[some[:1]], who.rows(some[:1]), CrossEntropy(), 2)
        view.trial(torch.stack([who.x, who.x]), torch.zeros(2, 7, dtype=torch.bool), who)
    cost = view.cost(who)
    assert cost.backwards.tolist() == [6, 3, 3, 6, 3, 3, 9]
    assert cost.forwards.tolist() == [n + 32 for n in [6, 3, 3, 6, 3, 3, 9]]


def test_cost_of_a_whole_attack_equals_the_rows_that_passed() -> None:
    """Compaction included: of what an early stop saves, nothing is counted."""
    network = LinearNetwork(gain=5.0)
    who = network.batch()
    for threat in (non_adaptive(Defense(network)), adaptive(Defense(network, Gauss(0.05)), 2)):
        for attack in (PGD(L2(), epsilon=0.3, steps=10, stop_early=True), DDN(steps=10)):
            view = DefenseView(threat)
            rows = counted(view)
            with rng.root("whole"):
                found = attack(view, who)
            assert int(found.cost.forwards.sum()) == rows[0]


@pytest.mark.parametrize("averaged", ["mean_loss", "mean_prob", "mean_logit"])
@pytest.mark.parametrize("channel", [Identity(), FC(50.0), CD(4)], ids=repr)
def test_a_deterministic_view_needs_one_draw(averaged: Averaged, channel: Channel) -> None:
    who = batch()
    eight = DefenseView(Threat(Defense(NETWORK, channel, Vote(9)), draws=8, averaged=averaged))
    one = DefenseView(Threat(Defense(NETWORK, channel)))
    assert not eight.stochastic
    a, b = (v.query(who.x, who, CrossEntropy()) for v in (eight, one))
    assert torch.equal(a.gradient, b.gradient)
    assert torch.equal(a.value, b.value)
    eight.trial(who.x[None], torch.zeros(1, 7, dtype=torch.bool), who)
    assert eight.cost(who).forwards.tolist() == [2] * 7


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Threat(Defense(NETWORK), draws=0), "draws: expected a whole number ≥ 1, got 0"),
        (
            lambda: adaptive(Defense(NETWORK), draws=-3),
            "draws: expected a whole number ≥ 1, got -3",
        ),
        (
            lambda: replace(adaptive(Defense(NETWORK)), selection_draws=-1),
            "selection_draws: expected a whole number ≥ 0, got -1",
        ),
        (
            lambda: adaptive(Defense(NETWORK, CD(4)), backward="exact"),
            r"backward: expected one of straight_through for CD\(bits=4, values=None\), got exact",
        ),
        (
            lambda: assumes(Defense(NETWORK), Chain(Gauss(0.1), CD(4)), backward="exact"),
            "backward: expected one of straight_through",
        ),
    ],
)
def test_bad_threats_are_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)
