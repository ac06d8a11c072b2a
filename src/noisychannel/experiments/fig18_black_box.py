"""Figure 18: accuracy against the strength of black-box attacks, for networks with compression inside or before them.

Noise, contrast reduction, pixels, rotations, translations and local search, and FGSM, which the authors logged.
Networks trained with a compression, and one plain network that gets the same compression at test only.

Differs:
    1. The ResNet-18s of the paper are not published; where ours are not trained, their rows say so. On a desk the
       authors' plain ResNet-20 (88.00 %) stands for them, with band limiting, RPA and CD at test time only.
    2. Image counts are those of the authors' spreadsheets, not the text's "whole test set"; fewer below `paper`.
    3. All is clipped to [0, 1]; theirs to the scalar bounds −2.6 … 2.9 of normalised pixels, a tenth wider, which
       are also the black and white of their pixel attacks. Their Gaussian noise is not clipped, nor is ours.
    4. An image that is wrong as it is but right at lower contrast or with uniform noise counts as right, theirs
       as wrong.
    5. Contrast-reduced and uniformly noisy images are made once and shown to all networks.
    6. Local search below `paper` ends after 60 rounds of 20 probes, theirs after 150 of 128: more is left. The single
       pixel tries fewer places.
    7. RPA rounds what convolutions and linear layers compute; theirs ran in half precision throughout.
    8. The high-pass filter of Q.1.2 is named there, without a number or a curve: FC's complement with a grey mean.
"""

from collections.abc import Iterator
from dataclasses import replace

from noisychannel.channels import Chain, Identity
from noisychannel.data import Dataset
from noisychannel.decision import Single
from noisychannel.defenses import Defense
from noisychannel.engine import Craft, Measure
from noisychannel.experiments.defended import NOT_RUN, curve, said
from noisychannel.experiments.fig18_claims import claims
from noisychannel.experiments.fig18_networks import PLAIN, at_hand, opponent
from noisychannel.experiments.fig18_panels import PANELS, PanelSpec, noise, strengths
from noisychannel.experiments.fig18_paper import PAPER
from noisychannel.experiments.setting import Cell, Experiment, Result, Scale, Setting
from noisychannel.report.figure import Cell as GridCell
from noisychannel.report.figure import Figure, Grid, Panel, Series
from noisychannel.report.html import Section
from noisychannel.report.stats import Estimate
from noisychannel.threats import adaptive, non_adaptive

__all__ = ["FIG18", "SUBSETS"]

# As many as the panel with most: a point of accuracy is ± 3 with 1,000, and panels with fewer take the first ones.
SUBSETS: dict[Scale, str] = {"smoke": "first:200", "desk": "first:1000", "paper": "all"}

WORDS: dict[Scale, str] = {
    "smoke": "digits (8 × 8, scikit-learn), small networks trained on the spot",
    "desk": "CIFAR-10 test images, the paper authors' plain ResNet-20 (88.00 % clean)",
    "paper": "CIFAR-10 test images, the paper authors' plain ResNet-20 and ResNet-18s trained like theirs",
}


def _count(setting: Setting, panel: PanelSpec) -> int:
    """How many images the panel has."""
    return min(panel.images[setting.scale], setting.data.size)


def _images(setting: Setting, panel: PanelSpec) -> tuple[Dataset, ...]:
    """The panel's images, in slices of 500: most tasks take a pass or a few per image."""
    return replace(setting, data=setting.data.slice(0, _count(setting, panel)), part=500).parts()


def _found(setting: Setting, panel: PanelSpec) -> dict[str, Defense | None]:
    """The panel's networks, None where one is not trained; on digits there are only those that are."""
    found = {name: at_hand(setting, name) for name in panel.networks}
    if setting.scale == "smoke":
        return {name: defense for name, defense in found.items() if defense is not None}
    return found


def _measure(
    setting: Setting, panel: PanelSpec, defense: Defense, part: Dataset, at: float
) -> Measure:
    """A network's answers to one slice of the images at one strength; 0 is no attack."""
    how = setting.execution
    if at == 0:
        return Measure(part, defense, execution=how)
    if panel.attack is None:
        quiet = defense.channel == Identity()
        channel = noise(setting, at) if quiet else Chain(noise(setting, at), defense.channel)
        return Measure(part, defense.through(channel), execution=how)  # one draw, as theirs
    blind = panel.aim == "blind"
    threat = non_adaptive(Defense(setting.network)) if blind else adaptive(defense)
    return Measure(
        part,
        defense,
        Craft(part, threat, panel.attack(setting, at), execution=how),
        execution=how,
    )


