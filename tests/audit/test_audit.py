"""The audit end to end, where the truth is known: a linear network, broken defenses, and random ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reported
from auditing import audited
from linear import LinearNetwork
from noisychannel.audit.attempts import rung
from noisychannel.audit.conduct import Judged, conduct, foresee
from noisychannel.audit.evidence import Evidence
from noisychannel.audit.levels import worst_images
from noisychannel.audit.page import render
from noisychannel.audit.record import rows
from noisychannel.audit.request import Request
from noisychannel.audit.side import CLEAN
from noisychannel.audit.target import check_fit
from noisychannel.channels import CD, Gauss, Laplace
from noisychannel.data import from_arrays
from noisychannel.decision import Decision, MeanProb, Vote
from noisychannel.defenses import Defense
from noisychannel.engine import Execution, Store, Task, plan, run
from noisychannel.errors import MissingArtifact, UserError
from noisychannel.networks import Foreign
from noisychannel.norms import L2, Linf
from noisychannel.types import Batch

SHAPE = (1, 8, 8)
NETWORK = LinearNetwork(shape=SHAPE, classes=5)
HOW = Execution(threads=1, micro_batch=16)


def grid_points(n: int = 24) -> Batch:
    """Images of pixels 1/3 and 2/3 alone, labelled by the network: CD(2) leaves them as they are."""
    x = torch.randint(1, 3, (n, *SHAPE), generator=torch.Generator().manual_seed(3)) / 3
    return Batch(x, NETWORK.build()(x).argmax(dim=1), torch.arange(n))


BATCH = grid_points()
DATA = from_arrays(BATCH.x, BATCH.y, classes=NETWORK.classes)


def asked(defense: Defense, epsilon: float, **changes: Any) -> Request:
    given: dict[str, Any] = {
        "norm": L2(),
        "budget": reported.TINY,
        "part": 16,
        "execution": HOW,
        **changes,
    }
    return Request("it", defense, DATA, epsilon=epsilon, **given)


def harder(**fields: int) -> Any:
    return replace(reported.TINY, **fields)


def every_task(judged: Judged) -> list[Task]:
    e = judged.evidence
    sides = [s for s in (e.mine, e.theirs, e.frozen) if s is not None]
    return [m for s in sides for a in s.attempts.values() for m in a.measures]


def bytes_of(store: Store) -> dict[str, bytes]:
    files = [p for p in (store.root / "objects").rglob("*") if p.is_file() and p.name != "run.json"]
    return {str(p.relative_to(store.root)): p.read_bytes() for p in files}


# ---------------------------------------------------------------- the settings


def test_the_settings_differ_in_what_is_assumed_and_in_nothing_else(in_memory: Path) -> None:
    defense = Defense(NETWORK, Gauss(0.1), MeanProb(4))
    judged = audited(asked(defense, 0.1, assumed=Laplace(0.2)), in_memory)
    mine = judged.evidence.mine
    assert tuple(judged.settings) == ("clean", "non-adaptive", "partially adaptive", "adaptive")
    for attempt in mine.attempts.values():
        assert all(m.defense == defense for m in attempt.measures)  # measured on the true one
        assert bool(attempt.crafts) or attempt.setting in ("clean", "adaptive")
    assert sum(m.data.size for m in mine.attempts[CLEAN].measures) == DATA.size
    attacks, threats = {}, {}
    for setting in ("non-adaptive", "partially adaptive"):
        crafts = [c for n in mine.named(setting) for c in mine.attempts[n].crafts]
        attacks[setting] = {c.attack for c in crafts}
        (threats[setting],) = {c.threat for c in crafts}
    assert attacks["non-adaptive"] == attacks["partially adaptive"]
    assert {a.kind for a in attacks["non-adaptive"]} == {"budget", "minimal"}
    assert threats["non-adaptive"].assumed == Defense(NETWORK)
    assert threats["partially adaptive"].assumed.channel == Laplace(0.2)
    true = mine.attempts[rung(2)].crafts[0].threat
    assert (true.assumed, true.draws, true.averaged) == (defense, 2, "mean_prob")
    assert all(t.selection_draws > 0 for t in (*threats.values(), true))


def test_without_a_defense_to_know_there_is_only_the_attacker_who_knows_all(
    in_memory: Path,
) -> None:
    judged = audited(asked(Defense(NETWORK), 0.01), in_memory)
    assert tuple(judged.settings) == ("clean", "adaptive")
    assert judged.difference is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("epsilon", 0.0), ("epsilon", -1.0), ("epsilon", float("nan")), ("epsilon", float("inf"))]
    + [(name, 0) for name in ("part", "tries", "queries")],
)
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"{name}: expected .*, got {value}"):
        replace(asked(Defense(NETWORK), 0.1), **{name: value})


def test_nothing_is_said_of_an_audit_that_was_not_run(in_memory: Path) -> None:
    known = audited(asked(Defense(NETWORK), 0.1), in_memory / "run").evidence
    empty = Evidence(known.request, Store(in_memory / "empty"))
    empty.know(known.mine.attempts.values())
    with pytest.raises(MissingArtifact, match="not computed yet"):
        _ = Judged(empty).headline


# ---------------------------------------------------------------- numbers that are known


@pytest.mark.parametrize(
    ("stranger", "norm"),
    [
        (True, L2()),
        pytest.param(False, Linf(), marks=pytest.mark.slow),
        pytest.param(False, L2(), marks=pytest.mark.slow),
    ],
)
def test_a_linear_network_keeps_what_no_attack_can_reach(
    stranger: bool, norm: L2 | Linf, in_memory: Path
) -> None:
    """Beyond its margin nothing breaks an image; within a tenth less, the attacks must."""
    linear = LinearNetwork(shape=SHAPE, classes=2, seed=5)
    batch = linear.batch(DATA.size)
    reach = linear.optimum(batch, 2.0 if norm == L2() else 1.0)
    epsilon = float(reach.median()) * 1.05
    network = Foreign(linear.build(), SHAPE, "stranger") if stranger else linear
    data = from_arrays(batch.x, batch.y, classes=2)
    request = asked(Defense(network), epsilon, norm=norm, budget=harder(steps=20))
    judged = audited(replace(request, data=data), in_memory)
    safe = float((reach > epsilon).double().mean())
    open_to_all = float((reach > epsilon / 1.1).double().mean())
    assert 0.2 < safe < 0.8
    assert judged.settings["clean"].value == 1.0
    assert safe <= judged.headline.value <= open_to_all
    mine = judged.evidence.mine
    # A deterministic worst case is the minimum, image by image.
    assert judged.headline.value <= min(mine.accuracy(n).value for n in judged.evidence.attacked)
    assert judged.headline.n == DATA.size
    assert judged.headline.method == "wilson"


def test_a_defense_without_gradient_falls_to_the_attacker_who_knows_it(in_memory: Path) -> None:
    """Rounding undoes small perturbations and has no gradient: it looks perfect, and is worth nothing."""
    request = asked(Defense(NETWORK, CD(2)), 0.2, norm=Linf(), budget=harder(steps=8))
    judged = audited(request, in_memory)
    assert judged.settings["clean"].value == 1.0
    smallest = judged.evidence.mine.accuracy("FMN, non-adaptive")
    assert smallest.value > 0.9  # it even looks like a defense
    assert judged.headline.value <= 0.05


def test_what_is_shown_and_proven_lies_within_the_budget(in_memory: Path) -> None:
    """Smallest-distortion attacks overshoot; where they do, the clean image stands in for theirs."""
    judged = audited(asked(Defense(NETWORK, CD(3)), 0.05), in_memory)
    side = judged.evidence.mine
    far = [float(v) for v in side.examples("DDN, non-adaptive")["l2"].to_pylist()]
    assert max(far) > 0.05 * 1.01
    moved = worst_images(side).x - BATCH.x
    assert float(moved.flatten(1).norm(dim=1).max()) <= 0.05 * (1 + 1e-4) + 1e-7


@pytest.mark.slow
def test_a_budget_of_nothing_leaves_what_was_there(in_memory: Path) -> None:
    judged = audited(asked(Defense(NETWORK, CD(3)), 1e-6), in_memory)
    assert {e.value for e in judged.settings.values()} == {judged.settings["clean"].value}


# ---------------------------------------------------------------- random ones


class Loud(nn.Module):
    """Adds so much noise to the logits that most single draws err; nothing else protects it."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.inner, self.size = NETWORK.build(), size

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return logits + self.size * torch.randn_like(logits)


