"""Table 3 and the ImageNet panels: what is planned, what is claimed, what stands where ImageNet is not at hand."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
import torch

from experiments.test_experiments import draws_of, examples_of, parts_of
from linear import LinearNetwork
from noisychannel.data import from_arrays
from noisychannel.defenses import Defense
from noisychannel.engine import Execution, Measure, key_of
from noisychannel.experiments import Claim, Result, Setting, setting
from noisychannel.experiments.imagenet import WORDS, SqueezeNet, imagenet, six_channels
from noisychannel.experiments.imagenet_panels import PEAKS, LabelGradient
from noisychannel.experiments.table1_transfer import TABLE1
from noisychannel.experiments.table3_imagenet import SUBSETS, TABLE3, TABLE3_PAPER
from noisychannel.experiments.transfer import COLUMNS, Matrix, matrix_rows
from noisychannel.interop.authors import IMAGENET, table3_channels
from noisychannel.measures import Asked
from noisychannel.networks import prepare

Place = Mapping[str, str | float]
Number = Callable[[Place], float]


def smoke() -> Setting:
    return setting("smoke", SUBSETS, Execution())


# ---------------------------------------------------------------- what is planned


def test_smoke_shares_its_matrix_with_table_1() -> None:
    theirs = {
        cell.place: [key_of(m) for m in cell.measures]
        for cell in TABLE1.cells(smoke())
        if {("mode", "authors"), ("l2", "own")} <= set(cell.place)
    }
    cells = [c for c in TABLE3.cells(smoke()) if dict(c.place).get("mode")]
    assert len(cells) == 8 * 7
    assert {c.place: [key_of(m) for m in c.measures] for c in cells} == theirs


def test_one_attack_serves_all_panels() -> None:
    cells = [c for c in TABLE3.cells(smoke()) if "figure" in dict(c.place)]
    assert {dict(c.place)["figure"] for c in cells} == {"1", "6", "7", "12", "17"}
    assert len({c.place for c in cells}) == len(cells)
    crafts = {
        (dict(c.place)["figure"] == "7" and dict(c.place)["series"] == "strongest"): m.craft
        for c in cells
        for m in c.measures
        if m.craft is not None
    }
    assert len(crafts) == 2
    assert all(not craft.threat.assumed.stochastic for craft in crafts.values())
    for cell in cells:
        if dict(cell.place)["figure"] == "1":
            assert all(isinstance(m, Measure) for m in cell.measures)


def test_channels_are_table_3s_where_there_is_imagenet() -> None:
    there = replace(smoke(), scale="desk", units=IMAGENET)
    assert six_channels(there) == table3_channels()
    assert six_channels(there)["Gauss"] == IMAGENET.gauss(0.04)


@pytest.mark.parametrize("scale", ["desk", "paper"])
def test_without_imagenet_it_is_not_run(scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOISYCHANNEL_DATA", raising=False)
    monkeypatch.delenv("NOISYCHANNEL_WEIGHTS", raising=False)
    where = setting(scale, SUBSETS, Execution())  # pyright: ignore[reportArgumentType]
    assert imagenet(where) is None
    assert TABLE3.cells(where) == ()
    assert TABLE3.claims(()) == ()
    _, (grid,) = parts_of(TABLE3.sections(where, ()))
    assert "NOISYCHANNEL_DATA" in grid.caption
    rows = {row[0]: row for row in grid.rows}
    for row, numbers in TABLE3_PAPER.items():
        assert set(rows[row][2:]) == {"not run"}
        assert rows[f"{row} (paper)"][3:] == tuple(f"{v:.2f}" for v in numbers)


def test_stand_ins_are_called_so() -> None:
    assert WORDS["desk"].startswith("STAND-IN")
    assert WORDS["smoke"].startswith("STAND-IN")
    assert "ResNet-50" in WORDS["paper"]
    assert TABLE3.words == WORDS


def test_squeezenet_has_torchvisions_names_and_folds() -> None:
    module = SqueezeNet(None).build()
    names = list(module.state_dict())
    assert len(names) == 52
    assert names[:3] == ["features.0.weight", "features.0.bias", "features.3.squeeze.weight"]
    assert names[-2:] == ["classifier.1.weight", "classifier.1.bias"]
    x = torch.rand(2, 3, 64, 64)
    assert module(x).shape == (2, 1000)
    torch.testing.assert_close(prepare(module)(x), module(x), rtol=1e-4, atol=1e-4)


def test_label_gradient_is_that_of_the_labels_loss() -> None:
    """z = Wx: ∇ₓ CE = Wᵀ(p − e_y), times the scale."""
    network = LinearNetwork(shape=(1, 2, 2), classes=3, seed=0)
    x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
    batch = from_arrays(x, y).load()
    module = prepare(network.build())
    found = LabelGradient((0.5,))(Asked(Defense(network), module, x, batch))
    leaf = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(module(leaf), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    wanted = (0.5 * gradient.flatten(1).norm(dim=1)).tolist()
    assert found["slope"].to_pylist() == pytest.approx(wanted, rel=1e-5)


# ---------------------------------------------------------------- fabricated rows


def as_the_paper(place: Place) -> float:
    """Table 3 as the paper has it; Figure 1's peaks; a window that the strongest attack closes; rising gradients."""
    if "mode" in place:
        row, column = str(place["row"]), str(place["column"])
        if column == "no defense":
            return 0.76 if row == "Empty" else 0.0
        return TABLE3_PAPER[row][COLUMNS.index(column)] / 100 if row in COLUMNS else 0.7
    if place["figure"] == "1":
        return 0.0 if place["series"] == "none" else PEAKS[str(place["series"])][0] / 100
    if place["figure"] == "7":
        return 0.8 if place["series"] == "weakest" else 0.1
    return 1.0 + float(place["strength"])


