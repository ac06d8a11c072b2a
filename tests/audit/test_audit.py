"""The audit end to end, where the truth is known: a linear network, broken defenses, and liars."""

import io
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from linear import LinearNetwork
from noisychannel import audit
from noisychannel.channels import CD, Gauss, Laplace
from noisychannel.data import ArrayData, from_arrays
from noisychannel.decision import Decision, MeanProb, Vote
from noisychannel.defenses import Defense
from noisychannel.engine import Craft, Execution, Store, adversarials, plan, run, serial, table
from noisychannel.errors import MissingArtifact, UserError
from noisychannel.networks import Foreign
from noisychannel.norms import L2, Linf
from noisychannel.report.figure import Grid
from noisychannel.report.html import Provenance
from noisychannel.report.stats import Estimate
from noisychannel.types import Batch

SHAPE = (1, 8, 8)
NETWORK = LinearNetwork(shape=SHAPE, classes=5)
HOW = Execution(threads=1, micro_batch=16)
PROVENANCE = Provenance("noisychannel audit <it>", "2026-01-31", "24 images", (("seed", "0"),))
SETTINGS = ("clean", "non-adaptive", "partially adaptive", "adaptive")


def grid_points(n: int = 24) -> Batch:
    """Images of pixels 1/3 and 2/3 alone, labelled by the network: CD(2) leaves them as they are."""
    x = torch.randint(1, 3, (n, *SHAPE), generator=torch.Generator().manual_seed(3)) / 3
    return Batch(x, NETWORK.build()(x).argmax(dim=1), torch.arange(n))


BATCH = grid_points()
DATA = from_arrays(BATCH.x, BATCH.y, classes=NETWORK.classes)


def asked(defense: Defense, epsilon: float, **changes: Any) -> audit.Request:
    few: dict[str, Any] = {"eot": 2, "steps": 4, "scoring": 8, "part": 16, "execution": HOW}
    return audit.Request(
        "it", defense, DATA, **{"norm": L2(), "epsilon": epsilon, **few, **changes}
    )


def wanted(request: audit.Request) -> list[Any]:
    return [m for cell in audit.cells(request) for m in cell.measures]


def audited(request: audit.Request, root: Path) -> tuple[audit.Outcome, Store]:
    store = Store(root)
    run(wanted(request), store, serial, lambda _whole, _todo: [].append)
    return audit.outcome(request, store), store


def by_setting(outcome: audit.Outcome) -> dict[str, audit.Rung]:
    return {rung.setting: rung for rung in outcome.rungs}


def bytes_of(store: Store) -> dict[str, bytes]:
    files = [p for p in (store.root / "objects").rglob("*") if p.is_file() and p.name != "run.json"]
    return {str(p.relative_to(store.root)): p.read_bytes() for p in files}


# ---------------------------------------------------------------- the plan


def test_the_four_settings_differ_in_what_is_assumed_and_in_nothing_else() -> None:
    defense = Defense(NETWORK, Gauss(0.1), MeanProb(4))
    request = asked(defense, 0.1, assumed=Laplace(0.2), eot=3)
    crafts: dict[str, dict[str, list[Craft]]] = {}
    for cell in audit.cells(request):
        assert sum(m.data.size for m in cell.measures) == DATA.size
        assert all(m.defense == defense for m in cell.measures)  # measured on the true one
        found = [m.craft for m in cell.measures if m.craft is not None]
        assert bool(found) == (cell.setting != "clean")
        crafts.setdefault(cell.setting, {})[cell.attack] = found
    assert tuple(crafts) == tuple(audit.SETTINGS) == SETTINGS
    attacked = [crafts[setting] for setting in SETTINGS[1:]]
    attacks = [{name: {c.attack for c in found} for name, found in one.items()} for one in attacked]
    assert attacks[0] == attacks[1] == attacks[2]
    assert all(len(same) == 1 for same in attacks[0].values())
    assert {attack.kind for (attack,) in attacks[0].values()} == {"budget", "minimal"}
    threats = [{c.threat for found in one.values() for c in found} for one in attacked]
    bare, guessed, true = (threat for (threat,) in threats)
    assert bare.assumed == Defense(NETWORK)
    assert (guessed.assumed.channel, guessed.draws) == (Laplace(0.2), 3)
    assert (true.assumed, true.draws, true.averaged) == (defense, 3, "mean_prob")
    assert all(threat.selection_draws > 0 for threat in (bare, guessed, true))


