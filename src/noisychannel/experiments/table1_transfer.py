"""Table 1: adversarial images made against one channel, shown to the others.

Rows: clean images ("Empty"), images attacked without regard to any channel, and images adapted to each of
six channels; columns: the six channels as defenses. Three times: with the authors' gradient (loss from
C(x), network differentiated at x, one draw, its luck believed), with the same but candidates of random
channels re-tested, so that luck and gradient can be told apart, and with the clean gradient (at C(x)).

Differs:
    1. Network and images as in Figure 1: the authors' ResNet-20, fewer images below `paper` scale.
    2. The same at equal L2: every adversarial image moved along its own direction to one length,
       since transfer is confounded with distortion; the paper does not do this.
    3. The re-tested and the clean rows choose candidates of random channels on 16 fresh draws.
    4. Random columns are scored on four draws per image, the authors' on one.
    5. Channels act on [0, 1]; the authors' SVD and noise on normalised pixels (mean std .2009).
"""

from noisychannel.attacks import CarliniWagner
from noisychannel.experiments.defended import points
from noisychannel.experiments.setting import Cell, Claim, Experiment, Result, Scale, Setting
from noisychannel.experiments.transfer import COLUMNS, EMPTY, Matrix, matrix_cells, matrix_rows
from noisychannel.experiments.verdict import above, below, every, given
from noisychannel.interop.authors import table1_channels
from noisychannel.report.figure import Grid
from noisychannel.report.html import Section

__all__ = ["EQUAL_L2", "SUBSETS", "TABLE1", "TABLE1_PAPER"]

# The authors took test images 0, 5, 10, …: 2,000 of them. 200 on a desk: 13 crafts of up to 500 gradients each.
SUBSETS: dict[Scale, str] = {"smoke": "first:60", "desk": "every:5/first:200", "paper": "every:5"}

EQUAL_L2 = 0.5
"""Common length for the comparison at equal L2: about the longest of the rows' medians (.42 to .52 on 200 images)."""

_MODES = ("authors", "retested", "clean")

# The paper's Table 1, accuracy in percent: attack adapted to (row) → defense (columns as above).
TABLE1_PAPER: dict[str, tuple[float, ...]] = {
    "Empty": (93.32, 93.01, 93.12, 92.53, 91.60, 91.35),
    "FC": (0.20, 80.75, 83.05, 81.15, 79.65, 78.70),
    "CD": (3.85, 0.70, 43.60, 47.30, 60.45, 62.35),
    "SVD": (1.99, 47.96, 0.77, 46.52, 62.87, 65.75),
    "Gauss": (4.45, 48.70, 44.80, 51.50, 61.75, 60.15),
    "Uniform": (3.45, 30.30, 30.60, 30.15, 48.05, 51.55),
    "Laplace": (3.05, 23.35, 24.60, 23.80, 39.15, 46.70),
}


def _attack() -> CarliniWagner:
    """The authors' adaptive C&W: 100 iterations, 5 searches, c₀ .01, Adam .005."""
    return CarliniWagner(searches=5, steps=100, learning_rate=0.005, constant=0.01)


def _cells(setting: Setting) -> tuple[Cell, ...]:
    channels, lengths = table1_channels(setting.units), (None, EQUAL_L2)
    found = (matrix_cells(setting, channels, _attack(), mode, lengths) for mode in _MODES)
    return tuple(cell for cells in found for cell in cells)


def _grid(matrix: Matrix, mode: str, l2: str) -> Grid:
    how = {
        "authors": "the authors' gradient (loss at C(x), network differentiated at x, one draw, its luck believed)",
        "retested": "the authors' gradient, candidates of random channels re-tested on 16 fresh draws",
        "clean": "the clean gradient (at C(x); candidates of random channels re-tested on fresh draws)",
    }[mode]
    where = "" if l2 == "own" else f", every adversarial image moved to L2 = {EQUAL_L2:g}"
    return Grid(
        f"Accuracy (%), {how}{where}",
        ("attack adapted to", "median L2", "no defense", *COLUMNS),
        matrix_rows(matrix, mode, TABLE1_PAPER, None if l2 == "own" else EQUAL_L2),
        "Rows: whose channel the attacker assumed (none: the bare network); columns: the defense. "
        "Median L2: of the images that were moved. The paper's numbers: ResNet-18, 93.56 % clean, 2,000 images.",
    )


def _sections(setting: Setting, results: tuple[Result, ...]) -> tuple[Section, ...]:
    matrix = Matrix(results)
    grids = tuple(_grid(matrix, mode, l2) for mode in _MODES for l2 in ("own", "equal"))
    return (Section("Table 1: transfer between channels", (setting.words, *grids)),)


def _claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    matrix = Matrix(results)
    out: list[Claim] = []
    for mode in _MODES:
        diagonal = {c: matrix.at(mode, c, c) for c in ("FC", "CD", "SVD")}
        out.append(
            Claim(
                f"table1-{mode}-diagonal",
                "An attack adapted to a deterministic channel leaves it below 3 %.",
                given(_able(matrix, mode), every(*(below(e, 0.03) for e in diagonal.values()))),
                "; ".join(f"{c} {e.percent}" for c, e in diagonal.items()),
                "4.4, J",
                max(diagonal.values(), key=lambda e: e.value),
            )
        )
        for l2 in ("own", "equal"):
            out += _order(matrix, mode, l2)
    return (*out, *_of_the_text(matrix))