def window_rows(original: float) -> pa.Table:
    """Of each of ten draws of 40 images that share answers the original, the rest the adversarial class."""
    index = np.repeat(np.arange(40), 10)
    draw = np.tile(np.arange(10), 40)
    right = (index + draw) % 10 < round(10 * original)
    return pa.table(
        {
            "index": index,
            "label": index % 10,
            "adversarial": (index + 1) % 10,
            "predicted": np.where(right, index % 10, (index + 1) % 10),
            "to_original": np.full(400, 1.0),
            "to_adversarial": np.full(400, 1.0),
            "attack": np.full(400, 0.5),
        }
    )


def slope_rows(size: float) -> pa.Table:
    label = np.arange(40) % 10
    return pa.table(
        {"index": np.arange(40), "label": label, "predicted": label, "slope": size + 0.01 * label}
    )


@cache
def places() -> tuple[tuple[tuple[str, str | float], ...], ...]:
    return tuple(cell.place for cell in TABLE3.cells(smoke()))


def fabricated(number: Number) -> tuple[Result, ...]:
    out: list[Result] = []
    for cell_place in places():
        place = dict(cell_place)
        figure = place.get("figure")
        if figure in ("6", "17"):
            continue
        rows = {"7": window_rows, "12": slope_rows}.get(str(figure), draws_of)(number(place))
        attacked = place.get("row") != "Empty"
        out.append(Result(place, rows, examples_of(0.3) if attacked else None))
    return tuple(out)


def shuffled(results: tuple[Result, ...]) -> tuple[Result, ...]:
    """Labels of other images; gradients of other noise."""
    generator = np.random.default_rng(0)
    out: list[Result] = []
    slopes = [r for r in results if r.place.get("figure") == "12"]
    for r in results:
        rows = r.draws
        if r in slopes:
            rows = slopes[-1 - slopes.index(r)].draws
        else:
            order = generator.permutation(rows.num_rows)
            at = rows.schema.get_field_index("predicted")
            rows = rows.set_column(at, "predicted", rows["predicted"].take(pa.array(order)))
        out.append(Result(r.place, rows, r.examples))
    return tuple(out)


def claims_of(number: Number) -> dict[str, Claim]:
    return {c.name: c for c in TABLE3.claims(fabricated(number))}


