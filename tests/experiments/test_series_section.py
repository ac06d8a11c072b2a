"""Section R: the window of recovery, what is planned on series, what is claimed, what stands where they are missing."""

import os
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from experiments.test_experiments import draws_of, examples_of, parts_of
from noisychannel.attacks import PGD, FixedConstant
from noisychannel.channels import Gauss
from noisychannel.engine import Execution, Measure, Train, Trained, plan
from noisychannel.experiments import EXPERIMENTS, Claim, Result, Setting, setting
from noisychannel.experiments.page import samples
from noisychannel.experiments.secr_claims import DEFENSES, PAPER_WINDOW
from noisychannel.experiments.secr_series import SECR, SUBSETS
from noisychannel.experiments.series_setting import NETWORKS, WORDS, bell, ground
from noisychannel.experiments.window import window
from noisychannel.networks import FCN

Place = Mapping[str, str | float]
Number = Callable[[Place], float]

needs_series = pytest.mark.skipif(
    not Path(os.environ.get("NOISYCHANNEL_DATA", "/nowhere"), "ucr").is_dir(),
    reason="needs the folder ucr in $NOISYCHANNEL_DATA",
)


def place_of(scale: str) -> Setting:
    return setting(scale, SUBSETS, Execution())  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------- the window


def answers(original: list[float], other: list[float], n: int = 100) -> np.ndarray:
    """Every example has the same shares at each level, up to a ripple that averages to nothing."""
    ripple = 0.01 * np.where(np.arange(n) % 2, 1, -1)
    levels = [
        np.stack([o + ripple, np.full(n, 1 - o - t) - ripple, np.full(n, t)], axis=1)
        for o, t in zip(original, other, strict=True)
    ]
    return np.stack(levels)


def test_window_ends_where_the_lead_crosses_nought() -> None:
    """Leads −.8, .2, .6, −.2 at 1, 10, 100, 1000: up at 10^.8, down at 10^2.75."""
    shares = answers([0.1, 0.6, 0.8, 0.3], [0.0, 0.0, 0.0, 0.5])
    found = window(shares, np.array([1.0, 10.0, 100.0, 1000.0]))
    assert found is not None
    assert found.low.value == pytest.approx(10**0.8, rel=1e-6)
    assert found.high.value == pytest.approx(10**2.75, rel=1e-6)
    assert found.low.low < found.low.value < found.low.high
    assert found.lead.value == pytest.approx(0.6, abs=0.021)
    assert [round(e.value, 6) for e in found.outside] == [-0.8, -0.2]


def test_window_that_never_closes_ends_where_the_measurements_do() -> None:
    found = window(answers([0.6, 0.9], [0.0, 0.0]), np.array([2.0, 3.0]))
    assert found is not None
    assert (found.low.value, found.high.value) == (2.0, 3.0)


def test_no_window_where_the_original_never_leads() -> None:
    assert window(answers([0.4, 0.3], [0.0, 0.6]), np.array([1.0, 2.0])) is None


def test_window_has_the_contiguous_lead_around_its_greatest() -> None:
    """A second, lower hill does not count."""
    shares = answers([0.6, 0.2, 0.9, 0.2], [0.0] * 4)
    found = window(shares, np.array([1.0, 2.0, 4.0, 8.0]))
    assert found is not None
    assert 2.0 < found.low.value < 4.0 < found.high.value < 8.0


# ---------------------------------------------------------------- what is planned


def test_smoke_trains_four_networks_on_synthetic_series() -> None:
    cells = SECR.cells(place_of("smoke"))
    assert len({c.place for c in cells}) == len(cells)
    tasks = plan(m for c in cells for m in c.measures).tasks
    trained = [t for t in tasks if isinstance(t, Train)]
    assert len(trained) == len(NETWORKS)
    assert sum(t.recipe.adversarial is not None for t in trained) == 2
    assert sum(t.network.stochastic for t in trained) == 2
    here = ground(place_of("smoke"))
    assert here is not None
    assert here.setting.data.size == place_of("smoke").data.size  # the page names the latter


def test_strengths_are_in_z_normalised_units() -> None:
    here = ground(place_of("smoke"))
    assert here is not None
    seen = set()
    for cell in SECR.cells(place_of("smoke")):
        place = dict(cell.place)
        for m in cell.measures:
            if not isinstance(m, Measure) or m.craft is None:
                continue
            attack, strength = m.craft.attack, float(place["strength"])
            if isinstance(attack, PGD):
                assert attack.epsilon == pytest.approx(strength * here.unit)
            else:
                assert isinstance(attack, FixedConstant)
                assert attack.constant == pytest.approx(strength * here.unit**2)
            assert m.craft.threat.assumed == m.defense  # adapted to it
            seen.add((place["series"], place["what"]))
    assert seen == {(name, kind) for name in DEFENSES for kind in ("PGD", "C&W")}


