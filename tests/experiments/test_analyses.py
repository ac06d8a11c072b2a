"""Figures 12 to 16 and section 3.3 on fabricated rows: claims hold in the paper's world and fail in others."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from noisychannel import experiments
from noisychannel.engine import Execution
from noisychannel.experiments import Result, setting
from noisychannel.experiments.abstract import CONTRADICTIONS, DISCREPANCIES, RESULTS, abstract
from noisychannel.experiments.fig12_gradients import FIG12
from noisychannel.experiments.fig15_confidence import FIG15
from noisychannel.experiments.fig16_hessian import FIG16
from noisychannel.experiments.sec33_taylor import SEC33
from noisychannel.experiments.setting import Claim, Experiment
from noisychannel.experiments.verdict import above, below, every, number, off
from noisychannel.report.numbers import equivalent
from noisychannel.report.stats import Estimate

IMAGES, CLASSES = 300, 10
LABEL = np.arange(IMAGES) % CLASSES


@dataclass
class Point:
    """Norms of the label's class, the next class and all others; which class is said, and how surely."""

    own: float
    next: float
    others: float
    said: int = 0
    """0: the label; 1: the next class."""
    sure: float = 0.9


def jacobian_rows(point: Point, spread: float = 0.05) -> pa.Table:
    """Rows of `Jacobian` with a diagonal Gram matrix: norms as asked for, with some spread over images."""
    noise = 1 + spread * np.random.default_rng(0).standard_normal(IMAGES)
    norms = np.full((IMAGES, CLASSES), point.others) * noise[:, None]
    rows = np.arange(IMAGES)
    norms[rows, LABEL] = point.own * noise
    norms[rows, (LABEL + 1) % CLASSES] = point.next * noise
    said = (LABEL + point.said) % CLASSES
    sure = (
        point.sure - 0.005 * rows / IMAGES
    )  # no two images alike, so that each has a control of its own
    p = np.repeat((1 - sure[:, None]) / (CLASSES - 1), CLASSES, axis=1)
    p[rows, said] = sure
    gram = np.zeros((IMAGES, CLASSES, CLASSES))
    gram[:, range(CLASSES), range(CLASSES)] = norms**2
    return pa.table(
        {
            "index": rows,
            "label": LABEL,
            "draw": np.zeros(IMAGES, dtype=np.int64),
            "predicted": said,
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(p.reshape(-1)), CLASSES),
            "gram": pa.FixedSizeListArray.from_arrays(
                pa.array(gram.reshape(-1)), CLASSES * CLASSES
            ),
            "straight": np.full(IMAGES, True),  # a column of it
        }
    )


def examples(l2: float) -> pa.Table:
    return pa.table({"index": np.arange(IMAGES), "l2": np.full(IMAGES, l2)})


def shuffled(results: tuple[Result, ...]) -> tuple[Result, ...]:
    """The same rows, in each place with the labels of other images."""
    out: list[Result] = []
    for seed, r in enumerate(results):
        order = np.random.default_rng(seed).permutation(r.draws.num_rows)
        labels = pa.array(r.draws["label"].to_numpy()[order])
        place = r.draws.schema.get_field_index("label")
        out.append(Result(r.place, r.draws.set_column(place, "label", labels), r.examples))
    return tuple(out)


def claims(experiment: Experiment, results: tuple[Result, ...]) -> dict[str, Claim]:
    return {c.name: c for c in experiment.claims(results)}


# ---------------------------------------------------------------- Figures 12, 13, 14, M.1

World = Callable[[str, float], Point]


def papers(at: str, epsilon: float) -> Point:
    """Gradients as sections M and M.1 have them."""
    if at == "clean":
        return Point(0.5 + 4 * epsilon, 3, 3)
    back = epsilon >= 0.01
    factor = 1.0 if at == "untargeted" else 0.5
    own, theirs = (3 - 20 * epsilon) * factor, (2.5 + 20 * epsilon) * factor
    if at == "targeted":
        back = False
    return Point(own, theirs, 1.0 * factor, said=0 if back else 1, sure=0.5)


def gradients(world: World) -> tuple[Result, ...]:
    cells = FIG12.cells(setting("smoke", FIG12.subsets, Execution()))
    out = []
    for cell in cells:
        place = dict(cell.place)
        rows = jacobian_rows(world(str(place["at"]), float(place["epsilon"])))
        out.append(Result(place, rows, None))
    return tuple(out)


def test_gradient_claims_hold_in_the_papers_world() -> None:
    found = claims(FIG12, gradients(papers))
    assert len(found) == 8
    assert [n for n, c in found.items() if c.holds is not True] == []
    assert all(c.where and c.statistic is not None for c in found.values())


