"""The paper's experiments: what is planned, what is claimed, what is shown, and that claims can fail."""

import html
import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from noisychannel.data import DataSpec
from noisychannel.engine import Analyse, Craft, Execution, Measure, Store, Train, key_of, plan
from noisychannel.errors import MissingArtifact
from noisychannel.experiments import (
    EXPERIMENTS,
    Claim,
    Experiment,
    Result,
    Scale,
    Setting,
    read,
    setting,
)
from noisychannel.experiments.fig01_recovery import FIG01, PEAKS
from noisychannel.experiments.fig04_boundary import FIG04
from noisychannel.experiments.fig10_eot import FIG10
from noisychannel.experiments.table1_transfer import EQUAL_L2, TABLE1, TABLE1_PAPER
from noisychannel.interop.authors import CIFAR10
from noisychannel.networks import ResNet20, SmallNet
from noisychannel.report.figure import Figure, Grid
from noisychannel.report.html import Section

COLUMNS = ("FC", "CD", "SVD", "Gauss", "Uniform", "Laplace")
SCALES: tuple[Scale, ...] = ("smoke", "desk", "paper")
IMAGES = 200
# At smoke; else one. Nowhere else but the FCNs of section R, which train in minutes.
TRAININGS = {
    "fig02": 13,
    "fig03": 5,
    "fig04": 2,
    "fig05": 3,
    "fig10": 3,
    "fig11": 3,
    "fig18": 6,
    "pni": 3,
    "sec46": 2,
    "secr": 4,
}
DESK_TRAININGS = {"secr": 2}
RANDOM = ("RobustNet", "PNI-W-Adv")  # networks that are asked more than once

needs_data = pytest.mark.skipif(
    not {"NOISYCHANNEL_DATA", "NOISYCHANNEL_WEIGHTS"} <= set(os.environ),
    reason="needs $NOISYCHANNEL_DATA (cifar10) and $NOISYCHANNEL_WEIGHTS (the authors' networks)",
)
scales = pytest.mark.parametrize(
    "scale",
    ["smoke", *(pytest.param(s, marks=(needs_data, pytest.mark.slow)) for s in ("desk", "paper"))],
)
experiments = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
RATES = (
    FIG01,
    FIG04,
    FIG10,
    TABLE1,
)  # whose every number is an accuracy; the others have tests of their own
rates = pytest.mark.parametrize("experiment", RATES, ids=lambda e: e.name)
# What the paper's own numbers do not bear out: its peaks stand at L2 .48 to 1.09 after PGD, .52 to 1.44 after C&W.
NOT_THE_PAPERS = {"fig01-PGD-similar", "fig01-C&W-similar"}
# What they leave undecided with 2,000 images: peaks 5.7 and 4.4 points apart (margin 5), a drop of 44.65 points (bound
# 44.3), 4.45 % (bound 5).
UNDECIDED_AS_PUBLISHED = {
    "fig01-PGD-equivalent",
    "fig01-C&W-equivalent",
    "table1-retested-laplace-drop",
    "table1-retested-to-fc",
}


def smoke(experiment: Experiment) -> Setting:
    return setting("smoke", experiment.subsets, Execution())


# ---------------------------------------------------------------- what is planned


@experiments
@scales
def test_every_cell_covers_its_images_once(experiment: Experiment, scale: Scale) -> None:
    where = setting(scale, experiment.subsets, Execution())
    cells = experiment.cells(where)
    assert len({cell.place for cell in cells}) == len(cells)
    parts = where.parts()
    assert sum(part.size for part in parts) == where.data.size
    for cell in cells:
        slices = tuple(m.data for m in cell.measures)
        assert len({repr(part) for part in slices}) == len(slices) > 0
        if experiment in RATES:
            assert slices == parts
        assert all(m.craft is None or m.craft.data == m.data for m in cell.measures)
        assert all(m.execution == where.execution for m in cell.measures)
    tasks = plan(m for cell in cells for m in cell.measures).tasks
    trainings = [task for task in tasks if isinstance(task, Train)]
    usual = TRAININGS.get(experiment.name, 1) if scale == "smoke" else 0
    desk = DESK_TRAININGS.get(experiment.name, 0)
    assert len(trainings) == (desk if scale == "desk" else usual)


