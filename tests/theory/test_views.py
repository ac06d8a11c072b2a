"""What else a view answers: labels of single draws, the defender's own verdict, and substituted gradients (BPDA)."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from linear import FixedNetwork, LinearNetwork
from noisychannel import rng
from noisychannel.attacks import PGD
from noisychannel.channels import CD, Gauss, Identity
from noisychannel.decision import MeanProb, Single, Vote
from noisychannel.defenses import Defense
from noisychannel.errors import UserError
from noisychannel.norms import L2
from noisychannel.objectives import CrossEntropy
from noisychannel.threats import Bpda, DefenseView, Threat, adaptive, non_adaptive
from noisychannel.types import Backward, Batch, Channel, Decision, Status

SIGMA = 0.3
TWO = LinearNetwork(classes=2, gain=5.0)


def wrong_rate(who: Batch, sigma: float) -> Tensor:
    """P(one draw errs) = Φ(−margin / (σ‖w₀ − w₁‖)) of the two-class linear network under Gauss noise."""
    w, logits = TWO.weight(), TWO.build()(who.x)
    margin = logits.gather(1, who.y[:, None])[:, 0] - logits.gather(1, 1 - who.y[:, None])[:, 0]
    return torch.distributions.Normal(0.0, 1.0).cdf(-margin / (sigma * (w[0] - w[1]).norm()))


# ---------------------------------------------------------------- labels


def test_labels_are_independent_draws_of_the_true_rate() -> None:
    who = TWO.batch(n=8, spread=0.02)
    view = DefenseView(adaptive(Defense(TWO, Gauss(SIGMA))), max_rows=500)
    draws = 4000
    with rng.root("labels"):
        said = view.labels(who.x, who, 0, draws)
    p = wrong_rate(who, SIGMA)
    assert said.shape == (draws, 8)
    error = (p * (1 - p) / draws).sqrt()
    assert (((said != who.y).float().mean(dim=0) - p).abs() < 4.5 * error).all()
    assert (p > 0.05).all()  # or the bound above says nothing
    wrong = (said != who.y).float()
    neighbours = torch.corrcoef(torch.stack([wrong[:, 0], wrong[:, 1]]))[0, 1]
    assert abs(float(neighbours)) < 4.5 / draws**0.5


def test_labels_are_named_by_step_draw_and_example_only() -> None:
    who = TWO.batch(n=8, spread=0.02)
    view = DefenseView(adaptive(Defense(TWO, Gauss(SIGMA))))
    clock = torch.arange(8)
    with rng.root("names"):
        whole = view.labels(who.x, who, clock, 64)
        part = view.labels(who.x[3:5], who.rows(slice(3, 5)), clock[3:5], 64)
        again = view.labels(who.x, who, clock, 64)
        other = view.labels(who.x, who, clock + 1, 64)
        score = view.query(who.x, who, CrossEntropy(), clock, gradient=False)
        assert torch.equal(whole[:, 3:5], part)
        assert torch.equal(whole, again)
        assert not torch.equal(whole, other)
        first = view.labels(who.x, who, clock, 1)
    assert torch.equal(first[0], whole[0])
    # A label is no copy of the draw by which a score was made at the same step.
    assert not torch.equal(score.fooled, whole[0] != who.y)


def test_labels_cost_one_forward_a_draw() -> None:
    who = TWO.batch(n=8)
    view = DefenseView(adaptive(Defense(TWO, Gauss(SIGMA))))
    view.labels(who.x[:3], who.rows(slice(0, 3)), 0, 10)
    view.labels(who.x, who, 1, 2)
    cost = view.cost(who)
    assert cost.forwards.tolist() == [12] * 3 + [2] * 5
    assert cost.backwards.tolist() == [0] * 8


@dataclass(frozen=True)
class _Broken(FixedNetwork):
    """Logits NaN for bright images."""

    def build(self) -> nn.Module:
        inner = TWO.build()

        class Module(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                bad = x.flatten(1).mean(dim=1) > 0.9
                return inner(x).masked_fill(bad[:, None], torch.nan)

        return Module().eval()


def test_no_number_is_no_label() -> None:
    who = TWO.batch(n=4)
    x = who.x.clone()
    x[2] = 1.0
    said = DefenseView(non_adaptive(Defense(_Broken()))).labels(x, who)
    assert said[0, 2] == -1
    assert (said[0, [0, 1, 3]] == who.y[[0, 1, 3]]).all()


def test_no_number_is_no_success() -> None:
    """argmax of NaN is class 0: an example of another class would be fooled by a network that broke."""
    who = TWO.batch(n=8)
    who = who.rows(who.y == 1)
    x = torch.ones_like(who.x)
    for defense in (Defense(_Broken()), Defense(_Broken(), Gauss(0.01), Vote(3))):
        view = DefenseView(adaptive(defense, success="rule"))
        assert len(who) > 0
        assert not view.query(x, who, CrossEntropy(), gradient=False).fooled.any()
        assert not view.trial(x[None], torch.ones(1, len(who), dtype=torch.bool), who).won.any()


# ---------------------------------------------------------------- success under the defender's rule


@pytest.mark.parametrize("rule", [Single(), Vote(9), MeanProb(9)], ids=repr)
def test_fooled_is_one_decision_of_the_rule(rule: Decision) -> None:
    """Vote(9): P(fooled) is the binomial tail at p; MeanProb and Single by the same draws replayed by hand."""
    who = TWO.batch(n=8, spread=0.02)
    threat = adaptive(Defense(TWO, Gauss(SIGMA), rule), success="rule")
    view = DefenseView(threat)
    assert view.certain
    assert view.rule == rule
    with rng.root("rule"):
        asked = [view.query(who.x, who, CrossEntropy(), s, gradient=False) for s in range(300)]
        rate = torch.stack([q.fooled for q in asked]).float().mean(dim=0)
        stream = rng.Stream("attacked-defense", who.index, 7, range(rule.draws), "success")
        with rng.bracket(stream):
            logits = TWO.build()(Gauss(SIGMA)(who.x.repeat(rule.draws, 1, 1, 1)))
        logits = logits.view(rule.draws, 8, 2).transpose(0, 1)
        decided = rule.decide(logits.argmax(dim=2), logits.softmax(dim=2))
    assert torch.equal(asked[7].fooled, decided != who.y)
    p = wrong_rate(who, SIGMA).double()
    if not isinstance(rule, MeanProb):
        least = rule.draws // 2 + 1
        ways = torch.distributions.Binomial(rule.draws, p)
        want = sum(
            ways.log_prob(torch.tensor(float(k))).exp() for k in range(least, rule.draws + 1)
        )
        error = (want * (1 - want) / 300).sqrt().clamp_min(0.003)
        assert ((rate - want).abs() < 4.5 * error).all()
    assert view.cost(who).forwards.tolist() == [300 * (1 + rule.draws)] * 8


def test_adaptive_until_success_stops_as_the_defender_decides() -> None:
    """Figure 9: the attacker votes as often as the defender and stops when his vote is won."""
    who = TWO.batch(n=16, spread=0.02)
    defense = Defense(TWO, Gauss(0.05), Vote(9))
    pgd = PGD(L2(), epsilon=1.0, steps=40, step_size=0.02, random_start=False, stop_early=True)
    with rng.root("until"):
        until = pgd(DefenseView(adaptive(defense, success="rule")), who)
        whole = pgd(DefenseView(adaptive(defense)), who)
    assert (whole.status == int(Status.FOUND)).all()
    # The first vote that is won may be a lucky one; most of 16 fresh votes say so, it is not counted.
    assert 0.2 < (until.status == int(Status.FOUND)).float().mean() < 1
    assert (until.cost.backwards < 40).all()
    assert (
        whole.cost.backwards == 40
    ).all()  # his own draws are no verdict: luck does not stop him
    assert (L2().distance(until.x, who.x) < L2().distance(whole.x, who.x)).float().mean() > 0.9


def test_a_deterministic_view_is_always_certain() -> None:
    assert DefenseView(non_adaptive(Defense(TWO, Gauss(SIGMA), Vote(5)))).certain
    assert DefenseView(non_adaptive(Defense(TWO, Gauss(SIGMA), Vote(5)))).rule == Single()
    assert not DefenseView(adaptive(Defense(TWO, Gauss(SIGMA)))).certain


def test_a_rule_verdict_is_not_asked_where_nothing_is_random() -> None:
    who = TWO.batch(n=4)
    view = DefenseView(replace(non_adaptive(Defense(TWO)), success="rule"))
    view.query(who.x, who, CrossEntropy())
    assert view.cost(who).forwards.tolist() == [1] * 4


# ---------------------------------------------------------------- BPDA


@dataclass(frozen=True)
class _Scaled:
    """g(x) = factor · x: its derivative is seen in the gradient."""

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    gradients: ClassVar[tuple[str, ...]] = ("exact",)
    factor: float = 3.0

    def __call__(self, x: Tensor) -> Tensor:
        return self.factor * x

    def identity(self) -> Channel | None:
        return None

    def expected_l2(self, shape: tuple[int, ...]) -> float | None:
        return None


def test_substitute_gives_the_gradient_and_the_channel_the_value() -> None:
    """At C(x), ∇ = ∂g/∂xᵀ · ∇L(C(x)): with g = 3x three times the straight-through gradient."""
    who = TWO.batch(n=6)
    defense = Defense(TWO, CD(2))
    through = DefenseView(Threat(defense)).query(who.x, who, CrossEntropy())
    stood_in = DefenseView(Threat(defense, substitute=_Scaled())).query(who.x, who, CrossEntropy())
    same = DefenseView(Threat(defense, substitute=Identity())).query(who.x, who, CrossEntropy())
    torch.testing.assert_close(stood_in.value, through.value)
    torch.testing.assert_close(stood_in.gradient, 3 * through.gradient)
    torch.testing.assert_close(same.gradient, through.gradient)
    assert (through.gradient != 0).any()


class _Quantise(nn.Module):
    """A stage of somebody's own network: 2 bits, no derivative."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(3).round_().div_(3)  # in place, as careless authors do


