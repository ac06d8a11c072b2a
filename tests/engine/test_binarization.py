"""The binarization test on networks of which it is known whether an attack can see its way."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from fakes_attacks import NoOp
from noisychannel import rng
from noisychannel.attacks import PGD
from noisychannel.audit.binarization import binarization, unit_test
from noisychannel.channels import CD, Gauss
from noisychannel.data import DataSpec
from noisychannel.decision import Vote
from noisychannel.defenses import Defense, fixed_draws
from noisychannel.engine import Binarize, Execution, Store, binarization_rows, run, serial
from noisychannel.errors import UserError
from noisychannel.interop import Borrowed
from noisychannel.measures import Binarized, Planted, Planting
from noisychannel.measures.binarization import _fisher
from noisychannel.networks import Foreign
from noisychannel.norms import L2, Linf
from noisychannel.objectives import Margin
from noisychannel.threats import DefenseView, Threat, adaptive
from noisychannel.types import Attack, Batch

DATA = DataSpec("digits", subset="first:16")
HOW = Execution(threads=1, micro_batch=16)
BALL = Planting(Linf(), 0.1, inner=60, candidates=40, draws=8)
SPHERE = Planting(L2(), 0.5, inner=200, candidates=100)  # its edge is little farther out
STEPS = PGD(Linf(), epsilon=0.1, steps=10)


def same(x: Tensor) -> Tensor:
    return x


class Small(nn.Module):
    """Two convolutions and a linear layer with random weights, bent at will before and after."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = same,
        after: Callable[[Tensor], Tensor] = same,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, 10),
        )
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layers(self.before(x)))


def zero_gradient(z: Tensor) -> Tensor:
    return z.detach() + 0 * z


def rounded(x: Tensor) -> Tensor:
    return (x * 31).round() / 31  # a derivative of zero


def sure(z: Tensor) -> Tensor:
    return z * 1e5


def tenfold(z: Tensor) -> Tensor:
    return 10 * z


def argmax(z: Tensor) -> Tensor:
    return 5 * nn.functional.one_hot(z.argmax(dim=1), 10).float() + 0 * z  # the gradient is zero


def network(**bent: Any) -> Foreign:
    return Foreign(Small(**bent).eval(), (1, 8, 8), nonce="tests")


PLAIN = Defense(network())
NOISY = Defense(network(), Gauss(0.05))


def asked(
    defense: Defense,
    attack: Attack = STEPS,
    threat: Threat | None = None,
    planting: Planting = BALL,
    how: Execution = HOW,
) -> Binarize:
    return Binarize(DATA, defense, threat or adaptive(defense), attack, planting, execution=how)


def rows(root: Path, task: Binarize) -> pa.Table:
    store = Store(root)
    run([task], store, serial, lambda *_: lambda _: None)
    return binarization_rows(store, task)


# ---------------------------------------------------------------- who passes, and who does not


