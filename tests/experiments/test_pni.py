"""The PNI question: what is planned, what is claimed of which world, and what is shown of what survives."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.test_experiments import draws_of, examples_of, parts_of, shuffled, smoke
from noisychannel.attacks import APGD, FGSM, PGD, TargetedAPGD
from noisychannel.data import DataSpec
from noisychannel.defenses import PNI, Defense, Operated, learnt_scales
from noisychannel.engine import Execution, Measure, Store, Train, Trained, run, serial
from noisychannel.engine.training import ready
from noisychannel.experiments import Result, Scale, Setting, setting
from noisychannel.experiments.defended import NOT_RUN
from noisychannel.experiments.pni import DRAWS, PNI_QUESTION, silent
from noisychannel.experiments.pni_claims import NETWORKS, OFF, ON, TRAINED, Rows, Spot
from noisychannel.experiments.pni_shown import PNI_PAPER, PUBLISHED
from noisychannel.interop.authors import authors_network
from noisychannel.networks import SmallNet
from noisychannel.objectives import CrossEntropy, Margin
from noisychannel.report.stats import Estimate
from noisychannel.training import Recipe

needs_data = pytest.mark.skipif(
    not {"NOISYCHANNEL_DATA", "NOISYCHANNEL_WEIGHTS"} <= set(os.environ),
    reason="needs $NOISYCHANNEL_DATA (cifar10) and $NOISYCHANNEL_WEIGHTS (the authors' networks)",
)
World = Callable[[Spot], float]
IMAGES = 1000


def planned(scale: Scale) -> dict[Spot, Measure]:
    """Every place, and its first task."""
    where = setting(scale, PNI_QUESTION.subsets, Execution())
    out: dict[Spot, Measure] = {}
    for cell in PNI_QUESTION.cells(where):
        (first, *_) = cell.measures
        assert isinstance(first, Measure)
        out[Spot(*(value for _, value in cell.place))] = first  # pyright: ignore[reportArgumentType]
    return out


# ---------------------------------------------------------------- what is planned


@pytest.mark.parametrize("scale", ["smoke", pytest.param("desk", marks=needs_data)])
def test_who_is_asked_how_often_and_by_which_attack(scale: Scale) -> None:
    found = planned(scale)
    for spot, task in found.items():
        noisy = spot.network == ON
        assert task.defense.network.weights == ("shared" if noisy else "fixed")
        # One half of the draws chooses the worst attack, and 20 decisions by shared weights are the least.
        assert task.draws == (DRAWS if noisy else 1)
        assert task.draws >= 40 or not noisy
        if spot.attack == "clean":
            assert task.craft is None
            continue
        assert task.craft is not None
        threat, attack = task.craft.threat, task.craft.attack
        moved = spot.attack.startswith("from ")
        assert threat.assumed.stochastic == (noisy and not moved)
        assert (threat.assumed == task.defense) == (not moved)
        published = spot.attack in PUBLISHED
        assert threat.selection_draws == (0 if published else 16)
        assert threat.draws == spot.eot
        if published:
            assert spot.eot == 1
            assert isinstance(attack, PGD | FGSM)
            assert attack.loss == CrossEntropy()
        if spot.attack == "PGD" or moved:
            assert isinstance(attack, PGD)
            assert (attack.loss, attack.keep) == (Margin(), "best")
    rungs = [s.eot for s in found if s[:2] == (ON, "PGD")]
    assert rungs == ([1, 4] if scale == "smoke" else [1, 4, 16])
    for name in NETWORKS:
        top = rungs[-1] if name == ON else 1
        assert isinstance(getattr(found[Spot(name, "APGD-CE", top)].craft, "attack", None), APGD)
        last = getattr(found[Spot(name, "APGD-T", top)].craft, "attack", None)
        assert isinstance(last, TargetedAPGD)
    assert {s.attack for s in found if s.attack.startswith("from")} == {
        f"from {TRAINED}",
        f"from {OFF}",
    }


@needs_data
def test_the_published_protocol_is_pnis_own() -> None:
    for name in NETWORKS:
        craft = planned("desk")[Spot(name, "PGD-7", 1)].craft
        assert craft is not None
        assert craft.attack == PGD(epsilon=8 / 255, steps=7, step_size=0.01, keep="last")
        one = planned("desk")[Spot(name, "FGSM", 1)].craft
        assert one is not None
        assert one.attack == FGSM(epsilon=8 / 255)


@needs_data
def test_noise_off_is_the_plain_network_with_the_authors_weights() -> None:
    noisy = authors_network("cifar10-resnet20-pni-w-adv")
    calm = silent(noisy)
    assert not calm.stochastic
    assert isinstance(calm, Operated)
    one, other = calm.build(), noisy.build()
    scales = learnt_scales(other)
    assert scales
    assert any(other.get_parameter(n).abs().item() > 0.01 for n in scales)  # there is a noise
    plain = replace(calm.network).build()
    plain.load_state_dict({n: t for n, t in other.state_dict().items() if n not in scales})
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(one(x), plain.eval()(x))


def test_on_digits_the_noise_is_off_and_no_weight_has_moved(tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=32)
    data = DataSpec("digits", "train", "first:64")
    noisy = Trained(Train(Operated(SmallNet(), PNI()), data, recipe))
    calm = silent(noisy)
    assert isinstance(calm, Trained)
    assert not calm.stochastic
    store = Store(tmp_path)
    run([calm.train], store, serial, lambda *_: lambda _: None)
    one, other = (ready(Defense(n), store).network.build() for n in (calm, noisy))
    weights = other.state_dict()
    for name, tensor in one.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, weights[name], rtol=0, atol=1e-25)
    x = data.load().x[:8]
    with torch.no_grad():
        assert torch.equal(one(x), one(x))
        assert not torch.equal(other(x), one(x))


# ---------------------------------------------------------------- what is claimed


def fabricated(world: World, images: int = IMAGES) -> tuple[Result, ...]:
    """Rows of a world; PNI answers four times, always alike."""
    out: list[Result] = []
    for spot, task in planned("smoke").items():
        draws = draws_of(world(spot), count=4 if spot.network == ON else 1, images=images)
        examples = None if task.craft is None else examples_of(0.3, images)
        out.append(Result(spot._asdict(), draws, examples))
    return tuple(out)


def survives(spot: Spot) -> float:
    """What PNI's authors report, and an EOT that takes a little of everybody."""
    if spot.attack in PUBLISHED:
        return PNI_PAPER[spot.network][PUBLISHED.index(spot.attack)] / 100
    if spot.attack.startswith("from "):
        return 0.6
    least = {TRAINED: 0.37, ON: 0.43, OFF: 0.29}[spot.network]
    return least + (0.02 if (spot.network, spot.attack, spot.eot) == (ON, "PGD", 1) else 0.0)


