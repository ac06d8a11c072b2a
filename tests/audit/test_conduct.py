"""An audit from its first step to its verdicts: what it runs, where it stops and goes on, and whom it takes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fakes_networks as fakes
from auditing import audited, defense, request, runner, statuses
from linear import LinearNetwork
from noisychannel.attacks import FGSM, PGD, Square
from noisychannel.audit.attempts import rung
from noisychannel.audit.budget import BUDGETS
from noisychannel.audit.conduct import Judged, conduct, foresee
from noisychannel.audit.controls import FROZEN, UNBOUNDED
from noisychannel.audit.cost import foretold
from noisychannel.audit.request import SHARED_DRAWS, Request, twin_of
from noisychannel.audit.side import CLEAN
from noisychannel.audit.steps import Step
from noisychannel.channels import CD, FC, Gauss, Identity
from noisychannel.data import from_arrays
from noisychannel.decision import Vote
from noisychannel.defenses import Defense, Operated, RobustNet, fixed_draws
from noisychannel.engine import Execution, Store, Task, plan
from noisychannel.errors import UserError
from noisychannel.interop import Borrowed
from noisychannel.noise import GaussLaw
from noisychannel.norms import L2, Linf

TINY = replace(
    BUDGETS[0],
    name="tiny",
    half_width=0.5,
    steps=3,
    most_draws=4,
    draws=2,
    restarts=2,
    targets=2,
    queries=20,
    directions=4,
    inner=4,
    controls=8,
    scoring=8,
)
"""Seconds: what an audit runs does not depend on how strong it is."""

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is such a folder: a store waits for its disk at every artifact."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


ONE = Execution("cpu", 1)
CLEAN_STEP = "clean images"
NEEDED = {
    CLEAN_STEP,
    "attackers who do not know the defense",
    "draws per gradient",
    "what it is compared with",
}


def tiny(what: Any, base: Any = None, **fields: Any) -> Request:
    return request(what, base, **{"data": fakes.digits(count=16), "budget": TINY, **fields})


def noisy(**fields: Any) -> Request:
    return tiny(fakes.InputNoise(fakes.plain()), fakes.plain(), **fields)


class Recorded:
    """Makes tasks, and remembers the steps and how many of their tasks were not yet there."""

    def __init__(self, folder: Path, stop: int | None = None) -> None:
        self.store, self.stop = Store(folder), stop
        self.steps: list[str] = []
        self.made = 0

    def __call__(self, step: str, tasks: Sequence[Task]) -> None:
        if self.stop is not None and len(self.steps) == self.stop:
            raise KeyboardInterrupt
        self.steps.append(step)
        self.made += len(plan(tasks).todo(self.store).tasks)
        runner(self.store)(step, tasks)


# ---------------------------------------------------------------- what it runs
def test_an_audit_that_is_decided_stops_early_and_compares_all_the_same(tmp_path: Path) -> None:
    """Within ε = .9 the first attack breaks everything."""
    done = Recorded(tmp_path)
    e = conduct(tiny(fakes.plain(), fakes.plain("softplus"), epsilon=0.9), done.store, done)
    assert e.decided
    assert {CLEAN_STEP, "draws per gradient"} <= set(done.steps) <= NEEDED
    judged = Judged(e)
    assert (judged.headline.value, judged.evaluation) == (0.0, "VALID")
    assert judged.difference is not None
    assert judged.difference.value == 0
    assert statuses(judged, "fail") == set()
    # One that is not decided goes on.
    more = Recorded(tmp_path / "more")
    conduct(tiny(fakes.plain(), fakes.plain("softplus"), epsilon=0.02), more.store, more)
    assert set(more.steps) > NEEDED | {
        "other losses",
        "without gradients",
        "controls of the attack",
    }


def test_a_killed_audit_goes_on_where_it_was(tmp_path: Path) -> None:
    r = noisy()
    whole = Recorded(tmp_path / "whole")
    expected = Judged(conduct(r, whole.store, whole))
    killed = Recorded(tmp_path / "killed", stop=4)
    with pytest.raises(KeyboardInterrupt):
        conduct(r, killed.store, killed)
    resumed = Recorded(tmp_path / "killed")
    found = Judged(conduct(r, resumed.store, resumed))
    assert killed.made > 0
    assert resumed.made > 0
    assert killed.made + resumed.made == whole.made
    assert (found.headline, found.findings) == (expected.headline, expected.findings)
    again = Recorded(tmp_path / "killed")
    assert Judged(conduct(r, again.store, again)).headline == expected.headline
    assert (again.made, again.steps) == (0, whole.steps)


def test_equal_seeds_give_equal_rows_and_others_do_not(tmp_path: Path) -> None:
    found = [
        conduct(noisy(seed=seed), Store(folder), runner(Store(folder))).mine
        for seed, folder in ((0, tmp_path / "a"), (0, tmp_path / "b"), (1, tmp_path / "c"))
    ]
    first, same, other = found
    assert list(first.attempts) == list(same.attempts)
    for name in first.attempts:
        assert first.answers(name).equals(same.answers(name)), name
    assert not first.answers(CLEAN).equals(other.answers(CLEAN))
    name = "PGD, non-adaptive"  # nothing random was attacked but from a random start
    assert torch.equal(first.candidates(name), same.candidates(name))
    assert not torch.equal(first.candidates(name), other.candidates(name))


def test_what_would_not_end_in_time_is_left_out_and_said(tmp_path: Path) -> None:
    r = tiny(fakes.plain("adversarial"), fakes.plain(), epsilon=0.02)
    done = Recorded(tmp_path)
    judged = Judged(conduct(r, done.store, done, minutes=0))
    assert set(done.steps) == NEEDED
    assert {"other losses", "without gradients", "controls of the attack"} <= set(
        judged.evidence.skipped
    )
    assert judged.evaluation == "INCOMPLETE"
    assert judged.difference is not None
    assert "Left out for time" in next(
        f.evidence for f in judged.findings if f.name == "monotone-in-epsilon"
    )
    # With time enough nothing is.
    hour = conduct(tiny(fakes.plain(), epsilon=0.02), done.store, done, minutes=60)
    assert not hour.skipped
    assert UNBOUNDED in hour


# ---------------------------------------------------------------- what is foreseen
@pytest.mark.parametrize(
    "r",
    [
        noisy,
        lambda: tiny(fakes.plain("adversarial"), fakes.plain(), epsilon=0.05),
        lambda: tiny(fakes.Thermometer(fakes.plain()), fakes.plain()),
        lambda: tiny(Defense(defense(fakes.plain()).network, CD(4)), attacks=(FGSM(Linf()),)),
        # Random ones with a loud base: black-box attacks win, and go on to all examples.
        lambda: tiny(fakes.LIARS["argmax"](fakes.plain()), data=fakes.digits(count=24)),
    ],
    ids=["noise", "robust", "no gradient", "channel", "masked"],
)
def test_all_steps_are_foreseen_at_their_dearest(r: Any, tmp_path: Path) -> None:
    asked: Request = r()
    planned = foresee(asked, Store(tmp_path / "nothing"))
    assert not list((tmp_path / "nothing").glob("**/*.parquet"))
    done = Recorded(tmp_path / "made")
    e = conduct(asked, done.store, done)
    assert set(done.steps) <= {s.name for s in planned}
    sides = [s for s in (e.mine, e.theirs, e.frozen) if s is not None]
    # What is asked again about candidates of an earlier attack (in the recovery window) crafts nothing.
    made = [
        a for s in sides for n, a in s.attempts.items() if not n.startswith("control: recovery")
    ]
    took, at_most = asked_for([Step("all", tuple(made))]), asked_for(planned)
    for spent, most in zip(took, at_most, strict=True):
        assert 0 < spent <= most
    again = [replace(s, name=f"{s.name}, again") for s in planned]
    assert asked_for([*planned, *again]) == at_most


def asked_for(steps: Sequence[Step]) -> tuple[int, int]:
    """Gradients and other questions at most."""
    told = list(foretold(steps))
    return sum(t.gradients for t in told), sum(t.queries for t in told)


def test_a_plan_counts_every_draw(tmp_path: Path) -> None:
    """The ladder 1, 2, 4 of three steps each on 16 images."""
    steps = [s for s in foresee(noisy(), Store(tmp_path)) if s.name == "draws per gradient"]
    assert [a.name for s in steps for a in s.attempts] == [rung(n) for n in (1, 2, 4)]
    assert [asked_for([s])[0] for s in steps] == [16 * 3 * n for n in (1, 2, 4)]


# ---------------------------------------------------------------- whom it takes
def test_a_defense_without_gradients_is_attacked_without_them(tmp_path: Path) -> None:
    judged = audited(tiny(fakes.Thermometer(fakes.plain())), tmp_path)
    families = {a.family for a in judged.evidence.mine.attempts.values()}
    assert families == {"none", "no gradient", "transfer"}
    assert judged.evaluation == "GRADIENT MASKING"
    assert judged.evidence.mine.attempts["Square"].positions  # on all that stands, not on some
    assert "eot-saturated" not in statuses(judged, "not run")


def test_without_a_twin_nothing_is_compared(tmp_path: Path) -> None:
    judged = audited(tiny(fakes.plain(), epsilon=0.02), tmp_path)
    assert judged.evidence.theirs is None
    assert (judged.difference, judged.gain) == (None, "UNDECIDED")
    assert set(judged.settings) == {"clean", "adaptive"}


@pytest.mark.parametrize(("classes", "channel"), [(2, CD(6)), (3, Gauss(0.05)), (5, CD(6))])
def test_series_of_few_classes(classes: int, channel: CD | Gauss, tmp_path: Path) -> None:
    network = LinearNetwork(shape=(2, 24), classes=classes)
    batch = network.batch(12)
    data = from_arrays(batch.x, batch.y, classes=classes)
    r = Request("series", Defense(network, channel), data, Linf(), 0.01, TINY, execution=ONE)
    judged = audited(r, tmp_path)
    made = set(judged.evidence.mine.attempts)
    assert ("APGD DLR" in made) == ("APGD targeted" in made) == (classes > 3)
    assert judged.evidence.mine.candidates(rung(1)).shape == (12, 2, 24)
    assert {"clean", "non-adaptive", "adaptive"} <= set(judged.settings)


def test_the_users_attacks_are_made_beside_ours_and_counted(tmp_path: Path) -> None:
    """Its gradient is noise, and ours may ask four questions; theirs asks 300."""
    theirs = (FGSM(Linf(), epsilon=1e-6), Square(Linf(), epsilon=0.1, queries=300))
    liar = fakes.RandomGradient(fakes.plain())
    judged = audited(tiny(liar, attacks=theirs, queries=4), tmp_path)
    mine = judged.evidence.mine
    yours = mine.named("adaptive", families=("yours",))
    assert yours == ("yours 1: FGSM", "yours 2: Square")
    ours = mine.worst([n for n in judged.evidence.attacked if n not in yours]).estimate
    assert judged.headline.value <= ours.value - 3 / 16
    (finding,) = [f for f in judged.findings if f.name == "your-attacks-win-nothing-more"]
    assert finding.status in ("warn", "fail")


@pytest.mark.filterwarnings("ignore:attack 'theirs'")
def test_a_users_attack_that_raises_has_shown_nothing(tmp_path: Path) -> None:
    def theirs(_model: nn.Module, _x: Tensor, _y: Tensor) -> Tensor:
        raise RuntimeError("out of ideas")

    broken = Borrowed(theirs, Linf(), 0.02, name="theirs")
    r = tiny(fakes.plain("adversarial"), fakes.plain(), attacks=(broken,), epsilon=0.02)
    judged = audited(r, tmp_path)
    found = {f.name: f for f in judged.findings}
    yours = found["your-attacks-win-nothing-more"]
    assert (yours.status, "ended by an error on 100.0 %" in yours.evidence) == ("not run", True)
    assert found["answers-all"].status == "pass"  # the network is not to blame
    assert judged.evaluation == "INCOMPLETE"
    assert judged.gain != "REAL"


def test_the_users_attacks_may_not_go_beyond_the_budget(tmp_path: Path) -> None:
    far = PGD(Linf(), epsilon=0.9, steps=5)
    judged = audited(tiny(fakes.plain("adversarial"), attacks=(far,), epsilon=0.01), tmp_path)
    mine, name = judged.evidence.mine, "yours 1: PGD"
    assert mine.accuracy(name).value == mine.accuracy(CLEAN).value
    assert mine.accuracy(name, 1.0).value < mine.accuracy(CLEAN).value


@pytest.mark.parametrize("channel", [CD(4), FC(0.5)], ids=["CD", "FC"])
def test_stand_ins_for_the_channel_are_tried(channel: Any, tmp_path: Path) -> None:
    plain = defense(fakes.plain()).network
    stand_in = FC(0.25)
    r = tiny(Defense(plain, channel), substitutes=(Identity(), stand_in), epsilon=0.05)
    judged = audited(r, tmp_path)
    made = judged.evidence.mine.attempts
    for part in (Identity(), stand_in):
        crafts = made[f"PGD margin, BPDA {part}"].crafts
        assert all(c.threat.substitute == part and c.threat.assumed == r.defense for c in crafts)
    assert judged.evidence.theirs is not None
    assert judged.evidence.theirs.defense == Defense(plain)
    assert not [n for n in judged.evidence.theirs.attempts if "BPDA" in n]


def test_l2(tmp_path: Path) -> None:
    r = tiny(fakes.plain(), fakes.plain("softplus"), norm=L2(), epsilon=0.5)
    e = audited(r, tmp_path).evidence
    assert {"PGD, non-adaptive", "DDN, non-adaptive"} <= set(e.attacked)
    x = r.data.load().x
    for name in (rung(1), "PGD, non-adaptive"):
        far = (e.mine.candidates(name) - x).flatten(1).norm(dim=1)
        assert 0.4 < float(far.max()) <= 0.5 * (1 + 1e-4)
    if UNBOUNDED in e:
        assert e.mine.attempts[UNBOUNDED].crafts[0].attack.epsilon == 8.0  # √64: all images


def test_a_vote_is_scored_on_draws_for_two(tmp_path: Path) -> None:
    voting = Defense(defense(fakes.InputNoise(fakes.plain())).network, decision=Vote(16))
    r = tiny(voting, fakes.plain())
    assert r.scoring(voting) == 32
    judged = audited(r, tmp_path)
    rows = judged.evidence.mine.answers(CLEAN)
    assert len(rows) == 16 * 32
    assert judged.headline.n == 16
    assert judged.difference is not None


def test_fixed_draws_are_asked_once(tmp_path: Path) -> None:
    noise = defense(fakes.InputNoise(fakes.plain()))
    e = audited(tiny(fixed_draws(noise, 3), fakes.plain()), tmp_path).evidence
    assert len(e.mine.answers(CLEAN)) == 16
    assert list(e.ladder) == [1]
    assert FROZEN not in e.mine.attempts


def test_shared_weights_are_scored_on_many_draws() -> None:
    r = tiny(fakes.WeightNoise(fakes.plain()))
    assert r.scoring(r.defense) == 2 * SHARED_DRAWS
    assert r.scoring(defense(fakes.plain())) == 1


@pytest.mark.parametrize("queries", [4, 10, 40, 5000])
@pytest.mark.parametrize("network", [fakes.Thermometer, fakes.InputNoise])
def test_nobody_asks_more_than_the_attacker_may(
    queries: int, network: type[fakes.Wrapped], tmp_path: Path
) -> None:
    """Every draw is a question, also where an attacker averages four for one answer."""
    budget = replace(TINY, queries=9000, draws_of_questions=4)
    r = tiny(network(fakes.plain()), queries=queries, budget=budget)
    attempts = {
        a.name: a
        for s in foresee(r, Store(tmp_path))
        for a in s.attempts
        if a.family == "no gradient"
    }
    assert set(attempts) == {"Square", "SPSA", "HopSkipJump"}
    for a in attempts.values():
        _, asked = asked_for([Step(a.name, (a,))])
        assert 0 < asked <= queries * r.data.size, a.name


# ---------------------------------------------------------------- the request
def test_the_twin_is_the_base_or_what_is_left_without_noise() -> None:
    plain = defense(fakes.plain("pool")).network
    noisy_layers = Operated(plain, RobustNet(GaussLaw(0.2), GaussLaw(0.1)))
    assert twin_of(Defense(plain)) is None
    assert twin_of(Defense(plain, Gauss(0.1))) == Defense(plain)
    left = twin_of(Defense(noisy_layers, CD(4)))
    assert left is not None
    x = fakes.digits().load().x
    assert torch.equal(left.network.build()(x), plain.build()(x))
    assert not left.stochastic
    base = Defense(defense(fakes.plain("norm")).network)
    assert tiny(Defense(plain, Gauss(0.1)), base).twin == base


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no budget": ({"epsilon": 0.0}, "epsilon: expected a number > 0"),
    "less than none": ({"epsilon": -0.1}, "epsilon: expected a number > 0"),
    "no number": ({"epsilon": float("nan")}, "epsilon: expected a"),
    "no bound": ({"epsilon": float("inf")}, "epsilon: expected a"),
    "grey levels": ({"epsilon": 8.0}, "epsilon: expected at most 1 in L∞"),
    "no part": ({"part": 0}, "part: expected a whole number ≥ 1, got 0"),
    "no try": ({"tries": 0}, "tries: expected a whole number ≥ 1, got 0"),
    "no question": ({"queries": 0}, "queries: expected a whole number ≥ 4"),
    "no search": ({"queries": 3}, "queries: expected a whole number ≥ 4"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_makes_no_sense_is_refused_in_one_sentence(case: str) -> None:
    fields, words = REFUSED[case]
    with pytest.raises(UserError) as refused:
        tiny(fakes.plain(), **fields)
    said = str(refused.value)
    assert said.startswith(words)
    assert "\n" not in said
    assert len(said) < 200


def test_a_defense_is_not_its_own_base() -> None:
    same = defense(fakes.plain())
    with pytest.raises(UserError, match="base: expected another defense than the one"):
        tiny(same, same)


def test_examples_that_the_network_does_not_take_are_refused(tmp_path: Path) -> None:
    wide = from_arrays(torch.rand(4, 1, 9, 9), torch.zeros(4, dtype=torch.int64), classes=10)
    with pytest.raises(UserError) as refused:
        audited(tiny(fakes.plain(), data=wide), tmp_path)
    assert "\n" not in str(refused.value)


def test_an_audit_of_images_that_are_all_wrong_is_decided_at_once(tmp_path: Path) -> None:
    """Nothing is right, so nothing can be attacked, and no step fails for want of examples."""
    data = fakes.digits(count=16).load()
    wrong = from_arrays(data.x, (data.y + 1) % 10, classes=10)
    right = fakes.plain()(data.x).argmax(dim=1) == wrong.load().y
    assert not right.any()
    judged = audited(tiny(fakes.plain(), fakes.plain("softplus"), data=wrong), tmp_path)
    assert judged.headline.value == 0
    assert judged.evaluation != "VALID" or judged.gain != "REAL"


class Constant(nn.Module):
    """Answers the same to all, with a gradient of 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(x), 10)
        logits[:, 3] = 1
        return logits + 0 * x.flatten(1).sum(dim=1, keepdim=True)


def test_a_constant_is_no_robust_network(tmp_path: Path) -> None:
    judged = audited(tiny(Constant().eval(), fakes.plain()), tmp_path)
    share = float((fakes.digits(count=16).load().y == 3).float().mean())
    assert judged.headline.value == pytest.approx(share)
    assert judged.evaluation == "GRADIENT MASKING"
    assert np.isclose(judged.settings["clean"].value, share)
