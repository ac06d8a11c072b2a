"""Section 4.6: RobustNet as an ensemble, the tensors that noise is added to, noise on parameters at test only.

Accuracy of the mean probability over 1 to 50 passes on clean and on attacked images; standard deviations and numbers
of elements of what the convolutions take in and of their weights; accuracy of a plain network with Gaussian noise on
all of its parameters.

Differs:
    1. ResNet-20s (the authors' own) where the paper's ParamNet is a VGG-16: its numbers stand beside, and its tensors
       are shown once a VGG-16 is trained. Fewer images below `paper` scale.
    2. The paper gives no attack for the ensemble: PGD of 40 steps, one draw per gradient, adapted to single answers,
       weak and strong by its ε. Its authors recorded clean images only.
    3. n passes are as many ensembles as fit into 100 draws; theirs one.
    4. Elements of features are counted per image; linear layers and batch norms are left out.
    5. ParamNet has 32 draws of all parameters, each shared by all images; intervals cross images with draws.
"""

from noisychannel import zoo
from noisychannel.attacks import PGD
from noisychannel.decision import MeanProb, Single
from noisychannel.defenses import Defense, Operated, ParamNet
from noisychannel.engine import Analyse, Craft, Measure
from noisychannel.experiments.defended import NOT_RUN, WORDS, curve, network, points, said
from noisychannel.experiments.sec46_claims import (
    MOST,
    NETWORKS,
    PASSES,
    SIGMAS,
    Rows,
    Tensors,
    claims,
)
from noisychannel.experiments.setting import Cell, Experiment, Result, Scale, Setting
from noisychannel.measures import LayerStatistics
from noisychannel.norms import Linf
from noisychannel.report.figure import Figure, Grid, Panel, Series
from noisychannel.report.html import Section
from noisychannel.report.stats import Estimate, accuracy
from noisychannel.threats import adaptive
from noisychannel.types import Network

__all__ = ["SEC46", "SUBSETS"]

# 500: an ensemble's gain is a few points, and is known to about ±2.
SUBSETS: dict[Scale, str] = {"smoke": "first:60", "desk": "first:500", "paper": "all"}

# Two of Figure 3's radii: one that leaves RobustNet most of its answers, and one that takes almost all.
_RADII: dict[Scale, dict[str, float]] = {
    "smoke": {"weak": 0.1, "strong": 0.2},
    "desk": {"weak": 0.01, "strong": 0.05},
    "paper": {"weak": 0.01, "strong": 0.05},
}
_DRAWS = 2 * MOST
"""Two ensembles of the most passes."""
_WEIGHT_DRAWS = 32
"""As in Figure 10: fewer than 20 make too narrow an interval where images share weights."""

# RobustNet .2/.1 on clean images, passes → accuracy in percent: the authors' robust_net_ensemble.py.
ENSEMBLE: dict[int, float] = dict(
    zip(PASSES, (81.89, 81.53, 82.90, 84.12, 85.65, 85.24, 84.68, 85.34, 84.78, 84.99), strict=True)
)
# VGG-16 trained with the noise, σ → clean accuracy in percent: names of the authors' checkpoints (details §4).
TRAINED: dict[float, float] = {
    0.0: 93.51,
    0.005: 93.19,
    0.01: 92.64,
    0.02: 89.43,
    0.03: 84.65,
    0.05: 70.02,
    0.07: 58.01,
}
_VGG = "cifar10/vgg16-plain"


def _named(setting: Setting, name: str) -> Network | None:
    """A network by its name; None where it was not trained."""
    if name == "VGG-16":
        return zoo.network(_VGG) if setting.scale != "smoke" and zoo.has_weights(_VGG) else None
    return network(setting, name)


def _cells(setting: Setting) -> tuple[Cell, ...]:
    found = {name: _named(setting, name) for name in NETWORKS}
    out: list[Cell] = []
    if (robust := found["RobustNet"]) is not None:
        out += _ensembles(setting, Defense(robust))
    how = setting.execution
    for name, one in found.items():
        if one is not None:
            asked = tuple(
                Analyse(part, Defense(one), LayerStatistics(), execution=how)
                for part in setting.parts()
            )
            out.append(Cell((("part", "tensors"), ("at", name), ("strength", 0.0)), asked))
    if (plain := found["Plain"]) is not None:
        for sigma in SIGMAS:
            defense = Defense(Operated(plain, ParamNet(sigma, "test")) if sigma else plain)
            draws = _WEIGHT_DRAWS if sigma else 1
            measures = tuple(
                Measure(part, defense, draws=draws, execution=how) for part in setting.parts()
            )
            out.append(
                Cell((("part", "parameters"), ("at", "clean"), ("strength", sigma)), measures)
            )
    return tuple(out)


def _ensembles(setting: Setting, defense: Defense) -> list[Cell]:
    """Answers of RobustNet to clean images and to PGD's, weak and strong."""
    out: list[Cell] = []
    how = setting.execution
    for at, radius in {"clean": 0.0, **_RADII[setting.scale]}.items():
        measures: list[Measure] = []
        for part in setting.parts():
            craft = None
            if radius:
                attack = PGD(Linf(), epsilon=radius, steps=40, step_size=0.01, keep="last")
                craft = Craft(part, adaptive(defense), attack, execution=how)
            measures.append(Measure(part, defense, craft, draws=_DRAWS, execution=how))
        place = (("part", "ensemble"), ("at", at), ("strength", radius))
        out.append(Cell(place, tuple(measures)))
    return out


