"""Table 3: images adapted to one channel, shown to the others, on ImageNet; and what other figures have of ImageNet.

Rows, columns and the authors' gradient (loss from C(x), network differentiated at x, one draw, its luck believed)
as in Table 1. The images of the row "none", attacked without regard to any channel, serve the ImageNet panels of
Figures 1, 6, 7 and 17 too; Figure 12 needs none.

Differs:
    1. Without ImageNet (`desk`): images of its 114-image sample, probably training images, and SqueezeNet 1.1
       (60.9 %) in place of the validation set and ResNet-50 (76.13 %). That shows that the path can be gone; it
       reproduces no number. `smoke` goes it with digits.
    2. `desk` attacks with 3 searches of 40 steps from c = .1, not 5 of 100 from .01: 16 images, minutes.
    3. Random columns are scored on four draws per image, the authors' on one. The row "Empty" is ours.
    4. Three validation images of every class (`paper`); the authors do not say which 3,000 they took.
"""

from noisychannel.attacks import CarliniWagner
from noisychannel.experiments.defended import NOT_RUN, points
from noisychannel.experiments.imagenet import MISSING, WORDS, imagenet, six_channels
from noisychannel.experiments.imagenet_panels import panel_cells, panel_claims
from noisychannel.experiments.imagenet_shown import panel_sections
from noisychannel.experiments.setting import Cell, Claim, Experiment, Result, Scale, Setting
from noisychannel.experiments.transfer import (
    BARE,
    COLUMNS,
    EMPTY,
    Matrix,
    crafts,
    matrix_cells,
    matrix_rows,
)
from noisychannel.experiments.verdict import above, below, every
from noisychannel.report.figure import Grid
from noisychannel.report.html import Section

__all__ = ["SUBSETS", "TABLE3", "TABLE3_PAPER"]

# smoke: Table 1's, whose crafts it shares. desk: every seventh of the sample, which is sorted by class: 16 images, of
# which each costs the better part of a minute. paper: as many as the authors took.
SUBSETS: dict[Scale, str] = {
    "smoke": "first:60",
    "desk": "every:7/first:16",
    "paper": "balanced:3000@0",
}

# The paper's Table 3 (supplement J), accuracy in percent: attack adapted to (row) → defense (columns).
TABLE3_PAPER: dict[str, tuple[float, ...]] = {
    "FC": (0.10, 75.50, 75.83, 77.04, 77.49, 76.29),
    "CD": (0.17, 1.16, 6.77, 62.60, 62.04, 65.46),
    "SVD": (12.02, 72.33, 0.46, 72.79, 72.52, 73.09),
    "Gauss": (0.57, 26.67, 6.67, 58.68, 58.62, 64.95),
    "Uniform": (0.50, 26.71, 6.99, 58.48, 59.06, 64.59),
    "Laplace": (0.33, 18.59, 4.16, 29.76, 29.84, 50.00),
}

_MODE = "authors"


def _attack(scale: Scale) -> CarliniWagner:
    """The authors' adaptive C&W: 100 iterations, 5 searches, c₀ .01, Adam .005."""
    if (
        scale == "desk"
    ):  # a search that fails at c = .01, as nearly all do, would cost as much as one that wins
        return CarliniWagner(searches=3, steps=40, learning_rate=0.005, constant=0.1)
    return CarliniWagner(searches=5, steps=100, learning_rate=0.005, constant=0.01)


def _cells(setting: Setting) -> tuple[Cell, ...]:
    where = imagenet(setting)
    if where is None:
        return ()
    channels, attack = six_channels(where), _attack(where.scale)
    bare = tuple(c for c in crafts(where, channels, attack, _MODE)[BARE] if c is not None)
    return (*matrix_cells(where, channels, attack, _MODE), *panel_cells(where, bare))