def test_without_a_defense_to_know_the_adaptive_attack_is_the_non_adaptive_one() -> None:
    cells = audit.cells(asked(Defense(NETWORK), 0.1))
    by = {(c.setting, c.attack): c.measures for c in cells}
    for attack in {c.attack for c in cells} - {""}:
        assert by["adaptive", attack] == by["non-adaptive", attack]
    tasks = plan(m for c in cells for m in c.measures).tasks
    assert len(tasks) == len(cells[0].measures) * (1 + 2 * 4)  # clean, two settings × two attacks


@pytest.mark.parametrize(
    ("name", "value"),
    [("epsilon", 0.0), ("epsilon", -1.0), ("epsilon", float("nan")), ("epsilon", float("inf"))]
    + [(name, 0) for name in ("eot", "steps", "scoring", "part")],
)
def test_numbers_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"{name}: expected .*, got {value}"):
        replace(asked(Defense(NETWORK), 0.1), **{name: value})


def test_nothing_is_said_of_an_audit_that_was_not_run(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match="not computed yet"):
        audit.outcome(asked(Defense(NETWORK), 0.1), Store(tmp_path))


# ---------------------------------------------------------------- numbers that are known


@pytest.mark.parametrize("stranger", [False, True], ids=["ours", "foreign"])
@pytest.mark.parametrize("norm", [L2(), pytest.param(Linf(), marks=pytest.mark.slow)])
def test_a_linear_network_keeps_what_no_attack_can_reach(
    stranger: bool, norm: L2 | Linf, tmp_path: Path
) -> None:
    """Beyond its margin nothing breaks an image; within a tenth less, the attacks must."""
    linear = LinearNetwork(shape=SHAPE, classes=2, seed=5)
    batch = linear.batch(DATA.size)
    reach = linear.optimum(batch, 2.0 if norm == L2() else 1.0)
    epsilon = float(reach.median()) * 1.05
    network = Foreign(linear.build(), SHAPE, "stranger") if stranger else linear
    data = from_arrays(batch.x, batch.y, classes=2)
    request = asked(Defense(network), epsilon, norm=norm, steps=20)
    outcome, _ = audited(replace(request, data=data), tmp_path)
    safe = float((reach > epsilon).double().mean())
    open_to_all = float((reach > epsilon / 1.1).double().mean())
    assert 0.2 < safe < 0.8
    rungs = by_setting(outcome)
    assert rungs["clean"].worst.value == 1.0
    for setting in ("non-adaptive", "adaptive"):
        assert safe <= rungs[setting].worst.value <= open_to_all
    assert safe <= outcome.headline.value <= open_to_all
    for rung in outcome.rungs[1:]:  # a deterministic worst case is the minimum, image by image
        assert rung.worst.value <= min(e.value for e in rung.attacks.values())
        assert rung.worst.value <= rungs["clean"].worst.value
    assert {e.n for rung in outcome.rungs for e in rung.attacks.values()} == {DATA.size}
    assert outcome.headline.method == "wilson"


def test_a_defense_without_gradient_falls_to_the_attacker_who_knows_it(tmp_path: Path) -> None:
    """Rounding undoes small perturbations and has no gradient: it looks perfect, and is worth nothing."""
    request = asked(Defense(NETWORK, CD(2)), 0.2, norm=Linf(), steps=8)
    outcome, _ = audited(request, tmp_path)
    rungs = by_setting(outcome)
    assert rungs["clean"].worst.value == 1.0
    assert rungs["non-adaptive"].attacks["smallest PGD"].value > 0.9  # it even looks like a defense
    for estimate in rungs["adaptive"].attacks.values():
        assert estimate.value <= 0.05
    assert outcome.headline.value <= 0.05