def signed(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """A stranger's attack: one step to the edge, the last example first."""
    found = x.clone()
    for i in reversed(range(len(x))):
        leaf = x[i : i + 1].clone().requires_grad_()
        nn.functional.cross_entropy(model(leaf), y[i : i + 1]).backward()
        assert leaf.grad is not None
        found[i] += 0.1 * leaf.grad[0].sign()
    return found


HONEST = {
    "plain": asked(PLAIN),
    "plain, L2": asked(PLAIN, PGD(L2(), epsilon=0.5, steps=10), planting=SPHERE),
    "a stranger's attack": asked(PLAIN, Borrowed(signed, Linf(), 0.1)),
    "rounded, and the attacker goes past it": asked(Defense(network(), CD(5))),
    "sure, and the attacker takes the margin": asked(
        Defense(network(after=sure)), replace(STEPS, loss=Margin())
    ),
    "noise, averaged": asked(NOISY, threat=adaptive(NOISY, draws=8)),
    "noise, frozen": asked(fixed_draws(NOISY)),
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_an_attack_that_sees_its_way_finds_what_was_planted(name: str, tmp_path: Path) -> None:
    said = rows(tmp_path, HONEST[name])
    found = unit_test(said)
    assert found.informative.value >= 0.7
    assert found.attacked is not None
    assert found.attacked.value >= 0.95
    assert binarization(said).status == "pass"
    radius = HONEST[name].planting.epsilon
    assert (said["distance"].to_numpy()[said["constructed"].to_numpy()] <= radius * 1.0002).all()


LIARS = {
    "zero gradient": asked(Defense(network(after=zero_gradient))),
    "rounded without a gradient": asked(Defense(network(before=rounded))),
    "saturated cross-entropy": asked(Defense(network(after=sure))),
    "an attack that does nothing": asked(PLAIN, NoOp()),
    "an attack that hardly moves": asked(PLAIN, replace(STEPS, step_size=1e-4, random_start=False)),
    "an attack beyond its budget": asked(
        PLAIN, replace(STEPS, epsilon=0.5, step_size=0.5, random_start=False)
    ),
    "an attacker who assumes other noise": asked(
        fixed_draws(Defense(network(), Gauss(1.0))),
        threat=adaptive(fixed_draws(Defense(network(), Gauss(1.0)), 1)),
    ),
}


@pytest.mark.parametrize("name", LIARS)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_an_attack_that_does_not_misses_it(name: str, tmp_path: Path) -> None:
    said = rows(tmp_path, LIARS[name])
    found = unit_test(said)
    assert found.informative.value >= 0.7  # it is there
    assert found.attacked is not None
    assert found.attacked.high < 0.95
    assert binarization(said).status == "fail"


def test_where_logits_do_not_move_nothing_can_be_planted(tmp_path: Path) -> None:
    """Of an argmax the test says nothing, rather than that its attack is strong or weak."""
    said = rows(
        tmp_path, asked(Defense(network(after=argmax)), planting=replace(BALL, epsilon=1e-3))
    )
    assert not said["constructed"].to_numpy().any()
    assert not said["attacked"].to_numpy().any()
    assert np.isnan(said["distance"].to_numpy()).all()  # none was posed
    assert binarization(said).status == "not run"


def test_what_random_points_find_tells_nothing(tmp_path: Path) -> None:
    """On a sphere one candidate among few inner points is like any other point, and the test says so."""
    said = rows(tmp_path, asked(PLAIN, planting=replace(SPHERE, inner=20, candidates=1)))
    assert said["random"].to_numpy().mean() > 0.3
    assert (said["constructed"].to_numpy() | ~said["random"].to_numpy()).all()
    assert binarization(said).status == "not run"


def test_luck_is_not_counted(tmp_path: Path) -> None:
    """Noise so strong that every point is taken for either class half of the time: nothing was planted, none won."""
    drowned = Defense(network(), Gauss(5.0), Vote(3))
    said = rows(tmp_path, asked(drowned))
    assert said["constructed"].to_numpy().mean() <= 0.5
    assert binarization(said).status == "not run"


# ---------------------------------------------------------------- what is planted


def batch(n: int = 6) -> Batch:
    return DATA.load().rows(slice(0, n))


def planted(defense: Defense, who: Batch, planting: Planting = BALL) -> Planted:
    with rng.root("planted"):
        return planting(defense, defense.network.build(), who)


@pytest.mark.parametrize("planting", [BALL, SPHERE], ids=["Linf", "L2"])
def test_the_planted_point_is_told_from_all_inner_ones_by_the_examples_own_readout(
    planting: Planting,
) -> None:
    who = batch()
    made = planted(PLAIN, who, planting)
    assert made.apart.all()
    size = planting.norm.distance(made.x, who.x)
    assert (size <= planting.epsilon * 1.00001).all()
    module = Binarized(PLAIN.network, made.readouts).build()
    for i in range(len(who)):
        one = who.rows(slice(i, i + 1))
        with rng.root("planted"):
            inside, _ = planting._around(one)
        index = one.index.repeat(len(inside) + 1)
        with rng.bracket(rng.Stream("scoring", index)), torch.no_grad():
            u = module(torch.cat([inside, made.x[i : i + 1]]))[:, 1]
        assert (u[:-1] < 0).all()
        assert u[-1] > 0
        assert float(u[-1] / (u[-1] - u[:-1].max())) == pytest.approx(0.5, abs=0.01)
        assert len(inside) == planting.inner + 1
        assert torch.equal(inside[0], who.x[i])


def test_who_is_asked_about_decides_whose_readout_is_met() -> None:
    """In any order, several times, over several draws; one that has none is refused."""
    who = batch()
    made = planted(PLAIN, who)
    module = Binarized(PLAIN.network, made.readouts).build()
    alone = [
        Binarized(PLAIN.network, planted(PLAIN, who.rows(slice(i, i + 1))).readouts)
        for i in range(6)
    ]
    for select, draws in (([3, 1], 1), ([2, 2, 5], 2)):
        rows_ = torch.tensor(select)
        x = who.x[rows_].repeat(draws, 1, 1, 1)
        with rng.bracket(rng.Stream("scoring", who.index[rows_], draws=range(draws))):
            said = module(x)
        for row, i in enumerate(select * draws):
            with rng.bracket(rng.Stream("scoring", who.index[i : i + 1])):
                torch.testing.assert_close(
                    said[row], alone[i].build()(x[row : row + 1])[0], rtol=1e-3, atol=1e-3
                )
    with (
        pytest.raises(ValueError, match="without a readout"),
        rng.bracket(rng.Stream("scoring", torch.tensor([99]))),
    ):
        module(who.x[:1])
    with pytest.raises(ValueError, match="nobody named"):
        module(who.x[:1])


def test_the_scale_of_the_logits_is_the_defenses_own() -> None:
    """What saturates must still saturate: ten times the logits, ten times the readout."""
    who = batch(2)
    one, ten = (planted(Defense(network(after=f)), who).readouts for f in (same, tenfold))
    torch.testing.assert_close(ten.weight, one.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ten.offset, 10 * one.offset, rtol=1e-3, atol=1e-3)
    module = Binarized(PLAIN.network, one).build()
    with rng.root("planted"):
        inside, edge = BALL._around(who.rows(slice(0, 1)))
    points = torch.cat([inside, edge])
    with torch.no_grad(), rng.bracket(rng.Stream("scoring", who.index[:1].repeat(len(points)))):
        read, said = module(points), module.network(points)  # type: ignore[operator]
    assert float(read.max() - read.min()) == pytest.approx(float(said.max() - said.min()), rel=1e-3)


def test_a_readout_keeps_away_from_noise_that_a_decision_does_not_average() -> None:
    """Two logits tell the planted point apart alike, one behind noise: it counts once enough draws are averaged."""
    torch.manual_seed(1)
    points = torch.cat([torch.randn(200, 2), torch.full((1, 2), 10.0)]).double()
    noise = torch.randn(16, 201, 2).double() * torch.tensor([30.0, 0.0])
    logits = points + noise - noise.mean(dim=0)
    share = {
        k: abs(float(w[0] / w[1])) for k in (1, 10**6) for w in [_fisher(logits, 200, k).weight]
    }
    assert share[1] < 0.01
    assert share[10**6] == pytest.approx(1, abs=0.3)


def test_results_are_no_function_of_the_micro_batch_and_what_is_planted_none_of_the_attack(
    tmp_path: Path,
) -> None:
    whole = rows(tmp_path, asked(NOISY, threat=adaptive(NOISY, draws=2)))
    parts = rows(
        tmp_path, asked(NOISY, threat=adaptive(NOISY, draws=2), how=replace(HOW, micro_batch=5))
    )
    other = rows(tmp_path, asked(NOISY, NoOp()))
    for name in ("index", "constructed", "random"):
        assert parts[name].equals(whole[name]), name
        assert other[name].equals(whole[name]), name
    assert parts["attacked"].equals(whole["attacked"])


def test_a_binarized_defense_is_as_random_as_before() -> None:
    made = planted(NOISY, batch(2))
    problem = replace(NOISY, network=Binarized(NOISY.network, made.readouts))
    assert (problem.stochastic, problem.keyed, problem.rule) == (True, True, NOISY.rule)
    two = replace(batch(2), y=torch.zeros(2, dtype=torch.long))
    labels = DefenseView(adaptive(problem)).labels(two.x, two, draws=3)
    assert labels.shape == (3, 2)
    assert set(labels.flatten().tolist()) <= {0, 1}


@pytest.mark.parametrize(
    "change", [{"epsilon": 0.0}, {"inner": 0}, {"candidates": 0}, {"draws": 0}]
)
def test_numbers_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected"):
        replace(BALL, **change)


# ---------------------------------------------------------------- from rows to a finding


@pytest.mark.parametrize(
    ("n", "constructed", "random", "attacked", "status"),
    [
        (50, 50, 0, 50, "pass"),
        (50, 50, 5, 50, "pass"),
        (50, 50, 0, 46, "warn"),  # 92 %, which may be 95 %
        (50, 50, 0, 40, "fail"),
        (50, 50, 0, 0, "fail"),
        (50, 50, 40, 50, "not run"),  # random points find it
        (50, 20, 0, 0, "not run"),  # it could not be planted
        (8, 8, 0, 0, "not run"),  # too few
        (50, 0, 0, 0, "not run"),
    ],
)
def test_the_finding_follows_from_the_rows(
    n: int, constructed: int, random: int, attacked: int, status: str
) -> None:
    def first(count: int) -> list[bool]:
        return [i < count for i in range(n)]

    # Random points win at the end, so that what they win is not all of what the attack wins.
    last = [i >= constructed - random and i < constructed for i in range(n)]
    columns = {"constructed": first(constructed), "random": last, "attacked": first(attacked)}
    found = binarization(pa.table(columns))
    assert found.name == "binarization"
    assert found.status == status, found.evidence
    assert bool(found.mend) == (status == "fail")
