"""Figures are plain data; both drawings show the same curves in the same colours."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisychannel.report.figure import Figure, Grid, Panel, Picture, Series
from noisychannel.report.plots import COLOURS, MARKERS, plotly_panel, png, save_png, styles

GAUSS = Series("Gauss", (0.1, 1.0, 10.0), (0.1, 0.8, 0.2), (0.0, 0.7, 0.1), (0.2, 0.9, 0.3))
FC = Series("FC", (0.1, 1.0), (0.2, math.nan))
PAPER = Series("Gauss", (0.1, 1.0), (0.1, 0.7), dashed=True)
ONE = Series("one", (1.0,), (0.5,), (0.4,), (0.7,))


def panel(*series: Series, log_x: bool = True) -> Panel:
    return Panel("PGD", "‖C(x) − x‖₂", "accuracy", series, log_x=log_x, y_range=(0, 1))


def figure(*panels: Panel) -> Figure:
    return Figure("fig", "Recovery", "Most labels come back.", panels)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb.   Source: WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("colour", COLOURS)
def test_every_colour_is_seen_on_light_and_on_dark(colour: str) -> None:
    """WCAG 2.2, 1.4.11: graphics need a contrast of 3 : 1."""
    value = luminance(colour)
    assert 1.05 / (value + 0.05) >= 3
    assert (value + 0.05) / (luminance("#14181d") + 0.05) >= 3


def test_a_name_has_one_style_in_all_panels_and_no_two_names_share_one() -> None:
    many = tuple(Series(f"s{i}", (1.0,), (1.0,)) for i in range(len(COLOURS) * len(MARKERS)))
    look = styles(figure(panel(*many[:20]), panel(*many)))
    assert len(set(look.values())) == len(many)


def test_png_opens_and_is_reproducible(tmp_path: Path) -> None:
    drawn = figure(panel(GAUSS, FC, PAPER), panel(ONE, log_x=False), panel(GAUSS))
    save_png(drawn, tmp_path / "fig.png")
    assert (tmp_path / "fig.png").read_bytes() == png(drawn)
    pixels = np.asarray(Image.open(tmp_path / "fig.png").convert("RGB"))
    assert pixels.shape[1] > 1000
    first = tuple(int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))
    assert (pixels == first).all(axis=2).sum() > 500


def test_plotly_shows_curve_band_and_gap() -> None:
    look = styles(figure(panel(GAUSS, FC, PAPER)))
    band, curve, gap, paper = plotly_panel(panel(GAUSS, FC, PAPER), look)["data"]
    assert band["y"] == [0.2, 0.9, 0.3, 0.1, 0.7, 0.0]
    assert curve["customdata"] == [(0.0, 0.2), (0.7, 0.9), (0.1, 0.3)]
    assert gap["y"] == [0.2, None]
    assert paper["line"] == {"color": curve["line"]["color"], "width": 2, "dash": "dash"}


def test_a_single_point_has_an_error_bar() -> None:
    (trace,) = plotly_panel(panel(ONE), styles(figure(panel(ONE))))["data"]
    assert trace["error_y"]["array"] == pytest.approx([0.2])
    assert trace["error_y"]["arrayminus"] == pytest.approx([0.1])


def test_log_ticks_are_round_and_inside() -> None:
    axis = plotly_panel(panel(GAUSS), styles(figure(panel(GAUSS))))["layout"]["xaxis"]
    assert axis["ticktext"] == ["0.1", "0.2", "0.5", "1", "2", "5", "10"]


def test_a_ladder_of_doublings_has_its_rungs_for_ticks() -> None:
    ladder = panel(Series("draws", (1.0, 2.0, 4.0, 8.0), (1.0,) * 4))
    assert plotly_panel(ladder, styles(figure(ladder)))["layout"]["xaxis"]["ticktext"] == [
        "1",
        "2",
        "4",
        "8",
    ]


def test_names_on_an_axis_have_bars_for_intervals_and_nothing_between() -> None:
    named = Panel("p", "setting", "y", (GAUSS,), categories=("clean", "partially <adaptive>", "c"))
    found = plotly_panel(named, styles(figure(named)))
    (trace,) = found["data"]
    assert set(trace["error_y"]) == {"type", "array", "arrayminus"}
    assert found["layout"]["xaxis"]["ticktext"] == ["clean", "partially<br>&lt;adaptive&gt;", "c"]
    assert [named.place(x) for x in (0.0, 1.06, 1.94)] == ["clean", "partially <adaptive>", "c"]
    assert png(figure(named))
    with pytest.raises(ValueError, match="expected numbers on a logarithmic axis"):
        Panel("p", "x", "y", (GAUSS,), log_x=True, categories=("a",))


def test_figures_say_what_is_wrong_with_them() -> None:
    with pytest.raises(ValueError, match="expected 2 values of y, got 1"):
        Series("s", (1.0, 2.0), (1.0,))
    with pytest.raises(ValueError, match="both low and high"):
        Series("s", (1.0,), (1.0,), low=(0.0,))
    with pytest.raises(ValueError, match="at least 1 panel"):
        figure()
    with pytest.raises(ValueError, match="expected 2 cells, got 1"):
        Grid("t", ("a", "b"), (("only",),))
    with pytest.raises(ValueError, match="expected uint8"):
        Picture("p", np.zeros((2, 2)))