def gone(spot: Spot) -> float:
    """EOT takes the whole gain, and more."""
    return 0.3 if (spot.network, spot.attack, spot.eot) == (ON, "PGD", 4) else survives(spot)


def left(spot: Spot) -> float:
    """EOT leaves a sixth of the gain."""
    return 0.382 if (spot.network, spot.attack, spot.eot) == (ON, "PGD", 4) else survives(spot)


def none_published(spot: Spot) -> float:
    """AdvTrain is ahead under PGD-7."""
    return 0.5 if (spot.network, spot.attack) == (TRAINED, "PGD-7") else survives(spot)


def equal(spot: Spot) -> float:
    """Both have the same, whatever is tried."""
    return survives(spot._replace(network=TRAINED) if spot.network == ON else spot)


def calm_ahead(spot: Spot) -> float:
    return 0.5 if (spot.network, spot.attack) == (OFF, "PGD-7") else survives(spot)


def eot_harms(spot: Spot) -> float:
    """Gradients of many draws are worse."""
    return 0.6 if (spot.network, spot.attack, spot.eot) == (ON, "PGD", 4) else survives(spot)


def verdicts(world: World) -> dict[str, bool | None]:
    return {c.name: c.holds for c in PNI_QUESTION.claims(fabricated(world))}


ALL = ("pni-gain", "pni-survives", "pni-half", "pni-eot", "pni-off")


def test_every_claim_holds_where_the_gain_survives() -> None:
    assert verdicts(survives) == dict.fromkeys(ALL, True)
    for claim in PNI_QUESTION.claims(fabricated(survives)):
        assert str(IMAGES) in claim.evidence
        assert claim.statistic is not None
        assert claim.sentence