def ladder_by_hand(outcome: audit.Outcome, store: Store, setting: str) -> list[float]:
    """Accuracy at each budget from the rows of a deterministic defense, example by example."""
    request = outcome.request
    attack = list(by_setting(outcome)[setting].attacks)[-1]
    cells = {(c.setting, c.attack): c for c in audit.cells(request)}
    clean, right, far = {}, {}, {}
    for measure in cells["clean", ""].measures:
        for row in table(store, measure).to_pylist():
            clean[row["index"]] = row["predicted"] == row["label"]
    for measure in cells[setting, attack].measures:
        assert measure.craft is not None
        for row in table(store, measure).to_pylist():
            right[row["index"]] = row["predicted"] == row["label"]
        moved = adversarials(store, measure.craft) - measure.data.load().x
        for i, index in enumerate(measure.data.load().index.tolist()):
            far[index] = float(moved[i].norm())
    budgets = outcome.ladders[0].budgets
    return [
        sum(right[i] if far[i] <= b + 1e-5 else clean[i] for i in clean) / len(clean)
        for b in budgets
    ]


def test_candidates_beyond_the_budget_count_as_clean_images(tmp_path: Path) -> None:
    outcome, store = audited(asked(Defense(NETWORK, CD(3)), 0.1), tmp_path)
    assert [ladder.setting for ladder in outcome.ladders] == list(SETTINGS[1:])
    plain = by_setting(outcome)["clean"].worst.value
    for ladder in outcome.ladders:
        assert [e.value for e in ladder.estimates] == pytest.approx(
            ladder_by_hand(outcome, store, ladder.setting)
        )
        assert ladder.budgets[0] == 0.0
        assert ladder.budgets[10] == pytest.approx(0.1)
        assert ladder.estimates[0].value == plain
        attacked = by_setting(outcome)[ladder.setting].attacks["DDN"]
        assert ladder.estimates[10].value == attacked.value
    assert min(ladder.estimates[-1].value for ladder in outcome.ladders) < plain
    tiny, _ = audited(asked(Defense(NETWORK, CD(3)), 1e-5), tmp_path / "tiny")
    assert {rung.attacks["DDN"].value for rung in tiny.rungs[1:]} == {plain}


# ---------------------------------------------------------------- liars


class Loud(nn.Module):
    """Adds so much noise to the logits that most single draws err; nothing else protects it."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.inner, self.size = NETWORK.build(), size

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return logits + self.size * torch.randn_like(logits)


def test_lucky_draws_are_not_counted(tmp_path: Path) -> None:
    """An attack that cannot move a pixel leaves the accuracy, though almost every image errs on some draw."""
    defense = Defense(Foreign(Loud(0.3).eval(), SHAPE, "loud"))
    outcome, store = audited(asked(defense, 1e-6, scoring=32, steps=2), tmp_path)
    rungs = by_setting(outcome)
    plain = rungs["clean"].worst
    assert 0.25 < plain.value < 0.75
    draws = [row for m in audit.cells(outcome.request)[0].measures for row in _rows(store, m)]
    errs = {row["index"] for row in draws if row["predicted"] != row["label"]}
    assert len(draws) == 32 * DATA.size
    assert len(errs) == DATA.size  # counting luck would leave 0 %
    for rung in outcome.rungs[1:]:
        assert abs(rung.worst.value - plain.value) < 0.1
        assert all(abs(e.value - plain.value) < 0.1 for e in rung.attacks.values())
    assert outcome.headline.value > plain.value - 0.1


def _rows(store: Store, measure: Any) -> list[dict[str, Any]]:
    return table(store, measure).to_pylist()


class Undecided(nn.Module):
    """Says that it is random, and is not: its noise is a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = NETWORK.build()
        self.register_buffer("noise", torch.zeros(5))
        self.stochastic = True

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.noise