@experiments
def test_planning_decodes_no_image_and_builds_no_network(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: object) -> None:
        raise AssertionError

    # The tests' type checker asks a data set for all that it has; the program does not.
    monkeypatch.setattr(DataSpec, "shape", (1, 8, 8))
    for kind, method in ((DataSpec, "load"), (ResNet20, "build"), (SmallNet, "build")):
        monkeypatch.setattr(kind, method, touched)
    where = smoke(experiment)
    fresh = replace(where, data=replace_subset(where, experiment))  # no key is known yet
    assert plan(m for cell in experiment.cells(fresh) for m in cell.measures).tasks


def replace_subset(where: Setting, experiment: Experiment) -> DataSpec:
    """The same images in another number."""
    assert isinstance(where.data, DataSpec)
    return replace(where.data, subset="first:30")


@experiments
def test_subsets_of_every_scale(experiment: Experiment) -> None:
    assert tuple(experiment.subsets) == SCALES
    for subset in experiment.subsets.values():
        assert DataSpec("digits", subset=subset).subset == subset


def test_fig01_attacks_the_bare_network_once_for_all_channels() -> None:
    cells = FIG01.cells(smoke(FIG01))
    tasks = plan(m for cell in cells for m in cell.measures).tasks
    crafts = [task for task in tasks if isinstance(task, Craft)]
    assert len(crafts) == 2 * len(smoke(FIG01).parts())
    assert all(not craft.threat.assumed.stochastic for craft in crafts)
    series = {(cell.place[0][1], cell.place[1][1]) for cell in cells}
    assert series == {(panel, name) for panel in PEAKS for name in ("none", *COLUMNS)}


def test_table1_crafts_for_every_row_and_measures_every_column() -> None:
    where = smoke(TABLE1)
    cells = TABLE1.cells(where)
    tasks = plan(m for cell in cells for m in cell.measures).tasks
    crafts = {key_of(task) for task in tasks if isinstance(task, Craft)}
    # The bare row and the three deterministic channels are alike in the two modes of the authors' gradient.
    assert len(crafts) == len(where.parts()) * (1 + 6 + 3 + 6)
    places = {tuple(value for _, value in cell.place) for cell in cells}
    rows = ("none", *COLUMNS)
    for mode in ("authors", "retested", "clean"):
        for column in ("no defense", *COLUMNS):
            assert (mode, "Empty", column, "own") in places
            assert {(mode, row, column, l2) for row in rows for l2 in ("own", "equal")} <= places
    for cell in cells:
        wanted = EQUAL_L2 if dict(cell.place)["l2"] == "equal" else None
        assert all(m.rescale_l2 == wanted for m in cell.measures)
        believed = {m.craft.threat.selection_draws == 0 for m in cell.measures if m.craft}
        lucky = dict(cell.place)["mode"] == "authors" and dict(cell.place)["row"] in COLUMNS[3:]
        assert believed <= {lucky}


@experiments
def test_rows_that_are_missing_are_not_made_up(experiment: Experiment, tmp_path: Path) -> None:
    cells = experiment.cells(smoke(experiment))
    for cell in (cells[0], cells[-1]):
        with pytest.raises(MissingArtifact, match="not computed yet"):
            read(cell, Store(tmp_path))


# ---------------------------------------------------------------- fabricated rows

Accuracy = Callable[[dict[str, str | float]], float]
Length = Callable[[dict[str, str | float]], float]