def test_lucky_draws_are_not_counted(in_memory: Path) -> None:
    """An attack that cannot move a pixel leaves the accuracy, though almost every image errs on some draw."""
    defense = Defense(Foreign(Loud(0.3).eval(), SHAPE, "loud"))
    judged = audited(
        asked(defense, 1e-6, budget=harder(scoring=64, most_draws=1, queries=8)), in_memory
    )
    side, plain = judged.evidence.mine, judged.settings["clean"]
    assert 0.25 < plain.value < 0.75
    answers = side.answers(CLEAN).to_pylist()
    assert len(answers) == 64 * DATA.size
    errs = {row["index"] for row in answers if row["predicted"] != row["label"]}
    assert len(errs) == DATA.size  # counting luck would leave 0 %
    assert judged.evidence.attacked
    for name in judged.evidence.attacked:
        assert abs(side.accuracy(name).value - plain.value) < 0.1
    assert judged.headline.value > plain.value - 0.1


class Undecided(nn.Module):
    """Says that it is random, and is not: its noise is a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = NETWORK.build()
        self.register_buffer("noise", torch.zeros(5))
        self.stochastic = True

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.noise


@pytest.mark.slow
def test_who_only_says_that_he_is_random_is_asked_once(in_memory: Path) -> None:
    defense = Defense(Foreign(Undecided().eval(), SHAPE, "undecided"), decision=Vote(4))
    assert not defense.stochastic
    changes: dict[str, Any] = {"budget": harder(steps=20)}
    judged = audited(asked(defense, 0.09, **changes), in_memory)
    honest = audited(asked(Defense(NETWORK), 0.09, **changes), in_memory / "honest")
    for setting in ("clean", "adaptive"):
        one, other = judged.settings[setting], honest.settings[setting]
        assert one.n == other.n
        assert one.value == pytest.approx(other.value, abs=1.5 / DATA.size)
    side = judged.evidence.mine
    for name, attempt in side.attempts.items():
        assert side.answers(name).num_rows == len(attempt.positions)


@dataclass(frozen=True)
class _Case:
    """A defense, its rule, and the draws that its examples must get."""

    defense: Defense
    draws: int


VOTES = {
    "vote of few": _Case(Defense(NETWORK, Gauss(0.1), Vote(3)), 8),
    "vote of many": _Case(Defense(NETWORK, Gauss(0.1), Vote(9)), 18),
    "mean of many": _Case(Defense(NETWORK, Gauss(0.1), MeanProb(9)), 18),
    "deterministic vote": _Case(Defense(NETWORK, CD(3), Vote(9)), 1),
}


@pytest.mark.parametrize(
    "name",
    [
        "vote of many",
        *(pytest.param(n, marks=pytest.mark.slow) for n in VOTES if n != "vote of many"),
    ],
)
def test_decisions_over_draws(name: str, in_memory: Path) -> None:
    """Twice a decision's draws at least: one set chooses the worst attack, the other scores it."""
    case = VOTES[name]
    rule: Decision = case.defense.decision
    judged = audited(asked(case.defense, 0.3), in_memory)
    side = judged.evidence.mine
    for attempted, attempt in side.attempts.items():
        assert side.answers(attempted).num_rows == case.draws * len(attempt.positions)
    assert case.draws == 1 or case.draws >= 2 * rule.draws
    for estimate in (judged.headline, *judged.settings.values()):
        assert estimate.n == DATA.size
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert judged.headline.value < judged.settings["clean"].value