def test_bpda_stage_inside_a_network() -> None:
    network = TWO.build()
    masked = nn.Sequential(_Quantise(), network)
    stood_in = nn.Sequential(Bpda(_Quantise()), network)
    scaled = nn.Sequential(Bpda(_Quantise(), lambda x: 2 * x), network)
    x = TWO.batch(n=4).x

    def slope(module: nn.Module) -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(module(leaf)[:, 0].sum(), leaf)[0]

    assert torch.equal(stood_in(x), masked(x.clone()))
    assert torch.equal(x, TWO.batch(n=4).x)  # the stage's own writing stays its own
    torch.testing.assert_close(
        slope(stood_in), TWO.weight()[0].view(1, 3, 8, 8).expand(4, -1, -1, -1)
    )
    torch.testing.assert_close(slope(scaled), 2 * slope(stood_in))


def test_a_substitute_of_another_shape_is_refused() -> None:
    with pytest.raises(UserError, match=r"substitute: expected the stage's output shape .*, got "):
        Bpda(nn.Identity(), lambda x: x[:, :1])(torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("backward", ["exact", "straight_through", "at_input"])
def test_substitute_and_another_backward_are_refused(backward: Backward) -> None:
    with pytest.raises(UserError, match="backward: expected default where a substitute is given"):
        Threat(Defense(TWO, Gauss(0.1)), substitute=Identity(), backward=backward)


# ---------------------------------------------------------------- memory


_PEAK = """
import sys, torch
from pathlib import Path
from noisychannel import rng
from noisychannel.channels import Gauss
from noisychannel.defenses import Defense
from noisychannel.networks import ResNet20
from noisychannel.objectives import CrossEntropy
from noisychannel.threats import DefenseView, adaptive
from noisychannel.types import Batch
torch.set_num_threads(1)
x = torch.rand(8, 3, 32, 32)
batch = Batch(x, torch.zeros(8, dtype=torch.long), torch.arange(8))
view = DefenseView(adaptive(Defense(ResNet20(), Gauss(0.1)), int(sys.argv[1]), sys.argv[2]))
# Not getrusage: its peak is inherited from the process that forked this one.
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
before = peak()
view.query(x, batch, CrossEntropy())
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's peak memory")
@pytest.mark.parametrize(
    "averaged", [pytest.param("mean_loss", marks=pytest.mark.slow), "mean_logit"]
)
def test_memory_does_not_grow_with_draws(averaged: str) -> None:
    """256 draws take at most 1.5 × the memory of 16, above what the process holds before it asks."""

    def peak(draws: int) -> int:
        command = [sys.executable, "-c", _PEAK, str(draws), averaged]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    few, many = peak(16), peak(256)
    assert few > 50_000  # KiB: 128 rows of a ResNet-20 and their gradients
    assert many <= 1.5 * few
