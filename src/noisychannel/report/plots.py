"""Figures drawn twice from the same data and palette: PNG for papers, plotly for the page."""

import html
import io
import math
from pathlib import Path
from typing import Any, NamedTuple

from noisychannel.report.figure import Figure, Panel, Series

__all__ = ["COLOURS", "Style", "plotly_panel", "png", "save_png", "styles"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B5568C", "#A67C00", "#3A9BD9", "#7A7A7A")
"""Okabe & Ito 2008, told apart by colour-blind eyes; the pale ones darkened to be seen on white, in an
order in which neighbours differ also in lightness."""

MARKERS = (
    ("o", "circle"),
    ("s", "square"),
    ("D", "diamond"),
    ("^", "triangle-up"),
    ("v", "triangle-down"),
    ("P", "cross"),
    ("X", "x"),
    ("*", "star"),
)
"""(matplotlib, plotly) names; one more than colours, so that 56 series have distinct pairs."""

BAND = 0.16
"""Opacity of interval bands: several may lie on each other."""


class Style(NamedTuple):
    """How a series looks."""

    colour: str
    marker: str
    symbol: str


def styles(figure: Figure) -> dict[str, Style]:
    """Series name → style, in order of appearance over all panels."""
    names = dict.fromkeys(series.name for panel in figure.panels for series in panel.series)
    return {
        name: Style(COLOURS[i % len(COLOURS)], *MARKERS[i % len(MARKERS)])
        for i, name in enumerate(names)
    }


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG file."""
    path.write_bytes(png(figure))


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes, the same for the same figure."""
    from matplotlib.figure import Figure as Sheet

    columns = min(len(figure.panels), 2)
    rows = math.ceil(len(figure.panels) / columns)
    sheet = Sheet(figsize=(1.2 + 4.8 * columns, 1.1 + 3.6 * rows), dpi=150, layout="constrained")
    grid = sheet.subplots(rows, columns, squeeze=False)
    look = styles(figure)
    for axes, panel in zip(grid.flat, figure.panels, strict=False):
        _draw(axes, panel, look)
    for axes in grid.flat[len(figure.panels) :]:
        axes.set_axis_off()
    sheet.suptitle(figure.title, fontsize=13, fontweight="bold")
    _legend(sheet, grid.flat, 3 * columns)
    out = io.BytesIO()
    # No software version in the file: equal figures, equal bytes.
    sheet.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _legend(sheet: Any, axes: Any, widest: int) -> None:
    """One legend for all panels, in rows of about equal length."""
    entries: dict[tuple[str, str], Any] = {}
    for one in axes:
        for line in one.get_lines():
            entries.setdefault((line.get_label(), line.get_linestyle()), line)
    if entries:
        rows = math.ceil(len(entries) / widest)
        sheet.legend(
            handles=list(entries.values()),
            loc="outside lower center",
            ncols=math.ceil(len(entries) / rows),
            frameon=False,
        )


def _draw(axes: Any, panel: Panel, look: dict[str, Style]) -> None:
    for series in panel.series:
        style = look[series.name]
        axes.plot(
            series.x,
            series.y,
            color=style.colour,
            marker=style.marker,
            markersize=4.5,
            markerfacecolor="white" if series.dashed else style.colour,
            linestyle="--" if series.dashed else "-",
            linewidth=1.7,
            label=series.name,
        )
        if series.interval is not None:
            low, high = series.interval
            if _barred(panel, series):
                axes.vlines(series.x, low, high, color=style.colour, linewidth=1.7)
            else:
                axes.fill_between(series.x, low, high, color=style.colour, alpha=BAND, linewidth=0)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    if panel.categories:
        axes.set_xticks(range(len(panel.categories)), labels=_broken(panel, "\n"))
    if panel.log_x:
        ticks = _log_ticks(panel)
        axes.set_xscale("log")
        axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    if panel.y_range is not None:
        axes.set_ylim(*panel.y_range)
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plotly_panel(panel: Panel, look: dict[str, Style]) -> dict[str, Any]:
    """The arguments of `Plotly.newPlot` for one panel, as plain JSON data.

    Colours of text and lines are left to the page's style sheet, which knows light from dark.
    """
    traces: list[dict[str, Any]] = []
    for series in panel.series:
        if series.interval is not None and not _barred(panel, series):
            traces.append(_band(series, *series.interval, look[series.name].colour))
        traces.append(_curve(series, look[series.name], panel))
    x_axis: dict[str, Any] = {"title": {"text": html.escape(panel.x_label), "standoff": 8}}
    if panel.categories:
        places = list(range(len(panel.categories)))
        labels = [html.escape(name).replace("\n", "<br>") for name in _broken(panel, "\n")]
        x_axis.update(tickvals=places, ticktext=labels, range=[-0.4, places[-1] + 0.4], tickangle=0)
    if panel.log_x:
        ticks = _log_ticks(panel)
        x_axis.update(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    y_axis: dict[str, Any] = {"title": {"text": html.escape(panel.y_label), "standoff": 8}}
    if panel.y_range is not None:
        y_axis["range"] = list(panel.y_range)
    for axis in (x_axis, y_axis):
        axis.update(automargin=True, zeroline=False, fixedrange=True)
    layout: dict[str, Any] = {
        "xaxis": x_axis,
        "yaxis": y_axis,
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
    }
    return {"data": traces, "layout": layout}


def _barred(panel: Panel, series: Series) -> bool:
    """Whether intervals are bars: between names there is nothing, and a band over one position has no area."""
    return bool(panel.categories) or len(series.x) == 1


def _broken(panel: Panel, line: str) -> list[str]:
    return [name.replace(" ", line) for name in panel.categories]


def _curve(series: Series, style: Style, panel: Panel) -> dict[str, Any]:
    at = "" if panel.categories else " at %{x:.4g}"
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": html.escape(series.name),
        "legendgroup": f"{series.name} {series.dashed}",
        "x": _numbers(series.x),
        "y": _numbers(series.y),
        "line": {"color": style.colour, "width": 2, "dash": "dash" if series.dashed else "solid"},
        "marker": {
            "symbol": style.symbol + ("-open" if series.dashed else ""),
            "color": style.colour,
            "size": 7,
        },
        "hovertemplate": f"%{{y:.4g}}{at}<extra>%{{fullData.name}}</extra>",
    }
    if series.interval is not None:
        low, high = (_numbers(end) for end in series.interval)
        trace["customdata"] = list(zip(low, high, strict=True))
        trace["hovertemplate"] = (
            f"%{{y:.4g}} [%{{customdata[0]:.4g}}, %{{customdata[1]:.4g}}]{at}<extra>%{{fullData.name}}</extra>"
        )
        if _barred(panel, series):
            trace["error_y"] = {
                "type": "data",
                "array": _numbers(
                    tuple(h - y for h, y in zip(series.interval[1], series.y, strict=True))
                ),
                "arrayminus": _numbers(
                    tuple(y - w for w, y in zip(series.interval[0], series.y, strict=True))
                ),
            }
    return trace


def _band(
    series: Series, low: tuple[float, ...], high: tuple[float, ...], colour: str
) -> dict[str, Any]:
    """The outline of an interval: along the upper ends, then back along the lower ones."""
    points = [p for p in zip(series.x, low, high, strict=True) if all(math.isfinite(v) for v in p)]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "type": "scatter",
        "mode": "lines",
        "legendgroup": f"{series.name} {series.dashed}",
        "showlegend": False,
        "hoverinfo": "skip",
        "x": [x for x, _, _ in points] + [x for x, _, _ in reversed(points)],
        "y": [up for _, _, up in points] + [down for _, down, _ in reversed(points)],
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},{BAND})",
        "line": {"width": 0},
    }


def _numbers(values: tuple[float, ...]) -> list[float | None]:
    """JSON has no NaN; plotly draws a gap at null."""
    return [value if math.isfinite(value) else None for value in values]


def _log_ticks(panel: Panel) -> list[float]:
    """1, 2 and 5 of each decade that has data; only 1 beyond three decades; of a ladder of doublings its rungs."""
    places = sorted({x for series in panel.series for x in series.x if x > 0})
    exponents = [math.log10(x) for x in places]
    if not exponents:
        return []
    if all(math.log2(x).is_integer() for x in places):
        return places
    low, high = min(exponents), max(exponents)
    digits = (1, 2, 5) if high - low <= 3 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    return [tick for tick in ticks if low - 0.05 <= math.log10(tick) <= high + 0.05]