def draws_of(
    share: float, distortion: float = 0.5, count: int = 1, images: int = IMAGES
) -> pa.Table:
    """Rows of a defense that answers rightly on the first `share` of the images."""
    label = np.repeat(np.arange(images) % 10, count)
    right = np.repeat(np.arange(images) < round(share * images), count)
    predicted = np.where(right, label, (label + 1) % 10)
    probabilities = np.full((images * count, 10), 0.01, dtype=np.float32)
    probabilities[np.arange(images * count), predicted] = 0.91
    return pa.table(
        {
            "index": np.repeat(np.arange(images), count),
            "label": label,
            "candidate": np.zeros(images * count, dtype=np.int32),
            "draw": np.tile(np.arange(count, dtype=np.int32), images),
            "predicted": predicted,
            "margin": np.where(right, 1.0, -1.0).astype(np.float32),
            "defended_l2": np.full(images * count, distortion, dtype=np.float32),
            "probabilities": pa.FixedSizeListArray.from_arrays(
                pa.array(probabilities.reshape(-1)), 10
            ),
        }
    )


def examples_of(length: float, images: int = IMAGES) -> pa.Table:
    """Rows of an attack: the first ten images were not moved."""
    moved = np.where(np.arange(images) < 10, 0.0, length)
    return pa.table(
        {
            "index": np.arange(images),
            "label": np.arange(images) % 10,
            "status": ["found"] * images,
            "l2": moved,
            "forwards": np.full(images, 77),
        }
    )


@cache
def _places(name: str) -> list[tuple[tuple[tuple[str, str | float], ...], bool]]:
    """Every place, and whether something was attacked there."""
    experiment = next(e for e in EXPERIMENTS if e.name == name)
    cells = experiment.cells(smoke(experiment))
    return [(cell.place, cell.measures[0].craft is not None) for cell in cells]


def seen(place: dict[str, str | float]) -> float:
    """Figure 1's distortions: the paper's at the peak, in proportion to the strength beside it."""
    if "panel" not in place:
        return 0.6
    if place["series"] == "none":
        return 0.001
    return PEAKS[str(place["panel"])][str(place["series"])][1] * 2.0 ** doublings(place)


def fabricated(
    experiment: Experiment,
    accuracy: Accuracy,
    length: Length = lambda _: 0.3,
    far: Length = seen,
    images: int = IMAGES,
) -> tuple[Result, ...]:
    """A result in every place of the experiment."""
    out: list[Result] = []
    for cell_place, attacked in _places(experiment.name):
        place = dict(cell_place)
        examples = examples_of(length(place), images) if attacked else None
        count = 16 if place.get("network") in RANDOM else 1
        out.append(Result(place, draws_of(accuracy(place), far(place), count, images), examples))
    return tuple(out)


def shuffled(results: tuple[Result, ...]) -> tuple[Result, ...]:
    """The same rows, each with the answer to another image."""
    out: list[Result] = []
    for result in results:
        column = result.draws.schema.get_field_index("predicted")
        order = np.random.default_rng(0).permutation(result.draws.num_rows)
        answers = result.draws["predicted"].to_numpy()[order]
        draws = result.draws.set_column(column, "predicted", pa.array(answers))
        out.append(Result(result.place, draws, result.examples))
    return tuple(out)


def recovered(place: dict[str, str | float]) -> float:
    """Figure 1 as the paper has it: nothing without a defense, the peak at one strength, less on either side."""
    if place["series"] == "none":
        return 0.0
    highest = PEAKS[str(place["panel"])][str(place["series"])][0] / 100
    return highest - min(0.3, 0.1 * abs(doublings(place)))


def peak_strength(series: str) -> float:
    return {"FC": 40.0, "CD": 5.0, "SVD": 40.0}.get(series, 0.01)


def doublings(place: dict[str, str | float]) -> float:
    """How often a strength is twice that of its series' peak; a bit less is twice as much."""
    series, strength = str(place["series"]), float(place["strength"])
    if series == "CD":
        return peak_strength(series) - strength
    return math.log2(strength / peak_strength(series))


def alike(place: dict[str, str | float]) -> float:
    """Figure 1 with one curve for all channels."""
    return (
        0.85
        + recovered(place)
        - recovered({**place, "strength": peak_strength(str(place["series"]))})
        if place["series"] != "none"
        else 0.0
    )


