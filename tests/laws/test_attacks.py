"""Laws that every member of ATTACKS keeps, and liars that break them."""

import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch

import fakes_attacks as fakes
from attack_table import entry, short
from attacking import BARE, EVERY, NETWORK, NOISY, THREATS, attacked, batch, same, taken
from linear import LinearNetwork
from noisychannel import rng
from noisychannel.attacks import (
    APGD,
    ATTACKS,
    DDN,
    FGSM,
    FMN,
    MIFGSM,
    PGD,
    CarliniWagner,
    FixedConstant,
    Minimise,
    TargetedAPGD,
)
from noisychannel.attacks.shortlist import KEEP
from noisychannel.channels import Gauss
from noisychannel.decision import Single, Vote
from noisychannel.defenses import Defense
from noisychannel.errors import UserError
from noisychannel.norms import L2, Linf
from noisychannel.objectives import DLR, CrossEntropy, Margin
from noisychannel.spec import key
from noisychannel.threats import DefenseView, Threat, adaptive
from noisychannel.types import Attack, Status

# ---------------------------------------------------------------- laws


def leaves_the_batch(attack: Attack, threat: Threat) -> None:
    for targeted in (False, True):
        who, before = batch(targeted=targeted), batch(targeted=targeted)
        attacked(attack, who, threat)
        assert torch.equal(who.x, before.x)
        assert torch.equal(who.y, before.y)
        assert torch.equal(who.index, before.index)
        if who.target is not None and before.target is not None:
            assert torch.equal(who.target, before.target)


def hands_over_examples(attack: Attack, threat: Threat) -> None:
    """Shape, dtype, range, a legal status; one each; nothing of the graph that made them."""
    who = batch()
    found = attacked(attack, who, threat)
    assert (found.x.shape, found.x.dtype, found.x.device) == (
        who.x.shape,
        who.x.dtype,
        who.x.device,
    )
    assert (found.x >= 0).all()
    assert (found.x <= 1).all()
    assert not found.x.requires_grad
    assert found.x.data_ptr() != who.x.data_ptr()
    assert found.status.shape == (6,)
    assert set(found.status.tolist()) <= {int(s) for s in Status}
    assert (found.cost.forwards > 0).all()


def stays_in_the_box(attack: Attack, threat: Threat) -> None:
    """From images of black and white, where every second direction leads out of [0, 1]."""
    who = batch()
    x = who.x.round()
    found = attacked(attack, replace(who, x=x, y=NETWORK.build()(x).argmax(dim=1)), threat)
    assert (found.x >= 0).all()
    assert (found.x <= 1).all()
    assert entry(attack).freezes or (found.x != x).any()


def is_decided_by_its_name(attack: Attack, threat: Threat) -> None:
    """The same root, the same bytes, whatever was drawn before; another root, other draws if it draws."""
    first = attacked(attack, threat=threat)
    torch.rand(7)
    same(attacked(attack, threat=threat), first)
    draws = threat.assumed.stochastic or entry(attack).draws(attack)
    draws = draws and not entry(attack).settled
    other = attacked(attack, threat=threat, root="another")
    assert torch.equal(other.x, first.x) is not draws


def takes_nothing_from_torch(attack: Attack, threat: Threat) -> None:
    before = torch.get_rng_state()
    attacked(attack, threat=threat)
    assert torch.equal(torch.get_rng_state(), before)


def ignores_batch_mates(attack: Attack, threat: Threat) -> None:
    """Trap 3: alone, in pairs, or with a mate that never gives in (label of a hopeless example)."""
    whole = attacked(attack, threat=threat)
    for rows in ([0], [4], [5, 2]):
        some = torch.tensor(rows)
        same(attacked(attack, batch().rows(some), threat), taken(whole, some), exact=False)


def ignores_the_order(attack: Attack, threat: Threat) -> None:
    order = torch.tensor([3, 5, 0, 4, 1, 2])
    whole = attacked(attack, threat=threat)
    same(attacked(attack, batch().rows(order), threat), taken(whole, order), exact=False)


def leaves_the_network(attack: Attack, threat: Threat) -> None:
    view = DefenseView(threat)
    before = {n: t.clone() for n, t in view.plain.state_dict().items()}
    with rng.root("laws"):
        attack(view, batch())
    for module in (view.plain, view.fast):
        assert not module.training
        assert all(p.grad is None for p in module.parameters())
        assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())


