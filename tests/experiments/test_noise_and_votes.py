"""Figures 8, 9 and 11 and section 4.6: what is planned, and which claims hold in the paper's world and in others."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from noisychannel import zoo
from noisychannel.decision import MeanProb, Single, Vote
from noisychannel.defenses import Operated, ParamNet
from noisychannel.engine import Craft, Execution, Measure, Train, key_of, plan
from noisychannel.experiments import Experiment, Result, setting
from noisychannel.experiments.defended import NOT_RUN
from noisychannel.experiments.fig01_recovery import FIG01
from noisychannel.experiments.fig08_trials import FIG08
from noisychannel.experiments.fig09_adaptive_votes import FIG09
from noisychannel.experiments.fig10_eot import FIG10
from noisychannel.experiments.fig11_noise_types import FIG11
from noisychannel.experiments.sec46_claims import SIGMAS
from noisychannel.experiments.sec46_noise import SEC46
from noisychannel.experiments.setting import Claim, Setting
from noisychannel.experiments.votes import decisions, draws_each, gain, less_than
from noisychannel.report.figure import Figure, Grid
from noisychannel.report.stats import Estimate, accuracy
from noisychannel.threats import Threat

IMAGES, CLASSES = 300, 10
FOUR = pytest.mark.parametrize("experiment", [FIG08, FIG09, FIG11, SEC46], ids=lambda e: e.name)


def smoke(experiment: Experiment) -> Setting:
    return setting("smoke", experiment.subsets, Execution())


def places(experiment: Experiment) -> list[dict[str, str | float]]:
    return [dict(cell.place) for cell in experiment.cells(smoke(experiment))]


def answers(right: float | np.ndarray, count: int = 1, images: int = IMAGES) -> pa.Table:
    """Draws of which each is right with the image's probability; a wrong one says the next class."""
    rng = np.random.default_rng(int(1e6 * float(np.mean(right))) + count)
    label = np.repeat(np.arange(images) % CLASSES, count)
    hits = rng.random((images, count)) < np.broadcast_to(np.reshape(right, (-1, 1)), (images, 1))
    predicted = np.where(hits.reshape(-1), label, (label + 1) % CLASSES)
    probabilities = np.full((images * count, CLASSES), 0.01, dtype=np.float32)
    probabilities[np.arange(images * count), predicted] = 0.91
    return pa.table(
        {
            "index": np.repeat(np.arange(images), count),
            "label": label,
            "candidate": np.zeros(images * count, dtype=np.int32),
            "draw": np.tile(np.arange(count, dtype=np.int32), images),
            "predicted": predicted,
            "margin": np.where(predicted == label, 1.0, -1.0).astype(np.float32),
            "probabilities": pa.FixedSizeListArray.from_arrays(
                pa.array(probabilities.reshape(-1)), CLASSES
            ),
        }
    )


def some(share: float, right: float, images: int = IMAGES) -> np.ndarray:
    """The first share of the images is right with a probability, the others never."""
    return np.where(np.arange(images) < round(share * images), right, 0.0)


def examples(l2: float, images: int = IMAGES) -> pa.Table:
    return pa.table({"index": np.arange(images), "l2": np.full(images, l2)})


def shuffled(results: tuple[Result, ...]) -> tuple[Result, ...]:
    """The same answers to the labels of other images."""
    out: list[Result] = []
    for r in results:
        if "label" not in r.draws.column_names:
            out.append(r)
            continue
        index, label = (r.draws[c].to_numpy() for c in ("index", "label"))
        _, first = np.unique(index, return_index=True)
        other = np.random.default_rng(3).permutation(label[first])
        place = r.draws.schema.get_field_index("label")
        out.append(replace(r, draws=r.draws.set_column(place, "label", pa.array(other[index]))))
    return tuple(out)


def claims(experiment: Experiment, results: tuple[Result, ...]) -> dict[str, Claim]:
    return {c.name: c for c in experiment.claims(results)}


def shown(experiment: Experiment, results: tuple[Result, ...]) -> tuple[list[Figure], list[Grid]]:
    parts = [p for s in experiment.sections(smoke(experiment), results) for p in s.parts]
    figures = [p for p in parts if isinstance(p, Figure)]
    return figures, [p for p in parts if isinstance(p, Grid)]


# ---------------------------------------------------------------- votes


@pytest.mark.parametrize("rule", [Single(), Vote(5), MeanProb(16)], ids=str)
def test_decisions_as_single_answers_are_as_accurate_as_the_rule(
    rule: Single | Vote | MeanProb,
) -> None:
    draws = answers(some(0.7, 0.6), 17)
    table = decisions(draws, rule)
    assert draws_each(draws) == 17
    assert draws_each(table) == 17 // rule.draws
    assert accuracy(table, Single()) == accuracy(draws, rule)
    assert gain(draws, rule, rule).value == 0