def transferred(place: dict[str, str | float]) -> float:
    """Table 1 as the paper has it."""
    row, column = str(place["row"]), str(place["column"])
    if column == "no defense":
        return 0.9356 if row == "Empty" else 0.0
    if row == "none":
        return 0.8
    return TABLE1_PAPER[row][COLUMNS.index(column)] / 100


def walked(place: dict[str, str | float]) -> float:
    """Figure 4 as the paper has it: a fifth of the starts survive, and Boundary hardly helps."""
    if place["what"] == "start":
        return 0.8
    if place["network"] == "Plain":
        return 0.88 if place["what"] == "clean" else 0.0
    return 0.8 if place["what"] == "clean" else 0.75


def averaged(place: dict[str, str | float]) -> float:
    """Figure 10 as the paper and its trial have it."""
    if place["attack"] == "clean":
        return 0.8
    robust = {1: 0.267, 2: 0.22, 10: 0.187}
    return {"AdvTrain": 0.34, "PNI-W-Adv": 0.348}.get(
        str(place["network"]), robust[int(place["eot"])] if place["network"] == "RobustNet" else 0.0
    )


PAPER: dict[str, Accuracy] = {
    "fig01": recovered,
    "fig04": walked,
    "fig10": averaged,
    "table1": transferred,
}


def claims_of(
    experiment: Experiment, accuracy: Accuracy, far: Length = seen, images: int = IMAGES
) -> dict[str, Claim]:
    results = fabricated(experiment, accuracy, far=far, images=images)
    return {c.name: c for c in experiment.claims(results)}


@rates
def test_every_claim_holds_on_the_papers_own_numbers(experiment: Experiment) -> None:
    found = claims_of(experiment, PAPER[experiment.name], images=2000)
    assert found
    wanted = dict.fromkeys(found, True)
    wanted |= {name: None for name in UNDECIDED_AS_PUBLISHED if name in found}
    wanted |= {name: False for name in NOT_THE_PAPERS if name in found}
    assert {name: c.holds for name, c in found.items()} == wanted
    assert all(c.sentence and c.where and re.search(r"\d", c.evidence) for c in found.values())


def one_place(place: dict[str, str | float]) -> float:
    """All channels at the same distortion at their peaks."""
    return 0.001 if place["series"] == "none" else 0.8 * 2.0 ** doublings(place)


def test_what_the_papers_numbers_do_not_bear_out_can_hold() -> None:
    found = claims_of(FIG01, alike, one_place)
    # A drop of 60 points; FC keeps 1 % of what is adapted to others.
    world: Accuracy = lambda p: (  # noqa: E731
        0.01
        if (p["row"] in COLUMNS and p["column"] == "FC")
        else min(transferred(p), 0.3)
        if p["row"] == "Laplace"
        else transferred(p)
    )
    found |= claims_of(TABLE1, world)
    assert {n for n, c in found.items() if c.holds} >= NOT_THE_PAPERS | UNDECIDED_AS_PUBLISHED


@rates
def test_no_claim_holds_on_shuffled_answers(experiment: Experiment) -> None:
    """A claim that holds whatever was answered says nothing."""
    found = experiment.claims(shuffled(fabricated(experiment, PAPER[experiment.name])))
    assert [c.name for c in found if c.holds] == []