def test_synthetic_series_are_z_normalised_and_reproducible() -> None:
    one, two = bell(30, seed=1), bell(30, seed=1)
    assert one.digest == two.digest != bell(30, seed=2).digest
    batch = one.load()
    assert batch.x.shape == (30, 1, 32)
    z = (batch.x - 0.5) / 0.1
    assert float(z.mean(dim=2).abs().max()) < 1e-4
    assert float((z.std(dim=2, correction=0) - 1).abs().max()) < 1e-4
    assert batch.y.bincount().tolist() == [10, 10, 10]


@needs_series
def test_desk_takes_ecg5000_in_its_own_units() -> None:
    here = ground(place_of("desk"))
    assert here is not None
    assert here.unit == pytest.approx(0.067642, abs=1e-6)
    assert set(here.networks) == set(NETWORKS)
    labels = here.setting.data.load().y
    assert len(labels) == 100
    assert labels.bincount().argmax() == 0
    assert len(labels.unique()) > 2  # the file is sorted by class
    cells = [c for c in SECR.cells(place_of("desk")) if dict(c.place)["what"] == "window"]
    sigmas = [m.defense.channel for c in cells for m in c.measures]
    assert Gauss(0.1 * here.unit) in sigmas


def test_paper_reads_the_papers_set_by_the_same_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ucr"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for split, count in (("TRAIN", 84), ("TEST", 1965)):
        x, y = generator.standard_normal((count, 12)), 1 + np.arange(count) % 42
        lines = (
            "\t".join([str(c), *(f"{v:.4f}" for v in row)]) for c, row in zip(y, x, strict=True)
        )
        (folder / f"NonInvasiveFetalECGThorax1_{split}.tsv").write_text("\n".join(lines))
    monkeypatch.setenv("NOISYCHANNEL_DATA", str(tmp_path))
    here = ground(place_of("paper"))
    assert here is not None
    assert here.setting.data.size == 1965
    plain = here.setting.network
    assert isinstance(plain, Trained)
    trained = plain.train.network
    assert isinstance(trained, FCN)
    assert (trained.classes, trained.std) == (42, (here.unit,))


