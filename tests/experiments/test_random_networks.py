"""Figures 4 and 10: who attacks whom, what counts as broken, who is right, and what is shown of what is missing."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from experiments.test_experiments import (
    Accuracy,
    averaged,
    draws_of,
    examples_of,
    fabricated,
    parts_of,
    smoke,
    walked,
)
from linear import LinearNetwork
from noisychannel.attacks.boundary import Boundary
from noisychannel.attacks.starts import BlendedNoise
from noisychannel.channels import Gauss, Identity
from noisychannel.decision import Single, Vote
from noisychannel.defenses import Defense
from noisychannel.engine import Craft, Execution
from noisychannel.experiments import Experiment, Result, Scale, setting
from noisychannel.experiments.defended import NOT_RUN, network, points, said
from noisychannel.experiments.fig04_boundary import BUDGETS, FIG04, THRESHOLDS
from noisychannel.experiments.fig10_eot import FIG10
from noisychannel.experiments.jury import handed_over, upheld, within
from noisychannel.report.stats import Estimate
from noisychannel.threats import DefenseView
from noisychannel.types import Channel

BOTH = pytest.mark.parametrize("experiment", [FIG04, FIG10], ids=lambda e: e.name)

needs_weights = pytest.mark.skipif(
    not {"NOISYCHANNEL_DATA", "NOISYCHANNEL_WEIGHTS"} <= set(os.environ),
    reason="needs $NOISYCHANNEL_DATA (cifar10) and $NOISYCHANNEL_WEIGHTS (the authors' networks)",
)


def crafts(experiment: Experiment, scale: Scale) -> list[tuple[dict[str, str | float], Craft]]:
    """Every place with an attack, and its first craft."""
    cells = experiment.cells(setting(scale, experiment.subsets, Execution()))
    return [(dict(c.place), m) for c in cells if (m := c.measures[0].craft) is not None]


# ---------------------------------------------------------------- who attacks whom


@pytest.mark.parametrize("scale", ["smoke", pytest.param("desk", marks=needs_weights)])
def test_fig10_averages_over_the_draws_that_its_place_names(scale: Scale) -> None:
    found = crafts(FIG10, scale)
    for place, craft in found:
        assert craft.threat.draws == place["eot"]
        assert craft.threat.assumed.stochastic == (place["network"] != "AdvTrain")
        assert craft.attack.gradients == 40
        assert getattr(craft.attack, "epsilon", None) == place["epsilon"]
    robust = {p["eot"] for p, _ in found if (p["network"], p["attack"]) == ("RobustNet", "PGD")}
    assert {1, 2, 10} <= robust
    cells = FIG10.cells(setting(scale, FIG10.subsets, Execution()))
    # PNI's weights are shared by all images: at least 20 draws for an honest interval, 16 for a vote.
    for cell in cells:
        assert {m.draws for m in cell.measures} == {
            1 if dict(cell.place)["network"] == "AdvTrain" else 32
        }


@pytest.mark.parametrize("scale", ["smoke", pytest.param("desk", marks=needs_weights)])
def test_fig04_gives_both_attackers_the_same_budget(scale: Scale) -> None:
    walks = {}
    for place, craft in crafts(FIG04, scale):
        believes = place["preset"] == "authors"
        assert craft.threat.selection_draws == (0 if believes else 16)
        assert (getattr(craft.attack, "doubt", "?") is None) == believes
        if place["what"] == "walk":
            assert isinstance(craft.attack, Boundary)
            assert (craft.attack.start.doubt is None) == believes
            walks[place["network"], place["preset"]] = craft
        else:
            assert isinstance(craft.attack, BlendedNoise)
    for name in ("Plain", "RobustNet"):
        one, two = walks[name, "authors"], walks[name, "tolerant"]
        assert one.data == two.data
        # What choosing among the candidates costs is taken off the questions.
        assert BUDGETS[scale] > one.attack.queries > two.attack.queries >= 0.9 * BUDGETS[scale]


# ---------------------------------------------------------------- what counts


def test_within_counts_only_what_was_moved_by_less() -> None:
    """All answers wrong, images at 0 (ten of them) and at 1: broken are those nearer than the threshold."""
    rows = Result({}, draws_of(0.0, count=4), examples_of(1.0))
    shares = [said(within(rows, t), Single()).value for t in (0.0, 0.5, 1.0, 1.5)]
    assert shares == pytest.approx([1.0, 0.95, 0.95, 0.0])


def test_within_finds_each_row_s_image_in_any_order() -> None:
    order = np.random.default_rng(1).permutation(200)
    examples = examples_of(1.0).take(pa.array(order))
    shuffled = replace(
        Result({}, draws_of(0.0), examples), draws=draws_of(0.0).take(pa.array(order[::-1]))
    )
    kept = within(shuffled, 0.5).draws
    wrong = kept["predicted"].to_numpy() != kept["label"].to_numpy()
    assert set(kept["index"].to_numpy()[wrong]) == set(range(10))


def test_upheld_asks_only_about_what_was_moved_and_taken_for_adversarial() -> None:
    examples = examples_of(1.0)
    lost = ["found" if i < 110 else "not_found" for i in range(200)]
    examples = examples.set_column(
        examples.schema.get_field_index("status"), "status", pa.array(lost)
    )
    rows = Result({}, draws_of(0.25, count=16), examples)  # images 0 … 49 right
    kept = handed_over(rows)
    assert kept is not None
    assert kept.examples is not None
    assert set(kept.examples["index"].to_pylist()) == set(range(10, 110))
    for rule in (Single(), Vote(16)):
        share = upheld(rows, rule)
        assert share is not None
        assert share.value == pytest.approx(0.6)  # of 10 … 109, the last 60 are wrong
        assert share.low < 0.6 < share.high
    assert upheld(Result({}, draws_of(0.25), examples_of(0.0)), Single()) is None


def test_a_deterministic_network_is_asked_once_whatever_the_rule() -> None:
    once = Result({}, draws_of(0.4), None)
    assert said(once, Vote(16)) == said(once, Single())
    assert points(Estimate(-0.08, -0.101, -0.06, 9, "bootstrap")) == "-8.0 points [-10.1, -6.0]"


# ---------------------------------------------------------------- who is right

TOLERANT_BREAKS: Accuracy = lambda p: (  # noqa: E731
    0.1 if (p["what"], p["preset"]) == ("walk", "tolerant") else walked(p)
)
AUTHORS_BREAK: Accuracy = lambda p: (  # noqa: E731
    0.1 if (p["what"], p["preset"]) == ("walk", "authors") else walked(p)
)


@pytest.mark.parametrize(
    ("world", "verdict"),
    [
        (TOLERANT_BREAKS, "The noise-tolerant attacker is right"),
        (AUTHORS_BREAK, "The authors' attacker is right"),
        (walked, "These rows do not tell"),
    ],
)
def test_the_verdict_follows_the_rows(world: Accuracy, verdict: str) -> None:
    (section,) = FIG04.sections(smoke(FIG04), fabricated(FIG04, world))
    (sentence,) = [p for p in section.parts if isinstance(p, str) and "difference" in p]
    assert sentence.startswith(verdict)
    assert (
        len(re.findall(r"\[[-+\d., ]+\]", sentence)) >= 8
    )  # four accuracies, two gaps, two shares upheld


def test_a_tolerant_attacker_denies_the_finding_that_the_authors_confirms() -> None:
    claims = {c.name: c.holds for c in FIG04.claims(fabricated(FIG04, TOLERANT_BREAKS))}
    assert claims["fig04-authors-fails"]
    assert not claims["fig04-tolerant-fails"]


def test_where_no_start_was_found_none_can_be_asked_again() -> None:
    claims = {c.name: c for c in FIG04.claims(fabricated(FIG04, walked, lambda _: 0.0))}
    assert claims["fig04-starts"].holds is None
    assert "none found, 0" in claims["fig04-starts"].evidence


# ---------------------------------------------------------------- what is shown


def test_fig04_draws_every_attacker_over_the_whole_range() -> None:
    (figure,), (starts, walks) = parts_of(FIG04.sections(smoke(FIG04), fabricated(FIG04, walked)))
    assert THRESHOLDS[0] > 0
    assert THRESHOLDS[-1] == 5.0
    names = {f"{n}, {p}" for n in ("Plain", "RobustNet") for p in ("authors", "tolerant")}
    for panel in figure.panels:
        curves = {series.name: series for series in panel.series}
        assert set(curves) == names
        for series in curves.values():
            assert series.x == THRESHOLDS
            assert list(series.y) == sorted(series.y, reverse=True)
        assert curves["Plain, authors"].y[-1] == 0.0
        assert curves["RobustNet, authors"].y[-1] == pytest.approx(75.0)
    assert {row[0] for row in starts.rows} == {row[0] for row in walks.rows} == names
    assert all("77" in row for grid in (starts, walks) for row in grid.rows)  # what it cost


def test_fig10_shows_both_rules_and_the_paired_gap() -> None:
    (figure,), (grid,) = parts_of(FIG10.sections(smoke(FIG10), fabricated(FIG10, averaged)))
    rows = {(row[0], row[1]): row for row in grid.rows}
    single, vote, gap = rows["RobustNet, PGD", "10"][2:5]
    assert isinstance(single, Estimate)
    assert isinstance(vote, Estimate)
    assert single.value == vote.value == pytest.approx(0.187, abs=0.005)
    assert str(gap).startswith("-8.0 points")
    assert [panel.title for panel in figure.panels] == ["Answer: single", "Answer: vote (16)"]
    for panel in figure.panels:
        curves = {series.name: series for series in panel.series}
        assert curves["RobustNet, PGD"].x == (1.0, 2.0, 10.0)
        assert len(set(curves["AdvTrain, APGD"].y)) == 1  # no draws: level
        assert panel.y_range is not None
        assert panel.y_range[0] == 0.0


@BOTH
def test_what_has_no_weights_is_shown_as_not_run(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An empty folder of weights: nothing is planned, nothing is claimed, and every row says so."""
    monkeypatch.setenv("NOISYCHANNEL_WEIGHTS", str(tmp_path))
    where = replace(smoke(experiment), scale="desk")
    assert network(where, "RobustNet") is None
    assert experiment.cells(where) == ()
    assert experiment.claims(()) == ()
    figures, grids = parts_of(experiment.sections(where, ()))
    assert figures == []
    assert all(NOT_RUN in row for grid in grids for row in grid.rows)