def _panels(setting: Setting, rows: Rows) -> tuple[Panel, ...]:
    accuracies, whole = "accuracy (%)", (0.0, 100.0)
    asked = [
        curve(
            at if at == "clean" else f"{at}: PGD, ε {rows.radii[at]:g}",
            {float(n): accuracy(r.draws, MeanProb(n)) for n in PASSES},
        )
        for at, r in rows.ensembles.items()
    ]
    noisy: list[Series] = []
    if rows.noisy:
        harmed = {s: said(r, Single()) for s, r in rows.noisy.items()}
        noisy.append(curve("noise at test only", harmed))
    if setting.scale != "smoke":
        asked.append(_recorded("clean (authors)", ENSEMBLE))
        noisy.append(_recorded("VGG-16 trained with it (authors)", TRAINED))
    plain = rows.tensors.get("Plain")
    lengths = () if plain is None else _by_layer(plain, "std")
    counts = () if plain is None else _by_layer(plain, "count")
    panels = (
        Panel("RobustNet as an ensemble", "passes", accuracies, tuple(asked), log_x=True, y_range=whole),
        Panel("ParamNet", "σ of all parameters", accuracies, tuple(noisy), y_range=whole),
        Panel("Standard deviations, plain network", "convolution", "std", lengths, y_range=_ends(lengths)),
        Panel("Elements, plain network", "convolution", "elements per image", counts, y_range=_ends(counts)),
    )  # fmt: skip
    return tuple(p for p in panels if any(not s.dashed for s in p.series))


def _recorded(name: str, percents: dict[int, float] | dict[float, float]) -> Series:
    return Series(name, tuple(float(x) for x in percents), tuple(percents.values()), dashed=True)


def _ends(series: tuple[Series, ...]) -> tuple[float, float]:
    """From 0 to a little above the largest value."""
    return (0.0, 1.1 * max((v for s in series for v in s.y), default=1.0))


def _by_layer(tensors: Tensors, what: str) -> tuple[Series, ...]:
    features, weights = (
        (tensors.input_std, tensors.weight_std)
        if what == "std"
        else (tensors.input_count, tensors.weight_count)
    )
    xs = tuple(float(i + 1) for i in range(len(features)))
    return (
        Series("features", xs, tuple(float(v) for v in features)),
        Series("weights", xs, tuple(float(v) for v in weights)),
    )


def _ensemble_grid(setting: Setting, rows: Rows) -> Grid:
    lines: list[tuple[str | Estimate, ...]] = []
    for at in ("clean", "weak", "strong"):
        radius = _RADII[setting.scale].get(at)
        name = at if radius is None else f"{at}: PGD, ε {radius:g}"
        paper = f"{ENSEMBLE[1]:.2f} % → {ENSEMBLE[MOST]:.2f} %" if at == "clean" else "–"
        ours: tuple[str | Estimate, ...] = (NOT_RUN,) * 3
        if at in rows.ensembles:
            draws = rows.ensembles[at].draws
            ours = (
                accuracy(draws, MeanProb(1)),
                accuracy(draws, MeanProb(MOST)),
                points(rows.gain(at)),
            )
        lines.append((name, *ours, paper))
    return Grid(
        "RobustNet as an ensemble",
        ("images", "one pass", f"{MOST} passes", "gain", "authors (ResNet-20, 10,000 images)"),
        tuple(lines),
        "The class of the largest mean probability. The paper: weak attacks: amplified; strong ones: errors magnified.",
    )


def _tensor_grid(rows: Rows) -> Grid:
    lines: list[tuple[str | Estimate, ...]] = []
    for name in NETWORKS:
        t = rows.tensors.get(name)
        ours = (NOT_RUN,) * 6
        if t is not None:
            ours = (
                f"{t.input_count.sum():,.0f}",
                f"{t.weight_count.sum():,.0f}",
                f"{t.count_ratio:.3g}",
                f"{t.input_std.mean():.3f}",
                f"{t.weight_std.mean():.3f}",
                f"{t.std_ratio:.3g}",
            )
        lines.append((name, *ours))
    return Grid(
        "Tensors that noise is added to",
        ("network", "features", "weights", "ratio", "std of features", "of weights", "ratio"),
        tuple(lines),
        "Elements per image that convolutions take in, and their weights; stds are means over layers; intervals "
        "resample layers. The paper: both ratios are “an order of magnitude” (10). A batch of n images has n times "
        "the features.",
    )


def _parameter_grid(rows: Rows) -> Grid:
    lines: list[tuple[str | Estimate, ...]] = []
    for sigma in SIGMAS:
        ours = NOT_RUN if sigma not in rows.noisy else said(rows.noisy[sigma], Single())
        text = {0.01: "negligible drop", 0.02: "a random classifier (10 %)"}.get(sigma, "–")
        lines.append((f"{sigma:g}", ours, text, f"{TRAINED[sigma]:.2f} %"))
    return Grid(
        "Noise on all parameters at test only",
        ("σ", "ours, test only", "paper (VGG-16), test only", "authors, VGG-16 trained with it"),
        tuple(lines),
        "Clean images; single answers over 32 draws of the parameters.",
    )


def _sections(setting: Setting, results: tuple[Result, ...]) -> tuple[Section, ...]:
    rows, title = Rows(results), "Section 4.6: where noise goes"
    panels = _panels(setting, rows)
    words = f"{setting.data.size} images; {WORDS[setting.scale]}"
    caption = f"{words}. Bands: 95 % intervals. Convolutions are counted from the image on."
    figure = Figure("sec46", title, caption, panels) if panels else words
    grids = (_ensemble_grid(setting, rows), _tensor_grid(rows), _parameter_grid(rows))
    return (Section(title, (figure, *grids)),)


SEC46 = Experiment(
    "sec46",
    "Section 4.6: ensembles, tensors, noise on parameters",
    SUBSETS,
    _cells,
    _sections,
    claims,
    words=WORDS,
)