# ---------------------------------------------------------------- resuming


def test_a_second_run_computes_nothing_and_another_store_holds_the_same_bytes(
    in_memory: Path,
) -> None:
    request = asked(Defense(NETWORK, Gauss(0.1), Vote(3)), 0.1)
    judged = audited(request, in_memory / "one")
    store = judged.evidence.mine.store
    wanted = every_task(judged)
    assert plan(wanted).todo(store).tasks == ()

    def nothing(todo: Any, _store: Store, _tick: Any) -> None:
        assert todo.tasks == ()

    def step(_name: str, tasks: Sequence[Task]) -> None:
        run(tasks, store, nothing, lambda _whole, _todo: [].append)

    conduct(request, store, step)
    torch.randn(7)  # torch's own generator is in another state
    again = audited(request, in_memory / "two")
    other = again.evidence.mine.store
    assert bytes_of(store) == bytes_of(other)
    assert len(bytes_of(store)) > 0
    assert (again.headline, again.settings) == (judged.headline, judged.settings)
    assert again.findings == judged.findings
    assert rows(again).equals(rows(judged))
    # The page holds the time that it took; nothing else differs.
    pages = [render((j,), reported.PROVENANCE)[0].splitlines() for j in (judged, again)]
    differ = [one for one, two in zip(*pages, strict=True) if one != two]
    assert all("of computing" in line for line in differ)
    seeded = foresee(replace(request, seed=1), store)
    assert not {t for s in seeded for t in plan(s.tasks).tasks} & set(plan(wanted).tasks)


# ---------------------------------------------------------------- what is handed in


def test_series_are_audited_too() -> None:
    """(c, l) examples: the page has no picture to draw, and is written all the same."""
    text = render((reported.series(),), reported.PROVENANCE)[0]
    assert "What was not tested" in text
    assert "<img" not in text


def test_a_defense_that_never_worked_is_not_said_to_look_like_one(in_memory: Path) -> None:
    judged = audited(asked(Defense(NETWORK), 0.5), in_memory)
    assert judged.headline.value == 0
    assert judged.gain != "REAL"
    assert "looks like a defense" not in render((judged,), reported.PROVENANCE)[0]


def test_data_for_which_the_network_was_not_made() -> None:
    """Too many classes are refused; fewer, or another shape that it takes all the same, are warned of."""
    defense = Defense(NETWORK)
    check_fit("it", defense, DATA)  # what it was made for: not a word
    more = from_arrays(BATCH.x, BATCH.y, classes=NETWORK.classes + 1)
    with pytest.raises(UserError, match=rf"at most {NETWORK.classes} classes.* got {more.classes}"):
        check_fit("it", defense, more)
    fewer = from_arrays(BATCH.x, BATCH.y * 0, classes=1)
    with pytest.warns(UserWarning, match="made for .* is that the data it was trained on"):
        check_fit("it", defense, fewer)
    with pytest.raises(UserError, match="expected examples of a shape like"):
        check_fit("it", defense, from_arrays(BATCH.x[..., :1], BATCH.y, classes=NETWORK.classes))