@BOTH
def test_one_network_without_weights_does_not_hide_the_others(experiment: Experiment) -> None:
    world = walked if experiment is FIG04 else averaged
    gone = "Plain" if experiment is FIG04 else "PNI-W-Adv"
    kept = tuple(r for r in fabricated(experiment, world) if r.place["network"] != gone)
    figures, grids = parts_of(experiment.sections(smoke(experiment), kept))
    assert figures
    for grid in grids:
        assert {str(row[0]).split(",")[0] for row in grid.rows if NOT_RUN in row} == {gone}
    names = {c.name for c in experiment.claims(kept)}
    assert names == (
        set()
        if experiment is FIG04
        else {"fig10-eot-10", "fig10-diminishing", "fig10-not-defeated"}
    )


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize(
    "channel",
    [pytest.param(Identity(), marks=pytest.mark.slow), Gauss(0.4)],
    ids=["plain", "random"],
)
@pytest.mark.parametrize("preset", ["authors", "tolerant"])
def test_no_attacker_asks_more_often_than_the_budget(channel: Channel, preset: str) -> None:
    """Choosing among candidates included, which is billed beside `queries`."""
    place = {"network": "RobustNet", "what": "walk", "preset": preset}
    (craft,) = [c for p, c in crafts(FIG04, "smoke") if p == place]
    linear = LinearNetwork(shape=(1, 8, 8), gain=20.0)
    batch = linear.batch(4)
    view = DefenseView(replace(craft.threat, assumed=Defense(linear, channel)))
    spent = craft.attack(view, batch).cost.forwards
    assert int(spent.max()) <= BUDGETS["smoke"]
    if preset == "tolerant" and channel.stochastic:  # who tests his answers has use for all of it
        # The median: an image that the noise makes wrong where it stands is done at once.
        assert int(spent.median()) > 0.8 * BUDGETS["smoke"]