def test_a_gain_is_a_paired_difference() -> None:
    draws = answers(some(0.7, 0.8), 64)
    found = gain(draws, Vote(64), Single())
    assert found.value == pytest.approx(0.7 - 0.56, abs=0.01)
    assert 0.1 < found.low < found.high < 0.2
    lost = less_than(answers(1.0), Single(), draws, Vote(64))
    assert lost.value == pytest.approx(0.3)


def test_what_cannot_be_decided_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 per image"):
        decisions(answers(1.0, 4), Vote(8))
    draws = answers(1.0, 4)
    shared = draws.append_column("weight_draw", draws["draw"].cast(pa.int64()))
    with pytest.raises(ValueError, match="fixed weights"):
        decisions(shared, Vote(2))


# ---------------------------------------------------------------- what is planned


@FOUR
def test_one_scale_each_and_no_place_twice(experiment: Experiment) -> None:
    assert tuple(experiment.subsets) == ("smoke", "desk", "paper")
    where = smoke(experiment)
    cells = experiment.cells(where)
    assert len({cell.place for cell in cells}) == len(cells)
    for cell in cells:
        assert tuple(m.data for m in cell.measures) == where.parts()


def test_fig08_votes_over_figure_1s_attack() -> None:
    wanted = [m for cell in FIG08.cells(smoke(FIG08)) for m in cell.measures]
    theirs = [m for cell in FIG01.cells(smoke(FIG01)) for m in cell.measures]
    ours, known = (
        {key_of(t) for t in plan(w).tasks if isinstance(t, Craft)} for w in (wanted, theirs)
    )
    assert len(ours) == 1
    assert ours < known


def test_fig09_votes_as_often_as_its_place_says() -> None:
    believed = {}
    for cell in FIG09.cells(smoke(FIG09)):
        place, measure = dict(cell.place), cell.measures[0]
        assert isinstance(measure, Measure)
        if measure.craft is None:
            continue
        threat: Threat = measure.craft.threat
        votes = int(place["votes"])
        assert threat.success == ("rule" if votes else "draws")
        assert threat.assumed.rule.draws == max(1, votes)
        assert measure.draws >= max(128, votes)
        assert measure.defense.rule == Single()
        believed[place["gradient"]] = (threat.backward, threat.selection_draws)
    assert believed == {"clean": ("default", 16), "authors": ("at_input", 0)}


def test_fig11_and_sec46_share_figure_10s_attack() -> None:
    def crafts(experiment: Experiment, **wanted: str | float) -> set[str]:
        return {
            key_of(m.craft)
            for cell in experiment.cells(smoke(FIG10))
            for m in cell.measures
            if m.craft is not None and wanted.items() <= dict(cell.place).items()
        }

    ten = crafts(FIG10, network="RobustNet", attack="PGD", eot=1)
    assert ten == crafts(FIG11, network="Gauss", epsilon=0.2)
    assert ten == crafts(SEC46, at="strong")


def test_fig11_trains_one_small_network_for_each_noise() -> None:
    tasks = plan(m for cell in FIG11.cells(smoke(FIG11)) for m in cell.measures).tasks
    assert sum(isinstance(t, Train) for t in tasks) == 3


def test_sec46_has_noise_on_parameters_at_test_only() -> None:
    found = {}
    for cell in SEC46.cells(smoke(SEC46)):
        place, measure = dict(cell.place), cell.measures[0]
        if place["part"] == "parameters":
            assert isinstance(measure, Measure)
            spec = measure.defense.network
            found[place["strength"]] = spec.surgery if isinstance(spec, Operated) else None
            assert measure.draws == (32 if spec.stochastic else 1)  # weights shared by images
    assert found == {s: ParamNet(s, "test") if s else None for s in SIGMAS}