def test_who_only_says_that_he_is_random_is_asked_once(tmp_path: Path) -> None:
    defense = Defense(Foreign(Undecided().eval(), SHAPE, "undecided"), decision=Vote(4))
    assert not defense.stochastic
    outcome, store = audited(asked(defense, 0.09, steps=20), tmp_path)
    honest, _ = audited(asked(Defense(NETWORK), 0.09, steps=20), tmp_path / "honest")
    for one, other in zip(outcome.rungs, honest.rungs, strict=True):
        assert one.worst.n == other.worst.n
        if one.setting != "partially adaptive":  # whose draws are named by the network's key
            assert one.worst.value == pytest.approx(other.worst.value, abs=1.5 / DATA.size)
    for measure in wanted(outcome.request):
        assert len(_rows(store, measure)) == measure.data.size


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


@pytest.mark.parametrize("name", VOTES)
def test_decisions_over_draws(name: str, tmp_path: Path) -> None:
    """Twice a decision's draws at least: one set chooses the worst attack, the other scores it."""
    case = VOTES[name]
    rule: Decision = case.defense.decision
    outcome, store = audited(asked(case.defense, 0.3), tmp_path)
    for measure in wanted(outcome.request):
        rows = _rows(store, measure)
        assert len(rows) == case.draws * measure.data.size
    assert case.draws == 1 or case.draws >= 2 * rule.draws
    for rung in outcome.rungs:
        for estimate in (rung.worst, *rung.attacks.values()):
            assert estimate.n == DATA.size
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert outcome.headline.value < by_setting(outcome)["clean"].worst.value


# ---------------------------------------------------------------- resuming


def test_a_second_run_computes_nothing_and_another_store_holds_the_same_bytes(
    tmp_path: Path,
) -> None:
    request = asked(Defense(NETWORK, Gauss(0.1), Vote(3)), 0.1)
    outcome, store = audited(request, tmp_path / "one")
    assert plan(wanted(request)).todo(store).tasks == ()

    def nothing(todo: Any, _store: Store, _tick: Any) -> None:
        assert todo.tasks == ()

    run(wanted(request), store, nothing, lambda _whole, _todo: [].append)
    torch.randn(7)  # torch's own generator is in another state
    again, other = audited(request, tmp_path / "two")
    assert bytes_of(store) == bytes_of(other)
    assert len(bytes_of(store)) > 0
    assert again == outcome
    assert (
        audit.render((again,), other, PROVENANCE)[0]
        == audit.render((outcome,), store, PROVENANCE)[0]
    )
    seeded = replace(request, seed=1)
    assert not set(plan(wanted(seeded)).tasks) & set(plan(wanted(request)).tasks)


# ---------------------------------------------------------------- what is shown

NUMBER = r"(\d+\.\d)(?: %)? \[(\d+\.\d)(?:, |–)(\d+\.\d)\]"


