"""The page and the terminal's table say what the rows say, all of it, and what was not done."""

import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from rich.console import Console

import fakes_networks as fakes
import reported
from auditing import request
from noisychannel.audit.again import TRIED
from noisychannel.audit.assumptions import assumptions, randomness
from noisychannel.audit.checks import CHECKS
from noisychannel.audit.conduct import Judged
from noisychannel.audit.controls import FACTORS, recovery, swept
from noisychannel.audit.cost import cost, sides, spent
from noisychannel.audit.explained import EXPLAINED, MEANINGS
from noisychannel.audit.headline import badges, lead
from noisychannel.audit.levels import worst_images
from noisychannel.audit.page import render, terminal_table
from noisychannel.audit.panels import window
from noisychannel.audit.side import CLEAN
from noisychannel.audit.tables import withstood
from noisychannel.audit.tries import decisions, patience
from noisychannel.audit.untested import untested
from noisychannel.audit.verdict import EVALUATIONS, exit_code
from noisychannel.channels import Gauss, Laplace
from noisychannel.data import to_uint8
from noisychannel.decision import MeanProb, Single, Vote
from noisychannel.defenses import Defense, fixed_draws
from noisychannel.engine import key_of
from noisychannel.errors import UserError
from noisychannel.networks import Foreign
from noisychannel.norms import L2
from noisychannel.report.figure import Facts, Figure, Grid, Picture, Series
from noisychannel.report.gains import worst_case_gain
from noisychannel.report.html import Section
from noisychannel.report.markdown import markdown
from noisychannel.report.stats import Estimate, accuracy
from synthetic import latent, table

PROVENANCE = reported.PROVENANCE
MADE: dict[str, Callable[[], Judged]] = {
    f.__name__: f
    for f in (
        reported.noisy,
        reported.voted,
        reported.rounding,
        reported.robust,
        reported.masked,
        reported.alone,
        reported.series,
        reported.hurried,
    )
}
EVERY = pytest.mark.parametrize("name", MADE)


@lru_cache
def rendered(*audits: Judged) -> tuple[str, tuple[Section, ...]]:
    return render(audits, PROVENANCE)


def section(judged: Judged, heading: str) -> Section:
    return next(s for s in rendered(judged)[1] if s.heading == heading)


def grids(*sections: Section) -> list[Grid]:
    return [part for s in sections for part in s.parts if isinstance(part, Grid)]


def figures(*sections: Section) -> list[Figure]:
    return [part for s in sections for part in s.parts if isinstance(part, Figure)]


def curve(found: Section, name: str) -> Series:
    every = [s for f in figures(found) for p in f.panels for s in p.series]
    return next(s for s in every if s.name == name)


