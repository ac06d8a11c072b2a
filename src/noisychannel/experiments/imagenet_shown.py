"""The ImageNet panels of Figures 1, 6, 7, 12 and 17, drawn."""

import numpy as np

from noisychannel.decision import Single
from noisychannel.experiments.attacked import moved
from noisychannel.experiments.defended import curve
from noisychannel.experiments.imagenet_panels import (
    BINS,
    CLOSE,
    PEAKS,
    SLOPES,
    STRONG,
    WINDOW,
    Panels,
)
from noisychannel.experiments.setting import Result, Setting
from noisychannel.report.figure import Figure, Grid, Panel, Picture, Series
from noisychannel.report.html import Section
from noisychannel.report.numbers import mean_of, share_of
from noisychannel.report.stats import accuracy

__all__ = ["panel_sections"]


def _distortion(result: Result) -> float:
    return float(result.draws["defended_l2"].to_numpy().mean(dtype=np.float64))


def panel_sections(setting: Setting, results: tuple[Result, ...]) -> tuple[Section, ...]:
    """A section per figure."""
    panels = Panels(results)
    return (
        Section("Figure 1, ImageNet: recovery after C&W", _figure1(setting, panels)),
        Section("Figure 6, ImageNet: what channels change", _figure6(setting, panels)),
        Section("Figure 7, ImageNet: the window of recovery", _figure7(setting, panels)),
        Section("Figure 12, ImageNet: gradients and noise", _figure12(setting, panels)),
        Section("Figure 17, ImageNet: one image", _figure17(setting, panels)),
    )


def _figure1(setting: Setting, panels: Panels) -> tuple[Figure, Grid]:
    found = panels.of("1")
    start = found["none"][0.0]
    curves: list[Series] = []
    rows: list[tuple[str, ...]] = []
    for name, (peak, strength) in PEAKS.items():
        line = {0.0: start, **found[name]}
        said = {s: accuracy(r.draws, Single()) for s, r in line.items()}
        curves.append(curve(name, {_distortion(r): said[s] for s, r in line.items()}))
        best = max(said, key=lambda s: said[s].value)
        ours = (said[best].percent, f"{_distortion(line[best]):.2f}", f"{best:g}")
        rows.append((name, *ours, f"{peak:.1f} %", strength))
    axes = ("L2 distortion ‖C(x_adv) − x‖₂ (pixels in [0, 1])", "accuracy (%)")
    panel = Panel("C&W", *axes, tuple(curves), log_x=True, y_range=(0.0, 100.0))
    caption = f"Recovery by input perturbations. {setting.words}; bands: 95 % intervals."
    header = ("channel", "our peak", "at L2", "strength", "paper's peak", "its strength")
    return (
        Figure("table3_fig01", "Figure 1, ImageNet panel", caption, (panel,)),
        Grid(
            "Peaks after C&W", header, tuple(rows), f"The paper: ResNet-50. Ours: {setting.words}."
        ),
    )


def _figure6(setting: Setting, panels: Panels) -> tuple[Figure | Grid | str, ...]:
    middles = tuple(float(m) for m in BINS[setting.scale].middles)
    plots: list[Panel] = []
    rows: list[tuple[str, ...]] = []
    for name, line in panels.of("6").items():
        kept = moved(line[0.0])
        rows_of = line[0.0].draws.filter(kept)
        if rows_of.num_rows == 0:
            return ("No attack succeeded: nothing to draw.",)
        counts = np.stack(rows_of["counts"].to_numpy(zero_copy_only=False)).sum(axis=0)
        shares = tuple(float(v) for v in 100 * counts / counts.sum())
        axes = ("C(x_adv) − x (pixels in [0, 1])", "share of pixels (%)")
        plots.append(Panel(name, *axes, (Series("deltas", middles, shares),)))
        label, said = rows_of["label"].to_numpy(), rows_of["predicted"].to_numpy()
        spread, length = (float(rows_of[c].to_numpy().mean()) for c in ("std", "l2"))
        rows.append((name, f"{spread:.4f}", f"{length:.2f}", share_of(label == said).percent))
    n = int(moved(panels.of("6")["FC"][0.0]).sum())
    caption = f"All pixels of {n} images that C&W moved across; outermost bins: all that lies beyond. {setting.words}."
    header = ("channel", "std of deltas", "mean L2", "right labels")
    return (
        Figure("table3_fig06", "Figure 6: distributions of deltas", caption, tuple(plots)),
        Grid("What the channels change", header, tuple(rows), setting.words),
    )


def _figure7(setting: Setting, panels: Panels) -> tuple[Figure | str, ...]:
    plots: list[Panel] = []
    for attack in (CLOSE, STRONG):
        found = [panels.behind(attack, e) for e in WINDOW]
        n = len(found[0].examples)
        if n == 0:
            continue
        lines: list[Series] = []
        for c, name in enumerate(("original", "adversarial", "other")):
            lines.append(
                curve(name, {float(v.to_original.mean()): mean_of(v.shares[:, c]) for v in found})
            )
        title = f"{attack} attack, {n} fooled images"
        axes = ("mean L2 from the original (pixels in [0, 1])", "answers (%)")
        plots.append(Panel(title, *axes, tuple(lines), log_x=True, y_range=(0.0, 100.0)))
    if not plots:
        return ("No attack succeeded: nothing to draw.",)
    caption = (
        f"How often Gaussian noise gives the original, the adversarial or another class. {setting.words}; "
        "bands: 95 % intervals over images."
    )
    return (Figure("table3_fig07", "Figure 7: the window of recovery", caption, tuple(plots)),)


def _figure12(setting: Setting, panels: Panels) -> tuple[Figure | str, ...]:
    n = len(panels.slopes(0.0))
    if n == 0:
        return ("The network has no image right: nothing to draw.",)
    means = [mean_of(panels.slopes(e)) for e in SLOPES]
    middle, low, high = (tuple(float(m[i]) for m in means) for i in range(3))
    line = Series("label", SLOPES, middle, low, high)
    unit = "normalised input" if setting.units.mean else "pixels in [0, 1]"
    axes = ("Gaussian noise (the authors' ε)", f"mean ‖∇ₓ CE‖₂, {unit}")
    caption = f"Clean images as noise is added; {n} that the network has right. {setting.words}."
    panel = Panel("clean images", *axes, (line,))
    return (Figure("table3_fig12", "Figure 12: gradient of the label", caption, (panel,)),)


def _figure17(setting: Setting, panels: Panels) -> tuple[Picture | str, ...]:
    found = {name: line[0.0].draws.to_pylist() for name, line in panels.of("17").items()}
    rows = next(iter(found.values()))
    moved = [i for i, r in enumerate(rows) if r["said_of_original"] == r["label"] != r["said_of_x"]]
    if not moved:
        return ("No attack succeeded: nothing to show.",)
    chosen = rows[moved[0]]
    shape = (chosen["height"], chosen["width"], chosen["colours"])

    def picture(words: str, pixels: bytes) -> Picture:
        image = np.frombuffer(pixels, np.uint8).reshape(shape)
        caption = f"{words}. {setting.words}."
        return Picture(caption, image[:, :, 0] if shape[2] == 1 else image)

    out = [
        picture(f"Original, class {chosen['said_of_original']}", chosen["original"]),
        picture(f"After C&W, taken for class {chosen['said_of_x']}", chosen["adversarial"]),
    ]
    for name, these in found.items():
        one = these[moved[0]]
        words = f"Behind {name}, class {one['predicted']}, L2 {one['l2']:.2f} from the original"
        out.append(picture(words, one["seen"]))
    return tuple(out)
