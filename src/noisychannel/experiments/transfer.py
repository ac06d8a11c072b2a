"""What Tables 1 and 3 share: images adapted to one channel, shown to the others."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from noisychannel.channels import Identity
from noisychannel.decision import Single
from noisychannel.defenses import Defense
from noisychannel.engine import Craft, Measure
from noisychannel.experiments.setting import Cell, Result, Setting
from noisychannel.report.figure import Cell as GridCell
from noisychannel.report.numbers import difference_of
from noisychannel.report.stats import Estimate, accuracy, correct_matrix, paired_difference
from noisychannel.threats import Threat
from noisychannel.types import Attack, Channel

__all__ = ["BARE", "COLUMNS", "EMPTY", "Matrix", "crafts", "matrix_cells", "matrix_rows"]

COLUMNS = ("FC", "CD", "SVD", "Gauss", "Uniform", "Laplace")
"""The defenses; and, as rows, the channels that the attacker assumes."""
EMPTY, BARE = "Empty", "none"
"""The row of clean images, and that of images attacked without regard to any channel."""


def _threat(defense: Defense, mode: str) -> Threat:
    if mode == "clean":
        return Threat(defense)
    lucky = mode == "authors" and defense.channel.stochastic
    return Threat(defense, backward="at_input", selection_draws=0 if lucky else 16)


def crafts(
    setting: Setting, channels: Mapping[str, Channel], attack: Attack, mode: str
) -> dict[str, tuple[Craft | None, ...]]:
    """Row → its crafts, one per slice of the data.

    Args:
        setting: network and images.
        channels: by the names of the rows.
        attack: the same for every row.
        mode: `authors` (loss from C(x), network differentiated at x, one draw, its luck believed), `retested` (the
            same, candidates of random channels re-tested on 16 fresh draws), `clean` (the gradient at C(x)).
    """
    bare, parts = Defense(setting.network), setting.parts()

    def made(threat: Threat) -> tuple[Craft, ...]:
        return tuple(Craft(p, threat, attack, execution=setting.execution) for p in parts)

    rows: dict[str, tuple[Craft | None, ...]] = {EMPTY: (None,) * len(parts)}
    rows[BARE] = made(Threat(bare))
    for name, channel in channels.items():
        rows[name] = made(_threat(bare.through(channel), mode))
    return rows


def matrix_cells(
    setting: Setting,
    channels: Mapping[str, Channel],
    attack: Attack,
    mode: str,
    lengths: tuple[float | None, ...] = (None,),
) -> tuple[Cell, ...]:
    """Every row before every column; `lengths`: None for the attack's own, else a common L2."""
    out: list[Cell] = []
    columns = {"no defense": Identity(), **channels}
    for row, made in crafts(setting, channels, attack, mode).items():
        for column, channel in columns.items():
            for size in (None,) if row == EMPTY else lengths:
                measures = tuple(
                    Measure(
                        part,
                        Defense(setting.network, channel),
                        craft,
                        # The authors': one; four take out most of a draw's luck.
                        draws=4 if channel.stochastic else 1,
                        rescale_l2=size,
                        execution=setting.execution,
                    )
                    for part, craft in zip(setting.parts(), made, strict=True)
                )
                place = (
                    ("mode", mode),
                    ("row", row),
                    ("column", column),
                    ("l2", "own" if size is None else "equal"),
                )
                out.append(Cell(place, measures))
    return tuple(out)


class Matrix:
    """Accuracies by place, each computed once; results of other places are passed over."""

    def __init__(self, results: tuple[Result, ...]) -> None:
        self._results = {
            tuple(r.place[k] for k in ("mode", "row", "column", "l2")): r
            for r in results
            if "mode" in r.place
        }
        self._known: dict[tuple[str | float, ...], Estimate] = {}
        self._right: dict[tuple[str | float, ...], np.ndarray] = {}

    def at(self, mode: str, row: str, column: str, l2: str = "own") -> Estimate:
        """What a column keeps of a row's images."""
        place = (mode, row, column, "own" if row == EMPTY else l2)
        if place not in self._known:
            self._known[place] = accuracy(self.draws(mode, row, column, l2), Single())
        return self._known[place]

    def draws(self, mode: str, row: str, column: str, l2: str = "own") -> pa.Table:
        """The rows behind a number."""
        return self._results[mode, row, column, "own" if row == EMPTY else l2].draws

    def gap(self, mode: str, one: str, other: str, column: str) -> Estimate:
        """What a defense keeps of the one row's images less what it keeps of the other's, paired."""
        tables = [self.draws(mode, row, column) for row in (one, other)]
        return paired_difference(tables[0], tables[1], Single())

    def shares(self, mode: str, row: str, columns: tuple[str, ...], l2: str = "own") -> np.ndarray:
        """Per image, the share of right answers, averaged over columns."""
        found: list[np.ndarray] = []
        for place in ((mode, row, column, l2) for column in columns):
            if place not in self._right:
                right = correct_matrix(self.draws(*place)).double().mean(dim=1)
                self._right[place] = right.numpy()
            found.append(self._right[place])
        return np.mean(found, axis=0)

    def more(self, mode: str, one: str, other: str, l2: str = "own") -> Estimate:
        """What defenses keep of the one row's images less what they keep of the other's, paired.

        Of the four that neither row is adapted to: over columns of their own two rows would differ even if every row
        left the same to every defense.
        """
        columns = tuple(c for c in COLUMNS if c not in (one, other))
        mine, theirs = (self.shares(mode, row, columns, l2) for row in (one, other))
        return difference_of(mine - theirs)

    def median_l2(self, mode: str, row: str) -> float:
        """Over the images that the attack moved at all: misclassified ones stay where they are."""
        examples = self._results[mode, row, "no defense", "own"].examples
        if examples is None:
            return 0.0
        lengths = examples["l2"].to_numpy()
        moved = lengths[lengths > 1e-6]
        return float(np.median(moved)) if len(moved) else 0.0


def matrix_rows(
    matrix: Matrix, mode: str, paper: Mapping[str, tuple[float, ...]], length: float | None = None
) -> tuple[tuple[GridCell, ...], ...]:
    """Row, median L2, no defense and the six columns; below it the paper's own where it has the row.

    Args:
        matrix: our numbers.
        mode: whose gradient.
        paper: its numbers in percent, row → columns.
        length: the common L2 of every row; None: the attacks' own.
    """
    rows: list[tuple[GridCell, ...]] = []
    for row in (EMPTY, BARE, *COLUMNS):
        if row == EMPTY and length is not None:
            continue
        distance = f"{matrix.median_l2(mode, row):.2f}" if length is None else f"{length:g}"
        cells: list[GridCell] = [row, "–" if row == EMPTY else distance]
        l2 = "own" if length is None else "equal"
        cells += [matrix.at(mode, row, column, l2) for column in ("no defense", *COLUMNS)]
        rows.append(tuple(cells))
        if row in paper and length is None:
            rows.append((f"{row} (paper)", "", "", *(f"{v:.2f}" for v in paper[row])))
    return tuple(rows)
