"""Figures 2 and 3 on fabricated rows: what is planned, what is claimed where, and what is shown of what is missing."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest

from experiments.test_experiments import draws_of, examples_of, parts_of, shuffled, smoke
from noisychannel.defenses import Operated
from noisychannel.engine import Craft, Measure, Trained, key_of, plan
from noisychannel.experiments import Experiment, Result
from noisychannel.experiments.defended import NOT_RUN
from noisychannel.experiments.fig02_claims import Rows, Spot
from noisychannel.experiments.fig02_networks import (
    CODED,
    DEFENSES,
    FC,
    PARAMNETS,
    PLACED,
    UNTRAINED,
)
from noisychannel.experiments.fig02_placement import FIG02
from noisychannel.experiments.fig03_svhn import RECORD, record_grid
from noisychannel.experiments.fig03_white_box import FIG03
from noisychannel.experiments.fig10_eot import FIG10
from noisychannel.experiments.setting import Claim
from noisychannel.experiments.white_box import DRAWS, further, gap, length, single
from noisychannel.report.stats import Estimate

BOTH = pytest.mark.parametrize("experiment", [FIG02, FIG03], ids=lambda e: e.name)
Place = dict[str, str | float]
Key = tuple[tuple[str, str | float], ...]
World = Callable[[Place], tuple[float, float]]
"""Place → accuracy, and mean L2 of the attack."""


@cache
def places(name: str) -> list[tuple[Key, bool, int]]:
    """Every place, whether something was attacked there, and the draws per image."""
    experiment = {"fig02": FIG02, "fig03": FIG03}[name]
    return [(place, m[0].craft is not None, m[0].draws) for place, m in measured(experiment)]


def measured(experiment: Experiment) -> list[tuple[Key, tuple[Measure, ...]]]:
    """Places and tasks at `smoke`."""
    return [
        (c.place, tuple(m for m in c.measures if isinstance(m, Measure)))
        for c in experiment.cells(smoke(experiment))
    ]


def fabricated(experiment: Experiment, world: World) -> tuple[Result, ...]:
    out: list[Result] = []
    for at, attacked, draws in places(experiment.name):
        place = dict(at)
        share, l2 = world(place)
        # Ten of the 200 images of `examples_of` were not moved.
        examples = examples_of(l2 * 200 / 190) if attacked else None
        out.append(Result(place, draws_of(share, l2, min(draws, 4)), examples))
    return tuple(out)


def on_svhn(results: tuple[Result, ...]) -> tuple[Result, ...]:
    return tuple(replace(r, place={**r.place, "data": "SVHN"}) for r in results)


def claims(experiment: Experiment, results: tuple[Result, ...]) -> dict[str, Claim]:
    return {c.name: c for c in experiment.claims(results)}


# ---------------------------------------------------------------- the paper's worlds

CLEAN = {"Plain": 0.88, "AdvTrain": 0.84, "PNI-W-Adv": 0.84, "RobustNet": 0.8, "RobustNetAdv": 0.84}
UNDER = {
    # network: PGD, C&W at c = .4, at c = 10, mean L2 at c = .4
    "Plain": (0.0, 0.0, 0.0, 0.2),
    "AdvTrain": (0.34, 0.3, 0.02, 0.57),
    "PNI-W-Adv": (0.35, 0.31, 0.08, 0.58),
    "RobustNet": (0.25, 0.4, 0.1, 0.63),
    "RobustNetAdv": (0.42, 0.46, 0.12, 0.66),
}


def compared(place: Place) -> tuple[float, float]:
    """Figure 3 as section 4.7 tells it."""
    name = str(place["network"])
    pgd, near, far, l2 = UNDER[name]
    if place["attack"] == "clean":
        return CLEAN[name], 0.0
    if place["attack"] == "PGD":
        return pgd, 1.0
    return (near, l2) if place["strength"] == 0.4 else (far, 1.2)


def placed(place: Place) -> tuple[float, float]:
    """Figure 2 as sections 4.5 and 4.6 tell it."""
    name, crafted, far = str(place["defense"]), place["crafted"], place["c"] == 10
    l2 = 0.4 if far else 0.2
    if crafted == "clean":
        lost = {
            "ParamNet 0.02 at test": 0.1,
            "ParamNet 0.07 at test": 0.1,
            "ParamNet 0.07 trained": 0.6,
        }
        return lost.get(name, 0.85), 0.0
    if crafted == "Plain":
        return {FC: 0.5, "BandLimited": 0.3}.get(name, 0.82), l2
    if far:
        return {"RobustNet": 0.15}.get(name, 0.0), l2
    own = {
        "Plain": 0.02,
        FC: 0.05,
        "RobustNet": 0.5,
        "ParamNet 0.07 trained": 0.2,
        CODED[0]: 0.5,
        **dict.fromkeys((*PLACED[1:], *CODED[1:]), 0.3),
    }
    return own.get(name, 0.02), l2


WORLDS: dict[str, World] = {"fig02": placed, "fig03": compared}


@BOTH
def test_every_claim_holds_in_the_papers_world(experiment: Experiment) -> None:
    found = claims(experiment, fabricated(experiment, WORLDS[experiment.name]))
    assert [n for n, c in found.items() if c.holds is not True] == []
    assert all(c.where.startswith("4.") and c.sentence and c.evidence for c in found.values())


@BOTH
def test_no_claim_holds_on_shuffled_answers(experiment: Experiment) -> None:
    rows = fabricated(experiment, WORLDS[experiment.name])
    found = claims(experiment, shuffled(rows))
    assert found
    assert [n for n, c in found.items() if c.holds] == []


def test_svhn_has_claims_of_its_own() -> None:
    rows = fabricated(FIG03, compared)
    assert set(claims(FIG03, on_svhn(rows))) == {
        "fig03-svhn-cw-robustnetadv",
        "fig03-svhn-pgd-robustnetadv",
    }
    both = claims(FIG03, (*rows, *on_svhn(rows)))
    assert len(both) == 10
    assert all(c.holds for c in both.values())


LIES: dict[str, tuple[Experiment, str, World]] = {
    # what is told otherwise: the claim that must fall, and the world
    "RobustNet withstands PGD": (
        FIG03,
        "fig03-pgd-trained",
        lambda p: (
            (0.6, 1.0) if (p["network"], p["attack"]) == ("RobustNet", "PGD") else compared(p)
        ),
    ),
    "RobustNet falls to C&W": (
        FIG03,
        "fig03-cw-robustnet",
        lambda p: (
            (0.1, 0.6) if (p["network"], p["attack"]) == ("RobustNet", "C&W") else compared(p)
        ),
    ),
    "PNI-W-Adv is far better": (
        FIG03,
        "fig03-cw-par",
        lambda p: (
            (0.6, 0.6) if (p["network"], p["attack"]) == ("PNI-W-Adv", "C&W") else compared(p)
        ),
    ),
    "RobustNet is reached sooner": (
        FIG03,
        "fig03-distortion",
        lambda p: (
            (compared(p)[0], 0.4)
            if (p["network"], p["strength"]) == ("RobustNet", 0.4)
            else compared(p)
        ),
    ),
    "RobustNetAdv adds nothing": (
        FIG03,
        "fig03-combined-robustnetadv",
        lambda p: (
            (0.3, 0.6) if p["network"] == "RobustNetAdv" and p["attack"] != "clean" else compared(p)
        ),
    ),
    "AdvTrain is ahead far away": (
        FIG03,
        "fig03-cw-far",
        lambda p: (0.3, 1.2) if (p["network"], p["strength"]) == ("AdvTrain", 10) else compared(p),
    ),
    "images transfer": (
        FIG02,
        "fig02-a-robustnet",
        lambda p: (
            (0.3, 0.4) if (p["defense"], p["crafted"]) == ("RobustNet", "Plain") else placed(p)
        ),
    ),
    "FC stands": (
        FIG02,
        "fig02-b-fc",
        lambda p: (0.5, 0.4) if (p["defense"], p["crafted"]) == (FC, "self") else placed(p),
    ),
    "BandLimited stands": (
        FIG02,
        "fig02-b-bandlimited",
        lambda p: (
            (0.5, 0.4) if (p["defense"], p["crafted"]) == ("BandLimited", "self") else placed(p)
        ),
    ),
    "noise need not be trained with": (
        FIG02,
        "fig02-b-observed",
        lambda p: (0.6, 0.4) if (p["defense"], p["crafted"]) == (UNTRAINED, "self") else placed(p),
    ),
    "σ = .01 makes robust": (
        FIG02,
        "fig02-c-small-at-test",
        lambda p: (
            (0.5, 0.4) if (p["defense"], p["crafted"]) == (PARAMNETS[3], "self") else placed(p)
        ),
    ),
    "the first layer is enough": (
        FIG02,
        "fig02-d-all-layers-text",
        lambda p: (0.7, 0.3) if (p["defense"], p["crafted"]) == ("0.3 0.0", "self") else placed(p),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_claim_falls_with_what_it_claims(lie: str) -> None:
    experiment, name, world = LIES[lie]
    assert claims(experiment, fabricated(experiment, world))[name].holds is False


def test_what_hardly_works_when_clean_decides_nothing() -> None:
    dead = fabricated(FIG02, lambda _: (0.1, 0.3))
    found = claims(FIG02, dead)
    for name in ("a-robustnet", "b-fc", "b-bandlimited", "c-small-at-test"):
        assert found[f"fig02-{name}"].holds is None
    for names, verdict in ((("AdvTrain", "PNI-W-Adv"), None), (("AdvTrain",), False)):
        guessing = fabricated(
            FIG03,
            lambda p, names=names: (
                (0.05, 0.6) if p["attack"] == "C&W" and p["network"] in names else compared(p)
            ),
        )
        assert claims(FIG03, guessing)["fig03-cw-par"].holds is verdict
    unharmed = fabricated(FIG03, lambda p: (0.8, 0.6 if p["network"] == "AdvTrain" else 0.5))
    assert claims(FIG03, unharmed)["fig03-distortion"].holds is None


# ---------------------------------------------------------------- what is planned


def crafts(experiment: Experiment) -> dict[str, Craft]:
    tasks = plan(m for c in experiment.cells(smoke(experiment)) for m in c.measures).tasks
    return {key_of(t): t for t in tasks if isinstance(t, Craft)}


@BOTH
def test_the_authors_attack_believes_itself_and_fresh_draws_judge(experiment: Experiment) -> None:
    for place, asked in measured(experiment):
        for m in asked:
            assert m.draws == (DRAWS if m.defense.stochastic else 1)
            if m.craft is not None and dict(place).get("attack", "C&W") == "C&W":
                assert m.craft.threat.selection_draws == 0
                assert m.craft.attack.gradients == 39
                assert getattr(m.craft.attack, "keep", "") == "last"


def test_figures_share_their_crafts() -> None:
    three, two, ten = crafts(FIG03), crafts(FIG02), crafts(FIG10)
    assert len(three.keys() & ten.keys()) == 3  # PGD at the compared radius, one draw
    assert len(three.keys() & two.keys()) == 2  # Plain at two constants (at `desk` RobustNet too)


def test_fig02_knows_the_exact_gradient_of_fc_and_nothing_of_it_before() -> None:
    found = {Spot(**dict(c.place)): c for c in FIG02.cells(smoke(FIG02))}  # pyright: ignore[reportArgumentType]
    for (name, crafted, _), cell in found.items():
        for m in cell.measures:
            if crafted == "clean":
                assert m.craft is None
                continue
            assert m.craft is not None
            assert m.craft.threat.assumed.undefended() == m.craft.threat.assumed or name == FC
            assert (m.craft.threat.assumed == m.defense) == (crafted == "self")
            assert (m.craft.threat.backward == "exact") == ((name, crafted) == (FC, "self"))


def test_fig02_changes_at_test_what_it_says_it_does() -> None:
    found = {
        str(dict(c.place)["defense"]): c.measures[0].defense.network
        for c in FIG02.cells(smoke(FIG02))
    }
    assert set(found) == set(DEFENSES)
    plain = found["Plain"]
    assert found[FC] == plain
    for name in PARAMNETS:
        network = found[name]
        if name.endswith("at test"):
            assert isinstance(network, Operated)
            assert network.network == plain
        else:
            assert isinstance(network, Trained)
    coded = [found[name] for name in CODED]
    assert all(isinstance(n, Trained) and n != found["RobustNet"] for n in coded)


# ---------------------------------------------------------------- what is shown


@BOTH
def test_what_has_no_weights_is_shown_as_not_run(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOISYCHANNEL_WEIGHTS", str(tmp_path))
    where = replace(smoke(experiment), scale="desk")
    assert experiment.cells(where) == ()
    assert experiment.claims(()) == ()
    figures, grids = parts_of(experiment.sections(where, ()))
    assert figures == []
    assert grids
    assert all(NOT_RUN in row for grid in grids for row in grid.rows)


@BOTH
def test_one_network_without_weights_does_not_hide_the_others(experiment: Experiment) -> None:
    column, gone = ("network", "PNI-W-Adv") if experiment is FIG03 else ("defense", "BandLimited")
    rows = fabricated(experiment, WORLDS[experiment.name])
    kept = tuple(r for r in rows if r.place[column] != gone)
    figures, grids = parts_of(experiment.sections(smoke(experiment), kept))
    assert all(gone not in {s.name for s in p.series} for f in figures for p in f.panels)
    assert [r[0] for r in grids[0].rows if NOT_RUN in r] == [gone]
    names = set(claims(experiment, rows)) - set(claims(experiment, kept))
    assert names == (
        {
            "fig03-pgd-trained",
            "fig03-cw-robustnetadv",
            "fig03-pgd-robustnetadv",
            "fig03-cw-par",
            "fig03-cw-far",
        }
        if experiment is FIG03
        else {"fig02-b-bandlimited"}
    )


def test_fig03_draws_accuracy_against_strength_and_distance() -> None:
    ((figure,), (grid,)) = parts_of(FIG03.sections(smoke(FIG03), fabricated(FIG03, compared)))
    by_c, by_length, by_radius, by_steps = figure.panels
    curves = {s.name: s for s in by_length.series}
    assert set(curves) == set(UNDER)
    assert curves["RobustNet"].x == pytest.approx((0.0, 0.63, 1.2))
    assert [s.x for s in by_c.series] == [(0.4, 10.0)] * 5
    assert [s.x for s in by_radius.series] == [(0.0, 0.1, 0.2)] * 5
    assert [s.x for s in by_steps.series] == [(1.0, 10.0, 40.0)] * 5
    row = {str(r[0]): r for r in grid.rows}["AdvTrain"]
    accuracies = [v.value for v in row if isinstance(v, Estimate)]
    assert accuracies == pytest.approx([0.84, 0.34, 0.3])


def test_svhn_s_curve_stands_beside_the_record() -> None:
    results = {c: Result({}, draws_of(v / 100), examples_of(l2)) for c, (v, l2) in RECORD.items()}
    grid = record_grid({c: r for c, r in results.items() if c in (0.4, 10.0)}, results[0.0])
    assert [row[0] for row in grid.rows] == ["0", "0.4", "10"]
    assert [row[3] for row in grid.rows] == ["93.2 %", "54.6 %", "17.5 %"]
    (row,) = record_grid({}, None).rows
    assert NOT_RUN in row


def test_fig02_shows_each_panel_with_its_own_curves() -> None:
    figures, _ = parts_of(FIG02.sections(smoke(FIG02), fabricated(FIG02, placed)))
    panels = [{s.name for s in p.series} for f in figures for p in f.panels]
    shown = {"Plain", "RobustNet", FC, "BandLimited"}
    assert panels[:2] == [shown, shown]
    assert panels[2] == {"Plain", "σ = 0.01", "σ = 0.02", "σ = 0.07"}
    assert panels[3] == {"Plain", "σ = 0.01", "σ = 0.02"}  # σ = .07 at test: clean only
    assert panels[4:] == [{"Plain", "0.2 0.1", "0.2 0.0", "0.3 0.0", "0.0 0.1"}] * 2
    a, b = (p for f in figures[:1] for p in f.panels)
    fc = [{s.name: s for s in p.series}[FC] for p in (a, b)]
    assert fc[0].y[0] == fc[1].y[0]  # clean
    assert fc[0].y[-1] > fc[1].y[-1]


def test_images_of_plain_are_judged_at_the_distance_that_the_paper_names() -> None:
    rows = fabricated(FIG02, placed)
    assert Rows(rows).near() == 10.0

    def at(length: float, c: float) -> tuple[Result, ...]:
        moved = examples_of(length)
        return tuple(replace(r, examples=moved) if r.place["c"] == c else r for r in rows)

    assert Rows(at(0.8, 10.0)).near() == 0.4


# ---------------------------------------------------------------- numbers


def test_distance_and_accuracy_are_compared_image_by_image() -> None:
    one = Result({}, draws_of(0.6), examples_of(0.5))
    other = Result({}, draws_of(0.4), examples_of(0.4))
    assert length(one).value == pytest.approx(0.475)
    order = pa.array(list(range(199, -1, -1)))
    assert other.examples is not None
    turned = replace(other, examples=other.examples.take(order))
    apart = further(one, turned)
    assert apart.value == pytest.approx(0.095)
    assert 0.08 < apart.low <= apart.value
    assert single(one).value == pytest.approx(0.6)
    fewer = replace(other, draws=other.draws.slice(0, 100))
    found = gap(one, fewer)  # the first hundred images: all right, and 80 of them
    assert (found.value, found.n) == (pytest.approx(0.2), 100)
