"""Figure 16: the top eigenvalue of the input Hessian, at clean and at C&W images, and what confidence explains of it.

λ_max of ∇²ₓ CE of the predicted class, with respect to the normalised input (M₂ as the authors' code measured it),
and of the class's confidence (M₂ as section 3.3 defines it), exactly: the network is piecewise linear.

Differs:
    1. Network: the authors' ResNet-20; the paper's is a ResNet-18. It does not normalise; the Hessian is scaled by the
       colours' stds as if it did. Fewer images below `paper` scale.
       Of the confidence, which has eigenvalues of either sign, the one of largest size: the operator norm that 3.3
       means. Near its maximum, where clean images lie, the largest with its sign is 0.
    2. Exact eigenvalues from one Jacobian (10 backward passes) instead of 20 steps of power iteration.
    3. A control at equal confidence: each C&W image beside the clean image whose top confidence is nearest.
       The paper has none; a network's Hessian is large wherever it is unsure, attacked or not.
    4. C&W stops searches that stall, and below `paper` scale has 100 steps a search, not 1,000.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from noisychannel.data import DataSpec
from noisychannel.defenses import Defense
from noisychannel.experiments.gradients import asked_of, crafts, default_cw, jacobians
from noisychannel.experiments.setting import Cell, Claim, Experiment, Result, Scale, Setting
from noisychannel.experiments.verdict import above, number
from noisychannel.measures import eigenvalues
from noisychannel.report.figure import Figure, Grid, Panel, Series
from noisychannel.report.html import Section
from noisychannel.report.numbers import mean_of, median_of, ratio_of_means
from noisychannel.report.stats import Estimate

__all__ = ["FIG16", "SUBSETS"]

# The issue asks for 256 clean and 256 attacked images; 300 are those of Figure 12, attacked once for both.
SUBSETS: dict[Scale, str] = {"smoke": "first:60", "desk": "first:300", "paper": "first:1024"}

# Where the clean images near the boundary are looked for: one in twenty has a confidence below .7.
_CONTROLS: dict[Scale, str] = {"smoke": "all", "desk": "first:3000", "paper": "all"}

# The authors' 1,201 raw eigenvalues at clean images (recorded 2019-09-12), power iteration, normalised input.
_PAPER = {
    "25 %": 7.17e-4,
    "median": 2.02e-3,
    "75 %": 2.55e-2,
    "90 %": 1.49,
    "95 %": 15.7,
    "99 %": 95.8,
    "mean": 4.16,
}
_QUANTILES = {"25 %": 0.25, "median": 0.5, "75 %": 0.75, "90 %": 0.9, "95 %": 0.95, "99 %": 0.99}


def _cells(setting: Setting) -> tuple[Cell, ...]:
    made = crafts(setting, default_cw(setting.scale))
    data = setting.data
    assert isinstance(data, DataSpec)
    many = replace(data, subset=_CONTROLS[setting.scale])
    starts = range(0, many.size, 500)
    parts = [many.slice(start, min(start + 500, many.size)) for start in starts]
    bare = Defense(setting.network)
    return (
        Cell((("at", "clean"),), jacobians(setting, None, 0.0)),
        Cell((("at", "C&W"),), jacobians(setting, made, 0.0)),
        Cell((("at", "control"),), tuple(asked_of(setting, part, bare, None) for part in parts)),
    )


class _Spectra:
    """Top eigenvalues of cross-entropy and of confidence, and the top confidence, image beside image.

    Of each image that C&W moved across: when clean, when attacked, and of its control.
    """

    def __init__(self, results: tuple[Result, ...]) -> None:
        found = {str(r.place["at"]): r.draws for r in results}
        label = found["clean"]["label"].to_numpy()
        right = found["clean"]["predicted"].to_numpy() == label
        moved = pa.array(right & (found["C&W"]["predicted"].to_numpy() != label))
        pool = found["control"]
        pool = pool.filter(pa.array(pool["predicted"].to_numpy() == pool["label"].to_numpy()))
        rows = {at: found[at].filter(moved) for at in ("clean", "C&W")}
        self.empty = rows["C&W"].num_rows == 0 or pool.num_rows == 0
        """Whether nothing was attacked with success, or there is no control."""
        if self.empty:
            return
        nearest = _nearest(rows["C&W"], pool)
        rows["control"] = pool.take(pa.array(nearest))
        _, self._control = np.unique(nearest, return_inverse=True)
        self.n, self.controls = len(nearest), int(self._control.max()) + 1
        self.loss = {at: eigenvalues(r)[:, 1] for at, r in rows.items()}
        self.confident = {
            at: np.abs(eigenvalues(r, "confidence")).max(axis=1) for at, r in rows.items()
        }
        self.top = {at: _top(r) for at, r in rows.items()}

    def ratio(self, values: dict[str, np.ndarray], other: str) -> Estimate:
        """Mean at C&W images over that at the others; the interval resamples images, or the controls they share."""
        above, below = values["C&W"], values[other]
        if other == "control":
            above, below = np.bincount(self._control, above), np.bincount(self._control, below)
        return ratio_of_means(above, below)


def _top(rows: pa.Table) -> np.ndarray:
    flat = rows["probabilities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(rows.num_rows, -1).max(axis=1)


def _nearest(attacked: pa.Table, pool: pa.Table) -> np.ndarray:
    """For each attacked image the place of the clean image of nearest top confidence."""
    return np.abs(_top(attacked)[:, None] - _top(pool)[None]).argmin(axis=1)


def _curve(name: str, values: np.ndarray, *, dashed: bool = False) -> Series:
    """Share of images (%) above each value: readable over seven decades, which a histogram of counts is not."""
    xs = np.logspace(-4, 3, 36)
    return Series(
        name,
        tuple(float(x) for x in xs),
        tuple(float(100 * (values > x).mean()) for x in xs),
        dashed=dashed,
    )


def _sections(setting: Setting, results: tuple[Result, ...]) -> tuple[Section, ...]:
    s = _Spectra(results)
    if s.empty:
        return (Section("Figure 16", ("No attack succeeded: nothing to draw.",)),)
    names = {"clean": "clean", "C&W": "C&W", "control": "clean, at the confidence of C&W"}
    panels: list[Panel] = []
    for words, values in (
        ("cross-entropy (the experiments)", s.loss),
        ("confidence (section 3.3)", s.confident),
    ):
        curves = [_curve(names[at], values[at]) for at in names]
        panels.append(
            Panel(words, "top eigenvalue λ", "images above λ (%)", tuple(curves), log_x=True)
        )
    caption = (
        f"Top eigenvalue of the input Hessian of the predicted class: {s.n} images when "
        f"clean, when attacked by C&W, and clean images near the boundary. {setting.words}."
    )
    figure = Figure(
        "fig16", "Figure 16: curvature at clean and attacked images", caption, tuple(panels)
    )
    return (Section("Figure 16: the input Hessian", (figure, _grid(s), _ratios(s))),)


def _grid(s: _Spectra) -> Grid:
    rows: list[tuple[str, ...]] = []
    for name, paper in _PAPER.items():
        cells = [
            f"{v.mean() if name == 'mean' else np.quantile(v, _QUANTILES[name]):.3g}"
            for v in (s.loss["clean"], s.loss["C&W"], s.loss["control"])
        ]
        rows.append((name, *cells, f"{paper:.3g}"))
    return Grid(
        "Top eigenvalue of cross-entropy, normalised input",
        ("", "clean", "C&W", "clean, at the confidence of C&W", "clean (paper)"),
        tuple(rows),
        "The paper's: 1,201 clean images, ResNet-18; its adversarial half was not kept. Ours: images that C&W moved.",
    )


def _ratios(s: _Spectra) -> Grid:
    rows: list[tuple[str, ...]] = []
    for words, values in (("cross-entropy", s.loss), ("confidence", s.confident)):
        for other in ("clean", "control"):
            e = s.ratio(values, other)
            rows.append(
                (f"{words}: C&W over {other}", number(e), "≥ 10" if other == "clean" else "–")
            )
        rows.append((f"{words}: median of C&W", number(median_of(values["C&W"])), "–"))
    return Grid("Ratios of means", ("", "ours", "paper"), tuple(rows))


def _claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    s = _Spectra(results)
    if s.empty:
        return ()
    ratio, control = s.ratio(s.loss, "clean"), s.ratio(s.loss, "control")
    define = s.ratio(s.confident, "clean")
    gap = mean_of(s.top["C&W"]), mean_of(s.top["control"])
    return (
        Claim(
            "fig16-elevated",
            "For the adversarial images, the eigenvalues are higher, which indicates higher instability.",
            above(ratio, 1.0),
            f"ratio of means {number(ratio)}; {ratio.n} images",
            "N",
            ratio,
        ),
        _order("fig16-order", "to higher eigenvalues", ratio),
        _order("fig16-order-confidence", "to a higher M₂ as section 3.3 defines it", define),
        # Ours: the mechanism that 4.8 infers, that attacking itself makes the curvature, beside equal confidence.
        # Two times is the least that we would call an elevation.
        Claim(
            "fig16-beyond-confidence",
            "Adversarial examples are less stable than natural ones, also at equal confidence (our control).",
            above(control, 2.0),
            f"mean over clean images of nearest confidence ({gap[1].value:.3f} against {gap[0].value:.3f}): "
            f"{number(control)} times; {s.n} C&W images, {s.controls} clean ones",
            "4.8",
            control,
        ),
    )


def _order(name: str, what: str, ratio: Estimate) -> Claim:
    """An order of magnitude is a ratio of means of 10."""
    return Claim(
        name,
        f"Adversarial examples lead {what}, by an order of magnitude on average, than original inputs.",
        above(ratio, 10.0),
        f"ratio of means {number(ratio)}; {ratio.n} images",
        "4.8",
        ratio,
    )


FIG16 = Experiment("fig16", "Figure 16: input Hessians", SUBSETS, _cells, _sections, _claims)