@pytest.mark.parametrize("experiment", [FIG11, SEC46], ids=lambda e: e.name)
def test_what_is_not_trained_is_shown_as_not_run(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOISYCHANNEL_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(zoo, "has_weights", lambda _: False)
    where = replace(smoke(experiment), scale="desk")
    assert experiment.cells(where) == ()
    assert experiment.claims(()) == ()
    (section,) = experiment.sections(where, ())
    assert not any(isinstance(part, Figure) for part in section.parts)
    grids = [part for part in section.parts if isinstance(part, Grid)]
    assert all(NOT_RUN in row for grid in grids for row in grid.rows)


# ---------------------------------------------------------------- Figure 8

World = Callable[[dict[str, str | float]], float | np.ndarray]


def tried(place: dict[str, str | float]) -> float | np.ndarray:
    """Votes bring back nearly all labels; the strongest noise costs some."""
    if place["images"] == "clean":
        return some(0.93, 1.0)
    epsilon = float(place["epsilon"])
    if not epsilon:
        return 0.0
    return some(0.7, 0.8) if epsilon > 0.3 else some(0.92, 0.85)


def trials(world: World) -> tuple[Result, ...]:
    out: list[Result] = []
    for place in places(FIG08):
        count = 64 if place["epsilon"] else 1
        out.append(Result(place, answers(world(place), count), None))
    return tuple(out)


TRIAL_LIES: dict[str, tuple[str, World]] = {
    "every trial says the same": (
        "fig08-trials-help",
        lambda p: some(0.9, 1.0) if p["epsilon"] else tried(p),
    ),
    "one level is harmed": (
        "fig08-trials-help",
        lambda p: 0.4 if float(p["epsilon"]) > 0.3 else tried(p),
    ),
    "votes bring back three quarters": (
        "fig08-within-3",
        lambda p: some(0.75, 0.8) if p["epsilon"] else tried(p),
    ),
    "the network guesses": ("fig08-within-3", lambda _: some(0.1, 1.0)),
    "a bare majority needs many trials": (
        "fig08-16-enough",
        lambda p: some(0.92, 0.56) if p["epsilon"] else tried(p),
    ),
    "noise destroys": ("fig08-16-enough", lambda p: some(0.2, 0.8) if p["epsilon"] else tried(p)),
}


def test_fig08_holds_in_the_papers_world_and_not_on_shuffled_labels() -> None:
    results = trials(tried)
    found = claims(FIG08, results)
    assert [n for n, c in found.items() if c.holds is not True] == []
    assert len(found) == 3
    assert all(c.where == "K" and c.statistic is not None for c in found.values())
    denied = claims(FIG08, shuffled(results))
    assert [n for n, c in denied.items() if c.holds] == []
    assert denied["fig08-within-3"].holds is None  # nothing clean is recognised either


@pytest.mark.parametrize("lie", TRIAL_LIES)
def test_fig08_fails_in_a_world_that_contradicts_it(lie: str) -> None:
    name, world = TRIAL_LIES[lie]
    assert claims(FIG08, trials(world))[name].holds is not True


def test_fig08_shows_every_level_from_one_trial_to_all() -> None:
    (figure,), (grid,) = shown(FIG08, trials(tried))
    (panel,) = figure.panels
    curves = {s.name: s for s in panel.series}
    assert set(curves) == {"clean, no noise", "ε 0.05", "ε 0.1", "ε 0.2", "ε 0.4"}
    assert curves["ε 0.1"].x == (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
    assert len(set(curves["clean, no noise"].y)) == 1
    (best,) = [row for row in grid.rows if "best" in str(row[0])]
    assert best[-1] == "at least 90.5 %"
    assert isinstance(best[3], Estimate)
    assert best[3].value == pytest.approx(0.92)


# ---------------------------------------------------------------- Figure 9

FEW = 100


def voted(votes: tuple[int, ...], right: Callable[[int], float]) -> tuple[Result, ...]:
    """Images on which a draw is right with a probability that depends on the attacker's votes."""
    out = [Result({"gradient": "none", "votes": 0}, answers(some(0.9, 1.0, FEW), 8, FEW), None)]
    for gradient in ("clean", "authors"):
        for k in votes:
            rows = answers(some(0.95, right(k), FEW), max(128, k), FEW)
            out.append(
                Result({"gradient": gradient, "votes": k}, rows, examples(0.3 + 1e-4 * k, FEW))
            )
    return tuple(out)


def papers_votes(k: int) -> float:
    return 0.65 if k == 0 else 0.43


def test_fig09_holds_in_the_papers_world_and_not_on_shuffled_labels() -> None:
    results = voted((0, 1024), papers_votes)
    found = claims(FIG09, results)
    assert len(found) == 6
    assert [n for n, c in found.items() if c.holds is not True] == []
    denied = claims(FIG09, shuffled(results))
    assert [n for n, c in denied.items() if c.holds] == []


@pytest.mark.parametrize(("votes", "verdict"), [(64, None), (1024, False)])
def test_fig09_a_small_vote_cannot_refute_that_many_are_enough(
    votes: int, verdict: bool | None
) -> None:
    found = claims(FIG09, voted((0, votes), lambda _: 0.5))
    for gradient in ("clean", "authors"):
        assert found[f"fig09-{gradient}-many-zero"].holds is verdict


@pytest.mark.parametrize(
    ("name", "right"),
    [("single-40", lambda _: 0.2), ("more-passes", lambda _: 0.45)],
    ids=["single answers fall too", "votes change nothing"],
)
def test_fig09_fails_in_a_world_that_contradicts_it(
    name: str, right: Callable[[int], float]
) -> None:
    found = claims(FIG09, voted((0, 1024), right))
    for gradient in ("clean", "authors"):
        assert found[f"fig09-{gradient}-{name}"].holds is not True


def test_fig09_shows_both_defenders_for_both_gradients() -> None:
    (figure,), (grid,) = shown(FIG09, voted((0, 4, 64), papers_votes))
    assert len(figure.panels) == 2
    for panel in figure.panels:
        curves = {s.name: s for s in panel.series}
        assert set(curves) == {"single noise", "many noise"}
        assert curves["many noise"].x == (0.5, 4.0, 64.0)
        assert curves["many noise"].y[0] == curves["single noise"].y[0]  # no votes: one answer
        assert curves["many noise"].y[2] < curves["single noise"].y[2] - 10
    assert [row[1] for row in grid.rows] == ["–", *("none", "4", "64") * 2]


# ---------------------------------------------------------------- section 4.6


def layers(
    features: tuple[float, int], weights: tuple[float, int], images: tuple[int, ...] = (100, 50)
) -> pa.Table:
    """(std, elements) of ten layers, with some spread over layers, in micro-batches of so many images."""
    spread = 1 + 0.1 * np.random.default_rng(0).standard_normal(10)
    slices = len(images)
    rows = np.tile(np.arange(10), slices)
    return pa.table(
        {
            "name": [f"conv{i}" for i in rows],
            "position": rows,
            "input_std": np.tile(features[0] * spread, slices),
            "input_count": np.tile((features[1] * spread).astype(np.int64), slices),
            "weight_std": np.tile(weights[0] / spread, slices),
            "weight_count": np.tile((weights[1] / spread).astype(np.int64), slices),
            "examples": np.repeat(images, 10),
        }
    )


def noises(place: dict[str, str | float]) -> pa.Table:
    """Section 4.6 as the paper has it."""
    at, strength = str(place["at"]), float(place["strength"])
    if place["part"] == "tensors":
        return layers((1.0, 50_000), (0.05, 1000))
    if place["part"] == "ensemble":
        right = {"clean": some(0.85, 0.94), "weak": some(0.7, 0.8), "strong": 0.3}[at]
        return answers(right, 100)
    harmed = some(0.88, 0.99) if strength <= 0.01 else 0.1
    return answers(some(0.88, 1.0), 1) if not strength else answers(harmed, 32)


def section(world: Callable[[dict[str, str | float]], pa.Table]) -> tuple[Result, ...]:
    return tuple(Result(p, world(p), None) for p in places(SEC46))


def told(table: pa.Table, **wanted: str | float) -> tuple[Result, ...]:
    """The paper's world, but for one place."""
    return section(lambda p: table if wanted.items() <= p.items() else noises(p))


NOISE_LIES: dict[str, tuple[str, pa.Table, dict[str, str | float]]] = {
    "every pass says the same": (
        "sec46-ensemble-clean", answers(some(0.8, 1.0), 100), {"part": "ensemble", "at": "clean"}),
    "weak attacks are magnified": (
        "sec46-ensemble-weak", answers(0.4, 100), {"part": "ensemble", "at": "weak"}),
    "a poor predictor is amplified": (
        "sec46-ensemble-strong", answers(some(0.4, 0.8), 100), {"part": "ensemble", "at": "strong"}),
    "a strong attack that is none": (
        "sec46-ensemble-strong", answers(some(0.8, 0.9), 100), {"part": "ensemble", "at": "strong"}),
    "more parameters than features": (
        "sec46-fewer-parameters", layers((1.0, 1000), (0.05, 50_000)), {"part": "tensors", "at": "Plain"}),
    "features are five times as large": (
        "sec46-smaller-parameters", layers((0.25, 50_000), (0.05, 1000)), {"part": "tensors", "at": "Plain"}),
    "little noise does harm": (
        "sec46-param-harmless", answers(some(0.8, 0.99), 32), {"part": "parameters", "strength": 0.01}),
    "more noise does none": (
        "sec46-param-random", answers(some(0.88, 0.95), 32), {"part": "parameters", "strength": 0.02}),
}  # fmt: skip


def test_sec46_holds_in_the_papers_world_and_not_on_shuffled_labels() -> None:
    results = section(noises)
    found = claims(SEC46, results)
    assert len(found) == 7
    assert [n for n, c in found.items() if c.holds is not True] == []
    said = re.search(r"ratio ([\d.]+);", found["sec46-fewer-parameters"].evidence)
    assert said is not None
    assert float(said[1]) == pytest.approx(50, rel=0.05)
    denied = claims(SEC46, shuffled(results))
    # Of tensors nothing depends on labels.
    assert {n for n, c in denied.items() if c.holds} == {
        "sec46-fewer-parameters",
        "sec46-smaller-parameters",
    }
    guarded = ("ensemble-clean", "param-harmless", "param-random")
    assert [denied[f"sec46-{name}"].holds for name in guarded] == [None] * 3


@pytest.mark.parametrize("lie", NOISE_LIES)
def test_sec46_fails_in_a_world_that_contradicts_it(lie: str) -> None:
    name, table, where = NOISE_LIES[lie]
    assert claims(SEC46, told(table, **where))[name].holds is not True


def test_sec46_pools_micro_batches_by_their_images() -> None:
    """30 images of std 1 and 10 of std 3: √((30 · 1 + 10 · 9) / 40)."""
    parts = [layers((std, 10), (0.1, 10), (n,)) for std, n in ((1.0, 30), (3.0, 10))]
    _, (_, grid, _) = shown(SEC46, told(pa.concat_tables(parts), part="tensors", at="Plain"))
    row = next(row for row in grid.rows if row[0] == "Plain")
    assert row[4] == f"{parts[0]['input_std'].to_numpy().mean() * 3**0.5:.3f}"
    assert next(row for row in grid.rows if row[0] == "VGG-16")[1] == NOT_RUN


def test_sec46_shows_the_authors_numbers_only_beside_cifar() -> None:
    results = section(noises)
    (figure,), grids = shown(SEC46, results)
    assert not any(s.dashed for p in figure.panels for s in p.series)
    desk = replace(smoke(SEC46), scale="desk")
    (other,) = (p for p in SEC46.sections(desk, results)[0].parts if isinstance(p, Figure))
    assert [sum(s.dashed for s in p.series) for p in other.panels] == [1, 1, 0, 0]
    assert [len(g.rows) for g in grids] == [3, 3, len(SIGMAS)]


# ---------------------------------------------------------------- Figure 11


def kinds(data: str, world: Callable[[str, float], float | np.ndarray]) -> tuple[Result, ...]:
    out: list[Result] = []
    for place in places(FIG11):
        right = world(str(place["network"]), float(place["epsilon"]))
        out.append(Result({**place, "data": data}, answers(right, 32), None))
    return tuple(out)


def alike(_: str, epsilon: float) -> float | np.ndarray:
    return some(0.88, 1.0) if not epsilon else some(0.3, 0.9)


def test_fig11_holds_in_the_papers_world_and_not_on_shuffled_labels() -> None:
    results = kinds("CIFAR-10", alike)
    found = claims(FIG11, results)
    assert set(found) == {"fig11-same", "fig11-clean-88"}
    assert found["fig11-same"].holds is True
    assert found["fig11-clean-88"].holds is not False
    denied = claims(FIG11, shuffled(results))
    assert [n for n, c in denied.items() if c.holds] == []


def test_fig11_fails_where_one_noise_is_better() -> None:
    better = kinds(
        "CIFAR-10", lambda n, e: some(0.45, 0.9) if n == "Laplace" and e else alike(n, e)
    )
    assert claims(FIG11, better)["fig11-same"].holds is False
    unequal = kinds(
        "CIFAR-10", lambda n, e: some(0.7, 1.0) if n == "Gauss" and not e else alike(n, e)
    )
    assert claims(FIG11, unequal)["fig11-same"].holds is None  # not at equal clean accuracy
    eighty = kinds("CIFAR-10", lambda n, e: alike(n, e) if e else some(0.8, 1.0))
    assert claims(FIG11, eighty)["fig11-clean-88"].holds is False


def test_fig11_says_nothing_of_networks_that_were_not_trained() -> None:
    gauss = tuple(r for r in kinds("CIFAR-10", alike) if r.place["network"] == "Gauss")
    assert set(claims(FIG11, gauss)) == {"fig11-clean-88"}
    assert set(claims(FIG11, kinds("digits", alike))) == {"fig11-same"}
    (figure,), (grid,) = shown(FIG11, gauss)
    assert [s.name for s in figure.panels[0].series] == ["Gauss"]
    assert {row[0] for row in grid.rows if NOT_RUN in row} == {"Uniform", "Laplace"}
    assert "Uniform, Laplace" in figure.caption
