"""Randomness frozen: one draw per example, the same for all who ask; and what a broken attack does on it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fakes_attacks import OneStep
from fakes_channels import GlobalRandomness
from linear import LinearNetwork
from noisychannel import rng
from noisychannel.attacks import DDN, PGD
from noisychannel.channels import Chain, Clip, Gauss
from noisychannel.data import DataSpec
from noisychannel.decision import MeanProb, Single, Vote
from noisychannel.defenses import (
    PNI,
    Defense,
    FixedChannel,
    FixedNetwork,
    Operated,
    ParamNet,
    RobustNet,
    answers,
    fixed_draws,
)
from noisychannel.engine import Craft, Execution, Measure, Store, Train, Trained, run, serial, table
from noisychannel.errors import UserError
from noisychannel.interop import Borrowed
from noisychannel.networks import Foreign, SmallNet
from noisychannel.noise import GaussLaw
from noisychannel.norms import L2
from noisychannel.objectives import CrossEntropy
from noisychannel.spec import key
from noisychannel.threats import DefenseView, adaptive
from noisychannel.training import Recipe
from noisychannel.types import Attack, Batch

HOW = Execution(threads=1, micro_batch=8)
SIGMA = 0.3


class Dropped(nn.Module):
    """Drops pixels at test time, by torch's own generator: a stranger's noise, which no name reaches."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.3, training=True)


def conv(*before: nn.Module) -> Foreign:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    return Foreign(nn.Sequential(*before, *layers).eval(), (1, 8, 8))


PLAIN = conv()
DEFENSES = {
    "Gauss": Defense(PLAIN, Chain(Gauss(SIGMA), Clip())),
    "RobustNet": Defense(Operated(PLAIN, RobustNet(GaussLaw(SIGMA), GaussLaw(SIGMA)))),
    "both": Defense(Operated(PLAIN, RobustNet(GaussLaw(SIGMA))), Gauss(SIGMA), Vote(4)),
    "ParamNet": Defense(Operated(PLAIN, ParamNet(0.1)), decision=MeanProb(4)),
    "ParamNet, own": Defense(Operated(PLAIN, ParamNet(0.1, sharing="own"))),
    "PNI": Defense(Operated(PLAIN, PNI(alpha=0.5))),
    "a stranger's network": Defense(conv(Dropped())),
    "a stranger's channel": Defense(PLAIN, GlobalRandomness(SIGMA)),
}
EVERY = pytest.mark.parametrize("name", DEFENSES)


def batch(n: int = 6) -> Batch:
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(x, torch.arange(n) % 5, torch.tensor([30, 11, 52, 3, 94, 5])[:n])


def logits(defense: Defense, who: Batch, draws: int = 1, step: int = 0) -> Tensor:
    """What the defender answers (d, n, k)."""
    network = defense.network.build()
    return answers(defense, network, who.x, who, "scoring", draws, 4, step=step).logits


# ---------------------------------------------------------------- one draw per example, whoever asks


@EVERY
def test_it_is_a_deterministic_defense_for_attacks_and_measures(name: str) -> None:
    fresh, fixed = DEFENSES[name], fixed_draws(DEFENSES[name])
    assert fresh.stochastic
    assert not fixed.stochastic
    assert fixed.keyed
    assert fixed.network.weights == "fixed"
    assert fixed.rule == Single()
    view = DefenseView(adaptive(fixed, draws=8))
    assert (view.stochastic, view.compact, view.certain) == (False, True, True)
    assert Measure(DataSpec("digits"), fixed).draws == 1  # a vote would need more
    torch.testing.assert_close(
        fixed.channel.expected_l2((1, 8, 8)), fresh.channel.expected_l2((1, 8, 8))
    )


@EVERY
def test_attacker_and_defender_see_the_same_noise_to_the_last_bit(name: str) -> None:
    """His loss at a point, at whatever step, under whatever root, is the loss of the defender's answer."""
    who, fixed = batch(), fixed_draws(DEFENSES[name])
    view = DefenseView(adaptive(fixed, draws=8))
    view.fast = view.plain  # folded convolutions would differ in the last bits
    for step in (0, 7):
        with rng.root(f"attacker {step}"):
            seen = view.query(who.x, who, CrossEntropy(), step)
            labels = view.labels(who.x, who, step, draws=3)
        with rng.root(f"defender {step}"):
            said = logits(fixed, who, draws=2, step=step)
        assert torch.equal(said[0], said[1])
        assert torch.equal(seen.value, CrossEntropy()(said[0], who.goal))
        assert torch.equal(labels, said[0].argmax(dim=1).expand(3, -1))