def test_every_claim_holds_on_the_papers_own_numbers() -> None:
    found = claims_of(as_the_paper)
    assert len(found) == 8
    # 12.02 % of 3,000 images are below 15 %, of 200 they are not yet.
    assert {c.name: c.holds for c in found.values() if c.holds is not True} == {
        "table3-to-fc": None
    }
    assert all(c.sentence and c.where and re.search(r"\d", c.evidence) for c in found.values())


def test_no_claim_holds_on_shuffled_answers() -> None:
    found = TABLE3.claims(shuffled(fabricated(as_the_paper)))
    assert [c.name for c in found if c.holds] == []


LIES: dict[str, tuple[str, Number]] = {
    "CD resists": (
        "table3-diagonal",
        lambda p: 0.2 if p.get("row") == p.get("column", 0) == "CD" else as_the_paper(p),
    ),
    "Laplace transfers badly": (
        "table3-laplace-best",
        lambda p: 0.75 if p.get("row") == "Laplace" else as_the_paper(p),
    ),
    "FC transfers well": (
        "table3-fc-worst",
        lambda p: 0.01 if p.get("row") == "FC" else as_the_paper(p),
    ),
    "FC stands what breaks CD": (
        "table3-to-fc",
        lambda p: 0.4 if (p.get("row"), p.get("column")) == ("CD", "FC") else as_the_paper(p),
    ),
    "nothing is recovered": (
        "table3-fig01-recovers",
        lambda p: 0.3 if p.get("series") == "SVD" else as_the_paper(p),
    ),
    "no window": (
        "table3-fig07-.*",
        lambda p: 0.1 if p.get("figure") == "7" else as_the_paper(p),
    ),
    "gradients fall": (
        "table3-fig12-rises",
        lambda p: 3 - float(p["strength"]) if p.get("figure") == "12" else as_the_paper(p),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_claim_fails_in_a_world_that_contradicts_it(lie: str) -> None:
    names, number = LIES[lie]
    denied = [c for name, c in claims_of(number).items() if re.fullmatch(names, name)]
    assert denied
    assert [c.name for c in denied if c.holds] == []


def test_a_window_is_where_the_original_class_leads_all_others() -> None:
    """20 % original, 5 % adversarial and 75 % other answers recover nothing."""
    index, draw = np.repeat(np.arange(40), 20), np.tile(np.arange(20), 40)
    step = np.where((index + draw) % 20 < 4, 0, np.where((index + draw) % 20 < 5, 1, 2))
    rows = pa.table(
        {
            "index": index,
            "label": index % 10,
            "adversarial": (index + 1) % 10,
            "predicted": (index + step) % 10,
            **{c: np.ones(800) for c in ("to_original", "to_adversarial", "attack")},
        }
    )
    world = tuple(
        replace(r, draws=rows) if r.place.get("figure") == "7" else r
        for r in fabricated(as_the_paper)
    )
    assert {c.name: c for c in TABLE3.claims(world)}["table3-fig07-window"].holds is False


def test_the_lies_cover_every_claim() -> None:
    for name in claims_of(as_the_paper):
        assert any(re.fullmatch(names, name) for names, _ in LIES.values()), name


def test_few_images_leave_the_order_of_rows_undecided() -> None:
    """A difference of a point in means of 200 images, of other images each: neither better nor worse."""
    near = claims_of(lambda p: 0.7 if "mode" in p else as_the_paper(p))
    assert near["table3-laplace-best"].holds is not True
    assert near["table3-fc-worst"].holds is not True


def test_the_table_has_the_papers_numbers_beside_ours() -> None:
    found = [r for r in fabricated(as_the_paper) if "mode" in r.place]
    rows = {row[0]: row for row in matrix_rows(Matrix(tuple(found)), "authors", TABLE3_PAPER)}
    for row, numbers in TABLE3_PAPER.items():
        assert rows[f"{row} (paper)"][3:] == tuple(f"{v:.2f}" for v in numbers)
        ours = [cell for cell in rows[row][3:] if not isinstance(cell, str)]
        assert [100 * e.value for e in ours] == pytest.approx(numbers, abs=0.5)