def plain(judged: Judged) -> str:
    """The page's words, without its tags."""
    text = rendered(judged)[0]
    body = re.sub(r"<(script|style).*?</\1>", " ", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def shown(audits: tuple[Judged, ...], width: int = 300) -> str:
    out = Console(file=io.StringIO(), width=width)
    out.print(terminal_table(audits))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def right(rows: pa.Table) -> dict[int, float]:
    """Share of right answers by example, by hand."""
    found: dict[int, list[bool]] = {}
    for row in rows.select(["index", "predicted", "label"]).to_pylist():
        found.setdefault(row["index"], []).append(row["predicted"] == row["label"])
    return {i: sum(v) / len(v) for i, v in found.items()}


# ---------------------------------------------------------------- order, words, verdicts


@EVERY
def test_what_is_known_comes_first_and_nothing_is_missing(name: str) -> None:
    assert [s.heading for s in rendered(MADE[name]())[1]] == [
        "What is known",
        "What the attacker may do",
        "What was not tested",
        "Accuracy by threat setting",
        "Accuracy against ε",
        "Convergence: draws, steps, restarts",
        "An attacker who tries again",
        "Recovery window",
        "Images",
        "Findings",
        "All attempts",
        "Configuration and cost",
    ]
    assert all(s.parts for s in rendered(MADE[name]())[1])


@EVERY
def test_both_verdicts_stand_at_the_head_in_words(name: str) -> None:
    judged = MADE[name]()
    text = rendered(judged)[0]
    head = text[: text.index("<main")]
    for verdict in (judged.evaluation, judged.gain):
        assert f'<p class="word">{verdict}</p>' in head
    assert judged.headline.percent in head
    why, worth = (b.meaning for b in badges(judged))
    failed = {f.name for f in judged.findings if f.status == "fail"}
    for cause in failed & set(EVALUATIONS.get(judged.evaluation, ())):
        assert cause in why
    if judged.difference is not None:
        assert f"{100 * judged.difference.value:+.1f} points" in worth


def test_a_number_that_cannot_be_believed_is_said_to_be_an_upper_bound() -> None:
    assert "upper bound" in lead(reported.masked())
    assert "GRADIENT MASKING" in lead(reported.masked())
    assert "upper bound" not in lead(reported.robust())
    assert "proven broken" in lead(reported.robust())
    assert "proven broken" not in lead(reported.untouched())


@EVERY
def test_the_headline_and_what_it_is_compared_with(name: str) -> None:
    judged = MADE[name]()
    (known,) = grids(section(judged, "What is known"))
    rows = dict(row[:2] for row in known.rows)
    assert rows["under the worst of all attacks, image by image"] == judged.headline
    assert rows["without an attack"] == judged.settings["clean"]
    assert rows["exit code of the command"] == str(exit_code(judged.evaluation, judged.gain))
    compared = [row for row in rows if isinstance(row, str) and row.startswith("its base")]
    assert bool(compared) == (judged.evidence.theirs is not None)


def test_text_is_escaped_and_the_command_stands_there() -> None:
    text = rendered(reported.noisy())[0]
    assert "<b>noise" not in text
    assert "&lt;b&gt;noise&lt;/b&gt; [bold]" in text
    assert "noisychannel audit &lt;it&gt;" in text
    assert "<b>noise</b> [bold]" in shown((reported.noisy(),))


def test_the_same_rows_make_the_same_page() -> None:
    text = rendered(reported.noisy())[0]
    assert render((reported.again(reported.noisy()),), PROVENANCE)[0] == text


def test_no_audit_is_no_page() -> None:
    with pytest.raises(UserError, match="audits: expected one or more, got none"):
        render((), PROVENANCE)


# ---------------------------------------------------------------- the threat, and what was not tested


def test_the_threat_model_is_told_in_full() -> None:
    r = replace(reported.noisy().evidence.request, assumed=Laplace(0.07), queries=12)
    said = dict(assumptions(r))
    assert "L∞ ≤ 0.1" in said["Norm and budget"]
    assert "fresh at every question" in said["Draws"]
    assert "single" in said["Decision rule"]
    assert said["Query limit"].startswith("12 questions")
    assert "yours" in said["Query limit"]
    assert said["Tries"] == "3, of which one success is enough"
    assert "8 draws" in said["Scored on"]
    assert "Laplace(scale=0.07)" in said["What the attacker assumes"]
    (model,) = section(reported.noisy(), "What the attacker may do").parts
    assert model == Facts("Threat model", assumptions(reported.noisy().evidence.request))


def test_where_the_defender_draws() -> None:
    noise = Defense(Foreign(fakes.plain(), fakes.SHAPE, "plain"), Gauss(0.1), Vote(3))
    still = fixed_draws(noise, 0)
    assert [randomness(d) for d in (noise, still, noise.undefended())] == ["fresh", "fixed", "none"]
    told = {kind: dict(assumptions(request(d))) for kind, d in (("fresh", noise), ("fixed", still))}
    assert "vote:3" in told["fresh"]["Decision rule"]
    assert "sees them" in told["fixed"]["Draws"]
    assert "its draws" in told["fixed"]["What the attacker assumes"]
    mean = dict(assumptions(request(replace(noise, decision=MeanProb(4)))))
    assert "mean_prob:4" in mean["Decision rule"]


def test_a_norm_s_budget_is_told_in_grey_levels_where_it_is_a_whole_number_of_them() -> None:
    r = request(fakes.plain(), epsilon=8 / 255)
    assert dict(assumptions(r))["Norm and budget"].startswith("L∞ ≤ 0.03137 (8/255)")
    assert dict(assumptions(replace(r, norm=L2(), epsilon=0.5)))["Norm and budget"].startswith(
        "L2 ≤ 0.5,"
    )


def test_what_was_left_out_is_named_with_the_reason() -> None:
    late = dict(untested(reported.hurried()))["Left out for time"]
    assert late.startswith("other losses (APGD cross-entropy, APGD DLR, APGD targeted")
    idle = dict(untested(reported.alone()))[
        "Not needed, since no image was left that they are tried on"
    ]
    for attack in (
        "APGD cross-entropy",
        "APGD DLR",
        "APGD targeted",
        "Square",
        "SPSA",
        "HopSkipJump",
    ):
        assert attack in idle
    assert "PGD margin, 1 draw" not in idle  # that one was made
    for name in ("noisy", "robust"):  # there every attack was made
        assert {why for why, _ in untested(MADE[name]())} <= {
            "Does not apply",
            "Not given",
            "Out of scope",
        }
    (grid,) = grids(section(reported.hurried(), "What was not tested"))
    assert grid.rows == untested(reported.hurried())


def test_what_does_not_apply_is_named() -> None:
    said = {name: " ".join(what for _, what in untested(MADE[name]())) for name in MADE}
    assert "EOT" in said["robust"]
    assert "EOT" not in said["noisy"]
    assert "a base" in said["alone"]
    assert "a base" not in said["robust"]
    assert "DLR" in said["series"]
    assert "BPDA" in said["rounding"]
    r = reported.rounding().evidence.request
    given = replace(r, substitutes=(Gauss(0.01),))
    other = reported.again(reported.rounding(), name="cd:2")
    assert "BPDA" in " ".join(what for _, what in untested(other))
    stood = Judged(type(other.evidence)(given, other.evidence.mine.store))
    assert "BPDA" not in " ".join(w for why, w in untested(stood) if why == "Not given")


# ---------------------------------------------------------------- figures


@EVERY
def test_the_ladder_shows_each_setting(name: str) -> None:
    judged = MADE[name]()
    found = section(judged, "Accuracy by threat setting")
    (grid,) = grids(found)
    rows = list(judged.settings.items())
    if judged.smallest is not None:
        rows.insert(
            [r[0] for r in rows].index("non-adaptive") + 1, ("  of these alone", judged.smallest)
        )
    assert [(row[0], row[3]) for row in grid.rows] == rows
    drawn = curve(found, "the defense")
    assert drawn.y == tuple(100 * e.value for e in judged.ladder.values())
    assert drawn.interval is not None
    assert figures(found)[0].panels[0].categories == tuple(judged.ladder)


def test_the_base_stands_beside_the_ladder_where_it_was_measured() -> None:
    base = curve(section(reported.noisy(), "Accuracy by threat setting"), "its base")
    theirs = reported.noisy().evidence.theirs
    assert theirs is not None
    ends = theirs.accuracy(CLEAN), theirs.worst(n for n in theirs.attempts if n != CLEAN).estimate
    assert (base.y[0], base.y[-1]) == tuple(100 * e.value for e in ends)
    assert all(math.isnan(y) for y in base.y[1:-1])


@pytest.mark.parametrize("name", ["noisy", "robust"])
def test_accuracy_against_epsilon_is_that_of_the_rows(name: str) -> None:
    e = MADE[name]().evidence
    drawn = curve(
        section(MADE[name](), "Accuracy against ε"), "PGD on the margin, one run for each ε"
    )
    clean = right(e.mine.answers(CLEAN))
    expected = [np.mean([clean[int(e.mine.index[i])] for i in e.pool])]
    for factor in FACTORS:
        attacked, far = right(e.mine.answers(swept(factor))), e.mine.examples(swept(factor))
        linf = dict(zip(far["index"].to_pylist(), far["linf"].to_pylist(), strict=True))
        assert max(linf.values()) <= factor * e.request.epsilon + 1e-6
        expected.append(np.mean([attacked[int(e.mine.index[i])] for i in e.pool]))
    assert drawn.x == pytest.approx([0.0, *(f * e.request.epsilon for f in FACTORS)])
    assert drawn.y == pytest.approx([100 * v for v in expected])
    worst = curve(section(MADE[name](), "Accuracy against ε"), "the worst of all attacks, at ε")
    assert worst.y == (100 * e.mine.worst(e.attacked, e.pool).estimate.value,)
    assert len(e.pool) == reported.TINY.controls


def test_a_radius_beyond_the_largest_is_asked_once() -> None:
    judged = reported.small(fakes.plain(), name="wide", epsilon=0.6)
    found = section(judged, "Accuracy against ε")
    if figures(found):
        x = curve(found, "PGD on the margin, one run for each ε").x
        assert list(x) == sorted(set(x))
        assert max(x) == 1.0


def test_draws_per_gradient_and_the_bound_of_what_more_would_win() -> None:
    e = reported.noisy().evidence
    found = section(reported.noisy(), "Convergence: draws, steps, restarts")
    assert e.doublings
    won = curve(found, "won by this doubling")
    assert won.x == tuple(float(d.draws) for d in e.doublings)
    assert won.y == tuple(100 * d.drop.value for d in e.doublings)
    assert curve(found, "one-sided 95 % bound").y == tuple(100 * d.upper for d in e.doublings)
    levels = curve(found, "attacks with up to so many draws")
    assert levels.x == tuple(float(n) for n in e.ladder)
    assert levels.y[0] == 100 * e.mine.worst([e.ladder[1]]).estimate.value
    (figure,) = figures(found)
    assert f"{100 * e.doublings[-1].upper:.1f} points" in figure.caption
    assert ("the draws are enough" in figure.caption) == e.saturated
    (grid,) = grids(found)
    assert [str(row[0]).partition(" (")[0] for row in grid.rows] == [
        "steps in place of draws",
        "twice the steps",
        "random restarts",
    ]


def test_nothing_is_doubled_where_nothing_is_random() -> None:
    found = section(reported.robust(), "Convergence: draws, steps, restarts")
    assert "Nothing is random" in str(found.parts[0])
    assert not figures(found)


def test_the_recovery_window_is_that_of_images_on_which_the_undefended_network_errs() -> None:
    judged = reported.noisy()
    e = judged.evidence
    drawn = curve(section(judged, "Recovery window"), "the defense")
    examples = {row["index"]: row for row in e.mine.examples("FMN, non-adaptive").to_pylist()}
    erring = {i for i, row in examples.items() if row["status"] == "found" and row["l2"] > 0}
    asked = right(
        e.mine.answers(recovery(drawn.x[0]))
    ).keys()  # whole parts, all of the pool in them
    assert len(e.pool) <= len(asked) < len(e.pool) + 10
    erring &= asked
    assert 0 < len(erring) <= reported.IMAGES
    assert list(drawn.x) == sorted(drawn.x)
    for x, y in zip(drawn.x, drawn.y, strict=True):
        rates = right(e.mine.answers(recovery(x)))
        assert y == pytest.approx(100 * np.mean([rates[i] for i in sorted(erring)]))
    # Far beyond the budget candidates count as themselves: the noise does not bring these back.
    assert drawn.y[-1] < drawn.y[0]
    assert drawn.x[-1] > 1


def test_images_that_err_unattacked_have_no_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean image on which the network errs stays where it is at every length: it shows nothing."""
    judged = reported.noisy()
    side = judged.evidence.mine
    rows = side.examples("FMN, non-adaptive")
    unmoved = np.zeros(len(rows))
    where = rows.schema.get_field_index("l2")
    still = rows.set_column(where, rows.schema.field("l2"), pa.array(unmoved))
    monkeypatch.setitem(vars(side)["_examples"], "FMN, non-adaptive", still)
    assert window(judged) == ("Not run. The undefended network errs on none of these images.",)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("robust", "Nothing perturbs"),
        ("alone", "no undefended network"),
        ("hurried", "no undefended"),
    ],
)
def test_no_window_and_why(name: str, why: str) -> None:
    (sentence,) = section(MADE[name](), "Recovery window").parts
    assert why in str(sentence)


# ---------------------------------------------------------------- tries


def test_four_readings_of_one_table_of_draws() -> None:
    """By hand: an example with r of m right draws survives k tries with C(r, k) / C(m, k)."""
    judged = reported.noisy()
    found = patience(judged)
    assert found is not None
    share = right(found.draws)
    m = len(found.draws) // reported.IMAGES
    (grid,) = grids(section(judged, "An attacker who tries again"))
    assert [row[0] for row in grid.rows] == [str(k) for k in (1, 2, 3, 4, 8, 16, 32, 64, 100)]
    for row in grid.rows:
        k = int(str(row[0]))
        counts = [round(m * v) for v in share.values()]
        every = np.mean([math.comb(r, k) / math.comb(m, k) for r in counts])
        none = np.mean([math.comb(m - r, k) / math.comb(m, k) for r in counts])
        expected, _, any_of, all_of = (e for e in row[1:] if isinstance(e, Estimate))
        assert expected.value == pytest.approx(np.mean(list(share.values())))
        assert any_of.value == pytest.approx(every)
        assert all_of.value == pytest.approx(1 - none)
    drawn = curve(section(judged, "An attacker who tries again"), "any of k: one wrong is enough")
    assert drawn.x == tuple(float(k) for k in range(1, 101))
    assert drawn.y[0] == pytest.approx(100 * np.mean(list(share.values())))


def test_the_tries_that_were_asked_for() -> None:
    found = patience(reported.noisy())
    assert found is not None
    left = found.left
    assert left == found.single.estimates[2]
    assert isinstance(left, Estimate)
    assert f"With 3 tries, {left.percent} of the labels are left" in plain(reported.noisy())
    (known,) = grids(section(reported.noisy(), "What is known"))
    assert ("under those, 3 tries of which one is enough", left) in known.rows


def test_where_the_draws_do_not_reach_there_are_only_bounds() -> None:
    """Stopped short: of eight draws half choose, two votes of two score, and five tries are more."""
    judged = reported.again(reported.voted(), name="stopped short")
    other = judged.evidence.other
    for name in [n for n in other if n.startswith(TRIED)]:
        del other[name]
    found = patience(judged)
    assert found is not None
    assert found.decided.reach == 2
    low, high = found.decided.band[-1]
    assert found.left == (low ** (5 / 2), high)
    assert "beyond there are only bounds" in plain(judged)
    assert found.decided.estimates[0].value == pytest.approx(judged.headline.value)


@pytest.mark.parametrize("rule", [Single(), Vote(3), MeanProb(4)], ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_decisions_are_counted_as_the_rule_makes_them(rule: Any, shared: bool) -> None:
    z = latent(np.linspace(0.1, 0.9, 12), 24, np.random.default_rng(5), 0.3 * shared)
    rows = table(z, shared=shared)
    found = accuracy(decisions(rows, rule), Single())
    expected = accuracy(rows, rule)
    assert found.value == pytest.approx(expected.value)
    assert len(decisions(rows, rule)) == 12 * (24 // rule.draws)
    # Draws of weights that all examples share make decisions that err together.
    assert (found.half_width, found.n) == pytest.approx((expected.half_width, expected.n))


def test_no_second_try_where_nothing_is_random() -> None:
    assert patience(reported.robust()) is None
    assert not figures(section(reported.robust(), "An attacker who tries again"))


# ---------------------------------------------------------------- images


@pytest.mark.parametrize(("name", "rows"), [("noisy", 3), ("voted", 4), ("rounding", 4)])
def test_clean_attacked_difference_and_what_a_channel_makes_of_it(name: str, rows: int) -> None:
    judged = MADE[name]()
    picture, grid = section(judged, "Images").parts
    assert isinstance(picture, Picture)
    assert isinstance(grid, Grid)
    count, edge = len(grid.rows), 64 + 4
    assert picture.image.shape == (rows * edge, count * edge)
    places = [judged.evidence.mine.index.tolist().index(int(str(row[0]))) for row in grid.rows]
    found = worst_images(judged.evidence.mine).x[places]
    strip = picture.image.reshape(rows, edge, count, edge)[:, 2:-2:8, :, 2:-2:8]
    assert np.array_equal(strip[1].transpose(1, 0, 2), to_uint8(found)[:, 0].numpy())
    clean = judged.evidence.request.data.load().x[places]
    assert np.array_equal(strip[0].transpose(1, 0, 2), to_uint8(clean)[:, 0].numpy())
    if name == "rounding":  # two grey levels or four: the channel's own
        seen = judged.evidence.request.defense.channel(found)
        assert np.array_equal(strip[3].transpose(1, 0, 2), to_uint8(seen)[:, 0].numpy())
    assert picture.caption.count(";") == rows - 1
    assert torch.equal(found, worst_images(judged.evidence.mine).x[places])


def test_images_that_the_attack_turned_come_first() -> None:
    grid = section(reported.noisy(), "Images").parts[1]
    assert isinstance(grid, Grid)
    first = grid.rows[0]
    assert int(str(first[2])[:-2]) > 50
    assert int(str(first[3])[:-2]) < 50
    assert all(float(str(row[5])) <= 0.1 + 1e-6 for row in grid.rows)


def test_series_have_no_pictures() -> None:
    (sentence,) = section(reported.series(), "Images").parts
    assert "no pictures" in str(sentence)


# ---------------------------------------------------------------- findings, attempts, cost


def test_every_check_is_explained() -> None:
    names = {f.name for name in MADE for f in MADE[name]().findings}
    assert len(names) >= len(CHECKS)
    assert names | {n for c in EVALUATIONS.values() for n in c} <= EXPLAINED.keys()
    assert {*EVALUATIONS, "VALID"} == set(MEANINGS)


@EVERY
def test_findings_stand_by_status_with_evidence_and_mend(name: str) -> None:
    judged = MADE[name]()
    listed = grids(section(judged, "Findings"))
    rows = [(grid, row) for grid in listed for row in grid.rows]
    assert len(rows) == len(judged.findings)
    for f in judged.findings:
        grid, row = next((g, r) for g, r in rows if str(r[0]).partition(" →")[0] == f.name)
        words = {"fail": "Failed", "warn": "Warnings", "not run": "Not run", "pass": "Passed"}
        assert grid.title.startswith(words[f.status])
        assert row[1:3] == (EXPLAINED[f.name], f.evidence)
        assert not f.mend or row[3] == f.mend
    text = plain(judged)
    assert all(n in text for n in ("Findings", *(f.name for f in judged.findings)))


def test_a_failed_check_says_which_verdict_it_leads_to() -> None:
    failed = grids(section(reported.masked(), "Findings"))[0]
    assert failed.title.startswith("Failed")
    assert "unbounded-reaches-zero → GRADIENT MASKING" in [row[0] for row in failed.rows]


@EVERY
def test_every_attempt_is_listed_with_what_it_took(name: str) -> None:
    judged = MADE[name]()
    listed = grids(section(judged, "All attempts"))
    assert len(listed) == len(sides(judged))
    for grid, side in zip(listed, sides(judged).values(), strict=True):
        assert [row[0] for row in grid.rows] == list(side.attempts)
        for row, a in zip(grid.rows, side.attempts.values(), strict=True):
            assert row[1:3] == (a.setting, a.family)
            assert isinstance(row[3], Estimate)
            assert row[3].n == len(a.positions)
            gradients, queries = spent(side, a.name)
            assert row[4] == f"{gradients / len(a.positions):,.0f}"
            assert row[5] == f"{queries / len(a.positions):,.0f}"


def test_accuracy_on_the_images_tried_is_that_of_the_answers() -> None:
    """Of a control too that goes beyond ε: there the images count as themselves."""
    side = reported.noisy().evidence.mine
    for name in ("control: no bound", "PGD margin, 1 draw a gradient"):
        share = right(side.answers(name))
        assert withstood(side, name).value == pytest.approx(np.mean(list(share.values())))


def test_cost_counts_what_was_asked_once() -> None:
    judged = reported.robust()
    store = judged.evidence.mine.store
    measures = {
        key_of(m): m
        for s in sides(judged).values()
        for a in s.attempts.values()
        for m in a.measures
    }
    crafts = {key_of(m.craft): m.craft for m in measures.values() if m.craft is not None}
    took = cost(judged)
    assert took.answers == sum(
        s.answers(n).num_rows for s in sides(judged).values() for n in s.attempts
    )
    assert 0 < took.gradients <= sum(c.data.size * c.attack.gradients for c in crafts.values())
    # The undefended network's own white-box attack is the transfer attack on the defense.
    twice = sum(spent(s, n)[0] for s in sides(judged).values() for n in s.attempts)
    assert took.gradients < twice
    known = sum(store.seconds(key) for key in {*measures, *crafts})
    assert took.seconds > known > 0  # the binarization test is no attempt, and took time too


def test_the_configuration_is_exact() -> None:
    judged = reported.voted()
    text = plain(judged)
    r = judged.evidence.request
    for words in (
        str(r.defense),
        str(r.assumed),
        r.data.fingerprint(),
        f"{cost(judged).gradients:,}",
    ):
        assert words in re.sub("&#39;", "'", text)


# ---------------------------------------------------------------- the terminal, and several side by side

NUMBER = r"(\d+\.\d) \[(\d+\.\d)–(\d+\.\d)\]"


@pytest.mark.parametrize("names", [("noisy",), ("noisy", "robust")])
def test_the_page_holds_every_number_of_the_terminal(names: tuple[str, ...]) -> None:
    audits = tuple(MADE[name]() for name in names)
    terminal = shown(audits)
    text = rendered(*audits)[0]
    numbers = re.findall(NUMBER, terminal)
    assert len(numbers) == 6 * len(audits)  # four settings, the smallest change, and the worst
    for value, low, high in numbers:
        cell = f'<span class="value">{value} %</span> <span class="interval">{low} to {high} · n'
        assert cell in text
    printed = {f"{100 * e.value:.1f}" for a in audits for e in (a.headline, *a.ladder.values())}
    assert printed == {value for value, _, _ in numbers}
    for a in audits:
        assert all(word in terminal for word in (a.evaluation, a.gain))
        assert a.difference is not None
        assert f"{100 * a.difference.value:+.1f} [" in terminal


def test_two_defenses_fit_eighty_columns() -> None:
    long = replace(
        reported.masked().evidence.request, name="zoo:cifar10/a-very-long-name-of-a-network"
    )
    two = reported.again(reported.masked(), name=long.name), reported.noisy()
    lines = shown(two, 80).splitlines()
    assert max(len(line) for line in lines) <= 80
    text = "".join(lines)
    assert "…" not in text
    assert "GRADIENT MASKING" in text
    assert "unbounded-reaches-zero" in text


def test_failed_findings_stand_in_the_terminal() -> None:
    terminal = shown((reported.masked(), reported.robust()))
    line = next(row for row in terminal.splitlines() if "failed findings" in row)
    assert "unbounded-reaches-zero" in line
    assert "none" in line
    assert "left out for time" not in terminal
    assert "other losses" in shown((reported.hurried(),))


def test_a_column_per_defense() -> None:
    audits = (reported.noisy(), reported.robust(), reported.masked())
    sections = rendered(*audits)[1]
    grid = grids(sections[0])[0]
    assert grid.header[1:] == tuple(a.evidence.request.name for a in audits)
    rows = {str(row[0]): row[1:] for row in grid.rows}
    assert rows["evaluation"] == tuple(a.evaluation for a in audits)
    assert rows["gain"] == tuple(a.gain for a in audits)
    assert rows["headline: the worst of all attacks"] == tuple(a.headline for a in audits)
    assert rows["accuracy, adaptive"] == tuple(a.settings["adaptive"] for a in audits)
    assert rows["gradients"] == tuple(f"{cost(a).gradients:,}" for a in audits)
    assert "unbounded-reaches-zero" in str(rows["failed findings"][2])
    pairs = grids(sections[1])[0]
    assert len(pairs.rows) == 3
    assert "Upper bounds, no more, of masked" in rendered(*audits)[0]


def test_headlines_are_compared_image_by_image() -> None:
    a, b = reported.robust(), reported.noisy()
    (grid,) = grids(render((a, b), PROVENANCE)[1][1])
    one, two = (x.evidence.mine.tables(x.evidence.attacked) for x in (a, b))
    gap = worst_case_gain(one, two, Single())
    assert gap.low > 0
    ((_, said, words),) = grid.rows
    assert str(said).startswith(f"{100 * gap.value:+.1f} points [{100 * gap.low:+.1f}")
    assert str(words).startswith("robust is the more accurate")
    ((_, other, words),) = grids(render((b, a), PROVENANCE)[1][1])[0].rows
    assert str(other).startswith(f"{-100 * gap.value:+.1f} points")
    assert str(words).startswith("robust is the more accurate")


def test_defenses_that_decide_otherwise_are_not_compared_image_by_image() -> None:
    (grid,) = grids(render((reported.noisy(), reported.voted()), PROVENANCE)[1][1])
    assert grid.rows[0][1] == "–"
    assert "different rules" in str(grid.rows[0][2])


def test_what_does_not_compare_is_refused_in_one_sentence() -> None:
    one = reported.alone()
    with pytest.raises(UserError, match=r"audits: expected one budget .* L∞ ≤ 0.9 .* L∞ ≤ 0.1 "):
        render((one, reported.robust()), PROVENANCE)
    other = reported.small(fakes.plain(), name="other", epsilon=0.9, data=fakes.digits(count=12))
    with pytest.raises(UserError, match=r"audits: expected the same examples .* alone and other"):
        render((one, other), PROVENANCE)
    moved = reported.small(fakes.plain(), name="euclid", epsilon=0.9, norm=L2())
    with pytest.raises(UserError, match=r"L∞ ≤ 0.9 .* L2 ≤ 0.9 "):
        render((one, moved), PROVENANCE)


def test_an_audit_as_markdown_has_its_threat_model_too() -> None:
    text = markdown("it", "lead", rendered(reported.robust())[1], PROVENANCE)
    for name, words in assumptions(reported.robust().evidence.request):
        assert f"- {name}: {words}" in text
