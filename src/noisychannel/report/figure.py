"""What a report shows, as plain data: who draws it is decided elsewhere."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from noisychannel.report.stats import Estimate

__all__ = ["Badge", "Cell", "Facts", "Figure", "Grid", "Panel", "Picture", "Series", "Tone"]

Cell = str | Estimate
"""A table cell: text, or a number with its interval."""

Tone = Literal["good", "bad", "open"]
"""How a verdict is coloured; its words say it too."""


@dataclass(frozen=True)
class Series:
    """One curve; the same name has the same colour in every panel of a figure.

    Args:
        name: as in the legend.
        x: positions.
        y: values, as many as positions; NaN leaves a gap.
        low: lower ends of the intervals, or None.
        high: upper ends of the intervals, or None.
        dashed: for a curve that is not ours, e.g. the paper's.

    Raises:
        ValueError: lengths that differ, or one end of the interval without the other.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    dashed: bool = False

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.name}: expected both low and high, got one")
        for what, values in (("y", self.y), ("low", self.low), ("high", self.high)):
            if values is not None and len(values) != len(self.x):
                raise ValueError(
                    f"series {self.name}: expected {len(self.x)} values of {what}, got {len(values)}"
                )

    @property
    def interval(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """(low, high) where the series has them."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        title: above the axes.
        x_label: with the unit.
        y_label: with the unit.
        series: drawn in this order.
        log_x: logarithmic x axis.
        y_range: ends of the y axis, or None for the data's own.
        categories: names of the positions 0, 1, 2 … where x is no number; intervals are then bars, not bands.

    Raises:
        ValueError: a logarithmic axis of categories.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    y_range: tuple[float, float] | None = None
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.log_x and self.categories:
            raise ValueError(
                f"panel {self.title}: expected numbers on a logarithmic axis, got names"
            )

    def place(self, x: float) -> str:
        """A position as tables name it: four digits, or its category."""
        return self.categories[round(x)] if self.categories else f"{x:.4g}"


@dataclass(frozen=True)
class Figure:
    """Panels that belong together.

    Args:
        name: a file name without suffix, e.g. `fig01`.
        title: one line.
        caption: what to see, in a sentence or two.
        panels: at least one.

    Raises:
        ValueError: no panel.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]

    def __post_init__(self) -> None:
        if not self.panels:
            raise ValueError(f"figure {self.name}: expected at least 1 panel, got none")

    @property
    def description(self) -> str:
        """The figure in words, for those who do not see it."""
        panels = [
            f"{panel.title}: {panel.y_label} against {panel.x_label} for "
            + ", ".join(dict.fromkeys(series.name for series in panel.series))
            for panel in self.panels
        ]
        return f"{self.title}. {'. '.join(panels)}. The numbers are in the table below it."


@dataclass(frozen=True)
class Grid:
    """A table; the first cell of a row names the row.

    Args:
        title: one line.
        header: one cell per column.
        rows: cells, as many as the header has.
        caption: what to see.

    Raises:
        ValueError: a row whose length is not the header's.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f"grid {self.title}: expected {len(self.header)} cells, got {len(row)}: {row}"
                )


@dataclass(frozen=True)
class Facts:
    """What belongs together, by name: a description list.

    Args:
        title: one line.
        pairs: (name, words).
    """

    title: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Badge:
    """A verdict, at the head of a page.

    Args:
        about: what was judged.
        word: the verdict.
        tone: its colour.
        meaning: one sentence.
    """

    about: str
    word: str
    tone: Tone
    meaning: str


@dataclass(frozen=True, eq=False)
class Picture:
    """An image with its caption, which is also its text for those who do not see it.

    Args:
        caption: what to see.
        image: uint8, (height, width) grey or (height, width, 3) colour.

    Raises:
        ValueError: any other shape or type.
    """

    caption: str
    image: np.ndarray

    def __post_init__(self) -> None:
        colour = self.image.ndim == 3 and self.image.shape[2] == 3
        if self.image.dtype != np.uint8 or not (self.image.ndim == 2 or colour):
            raise ValueError(
                "picture: expected uint8 of shape (height, width) or (height, width, 3),"
                f" got {self.image.dtype} of shape {self.image.shape}"
            )