def _cells(setting: Setting) -> tuple[Cell, ...]:
    out: list[Cell] = []
    for panel in PANELS:
        parts = _images(setting, panel)
        for name, defense in _found(setting, panel).items():
            if defense is None:
                continue
            for at in (0.0, *panel.strengths[setting.scale]):
                place = (
                    ("panel", panel.name),
                    ("network", name),
                    ("against", opponent(name)),
                    ("strength", float(at)),
                )
                measures = tuple(_measure(setting, panel, defense, part, at) for part in parts)
                out.append(Cell(place, measures))
    return tuple(out)


def _accuracies(results: tuple[Result, ...], panel: PanelSpec) -> dict[str, dict[float, Estimate]]:
    """Network → strength → accuracy."""
    out: dict[str, dict[float, Estimate]] = {}
    for result in results:
        if result.place["panel"] == panel.name:
            line = out.setdefault(str(result.place["network"]), {})
            line[float(result.place["strength"])] = said(result, Single())
    return out


def _curves(setting: Setting, results: tuple[Result, ...], panel: PanelSpec) -> Iterator[Series]:
    """Ours, then the authors' as dashed lines of the same colours; digits and CIFAR-10 do not share an axis."""
    for name, known in _accuracies(results, panel).items():
        yield curve(name, {x: y for x, y in known.items() if x or not panel.log_x})
    if setting.scale != "smoke":
        for name, theirs in PAPER.get(panel.name, {}).items():
            xs = tuple(x for x in theirs if x or not panel.log_x)
            yield Series(name, xs, tuple(theirs[x] for x in xs), dashed=True)


def _figure(setting: Setting, results: tuple[Result, ...]) -> Figure | None:
    panels: list[Panel] = []
    for panel in PANELS:
        if len(panel.strengths[setting.scale]) == 1:  # no curve: it has its table
            continue
        series = tuple(_curves(setting, results, panel))
        if any(not s.dashed for s in series):
            labels = (panel.title, panel.x_label, "accuracy (%)")
            panels.append(Panel(*labels, series, log_x=panel.log_x, y_range=(0.0, 100.0)))
    if not panels:
        return None
    theirs = "" if setting.scale == "smoke" else " Dashed: the paper's own ResNet-18s."
    caption = (
        f"Accuracy against the strength of the attack. {_KINDS}{theirs} {WORDS[setting.scale]}; "
        "bands: 95 % intervals."
    )
    title = "Figure 18: black-box attacks"
    if theirs:
        title += " (dashed: the paper's ResNet-18s)"
    return Figure("fig18", title, caption, tuple(panels))


_KINDS = (
    f"“{PLAIN}”: no compression; “at test”: the same network with one at test time only; a percentage, RPA, "
    "CD (values per colour) or high-pass alone: a network trained with it."
)


def _grid(setting: Setting, results: tuple[Result, ...], panel: PanelSpec) -> Grid:
    at = strengths(panel, setting.scale)
    known = _accuracies(results, panel)
    rows: list[tuple[GridCell, ...]] = []
    for name in _found(setting, panel):
        if name in known:
            rows.append((name, *(known[name][x] for x in (0.0, *at))))
        else:
            rows.append((name, NOT_RUN, *("–" for _ in at)))
    for name, values in PAPER.get(panel.name, {}).items():
        numbers = (f"{values[x]:.1f} %" if x in values else "–" for x in (0.0, *at))
        rows.append((f"{name} (paper)", *numbers))
    return Grid(
        f"{panel.title}: accuracy against {panel.x_label}",
        ("network", "no attack", *(f"{x:g}" for x in at)),
        tuple(rows),
        f"{_count(setting, panel)} images{_theirs(panel)}. {_REMARKS.get(panel.name, '')}",
    )


def _theirs(panel: PanelSpec) -> str:
    if panel.name not in PAPER:
        return "; the paper has no curve"
    return "; the paper's rows: ResNet-18s that the authors trained with it"


_REMARKS = {
    "uniform": "The range is that of the bounds given to foolbox, 1.1 pixels.",
    "contrast": "High-pass: the lowest 1 % of the spectrum is replaced by grey.",
    "contrast-cd": "CD: values per colour. The paper's CD 32 is of 100 images.",
    "rotation": "The worst of 10 angles.",
    "translation": "The worst of 10 × 10 shifts.",
    "single": "Each place is tried in black and in white.",
    "local": "Theirs: up to 150 rounds of 128 probes; ours on a desk 60 of 20.",
}


def _sections(setting: Setting, results: tuple[Result, ...]) -> tuple[Section, ...]:
    figure = _figure(setting, results)
    grids = tuple(_grid(setting, results, panel) for panel in PANELS)
    words = WORDS[setting.scale]
    return (Section("Figure 18: black-box attacks", (words if figure is None else figure, *grids)),)


FIG18 = Experiment(
    "fig18", "Figure 18: black-box attacks", SUBSETS, _cells, _sections, claims, words=WORDS
)
