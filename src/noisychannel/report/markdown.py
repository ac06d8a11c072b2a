"""A page's sections as Markdown, with its figures as PNG files beside it."""

from collections.abc import Sequence
from pathlib import Path

from noisychannel.report.figure import Cell, Facts, Figure, Grid, Picture
from noisychannel.report.html import Part, Provenance, Section

__all__ = ["markdown"]


def markdown(
    title: str,
    lead: str,
    sections: Sequence[Section],
    provenance: Provenance,
    images: Path = Path("images"),
) -> str:
    """The text: headings, tables with intervals, links to `images`/NAME.png, and where the numbers come from.

    Pictures, which no file holds, are left to the page.
    """
    lines = [f"# {title}", "", lead, ""]
    for section in sections:
        lines += [f"## {section.heading}", ""]
        for part in section.parts:
            lines += [*_part(part, images), ""]
    facts = (("date", provenance.date), ("samples", provenance.samples), *provenance.facts)
    lines += ["## Where the numbers come from", "", "```", provenance.command, "```", ""]
    lines += [f"- {name}: {value}" for name, value in facts]
    return "\n".join(lines) + "\n"


def _part(part: Part, images: Path) -> list[str]:
    match part:
        case str():
            return [part]
        case Facts():
            return [f"**{part.title}**", "", *(f"- {name}: {words}" for name, words in part.pairs)]
        case Figure():
            return [f"![{part.title}]({images.as_posix()}/{part.name}.png)", "", part.caption]
        case Grid():
            return [
                f"**{part.title}**",
                "",
                *_table(part),
                *(["", part.caption] if part.caption else []),
            ]
        case Picture():
            return [f"*{part.caption}* (on the page)"]


def _table(grid: Grid) -> list[str]:
    rule = "|".join("---" for _ in grid.header)
    rows = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in grid.rows]
    return ["| " + " | ".join(_escaped(name) for name in grid.header) + " |", f"|{rule}|", *rows]


def _cell(cell: Cell) -> str:
    return _escaped(cell if isinstance(cell, str) else cell.percent)


def _escaped(text: str) -> str:
    """A bar would end the cell, a line break the row."""
    return text.replace("|", "\\|").replace("\n", " ")
