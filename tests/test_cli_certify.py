"""`noisychannel certify`: what it takes, what it writes, and what its page and table say."""

import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from noisychannel.cli.main import app
from noisychannel.engine import Store
from noisychannel.errors import UserError
from noisychannel.report.certified import abstained, certified_accuracy, radii, render, tsv
from noisychannel.report.html import Provenance

USER = """
import torch
from torch import nn

from noisychannel.channels import Chain, Clip, Gauss
from noisychannel.defenses import Defense
from noisychannel.networks import SmallNet


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def smoothed():
    return Defense(SmallNet(width=2), Chain(Gauss(0.1), Clip()))
"""

SMALL = ("--subset", "first:12", "--n", "300", "--n0", "20", "--threads", "1")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "user.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["noisychannel", "certify", "here"])
    return tmp_path


def said(*words: str) -> Result:
    runner = CliRunner(env={"COLUMNS": "200"})
    return runner.invoke(app, ["certify", *words, *SMALL], catch_exceptions=False)


def stored(folder: Path) -> dict[str, bytes]:
    """All that is stored but clock times."""
    files = [p for p in (folder / "runs" / "objects").rglob("*") if p.is_file()]
    return {p.name + p.parent.name: p.read_bytes() for p in files if p.name != "run.json"}


def test_it_writes_a_page_a_table_and_the_rows(here: Path) -> None:
    done = said("user.py:linear", "--sigma", "1/20", "--alpha", "0.01")
    assert done.exit_code == 0, done.output
    rows = pq.read_table(here / "certificates" / "certificates.parquet")
    assert rows.column("index").to_pylist() == list(range(12))
    assert set(rows.column("sigma").to_pylist()) == {0.05}
    assert set(rows.column("alpha").to_pylist()) == {0.01}
    lines = (here / "certificates" / "certificates.tsv").read_text("utf-8").splitlines()
    assert lines[0].split("\t") == ["idx", "label", "predict", "radius", "correct", "time"]
    for line, row in zip(lines[1:], rows.to_pylist(), strict=True):
        index, label, predicted, radius, correct, time = line.split("\t")
        assert [int(index), int(label), int(predicted)] == [
            row[name] for name in ("index", "label", "predicted")
        ]
        assert float(radius) == row["radius"]
        assert correct == str(int(label == predicted))
        assert re.fullmatch(r"\d:\d\d:\d\d(\.\d{6})?", time)
    page = (here / "certificates" / "report.html").read_text("utf-8")
    assert "noisychannel certify: user.py:linear" in page
    assert "default-src 'none'" in page
    assert (here / "certificates" / "certified.png").is_file()
    assert certified_accuracy(rows, 0).percent in done.output
    assert f"abstained: {abstained(rows).percent} of 12 images" in done.output


def test_a_second_run_finds_the_first(here: Path) -> None:
    assert said("user.py:linear", "--sigma", "0.05").exit_code == 0
    before, page = stored(here), (here / "certificates" / "certificates.tsv").read_text("utf-8")
    again = said("user.py:linear", "--sigma", "0.05", "--output", "again")
    assert again.exit_code == 0
    assert "0 tasks (1 found" in again.output
    assert stored(here) == before
    assert (here / "again" / "certificates.tsv").read_text("utf-8") == page
    assert not list(Store(here / "runs").root.glob("partial/*"))