@pytest.mark.parametrize(
    ("world", "changed"),
    [
        (gone, {"pni-survives": False, "pni-half": False}),
        (left, {"pni-half": False}),
        (none_published, {"pni-gain": False, "pni-half": None}),
        (equal, {"pni-gain": None, "pni-survives": None, "pni-half": None, "pni-eot": None}),
        (calm_ahead, {"pni-off": False}),
        (eot_harms, {"pni-eot": False}),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_world_that_contradicts_a_claim_denies_or_leaves_it(
    world: World, changed: dict[str, bool | None]
) -> None:
    assert verdicts(world) == dict.fromkeys(ALL, True) | changed


def test_no_claim_holds_on_shuffled_answers() -> None:
    found = PNI_QUESTION.claims(shuffled(fabricated(survives, 200)))
    assert [c.name for c in found if c.holds] == []


def test_few_images_decide_nothing() -> None:
    assert {c.holds for c in PNI_QUESTION.claims(fabricated(gone, 9))} == {None}


def test_the_worst_case_holds_for_transferred_images_too() -> None:
    """An attacker who leaves the noise out counts: here he alone succeeds."""

    def world(spot: Spot) -> float:
        return 0.1 if spot == Spot(ON, f"from {OFF}", 1) else survives(spot)

    rows = Rows(fabricated(world))
    found = rows.worst(ON)
    assert found is not None
    assert found.value == pytest.approx(0.1)
    fixed = rows.worst(TRAINED)
    assert fixed is not None
    assert fixed.value == pytest.approx(0.37)
    gain = rows.worst_gain()
    assert gain is not None
    assert gain.value == pytest.approx(-0.27)


# ---------------------------------------------------------------- what is shown


def shown(where: Setting, results: tuple[Result, ...]) -> tuple[str, ...]:
    (section,) = PNI_QUESTION.sections(where, results)
    return tuple(part for part in section.parts if isinstance(part, str))


def test_the_share_that_survives_is_the_ratio_of_the_gains() -> None:
    rows = Rows(fabricated(survives))
    share = rows.survived()
    assert share is not None
    assert share.value == pytest.approx(0.06 / 0.068, abs=0.01)  # (.43 − .37) / (.4594 − .3914)
    assert share.low < share.value < share.high
    (text,) = shown(smoke(PNI_QUESTION), fabricated(survives))
    assert "of the gain survives" in text
    assert "+6.8 points" in text
    assert "+6.0 points" in text


@pytest.mark.parametrize("world", [none_published, equal])
def test_of_a_gain_that_is_none_no_share_is_given(world: World) -> None:
    assert Rows(fabricated(world)).survived() is None
    results = fabricated(world)
    (text,) = shown(smoke(PNI_QUESTION), results)
    assert "do not show a gain above 0" in text
    _, (_, _, gains) = parts_of(PNI_QUESTION.sections(smoke(PNI_QUESTION), results))
    assert gains.rows[-1][1] == "–"


def test_published_numbers_stand_beside_ours() -> None:
    sections = PNI_QUESTION.sections(smoke(PNI_QUESTION), fabricated(survives))
    (figure,), (beside, ladder, gains) = parts_of(sections)
    for line, name in zip(beside.rows, NETWORKS, strict=True):
        assert line[0] == name
        assert line[2:7:2] == tuple(f"{v:.2f} %" for v in PNI_PAPER[name])
        ours = [cell.value for cell in line[1:6:2] if isinstance(cell, Estimate)]
        assert ours == pytest.approx([v / 100 for v in PNI_PAPER[name]], abs=1 / IMAGES)
    assert "not their networks" in beside.caption
    assert [row[2] for row in gains.rows[:3]] == ["+7.9 points", "+6.8 points", "-7.7 points"]
    assert str(gains.rows[1][1]).startswith("+6.8 points")
    assert {row[0] for row in ladder.rows if "–" in row} == {
        f"PGD on the margin of {name}, transferred" for name in (TRAINED, OFF)
    }
    first, second = figure.panels
    assert {s.name for s in first.series} == set(NETWORKS)
    for series in first.series:
        assert series.x == (1.0, 4.0)
        assert series.interval is not None
        assert (series.y[0] == series.y[1]) == (series.name != ON)
    assert [s.name for s in second.series if not s.dashed] == ["gain"]


def test_what_has_no_weights_is_shown_as_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOISYCHANNEL_WEIGHTS", str(tmp_path))
    where = replace(smoke(PNI_QUESTION), scale="desk")
    assert PNI_QUESTION.cells(where) == ()
    assert PNI_QUESTION.claims(()) == ()
    figures, grids = parts_of(PNI_QUESTION.sections(where, ()))
    assert figures == []
    assert all(NOT_RUN in row for grid in grids for row in grid.rows[:-1])


@pytest.mark.parametrize("name", [TRAINED, ON])
def test_one_network_without_weights_does_not_hide_the_others(name: str) -> None:
    missing = (name, OFF) if name == ON else (name,)
    kept = tuple(
        r
        for r in fabricated(survives)
        if r.place["network"] not in missing and r.place["attack"] != f"from {name}"
    )
    sections = PNI_QUESTION.sections(smoke(PNI_QUESTION), kept)
    figures, (beside, *_) = parts_of(sections)
    assert figures
    assert {row[0] for row in beside.rows if NOT_RUN in row} == set(missing)
    assert {c.name for c in PNI_QUESTION.claims(kept)} == (set() if name == ON else {"pni-eot"})