def _able(matrix: Matrix, mode: str) -> bool | None:
    """Whether all defenses recognise most clean images; where they do not, nothing was broken."""
    return every(*(above(matrix.at(mode, EMPTY, c), 0.5) for c in COLUMNS))


def _order(matrix: Matrix, mode: str, l2: str) -> list[Claim]:
    """The row that transfers worst and the one that transfers best, each against every other row."""
    fc, laplace = (
        {row: matrix.more(mode, name, row, l2) for row in COLUMNS if row != name}
        for name in ("FC", "Laplace")
    )
    able = _able(matrix, mode)
    # An attack that leaves its own channel more than half has nothing to transfer.
    home = matrix.at(mode, "FC", "FC", l2)
    lines = {
        name: f"what the four defenses that neither is adapted to keep of {name}'s images less of another row's, L2 "
        f"{l2}: " + "; ".join(f"{row} {points(e)}" for row, e in gaps.items())
        for name, gaps in (("FC", fc), ("Laplace", laplace))
    }
    return [
        Claim(
            f"table1-{mode}-{l2}-fc-worst",
            "FC attacked images do not transfer well to other defenses (of all six rows they transfer worst).",
            given(every(able, below(home, 0.5)), every(*(above(e, 0.0) for e in fc.values()))),
            f"{lines['FC']}; FC itself keeps {home.percent}; {home.n} images",
            "4.4",
            min(fc.values(), key=lambda e: e.value),
        ),
        Claim(
            f"table1-{mode}-{l2}-laplace-best",
            "Laplace attacked images transfer the best to other defenses.",
            given(able, every(*(below(e, 0.0) for e in laplace.values()))),
            f"{lines['Laplace']}; {home.n} images",
            "4.4",
            max(laplace.values(), key=lambda e: e.value),
        ),
    ]


def _of_the_text(matrix: Matrix) -> list[Claim]:
    """Section 4.4's sentences about Table 1, on the rows that re-test luck."""
    mode = "retested"
    laplace = {c: matrix.at(mode, "Laplace", c) for c in COLUMNS}
    random, fixed = [laplace[c] for c in COLUMNS[3:]], [laplace[c] for c in COLUMNS[:3]]
    most, broken = (max(kept, key=lambda e: e.value) for kept in (random, fixed))
    drops = [matrix.gap(mode, EMPTY, "Laplace", c) for c in COLUMNS]
    least = min(drops, key=lambda e: e.value)
    over = matrix.more(mode, "Gauss", "Uniform")
    able = _able(matrix, mode)
    return [
        Claim(
            "table1-retested-laplace-breaks",
            "Even in this weak adaptive setting (Laplace assumed) the deterministic channels are fully broken.",
            # The paper calls it full where its own row leaves CD and SVD 23 to 25 %.
            given(able, every(*(below(e, 0.3) for e in fixed))),
            f"the most that FC, CD and SVD keep: {broken.percent}; {broken.n} images",
            "4.4",
            broken,
        ),
        Claim(
            "table1-retested-laplace-mostly",
            "The randomized channels are mostly broken, with a maximum accuracy of about 23.8 % (Table 1: 46.70 %).",
            # "Mostly" is half; the text's 23.8 % is not the table's maximum.
            given(able, every(*(below(e, 0.5) for e in random))),
            f"the most that Gauss, Uniform and Laplace keep: {most.percent}",
            "4.4",
            most,
        ),
        Claim(
            "table1-retested-laplace-drop",
            "Laplace attacked images decrease the accuracy of the defense models by at least 44.3 points.",
            given(able, every(*(above(e, 0.443) for e in drops))),
            f"the least of six drops: {points(least)}",
            "4.4",
            least,
        ),
        *_of_fc(matrix, able=able),
        Claim(
            "table1-retested-stronger-noise",
            "Images adapted to Uniform transfer better than those adapted to Gauss, since its noise is higher.",
            given(able, above(over, 0.0)),
            f"what FC, CD, SVD and Laplace keep of Gauss's images less of Uniform's: {points(over)}; {over.n} images",
            "4.4",
            over,
        ),
    ]


def _of_fc(matrix: Matrix, *, able: bool | None) -> list[Claim]:
    mode = "retested"
    drops = [matrix.gap(mode, EMPTY, "FC", c) for c in COLUMNS if c != "FC"]
    drop = max(drops, key=lambda e: e.value)
    to_fc = [matrix.at(mode, row, "FC") for row in COLUMNS if row != "FC"]
    home = matrix.at(mode, "FC", "FC")  # at least half broken, or there is nothing to transfer
    return [
        Claim(
            "table1-retested-fc-drop",
            "The maximum drop that FC attacked images cause to other defenses is 12.26 points (Table 1: 12.65).",
            # Below 15: the paper's number and a sixth of it.
            given(every(able, below(home, 0.5)), every(*(below(e, 0.15) for e in drops))),
            f"the largest of five drops: {points(drop)}; FC itself keeps {home.percent}",
            "4.4",
            drop,
        ),
        Claim(
            "table1-retested-to-fc",
            "An adversarial image against any other defense is also adversarial against the FC defense.",
            given(
                able, every(*(below(e, 0.05) for e in to_fc))
            ),  # the paper's five cells are 2 to 4.5 %
            "FC keeps " + ", ".join(e.percent for e in to_fc),
            "4.4",
            max(to_fc, key=lambda e: e.value),
        ),
    ]


TABLE1 = Experiment(
    "table1", "Table 1: transfer between channels", SUBSETS, _cells, _sections, _claims
)