def keeps_its_budget(attack: Attack, threat: Threat) -> None:
    """Per example; and what it reports to have cost is at most what it promised."""
    who = batch()
    found = attacked(attack, who, threat)
    if isinstance(getattr(attack, "epsilon", None), float):
        radius = attack.norm.distance(found.x, who.x)  # type: ignore[attr-defined]
        assert (radius <= attack.epsilon * (1 + 1e-5) + 1e-7).all()  # type: ignore[attr-defined]
    draws = threat.draws if threat.assumed.stochastic else 1
    checks = KEEP + 1
    if threat.assumed.stochastic:  # each candidate once beside the others, and at most once alone
        checks *= threat.selection_draws * (1 + threat.assumed.rule.draws)
    assert (found.cost.backwards <= attack.gradients * draws).all()
    asked = attack.gradients + attack.queries
    assert (found.cost.forwards <= asked * draws + checks).all()


def works_on_series(attack: Attack, threat: Threat) -> None:
    network = LinearNetwork(shape=(2, 50), gain=5.0)
    who = batch(network)
    assumed = replace(threat.assumed, network=network)
    found = attacked(attack, who, replace(threat, assumed=assumed))
    assert found.x.shape == (6, 2, 50)
    assert (found.status <= int(Status.NOT_FOUND)).all()


def does_not_count_luck(attack: Attack, threat: Threat) -> None:
    """Traps 8 and 10: FOUND is what an independent jury of 400 scoring decisions finds wrong about half the time.

    Noise so strong that single draws err often: margin/‖w‖ is 1.2 σ and more, so that a draw at the clean
    example errs with p < Φ(−1.2) = .12, and almost every example errs in one draw of many.
    """
    decision = Vote(5) if threat is NOISY else Single()
    network = LinearNetwork(gain=5.0, classes=2)
    who = network.batch(n=24)
    optimum = network.optimum(who, 2.0)
    sigma = float(optimum.median()) / 1.5
    who = who.rows(optimum > 1.2 * sigma)
    defense = Defense(network, Gauss(sigma), decision)
    found = attacked(entry(attack).harmless(attack), who, adaptive(defense))
    draws = 400 * decision.draws
    with rng.root("jury"), rng.bracket(rng.Stream("scoring", who.index, draws=range(draws))):
        seen = defense.channel(found.x.repeat(draws, 1, 1, 1))
    ballots = network.build()(seen).argmax(dim=1).view(400, decision.draws, -1) != who.y
    wrong = (2 * ballots.sum(dim=1) > decision.draws).float().mean(dim=0)  # two classes
    believed = found.status == int(Status.FOUND)
    # 16 decisions of its own, more than 8 wrong: at p = .25 once in 130, after it was the best of its six.
    assert (wrong[believed] > 0.25).all()


