"""The paper's commands: what is foreseen, the table of claims, and the page of everything."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from noisychannel.cli import arguments, paper
from noisychannel.cli.main import app
from noisychannel.errors import UserError
from noisychannel.experiments.fig16_hessian import FIG16
from noisychannel.report.figure import Figure, Grid, Panel, Picture, Series
from noisychannel.report.html import Provenance, Section
from noisychannel.report.markdown import markdown
from noisychannel.report.stats import wilson


def said(*words: str) -> Result:
    one = (*words, "--threads", "1")  # two threads wait for each other where tests share the cores
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(one), catch_exceptions=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figure 16 at smoke, run once."""
    where = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["noisychannel"])
        out = ("--store", str(where / "runs"), "--output", str(where / "out"))
        assert said("run", "fig16", *out).exit_code == 0
    return where


@pytest.fixture
def only_fig16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "EXPERIMENTS", (FIG16,))
    monkeypatch.setattr(paper, "EXPERIMENTS", (FIG16,))
    monkeypatch.setattr("sys.argv", ["noisychannel", "here"])


def test_a_dry_run_says_what_it_takes_and_makes_nothing(tmp_path: Path) -> None:
    out = said("run", "fig16", "--dry-run", "--store", str(tmp_path / "runs")).output
    assert "fig16" in out
    assert "30,000" in out  # 60 images × 5 searches × 100 steps
    # Folded where the terminal ends, which hangs on the length of a number.
    sentence = " ".join(out.split())
    assert "passes/s on average (measured network by network: 1 for a second" in sentence
    assert not (tmp_path / "runs" / "objects").exists()


def test_a_dry_run_believes_finished_tasks(store: Path) -> None:
    out = said("run", "fig16", "--dry-run", "--store", str(store / "runs")).output
    assert "in all 0 s" in out


@pytest.mark.usefixtures("only_fig16")
def test_claims_are_a_table_and_a_file(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "claims.json"
    out = said("run", "claims", "--store", str(store / "runs"), "--json", str(file)).output
    rows = json.loads(file.read_text("utf-8"))
    names = [row["name"] for row in rows]
    assert names[:5] == [f"abstract-{k}" for k in range(1, 6)]
    assert {"fig16-order", "fig16-beyond-confidence"} <= set(names)
    for row in rows:
        assert row["verdict"] in ("holds", "does not hold", "undecided")
        assert row["sentence"]
    ratio = next(row for row in rows if row["name"] == "fig16-order")["statistic"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert "fig16-order" in out
    again = said("report", "claims", "--store", str(store / "runs"), "--output", str(tmp_path))
    assert again.output in out  # which has the bar before it


def test_claims_of_what_was_not_run_are_not_made_up(tmp_path: Path) -> None:
    out = said("report", "claims", "--store", str(tmp_path), "--output", str(tmp_path)).output
    assert "not run: fig01" in out
    assert "holds" not in out.replace("does not hold", "")


@pytest.mark.usefixtures("only_fig16")
def test_the_whole_paper_is_a_page_with_a_twin(store: Path, tmp_path: Path) -> None:
    out = said("report", "paper", "--store", str(store / "runs"), "--output", str(tmp_path))
    assert out.exit_code == 0
    page, twin = ((tmp_path / f"paper.{kind}").read_text("utf-8") for kind in ("html", "md"))
    for words in ("five results", "Figure 16", "32 values", "23.8 %"):
        assert words in page
        assert words in twin
    assert "noisychannel run fig16 --scale smoke" in twin
    assert "](images/fig16.png)" in twin
    assert (tmp_path / "images" / "fig16.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("only_fig16")
def test_what_is_not_run_is_said(tmp_path: Path) -> None:
    said("report", "paper", "--store", str(tmp_path), "--output", str(tmp_path / "out"))
    twin = (tmp_path / "out" / "paper.md").read_text("utf-8")
    assert "| Figure 16: input Hessians | not run |" in twin


def test_a_file_that_cannot_be_written_is_one_sentence(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^json: expected a file that can be written, got "):
        said("report", "claims", "--store", str(store / "runs"), "--output", str(tmp_path),
             "--json", str(tmp_path / "nowhere" / "x.json"))  # fmt: skip


def test_markdown_has_all_parts() -> None:
    import numpy as np

    figure = Figure(
        "f", "A figure", "What to see", (Panel("p", "x", "y", (Series("s", (1.0,), (2.0,)),)),)
    )
    grid = Grid(
        "A table", ("a", "b"), (("1 | 2", wilson(1, 2)), ("two\nlines", "–")), "Its caption"
    )
    picture = Picture("A picture", np.zeros((2, 2), dtype=np.uint8))
    sections = (Section("Heading", ("Words.", figure, grid, picture)),)
    text = markdown("Title", "Lead.", sections, Provenance("cmd", "now", "5 images", (("k", "v"),)))
    assert text.startswith("# Title\n\nLead.\n\n## Heading\n\nWords.\n")
    assert "![A figure](images/f.png)\n\nWhat to see" in text
    assert "| a | b |\n|---|---|\n| 1 \\| 2 | 50.0 % [9.5, 90.5] |\n| two lines | – |" in text
    assert "Its caption" in text
    assert text.endswith("- date: now\n- samples: 5 images\n- k: v\n")