def test_gradient_claims_fail_on_shuffled_labels() -> None:
    found = claims(FIG12, shuffled(gradients(papers)))
    assert found["fig13-recovers"].holds is False
    assert found["fig13-crosses"].holds is not True


LIES: dict[str, tuple[tuple[str, ...], World]] = {
    "gradients fall with noise": (
        ("fig12-rises",),
        lambda at, e: Point(0.9 - 4 * e, 3, 3) if at == "clean" else papers(at, e),
    ),
    "noise moves nothing": (("fig13-crosses", "fig13-recovers"), lambda at, _: papers(at, 0.0)),
    "all classes alike": (
        ("fig14-untargeted-larger", "fig14-targeted-lower"),
        lambda at, e: Point(2, 2, 2.5, said=papers(at, e).said),
    ),
    "targeted are recovered too": (
        ("fig14-fewer-recovered",),
        lambda at, e: Point(
            3, 2.5, 1, said=0 if e >= 0.01 and at != "clean" else papers(at, e).said
        ),
    ),
    "the lowest gradient is always the predicted one": (
        ("m1-adversarial",),
        lambda at, e: Point(3, 0.1, 3, said=1) if at != "clean" and e < 0.01 else papers(at, e),
    ),
    "the lowest is never the predicted one": (
        ("m1-clean",),
        lambda at, e: Point(3, 2, 1) if at == "clean" else papers(at, e),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_gradient_claim_fails_in_a_world_that_contradicts_it(lie: str) -> None:
    names, world = LIES[lie]
    found = claims(FIG12, gradients(world))
    assert all(found[name].holds is not True for name in names)


def test_nothing_attacked_says_so() -> None:
    world = gradients(lambda _, e: papers("clean", e))
    assert FIG12.claims(world) == ()
    (section,) = FIG12.sections(setting("smoke", FIG12.subsets, Execution()), world)
    assert "nothing to draw" in str(section.parts[0])


# ---------------------------------------------------------------- Figure 16


def spectra(clean: float, attacked: float, control: float) -> tuple[Result, ...]:
    points = {
        "clean": Point(clean, 1e-9, 1e-9, sure=0.99),
        "C&W": Point(1e-9, attacked, 1e-9, said=1, sure=0.6),
        "control": Point(control, 1e-9, 1e-9, sure=0.6),
    }
    return tuple(Result({"at": at}, jacobian_rows(p), None) for at, p in points.items())


def test_curvature_claims_follow_the_ratio() -> None:
    # Of one class with norm g the top eigenvalue is p g²: .6 · 4² over .99 · 1².
    found = claims(FIG16, spectra(1.0, 5.0, 1.0))
    assert found["fig16-order"].holds is True
    assert found["fig16-beyond-confidence"].holds is True
    assert found["fig16-order"].statistic is not None
    assert found["fig16-order"].statistic.value == pytest.approx(0.6 * 25 / 0.99, rel=0.05)
    assert "300 C&W images, 300 clean ones" in found["fig16-beyond-confidence"].evidence
    alike = claims(FIG16, spectra(1.0, 2.0, 2.0))
    assert alike["fig16-order"].holds is False
    assert alike["fig16-beyond-confidence"].holds is False


def test_few_controls_that_serve_many_images_decide_nothing() -> None:
    """Each C&W image has a curvature of its own, and all share five controls: five examples, not 300."""
    world = spectra(1.0, 5.0, 1.0)
    *rest, control = world
    few = Result(control.place, control.draws.slice(0, 5), None)
    assert claims(FIG16, world)["fig16-beyond-confidence"].holds is True
    found = claims(FIG16, (*rest, few))["fig16-beyond-confidence"]
    assert found.holds is None
    assert "5 clean ones" in found.evidence


# ---------------------------------------------------------------- Figure 15


def strengths(anomaly: bool) -> tuple[Result, ...]:
    """κ 10 is surer with smaller gradients; near adversarials have the anomaly, far ones do not."""
    cells = FIG15.cells(setting("smoke", FIG15.subsets, Execution()))
    out = []
    for cell in cells:
        place = dict(cell.place)
        kappa, c = float(place["kappa"]), float(place["constant"])
        if kappa < 0:
            out.append(Result(place, jacobian_rows(Point(0.5, 3, 3)), None))
            continue
        lowest = (c >= 1) == anomaly
        point = Point(1, 0.5 if lowest else 2, 3, said=1, sure=0.6)
        if kappa > 0:
            point = Point(1, 0.01, 3, said=1, sure=0.99)
        out.append(Result(place, jacobian_rows(point), examples(0.1 + c)))
    return tuple(out)


def test_attack_confidence_claims() -> None:
    found = claims(FIG15, strengths(anomaly=True))
    assert {n: c.holds for n, c in found.items()} == {
        "fig15-confidence": True,
        "fig15-gradient": True,
        "fig15-anomaly": True,
    }
    assert claims(FIG15, strengths(anomaly=False))["fig15-anomaly"].holds is False


# ---------------------------------------------------------------- section 3.3


def expansion(larger: float, rest: float, kept: bool) -> tuple[Result, ...]:
    cells = SEC33.cells(setting("smoke", SEC33.subsets, Execution()))
    out = []
    for cell in cells:
        place = dict(cell.place)
        attacked = place["at"] == "C&W"
        if place["what"] == "bounds":
            point = Point(1, larger, 1, said=1) if attacked else Point(1, 1, 1)
            out.append(Result(place, jacobian_rows(point), None))
            continue
        lengths = np.repeat((0.01, 0.03, 0.1, 0.3, 1.0, 3.0), IMAGES)
        n = len(lengths)
        spread = 1 + 0.1 * np.random.default_rng(0).standard_normal(n)
        out.append(
            Result(
                place,
                pa.table(
                    {
                        "index": np.tile(np.arange(IMAGES), 6),
                        "label": np.tile(LABEL, 6),
                        "draw": np.zeros(n, dtype=np.int64),
                        "length": lengths,
                        "changed": lengths * spread,
                        "first": lengths * spread * (1 - rest),
                        "second": np.zeros(n),
                        "kept": np.full(n, int(kept or not attacked)),
                    }
                ),
                None,
            )
        )
    return tuple(out)


def test_expansion_claims() -> None:
    found = claims(SEC33, expansion(4.0, 0.1, kept=False))
    assert {n: c.holds for n, c in found.items()} == dict.fromkeys(
        ("sec33-first", "sec33-second", "sec33-unstable", "sec33-governed"), True
    )
    other = claims(SEC33, expansion(0.5, 0.4, kept=True))
    assert [c.holds for c in other.values() if c.holds is True] == []


# ---------------------------------------------------------------- verdicts, the abstract


def test_verdicts_of_intervals() -> None:
    e = Estimate(0.5, 0.4, 0.6, 10, "bootstrap")
    assert (above(e, 0.3), above(e, 0.5), above(e, 0.7)) == (True, None, False)
    assert (below(e, 0.3), below(e, 0.5), below(e, 0.7)) == (False, None, True)
    few = e._replace(n=9)  # however narrow, nine examples decide nothing
    assert (above(few, 0.3), below(few, 0.7), equivalent(few, 1.0)) == (None, None, None)
    assert off(e, 0.5)[:3] == pytest.approx((0.0, -0.1, 0.1))
    assert (every(True, True), every(True, None), every(None, False)) == (True, None, False)
    assert number(e) == "0.5 [0.4, 0.6]"


def test_the_abstract_follows_the_claims_that_bear_on_it() -> None:
    def claim(name: str, holds: bool | None) -> Claim:
        return Claim(name, "…", holds, "1")

    nothing = abstract([])
    assert [c.holds for c in nothing] == [None] * len(RESULTS)
    bearing = RESULTS[4][2]
    whole = [claim(n, holds=True) for n in bearing]
    assert abstract(whole)[4].holds is True
    assert abstract([claim(n, holds=False) for n in bearing])[4].holds is False
    part = abstract([*whole[1:], claim(bearing[0], holds=False)])
    assert part[4].holds is None
    assert f"{bearing[0]} does not hold" in part[4].evidence
    missing = abstract(whole[1:])  # what was not run decides nothing
    assert missing[4].holds is None
    assert f"{bearing[0]} not run" in missing[4].evidence


def test_the_abstract_asks_for_claims_that_are_made() -> None:
    """Each name stands in the code as it is, or as what an f-string can become."""
    folder = Path(experiments.__file__).parent
    source = "".join(p.read_text("utf-8") for p in folder.glob("*.py") if p.name != "abstract.py")
    made = [
        re.sub(r"\\\{.*?\\\}", ".+", re.escape(t))
        for t in re.findall(r'f?"([a-z0-9]+-[^" ]+)"', source)
    ]
    for _, _, bearing in RESULTS:
        for name in bearing:
            assert any(re.fullmatch(pattern, name) for pattern in made), name


def test_all_discrepancies_are_listed() -> None:
    assert len(DISCREPANCIES) == 15
    assert len(CONTRADICTIONS) == 7