LIES: dict[str, tuple[str, Accuracy]] = {
    # the claims that a world contradicts, and that world
    "nothing is recovered": ("fig01-(PGD|C&W)-recovers", lambda p: 0.3 * recovered(p)),
    "one channel recovers nothing": (
        "fig01-.*-(recovers|equivalent)",
        lambda p: 0.1 if p["series"] == "SVD" else recovered(p),
    ),
    "CD resists": (
        "table1-.*-diagonal",
        lambda p: 0.2 if p["row"] == p["column"] == "CD" else transferred(p),
    ),
    "FC transfers well": (
        "table1-.*-fc-worst",
        lambda p: 0.01 if p["row"] == "FC" else transferred(p),
    ),
    "Laplace transfers badly": (
        "table1-.*-laplace-best",
        lambda p: 0.75 if p["row"] == "Laplace" else transferred(p),
    ),
    "Laplace breaks little": (
        "table1-retested-laplace-(breaks|mostly|drop)",
        lambda p: 0.75 if p["row"] == "Laplace" else transferred(p),
    ),
    "FC does much harm": (
        "table1-retested-fc-drop",
        lambda p: 0.5 if p["row"] == "FC" != p["column"] else transferred(p),
    ),
    "FC stands what breaks others": (
        "table1-retested-to-fc",
        lambda p: 0.3 if (p["row"], p["column"]) == ("CD", "FC") else transferred(p),
    ),
    "Laplace is a little worse than Uniform": (
        "table1-.*-laplace-best",
        lambda p: (
            transferred({**p, "row": "Uniform"}) + 0.05
            if p["row"] == "Laplace" and p["column"] != "no defense"
            else transferred(p)
        ),
    ),
    # But for the two defenses that they are adapted to.
    "more noise is harmful": (
        "table1-retested-stronger-noise",
        lambda p: transferred(
            {**p, "row": {"Uniform": "Gauss", "Gauss": "Uniform"}.get(str(p["row"]), p["row"])}
            if p["column"] not in ("Gauss", "Uniform")
            else p
        ),
    ),
    "one channel's peak is elsewhere": ("fig01-.*-similar", alike),
    "one channel is a little better": (
        "fig01-.*-equivalent",
        lambda p: 0.95 if p["series"] == "FC" else min(recovered(p), 0.84),
    ),
    "every start survives": (
        "fig04-starts",
        lambda p: 0.0 if p["what"] == "start" else walked(p),
    ),
    "no start survives": (
        "fig04-starts",
        lambda p: 1.0 if p["what"] == "start" else walked(p),
    ),
    "Boundary breaks RobustNet": (
        "fig04-.*-fails",
        lambda p: 0.2 if (p["network"], p["what"]) == ("RobustNet", "walk") else walked(p),
    ),
    "EOT does nothing": ("fig10-eot-10", lambda p: averaged({**p, "eot": 1})),
    "EOT does everything": (
        "fig10-(eot-10|not-defeated)",
        lambda p: 0.05 if (p["network"], p["eot"]) == ("RobustNet", 10) else averaged(p),
    ),
    "returns grow": (
        "fig10-diminishing",
        lambda p: (
            {1: 0.6, 2: 0.6, 10: 0.05}[int(p["eot"])]
            if (p["network"], p["attack"]) == ("RobustNet", "PGD")
            else averaged(p)
        ),
    ),
}
ELSEWHERE: dict[str, Length] = {
    "one channel's peak is elsewhere": lambda p: one_place(p) * (4 if p["series"] == "SVD" else 1)
}


def identical(place: dict[str, str | float]) -> float:
    """Every row of Table 1 leaves a defense the same."""
    if place["row"] not in COLUMNS or place["column"] == "no defense":
        return transferred(place)
    return (0.03, 0.3, 0.3, 0.3, 0.45, 0.52)[COLUMNS.index(str(place["column"]))]