@EVERY
def test_fresh_draws_differ_from_each_other_and_from_the_fixed_one(name: str) -> None:
    who, fresh = batch(), DEFENSES[name]
    with rng.root("here"):
        said = logits(fresh, who, draws=2)
        other = logits(fixed_draws(fresh), who)[0]
        another = logits(fixed_draws(fresh, seed=1), who)[0]
    for a, b in ((said[0], said[1]), (said[0], other), (other, another)):
        assert ((a - b).abs().amax(dim=1) > 1e-3).all()


@EVERY
def test_each_example_has_a_draw_of_its_own_which_no_batch_mate_changes(name: str) -> None:
    """Of weights that are shared by a pass, and of a stranger's noise, too."""
    who, fixed = batch(), fixed_draws(DEFENSES[name])
    whole = logits(fixed, who)[0]
    for select in ([4], [3, 0], [5, 1, 1, 2]):
        rows = torch.tensor(select)
        part = logits(fixed, who.rows(rows))[0]
        torch.testing.assert_close(part, whole[rows], rtol=1e-5, atol=1e-5)
    same = replace(who, x=who.x[:1].repeat(6, 1, 1, 1))
    assert (logits(fixed, same)[0].std(dim=0) > 1e-4).all()


class Echo(nn.Module):
    """Its input, with noise."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + SIGMA * rng.normal(x.flatten(1))


def test_fixed_draws_are_draws_of_the_same_law() -> None:
    """Frozen is not silent: over examples noise is N(0, σ²), and channel and network draw apart."""
    x = torch.zeros(2000, 1, 4, 4)
    channel, network = (
        FixedChannel(Gauss(SIGMA)),
        FixedNetwork(Foreign(Echo().eval(), (1, 4, 4))).build(),
    )
    with rng.bracket(rng.Stream("scoring", torch.arange(2000))):
        noises = channel(x).flatten(1), network(x)
        assert torch.equal(channel(x).flatten(1), noises[0])
        assert torch.equal(network(x), noises[1])
    many = x.numel() ** 0.5
    for noise in noises:
        assert abs(float(noise.std()) / SIGMA - 1) < 4 / (2**0.5 * many)
        assert float(noise.mean().abs()) < 4 * SIGMA / many
    product = noises[0] * noises[1] / SIGMA**2
    assert float(product.mean().abs()) < 4 / many


def test_without_an_example_to_name_it_noise_is_fresh() -> None:
    channel, x = FixedChannel(Gauss(SIGMA)), torch.zeros(2, 1, 4, 4)
    assert not torch.equal(channel(x), channel(x))


def test_what_is_not_random_is_left_as_it_is() -> None:
    assert fixed_draws(Defense(PLAIN, Clip(), Vote(3))) == Defense(PLAIN, Clip())
    noisy = Defense(PLAIN, Gauss(SIGMA))
    assert fixed_draws(noisy) == Defense(PLAIN, FixedChannel(Gauss(SIGMA)))
    assert fixed_draws(fixed_draws(noisy)) == fixed_draws(noisy)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FixedChannel("gauss"),
        lambda: FixedNetwork(Gauss(0.1)),
        lambda: FixedChannel(Gauss(0.1), 0.5),
    ],
)  # type: ignore[arg-type]
@pytest.mark.usefixtures("unchecked")
def test_what_plays_no_role_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=r"(channel|network|seed): expected"):
        make()


def test_keys_of_what_was_there_before_are_as_they_were() -> None:
    """Stored results are named by them; these three were read off before fixed draws existed."""
    vote = Defense(SmallNet(), Gauss(0.1), Vote(4))
    assert key(vote) == "69fb4401304a5e6fa26c4518646fbcf9"
    assert key(Defense(Operated(SmallNet(), RobustNet()))) == "f0c7dfbe051025113acaff494b913c6f"
    assert key(adaptive(vote, 4)) == "5e24ba2ca4a6f11a6fd4709b86e6d3cc"
    assert len({key(vote), key(fixed_draws(vote)), key(fixed_draws(vote, seed=1))}) == 3


# ---------------------------------------------------------------- a broken attack, and a strong defense


LINEAR = LinearNetwork(gain=5.0)
NOISY = Defense(LINEAR, Gauss(SIGMA))
TRUE = fixed_draws(NOISY)


def optimum(defense: Defense, who: Batch) -> Tensor:
    """The least L2 distance on a linear network seen at x + ω_i: its margin there over ‖w_y − w_k‖, least over k."""
    weight, said = LINEAR.weight(), logits(defense, who)[0]
    gaps = said.gather(1, who.y[:, None]) - said
    sizes = (weight[who.y][:, None] - weight[None]).norm(dim=2)
    return (gaps / sizes.clamp_min(1e-12)).where(sizes > 0, torch.inf).amin(dim=1).clamp_min(0)


def reached(attack: Attack, assumed: Defense) -> Tensor:
    """Which examples (n,) the frozen defense loses to an attack against what is assumed, within 1.2 of the optimum."""
    who = LINEAR.batch(n=12)
    best = optimum(TRUE, who)
    with rng.root("attacker"):
        found = attack(DefenseView(adaptive(assumed)), who)
    said = logits(TRUE, replace(who, x=found.x))[0].argmax(dim=1)
    near = L2().distance(found.x, who.x) <= 1.2 * best + 1e-4
    return (said != who.y) & near


def test_an_attack_on_frozen_noise_reaches_what_it_reaches_on_a_deterministic_network() -> None:
    """The optimum is known: DDN finds it on every example, as it does without noise."""
    attack = DDN(steps=50)
    assert reached(attack, TRUE).all()
    # Broken ones: against another draw, against the network without its noise, and one that hardly moves.
    assert reached(attack, fixed_draws(NOISY, seed=1)).float().mean() < 0.7
    assert reached(attack, NOISY.undefended()).float().mean() < 0.7
    assert reached(OneStep(), TRUE).float().mean() < 0.7


@pytest.mark.parametrize("name", ["Gauss", "RobustNet", "PNI", "a stranger's network"])
def test_pgd_wins_on_frozen_noise_what_it_wins_without(name: str) -> None:
    """Labels are what each network says of the clean image. An attack that is broken wins on neither."""
    x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(2))

    def won(defense: Defense, attack: Attack) -> float:
        who = Batch(x, torch.zeros(12, dtype=torch.long), torch.arange(12))
        who = replace(who, y=logits(defense, who)[0].argmax(dim=1))
        found = attack(DefenseView(adaptive(defense)), who)
        said = logits(defense, replace(who, x=found.x))[0].argmax(dim=1)
        return float((said != who.y).float().mean())

    attack, fixed = PGD(L2(), epsilon=0.8, steps=10), fixed_draws(DEFENSES[name])
    assert won(Defense(PLAIN), attack) >= 0.95
    assert won(fixed, attack) >= 0.9
    assert won(fixed, OneStep()) < 0.2


# ---------------------------------------------------------------- through the engine


def rows(defense: Defense, attack: Attack, root: Path, how: Execution = HOW) -> tuple[list, list]:
    """What the attack says of each example, and whether the defender, asked by a task of its own, errs."""
    data = DataSpec("digits", subset="first:16")
    craft = Craft(data, adaptive(defense), attack, execution=how)
    measure = Measure(data, defense, craft, execution=how)
    store = Store(root)
    run([measure], store, serial, lambda *_: lambda _: None)
    wrong = pa.compute.not_equal(table(store, measure)["predicted"], table(store, measure)["label"])
    return [s == "found" for s in table(store, craft)["status"].to_pylist()], wrong.to_pylist()


def network() -> LinearNetwork:
    return LinearNetwork(shape=(1, 8, 8), classes=10, gain=5.0)


def test_the_defender_answers_what_the_attacker_was_told(tmp_path: Path) -> None:
    """Two tasks under two roots: on fixed draws they agree on every example, on fresh ones they do not."""
    defense, weak = Defense(network(), Gauss(SIGMA)), PGD(L2(), epsilon=0.02, steps=3)
    found, wrong = rows(fixed_draws(defense), weak, tmp_path)
    assert found == wrong
    found, wrong = rows(defense, weak, tmp_path)
    assert found != wrong


def test_a_trained_network_can_be_frozen(tmp_path: Path) -> None:
    data = DataSpec("digits", subset="first:20")
    train = Train(
        Operated(SmallNet(width=2), RobustNet()),
        data,
        Recipe(epochs=1, batch_size=10),
        execution=HOW,
    )
    found, wrong = rows(
        fixed_draws(Defense(Trained(train))), PGD(L2(), epsilon=0.3, steps=2), tmp_path
    )
    assert found == wrong


def test_a_strangers_attack_sees_the_fixed_draw_of_its_one_example(tmp_path: Path) -> None:
    """He asks about several copies at once, whose rows are told apart elsewhere, and takes the best for him."""

    def copies(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        many = torch.cat([x, x, x])
        said = model(many)
        assert torch.allclose(said, said[:1], atol=1e-5)
        return x

    one = replace(HOW, micro_batch=1)
    found, wrong = rows(
        fixed_draws(Defense(network(), Gauss(SIGMA))), Borrowed(copies), tmp_path, one
    )
    assert found == wrong