LAWS = (
    leaves_the_batch,
    hands_over_examples,
    stays_in_the_box,
    is_decided_by_its_name,
    takes_nothing_from_torch,
    ignores_batch_mates,
    ignores_the_order,
    leaves_the_network,
    keeps_its_budget,
    works_on_series,
    does_not_count_luck,
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
        (fakes.BatchCoupled(), ignores_batch_mates),
        (fakes.InPlace(), leaves_the_batch),
        (fakes.CountsLuck(), does_not_count_luck),
        (fakes.GlobalRandomness(), is_decided_by_its_name),
        (fakes.GlobalRandomness(), takes_nothing_from_torch),
        (fakes.OrderDependent(), ignores_the_order),
        (fakes.LeavesTheBox(), hands_over_examples),
        (fakes.LeavesTheBox(), stays_in_the_box),
        (fakes.NoOp(), stays_in_the_box),
        (fakes.NoOp(), hands_over_examples),
        (fakes.OverBudget(), keeps_its_budget),
        (fakes.Spendthrift(), keeps_its_budget),
        (fakes.TrainsTheNetwork(), leaves_the_network),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_liar_breaks_its_law(liar: Attack, law: Law) -> None:
    with pytest.raises(AssertionError):
        law(liar, BARE)


# ---------------------------------------------------------------- parts travel


@EVERY
def test_travels(attack: Attack) -> None:
    twin = pickle.loads(pickle.dumps(attack))
    assert twin == attack
    assert hash(twin) == hash(attack)
    assert key(twin) == key(attack)
    assert isinstance(attack, Attack)
    assert attack.kind in ("budget", "minimal")
    assert attack.version >= 1
    same(attacked(short(twin)), attacked(short(attack)))


ANOTHER = {Linf(): L2(), L2(): Linf(), CrossEntropy(): Margin(), DLR(): Margin(), Margin(): DLR()}


WORDS = {
    "best": "last",
    "rademacher": "gaussian",
    "gaussian": "rademacher",
    "adam": "steepest",
    "steepest": "adam",
    "grid": "random",
    "random": "grid",
    "binary": "linear",
    "linear": "binary",
    "gauss": "uniform",
    "uniform": "gauss",
}


def changed(part: Any) -> list[Any]:
    """The part with each of its numbers, flags and parts changed, one at a time, nested ones included."""
    out = []
    for item in fields(part):
        value = getattr(part, item.name)
        if isinstance(value, bool):
            new = [not value]
        elif isinstance(value, int):
            new = [value + 1]
        elif isinstance(value, float):
            new = [value * 1.25 + 0.01 if item.name != "gamma" else value / 2]
        elif value is None:
            new = [0.01]
        elif isinstance(value, str):
            new = [WORDS.get(value, "best")]
        else:
            assert is_dataclass(value)
            new = changed(value) + ([ANOTHER[value]] if value in ANOTHER else [])
        for v in new:
            with suppress(UserError):  # restarts without a random start, say
                out.append(replace(part, **{item.name: v}))
    return out


@EVERY
def test_every_number_is_in_the_key(attack: Attack) -> None:
    others = changed(attack)
    assert len(others) >= 1
    assert len({key(a) for a in [attack, *others]}) == len(others) + 1


def test_keys_of_all_members_differ() -> None:
    assert len({key(a) for a in ATTACKS}) == len(ATTACKS)
    assert {"budget", "minimal"} == {a.kind for a in ATTACKS}


@pytest.mark.parametrize(
    "make",
    [
        lambda: PGD(epsilon=-0.1),
        lambda: PGD(steps=0),
        lambda: PGD(step_size=0.0),
        lambda: PGD(restarts=0),
        lambda: PGD(restarts=2, random_start=False),
        lambda: FGSM(epsilon=-1.0),
        lambda: MIFGSM(epsilon=-1.0),
        lambda: MIFGSM(steps=0),
        lambda: MIFGSM(step_size=0.0),
        lambda: MIFGSM(decay=-1.0),
        lambda: APGD(epsilon=-1.0),
        lambda: APGD(steps=0),
        lambda: APGD(restarts=0),
        lambda: TargetedAPGD(epsilon=-1.0),
        lambda: TargetedAPGD(steps=0),
        lambda: TargetedAPGD(targets=0),
        lambda: FMN(steps=0),
        lambda: FMN(alpha=0.0),
        lambda: FMN(gamma=0.0),
        lambda: FMN(gamma=1.0),
        lambda: FixedConstant(-1.0),
        lambda: FixedConstant(steps=0),
        lambda: FixedConstant(learning_rate=0.0),
        lambda: FixedConstant(confidence=-1.0),
        lambda: Minimise(PGD(epsilon=0.0)),
        lambda: Minimise(expansions=0),
        lambda: Minimise(bisections=-1),
        lambda: Minimise(growth=1.0),
        lambda: DDN(steps=0),
        lambda: DDN(initial=0.0),
        lambda: DDN(gamma=0.0),
        lambda: DDN(gamma=1.0),
        lambda: DDN(last_gamma=0.0),
        lambda: DDN(gamma=0.05, last_gamma=0.1),
        lambda: CarliniWagner(searches=0),
        lambda: CarliniWagner(steps=0),
        lambda: CarliniWagner(learning_rate=0.0),
        lambda: CarliniWagner(constant=-1.0),
        lambda: CarliniWagner(confidence=-1.0),
    ],
)
def test_bad_numbers_are_refused(make: Callable[[], Attack]) -> None:
    with pytest.raises(UserError, match=r"expected .*, got ") as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EVERY
@THREATS
def test_on_cuda(attack: Attack, threat: Threat) -> None:
    here = attacked(short(attack), threat=threat)
    with rng.root("laws"):
        there = short(attack)(DefenseView(threat, "cuda"), batch().to("cuda"))
    assert there.x.is_cuda
    assert torch.equal(there.status.cpu(), here.status)
    torch.testing.assert_close(there.x.cpu(), here.x, rtol=0, atol=1e-3)