@pytest.mark.parametrize("scale", ["desk", "paper"])
def test_without_its_series_it_is_not_run(scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOISYCHANNEL_DATA", raising=False)
    where = place_of(scale)
    assert SECR.cells(where) == ()
    assert SECR.claims(()) == ()
    (section,) = SECR.sections(where, ())
    assert "NOISYCHANNEL_DATA" in str(section.parts[0])
    _, (grid,) = parts_of((section,))
    assert {row[0]: row[1] for row in grid.rows} == dict.fromkeys(DEFENSES, "not run")


def test_series_are_not_called_images() -> None:
    assert samples(SECR, place_of("smoke")) == f"30 series; {WORDS['smoke']}"
    others = {e.name for e in EXPERIMENTS if e.examples == "images"}
    assert others == {e.name for e in EXPERIMENTS} - {"secr"}


def test_stand_ins_are_called_so() -> None:
    assert WORDS["desk"].startswith("STAND-IN")
    assert WORDS["smoke"].startswith("STAND-IN")


# ---------------------------------------------------------------- fabricated rows


def as_the_paper(place: Place) -> float:
    """A window from .7 to 1.6; layer noise stands attacks, with adversarial training best."""
    if place["what"] == "window":
        far = distance(place)
        return 0.9 if PAPER_WINDOW[0] < far < PAPER_WINDOW[1] else 0.2
    base = {"Plain": 0.1, "input noise": 0.2, "AdvTrain": 0.4, "RobustNet": 0.6, "RobustNetAdv": 0.8}  # fmt: skip
    return 0.94 if place["what"] == "clean" else base[str(place["series"])]


def distance(place: Place) -> float:
    return 0.1 + 11.8 * float(place["sigma"])


def window_rows(original: float, far: float, unit: float) -> pa.Table:
    """Of ten draws of 60 series that share answers the original; the rest the adversarial class."""
    index, draw = np.repeat(np.arange(60), 10), np.tile(np.arange(10), 60)
    right = (index + draw) % 10 < round(10 * original)
    return pa.table(
        {
            "index": index,
            "label": index % 3,
            "adversarial": (index + 1) % 3,
            "predicted": np.where(right, index % 3, (index + 1) % 3),
            "to_original": np.full(600, far * unit),
            "to_adversarial": np.full(600, far * unit),
            "attack": np.full(600, 0.1 * unit),
        }
    )


@cache
def places() -> tuple[tuple[tuple[str, str | float], ...], ...]:
    return tuple(cell.place for cell in SECR.cells(place_of("smoke")))


def fabricated(number: Number) -> tuple[Result, ...]:
    out: list[Result] = []
    for cell_place in places():
        place = dict(cell_place)
        if place["what"] == "window":
            rows = window_rows(number(place), distance(place), float(place["unit"]))
        else:
            rows = draws_of(number(place))
        out.append(Result(place, rows, None if place["what"] == "clean" else examples_of(0.1)))
    return tuple(out)


def shuffled(results: tuple[Result, ...]) -> tuple[Result, ...]:
    """Answers to other series."""
    generator = np.random.default_rng(0)
    out: list[Result] = []
    for r in results:
        order = generator.permutation(r.draws.num_rows)
        at = r.draws.schema.get_field_index("predicted")
        rows = r.draws.set_column(at, "predicted", r.draws["predicted"].take(pa.array(order)))
        out.append(Result(r.place, rows, r.examples))
    return tuple(out)


def claims_of(number: Number) -> dict[str, Claim]:
    return {c.name: c for c in SECR.claims(fabricated(number))}


def test_every_claim_holds_on_the_papers_own_numbers() -> None:
    found = claims_of(as_the_paper)
    assert len(found) == 6
    assert [c.name for c in found.values() if c.holds is not True] == []
    assert all(c.where == "R" and re.search(r"\d", c.evidence) for c in found.values())


def test_no_claim_holds_on_shuffled_answers() -> None:
    found = SECR.claims(shuffled(fabricated(as_the_paper)))
    assert [c.name for c in found if c.holds] == []


def denied(series: str, kind: str, value: float) -> Number:
    def number(place: Place) -> float:
        here = (place.get("series"), place["what"]) == (series, kind)
        return value if here else as_the_paper(place)

    return number


LIES: dict[str, tuple[str, Number]] = {
    "noise recovers nothing": (
        "secr-window.*",
        lambda p: 0.2 if p["what"] == "window" else as_the_paper(p),
    ),
    "the least noise recovers already": (
        "secr-window",
        lambda p: 0.9 if p["what"] == "window" and distance(p) < 1.6 else as_the_paper(p),
    ),
    "a window far too wide": (
        "secr-window.*",
        lambda p: (0.9 if 0.2 < distance(p) < 8 else 0.2) if p["what"] == "window" else as_the_paper(p),
    ),
    "a window elsewhere": (
        "secr-window-place",
        lambda p: (0.9 if 4 < distance(p) < 8 else 0.2) if p["what"] == "window" else as_the_paper(p),
    ),
    "AdvTrain stands PGD better": ("secr-PGD-layers-best", denied("AdvTrain", "PGD", 0.7)),
    "input noise stands C&W better": ("secr-C&W-layers-best", denied("input noise", "C&W", 0.7)),
    "both together are no better": ("secr-PGD-combined-best", denied("RobustNetAdv", "PGD", 0.6)),
    "training spoils it": ("secr-C&W-combined-best", denied("RobustNetAdv", "C&W", 0.3)),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_each_claim_fails_in_a_world_that_contradicts_it(lie: str) -> None:
    names, number = LIES[lie]
    found = [c for name, c in claims_of(number).items() if re.fullmatch(names, name)]
    assert found
    assert [c.name for c in found if c.holds] == []


def test_the_lies_cover_every_claim() -> None:
    for name in claims_of(as_the_paper):
        assert any(re.fullmatch(names, name) for names, _ in LIES.values()), name


def test_a_defense_that_was_not_run_makes_no_claim_and_says_so() -> None:
    kept = tuple(r for r in fabricated(as_the_paper) if r.place.get("series") != "RobustNetAdv")
    assert {c.name for c in SECR.claims(kept)} == {
        "secr-window",
        "secr-window-place",
        "secr-C&W-layers-best",
        "secr-PGD-layers-best",
    }
    figures, grids = parts_of(SECR.sections(place_of("smoke"), kept))
    assert [f.name for f in figures] == ["secr_window", "secr_attacks"]
    assert all("STAND-IN" in f.caption for f in figures)
    rows = {row[0]: row for row in grids[1].rows}
    assert set(rows["RobustNetAdv"][1:]) == {"not run"}
    assert "RobustNetAdv" not in [s.name for p in figures[1].panels for s in p.series]