def test_a_target_with_noise_of_its_own_is_its_base(here: Path) -> None:
    """Chain(Gauss, Clip): the noise is what certifies, the clipping belongs to the network."""
    assert said("user.py:smoothed").exit_code == 0
    first = stored(here)
    assert said("user.py:smoothed", "--sigma", "0.1").exit_code == 0
    assert stored(here) == first
    assert any(
        b'"channels.plain.Clip"' in data for name, data in first.items() if "task.json" in name
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("gauss:0.25 --sigma 0.5", r"sigma: expected 0.25, the noise that the target.*got 0.5"),
        ("gauss:0", r"sigma: expected a standard deviation > 0"),
        ("user.py:linear", "sigma: expected a target gauss:SIGMA, or --sigma.*got neither"),
        ("user.py:linear --sigma 0", "sigma: expected a standard deviation > 0.*got 0"),
        ("user.py:linear --sigma=-1", "sigma: expected a standard deviation > 0.*got -1"),
        ("user.py:linear --sigma much", "sigma: expected a number.*got 'much'"),
        ("user.py:linear --sigma 0.1 --alpha 0.5", "alpha: expected the chance.*got 0.5"),
        ("user.py:linear --sigma 0.1 --alpha nan", "alpha: expected the chance.*got nan"),
        ("user.py:nosuch --sigma 0.1", "expected a function 'nosuch'"),
        ("zoo:nosuch --sigma 0.1", "zoo: expected a network that comes trained"),
        ("zoo:cifar10/plain-12 --sigma 0.1", "expected examples of a shape like"),
        ("user.py:linear --sigma 0.1 --data nosuch", "data set: expected"),
        ("user.py:linear --sigma 0.1 --device toaster", "device: expected cpu"),
        ("user.py:linear --sigma 0.1 --output user.py/x", "cannot be written"),
        ("user.py:linear --sigma 0.1 --store user.py/x", "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(words: str, sentence: str, here: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        said(*words.split())
    assert not list(here.glob("runs/objects/*"))


@pytest.mark.parametrize("name", ["n", "n0"])
def test_no_draws_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: expected a whole number ≥ 1, got 0"):
        CliRunner().invoke(app, ["certify", "gauss:0.25", f"--{name}", "0"], catch_exceptions=False)


# ---------------------------------------------------------------- what is shown


def rows_of(labels: list[int], predicted: list[int], radius: list[float]) -> pa.Table:
    one = np.ones(len(labels))
    columns = {"index": list(range(len(labels))), "label": labels, "predicted": predicted}
    rest = {"sigma": 0.25 * one, "alpha": 0.001 * one, "n": 100 * one, "n0": 10 * one}
    return pa.table({**columns, "radius": radius, **rest})


ROWS = rows_of([0, 1, 2, 3, 4], [0, 1, 0, -1, 4], [0.9, 0.5, 0.95, 0.0, 0.0001])


def test_a_wrong_label_is_not_certified_accuracy_however_large_its_radius() -> None:
    values = [certified_accuracy(ROWS, r).value for r in (0, 0.25, 0.5, 0.75, 0.95)]
    assert values == [0.6, 0.4, 0.4, 0.2, 0.0]  # at 0.5 the radius 0.5 counts
    assert abstained(ROWS).value == 0.2


def test_radii_go_as_far_as_a_right_label_is_certified() -> None:
    assert radii(ROWS) == (0, 0.25, 0.5, 0.75)
    assert radii(rows_of([0], [0], [0.5])) == (0, 0.25, 0.5)
    assert radii(rows_of([0], [0], [0.3])) == (0, 0.125, 0.25)
    assert radii(rows_of([0], [1], [0.3])) == (0,)
    assert radii(rows_of([0], [-1], [0.0])) == (0,)
    assert len(radii(rows_of([0], [0], [38.0]))) <= 21


def test_no_digit_of_a_radius_is_rounded_up() -> None:
    (line,) = tsv(rows_of([3], [3], [0.2499999]), [90.5]).splitlines()[1:]
    assert line == "0\t3\t3\t0.2499999\t1\t" + str(timedelta(seconds=90.5))


@pytest.mark.parametrize("random", [True, False])
@pytest.mark.parametrize("rows", [ROWS, rows_of([0], [-1], [0.0])], ids=["some", "none"])
def test_the_page_says_what_is_not_certified(rows: pa.Table, random: bool) -> None:
    made = Provenance("noisychannel certify", "today", "5 images")
    text, shown = render("<it>", rows, made, random_base=random, elements=64)
    assert "<it>" not in text
    assert "nor of an answer from a single draw" in text
    assert "no radius above 0.375 can be shown" in text  # 0.25 · Φ⁻¹(0.001^0.01)
    assert ("The network is random without this noise too" in text) == random
    assert len(shown) == 2