def _sections(setting: Setting, results: tuple[Result, ...]) -> tuple[Section, ...]:
    header = ("attack adapted to", "median L2", "no defense", *COLUMNS)
    words = WORDS[setting.scale]
    if not results:
        why = f"Not run: it needs {MISSING[setting.scale]}."
        paper = {row: tuple(f"{v:.2f}" for v in numbers) for row, numbers in TABLE3_PAPER.items()}
        rows = tuple(
            line
            for row in COLUMNS
            for line in (
                (row, "–", *[NOT_RUN] * (1 + len(COLUMNS))),
                (f"{row} (paper)", "", "", *paper[row]),
            )
        )
        return (Section("Table 3: ImageNet", (why, Grid(_title(words), header, rows, why))),)
    where = imagenet(setting) or setting
    rows = matrix_rows(Matrix(results), _MODE, TABLE3_PAPER)
    caption = (
        f"{words}; the authors' gradient. Rows: whose channel the attacker assumed (none: the bare network); columns: "
        "the defense. Median L2: of the images that were moved. The paper's numbers: ResNet-50, 3,000 images."
    )
    table = Section("Table 3: ImageNet", (f"{words}.", Grid(_title(words), header, rows, caption)))
    return (table, *panel_sections(where, results))


def _title(words: str) -> str:
    return f"Table 3: accuracy (%) behind each channel. {words}"


def _claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    if not results:
        return ()
    matrix = Matrix(results)
    diagonal = {c: matrix.at(_MODE, c, c) for c in ("FC", "CD", "SVD")}
    to_fc = {row: matrix.at(_MODE, row, "FC") for row in COLUMNS if row != "FC"}
    worst = max(to_fc.values(), key=lambda e: e.value)
    laplace = {row: matrix.more(_MODE, "Laplace", row) for row in COLUMNS if row != "Laplace"}
    fc = {row: matrix.more(_MODE, "FC", row) for row in COLUMNS if row != "FC"}
    nearest = [
        max(laplace.values(), key=lambda e: e.value),
        min(fc.values(), key=lambda e: e.value),
    ]
    n = matrix.at(_MODE, EMPTY, "FC").n
    return (
        # Margins stated beforehand: "broken" is below 5 %; "also adversarial against FC" below 15 % (paper: 12.02).
        Claim(
            "table3-diagonal",
            "An attack adapted to a deterministic channel breaks it (ImageNet: 0.10, 1.16 and 0.46 % are left).",
            every(*(below(e, 0.05) for e in diagonal.values())),
            "; ".join(f"{c} {e.percent}" for c, e in diagonal.items()) + f"; {n} images",
            "J",
            max(diagonal.values(), key=lambda e: e.value),
        ),
        Claim(
            "table3-laplace-best",
            "We observe analogous trends for ImageNet: Laplace attacked images transfer the best to other defenses.",
            every(*(below(e, 0.0) for e in laplace.values())),
            f"what other defenses keep of Laplace's images less of those of its nearest rival: {points(nearest[0])}; "
            f"{n} images",
            "4.4, J",
            nearest[0],
        ),
        Claim(
            "table3-fc-worst",
            "We observe analogous trends for ImageNet: FC attacked images do not transfer well to other defenses.",
            every(*(above(e, 0.0) for e in fc.values())),
            f"what other defenses keep of FC's images less of those of its nearest rival: {points(nearest[1])}; "
            f"{n} images",
            "4.4, J",
            nearest[1],
        ),
        Claim(
            "table3-to-fc",
            "We observe analogous trends for ImageNet: images against any other defense are adversarial against FC.",
            every(*(below(e, 0.15) for e in to_fc.values())),
            "FC keeps " + ", ".join(f"{row} {e.percent}" for row, e in to_fc.items()),
            "4.4, J",
            worst,
        ),
        *panel_claims(results),
    )


TABLE3 = Experiment(
    "table3",
    "Table 3 and the ImageNet panels of Figures 1, 6, 7, 12, 17",
    SUBSETS,
    _cells,
    _sections,
    _claims,
    words=WORDS,
    stand_ins=("smoke", "desk"),
)