# The claims that a world leaves open, and that world.
OPEN: dict[str, tuple[str, Accuracy]] = {
    "no row transfers better than another": (
        "table1-.*-(fc-worst|laplace-best|stronger-noise)",
        identical,
    ),
    "2.5 % are left": (
        "table1-.*-diagonal",
        lambda p: 0.025 if p["row"] == p["column"] else transferred(p),
    ),
    # Guards: what could not be seen is not denied either.
    "the attack failed": (
        "fig01-.*-recovers",
        lambda p: 0.2 if p["series"] == "none" else recovered(p),
    ),
    "nothing is recovered": ("fig01-.*-(similar|equivalent)", lambda p: 0.3 * recovered(p)),
    "one channel has no peak": (
        "fig01-.*-similar",
        lambda p: 0.1 if p["series"] == "SVD" else recovered(p),
    ),
    "nothing was recognised": ("table1-.*", lambda p: 0.3 * transferred(p)),
    "FC's attack fails at home": (
        "table1-.*-fc-(worst|drop)",
        lambda p: 0.9 if p["row"] == "FC" else transferred(p),
    ),
    "half is recovered": ("fig01-.*-recovers", lambda p: 0.52 if recovered(p) else 0.0),
    "nearly a third of the starts survives": (
        "fig04-starts",
        lambda p: 0.72 if p["what"] == "start" else walked(p),
    ),
    "half is left": (
        "fig04-.*-fails",
        lambda p: 0.41 if (p["network"], p["what"]) == ("RobustNet", "walk") else walked(p),
    ),
    "Boundary breaks nothing at all": (
        "fig04-.*-fails",
        lambda p: 0.7 if p["what"] == "walk" else walked(p),
    ),
    "RobustNet knows nothing": (
        "fig04-.*-fails",
        lambda p: 0.3 if p["network"] == "RobustNet" and p["what"] != "start" else walked(p),
    ),
    "EOT does nothing": (
        "fig10-(diminishing|not-defeated)",
        lambda p: averaged({**p, "eot": 1}),
    ),
    "EOT takes 4.5 points": (
        "fig10-eot-10",
        lambda p: averaged(p) + (0.035 if (p["network"], p["eot"]) == ("RobustNet", 10) else 0),
    ),
    "hardly more is left than by guessing": (
        "fig10-not-defeated",
        lambda p: 0.11 if (p["network"], p["eot"]) == ("RobustNet", 10) else averaged(p),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_claim_fails_in_a_world_that_contradicts_it(lie: str) -> None:
    _check(*LIES[lie], ELSEWHERE.get(lie, seen), verdict=False)


@pytest.mark.parametrize("world", OPEN)
def test_what_a_world_leaves_open_is_undecided(world: str) -> None:
    _check(*OPEN[world], seen, verdict=None)


def _check(names: str, accuracy: Accuracy, far: Length, *, verdict: bool | None) -> None:
    experiment = next(e for e in EXPERIMENTS if names.startswith(e.name))
    found = claims_of(experiment, accuracy, far)
    meant = {name: c.holds for name, c in found.items() if re.fullmatch(names, name)}
    assert len(meant) >= (2 if re.search("[*|]", names) else 1)
    assert set(meant.values()) == {verdict}, meant


def test_the_lies_cover_every_claim() -> None:
    every = [c.name for e in RATES for c in e.claims(fabricated(e, PAPER[e.name]))]
    assert len(every) == len(set(every))
    for name in every:
        assert any(re.fullmatch(names, name) for names, _ in LIES.values()), name


# ---------------------------------------------------------------- what is shown


def parts_of(sections: tuple[Section, ...]) -> tuple[list[Figure], list[Grid]]:
    parts = [part for section in sections for part in section.parts]
    figures = [part for part in parts if isinstance(part, Figure)]
    return figures, [part for part in parts if isinstance(part, Grid)]


@pytest.mark.parametrize("scale", SCALES)
def test_fig01_shows_six_curves_and_the_papers_peaks(scale: Scale) -> None:
    where = replace(smoke(FIG01), scale=scale, units=CIFAR10)
    results = fabricated(FIG01, recovered)
    (figure,), grids = parts_of(FIG01.sections(where, results))
    assert figure.name == "fig01"
    assert where.words in figure.caption
    for panel, name in zip(figure.panels, PEAKS, strict=True):
        assert panel.title.startswith(name)
        curves = {series.name: series for series in panel.series}
        assert set(COLUMNS) == set(curves) - {"paper's peaks"}
        for channel in COLUMNS:
            points = curves[channel]
            assert list(points.x) == sorted(points.x)
            assert points.y[0] == 0.0  # the undefended network, measured
            assert points.interval is not None
            best = max(points.y)
            assert best == pytest.approx(PEAKS[name][channel][0], abs=100 / IMAGES)
        if scale != "smoke":  # digits and CIFAR-10 do not share an axis
            paper = curves["paper's peaks"]
            assert sorted(zip(paper.y, paper.x, strict=True)) == sorted(PEAKS[name].values())
    for grid, name in zip(grids, PEAKS, strict=True):
        assert [row[0] for row in grid.rows] == list(COLUMNS)
        for row in grid.rows:
            accuracy, length = PEAKS[name][str(row[0])]
            assert f"{accuracy:.1f} %" in row
            assert f"{length:.2f}" in row
            assert f"{peak_strength(str(row[0])):g}" in row
        assert "ResNet-18" in grid.caption  # not the network of our rows


def test_table1_shows_the_papers_matrix_beside_ours() -> None:
    where = smoke(TABLE1)
    lengths = {row: 0.1 * i for i, row in enumerate(("Empty", "none", *COLUMNS))}
    results = fabricated(TABLE1, transferred, lambda place: lengths[str(place["row"])])
    _, grids = parts_of(TABLE1.sections(where, results))
    assert len(grids) == 6  # three gradients, at the attack's own and at equal L2
    own = [grid for grid in grids if "moved to L2" not in grid.title]
    assert len(own) == 3
    for grid in own:
        rows = {row[0]: row for row in grid.rows}
        assert set(rows) == {"none", *TABLE1_PAPER, *(f"{row} (paper)" for row in TABLE1_PAPER)}
        for row, numbers in TABLE1_PAPER.items():
            assert rows[f"{row} (paper)"][3:] == tuple(f"{v:.2f}" for v in numbers)
            ours = [cell for cell in rows[row][3:] if not isinstance(cell, str)]
            assert [100 * e.value for e in ours] == pytest.approx(numbers, abs=100 / IMAGES)
            if row != "Empty":  # the ten images that stayed where they are do not count
                assert rows[row][1] == f"{lengths[row]:.2f}"
        assert grid.header[3:] == COLUMNS
    for grid in grids:
        if grid not in own:
            assert f"{EQUAL_L2:g}" in grid.title
            assert [row[0] for row in grid.rows] == ["none", *COLUMNS]


# ---------------------------------------------------------------- for real


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [e.name for e in EXPERIMENTS])
def test_the_command_runs_it_on_digits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noisychannel.cli.main import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["noisychannel", "run", name])
    said = CliRunner().invoke(app, ["run", name], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    text = html.unescape((tmp_path / "reports" / f"{name}.html").read_text("utf-8"))
    assert f"noisychannel run {name}" in text
    experiment = next(e for e in EXPERIMENTS if e.name == name)
    where = smoke(experiment)
    cells = experiment.cells(where)
    results = tuple(read(cell, Store(tmp_path / "runs")) for cell in cells)
    sections = experiment.sections(where, results)
    figures, grids = parts_of(sections)
    for figure in figures:
        png = (tmp_path / "reports" / f"{figure.name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
    assert all(grid.title.split(",")[0] in text for grid in grids)
    for claim in experiment.claims(results):
        assert f"{claim.name}: {claim.verdict}: " in said.output
    for cell, result in zip(cells, results, strict=True):
        if all(isinstance(m, Measure) for m in cell.measures):
            assert result.draws.num_rows == sum(draws(m) for m in cell.measures)
    status = CliRunner().invoke(app, ["status"], catch_exceptions=False).output.replace("\n", " ")
    whole = len(plan(m for cell in cells for m in cell.measures).tasks)
    assert f"{name} (smoke): {whole} of {whole} tasks done, 0 of" in status
    again = CliRunner().invoke(app, ["report", name, "--output", "again"], catch_exceptions=False)
    assert again.exit_code == 0
    assert (tmp_path / "again" / f"{name}.html").is_file()


def draws(task: Measure | Analyse) -> int:
    assert isinstance(task, Measure)
    return task.draws * task.data.size
