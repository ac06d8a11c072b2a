"""One self-contained page that works offline: figures, tables and pictures with their provenance."""

import base64
import importlib.util
import io
import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from noisychannel.errors import UserError
from noisychannel.report.figure import Badge, Facts, Figure, Grid, Picture
from noisychannel.report.plots import plotly_panel, png, styles
from noisychannel.report.stats import Estimate

__all__ = ["Part", "Provenance", "Section", "page", "write_page"]

Part = str | Facts | Figure | Grid | Picture
"""What a section holds: a paragraph, a list of facts, a figure, a table, or an image."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in order."""

    heading: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Provenance:
    """Where the numbers come from.

    Args:
        command: what was typed.
        date: as it shall be read; the page reads no clock.
        samples: how many examples, draws and attacks, in words.
        facts: further (name, value) pairs, e.g. versions and seeds.
    """

    command: str
    date: str
    samples: str
    facts: tuple[tuple[str, str], ...] = ()


def page(
    title: str,
    lead: str,
    sections: tuple[Section, ...],
    provenance: Provenance,
    badges: tuple[Badge, ...] = (),
) -> str:
    """The page as HTML text: no address outside it, the same text for the same arguments.

    Plots are plotly's where it is installed, else embedded PNG images, and the page says so.

    Args:
        title: the heading of the page.
        lead: the result, in a sentence or two.
        sections: in order.
        provenance: stands at the end.
        badges: verdicts, between title and lead.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        files("noisychannel.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    has_figures = any(isinstance(part, Figure) for section in sections for part in section.parts)
    plotly = _plotly() if has_figures else None
    shown = [
        {
            "heading": s.heading,
            "parts": [_part(part, interactive=plotly is not None) for part in s.parts],
        }
        for s in sections
    ]
    return template.render(
        title=title,
        lead=lead,
        badges=badges,
        sections=shown,
        provenance=provenance,
        plotly=plotly,
        without_plotly=has_figures and plotly is None,
        number=_number,
        percent=_percent,
    )


def write_page(path: Path, text: str) -> None:
    """Write a page, making its folder.

    Raises:
        UserError: the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"output: expected a folder to write to, got {path.parent}: {reason}"
        ) from error


def _plotly() -> str | None:
    """The library's source, or None where it is not installed."""
    if importlib.util.find_spec("plotly") is None:
        return None
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _part(part: Part, *, interactive: bool) -> dict[str, Any]:
    """What the template needs to know of one part."""
    match part:
        case str():
            return {"kind": "paragraph", "text": part}
        case Facts():
            return {"kind": "facts", "facts": part}
        case Grid():
            return {"kind": "grid", "grid": part}
        case Picture():
            return {"kind": "picture", "caption": part.caption, **_image(part)}
        case Figure():
            look = styles(part)
            plots = [plotly_panel(panel, look) for panel in part.panels] if interactive else []
            image = "" if interactive else _data_url(png(part))
            return {"kind": "figure", "figure": part, "plots": plots, "image": image}


def _image(picture: Picture) -> dict[str, Any]:
    """Small pictures are enlarged by a whole factor, so that their pixels stay square and sharp."""
    out = io.BytesIO()
    Image.fromarray(picture.image).save(out, format="png")
    height, width = picture.image.shape[:2]
    return {
        "url": _data_url(out.getvalue()),
        "width": width * max(1, 640 // width),
        "ratio": f"{width}/{height}",
    }


def _data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _number(value: float) -> str:
    """Four digits, or a dash where there is no number."""
    return f"{value:.4g}" if math.isfinite(value) else "–"


def _percent(cell: object) -> dict[str, str] | None:
    """A table cell's number and interval in percent, or None for text."""
    if not isinstance(cell, Estimate):
        return None
    return {
        "value": f"{100 * cell.value:.1f} %",
        "interval": f"{100 * cell.low:.1f} to {100 * cell.high:.1f}",
        "n": f"{cell.n:,}",
        "method": cell.method,
    }