def shown(outcomes: tuple[audit.Outcome, ...]) -> str:
    out = Console(file=io.StringIO(), width=300)
    out.print(audit.terminal_table(outcomes))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_the_page_holds_every_number_of_the_terminal(tmp_path: Path) -> None:
    defenses = (Defense(NETWORK, Gauss(0.1)), Defense(NETWORK, CD(3)))
    requests = [replace(asked(d, 0.1), name=f"defense <{i}> [b]") for i, d in enumerate(defenses)]
    store = Store(tmp_path)
    outcomes = tuple(audited(request, tmp_path)[0] for request in requests)
    terminal = shown(outcomes)
    text, sections = audit.render(outcomes, store, PROVENANCE)
    numbers = re.findall(NUMBER, terminal)
    assert len(numbers) == 2 * (1 + 3 * 3)  # clean; three settings of two attacks and their worst
    for value, low, high in numbers:
        cell = f'<span class="value">{value} %</span> <span class="interval">{low} to {high} · n'
        assert cell in text
    printed = {f"{100 * e.value:.1f}" for e in _estimates(outcomes)}
    assert printed == {value for value, _, _ in numbers}
    for i, outcome in enumerate(outcomes):
        assert f"defense <{i}> [b]" in terminal
        assert f"defense &lt;{i}&gt; [b]" in text
        assert f" {100 * outcome.headline.value:.0f} %" in text
    assert all(name in text and name in terminal for name in ("non-adaptive", "PGD", "DDN"))
    ladder = next(part for part in sections[0].parts if isinstance(part, Grid))
    assert len(ladder.rows) == len(outcomes) * len(SETTINGS)
    rungs = [rung for outcome in outcomes for rung in outcome.rungs]
    for row, rung in zip(ladder.rows, rungs, strict=True):
        assert row[1] == rung.setting
        assert set(rung.attacks.values()) | {rung.worst} <= set(row)


def _estimates(outcomes: tuple[audit.Outcome, ...]) -> list[Estimate]:
    return [e for o in outcomes for rung in o.rungs for e in (rung.worst, *rung.attacks.values())]


def test_the_page_says_what_was_done_and_what_was_not(tmp_path: Path) -> None:
    request = asked(Defense(NETWORK, Gauss(0.1)), 0.1, assumed=Laplace(0.07), eot=3)
    outcome, store = audited(request, tmp_path)
    text = audit.render((outcome,), store, PROVENANCE)[0]
    plain = re.sub(r"\s+", " ", text)
    assert "Not tested: " in plain
    assert "not a proof that it holds" in plain
    assert "noisychannel audit &lt;it&gt;" in plain  # the command
    assert "Laplace(scale=0.07)" in plain
    assert "average 3 draws" in plain
    assert "8 fresh draws" in plain
    assert "PGD(norm=L2(), epsilon=0.1, steps=4" in plain
    assert "DDN(steps=8" in plain


def test_a_defense_that_never_worked_is_not_said_to_look_like_one(tmp_path: Path) -> None:
    outcome, store = audited(asked(Defense(NETWORK), 0.5), tmp_path)
    assert outcome.rungs[1].worst.value == 0
    text = audit.render((outcome,), store, PROVENANCE)[0]
    assert "looks like a defense" not in text


def test_series_are_audited_too(tmp_path: Path) -> None:
    """(c, l) examples: the page has no picture to draw, and is written all the same."""
    network = LinearNetwork(shape=(1, 32), classes=3)
    batch = network.batch(8)
    data: ArrayData = from_arrays(batch.x, batch.y, classes=3)
    request = replace(asked(Defense(network, Gauss(0.1)), 0.1), data=data)
    outcome, store = audited(request, tmp_path)
    assert "Not tested" in audit.render((outcome,), store, PROVENANCE)[0]


def test_data_for_which_the_network_was_not_made() -> None:
    """Too many classes are refused; fewer, or another shape that it takes all the same, are warned of."""
    defense = Defense(NETWORK)
    audit.check_fit("it", defense, DATA)  # what it was made for: not a word
    more = from_arrays(BATCH.x, BATCH.y, classes=NETWORK.classes + 1)
    with pytest.raises(UserError, match=rf"at most {NETWORK.classes} classes.* got {more.classes}"):
        audit.check_fit("it", defense, more)
    fewer = from_arrays(BATCH.x, BATCH.y * 0, classes=1)
    with pytest.warns(UserWarning, match="made for .* is that the data it was trained on"):
        audit.check_fit("it", defense, fewer)
    with pytest.raises(UserError, match="expected examples of a shape like"):
        audit.check_fit(
            "it", defense, from_arrays(BATCH.x[..., :1], BATCH.y, classes=NETWORK.classes)
        )
