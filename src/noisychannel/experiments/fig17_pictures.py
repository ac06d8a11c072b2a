"""Figure 17: images before and after C&W, and as the network sees them through four channels, with its answers.

Differs:
    1. CIFAR-10's first attacked images instead of one of ImageNet (which stands with Table 3's panels).
    2. The caption's "CD with 32 bits" is 32 values per colour in the code (details §6), and here.
    3. C&W stops searches that stall, and below `paper` scale has 100 steps a search, not 1,000.
    4. That a picture looks unchanged is for the reader to judge: only labels are checked, of all attacked images.
"""

from typing import Any

import numpy as np

from noisychannel.defenses import Defense
from noisychannel.engine import Analyse
from noisychannel.experiments.attacked import moved, recovered
from noisychannel.experiments.gradients import crafts, default_cw
from noisychannel.experiments.setting import Cell, Claim, Experiment, Result, Scale, Setting
from noisychannel.experiments.verdict import above, every, number
from noisychannel.interop.authors import AuthorsUnits
from noisychannel.measures import Pictures
from noisychannel.report.figure import Grid, Picture
from noisychannel.report.html import Section
from noisychannel.report.numbers import mean_of, share_of
from noisychannel.types import Channel

__all__ = ["FIG17", "SUBSETS"]

# 100: the images that Figure 7 attacks with the same C&W (κ = 0), so that labels are a share of many, not of one.
SUBSETS: dict[Scale, str] = {"smoke": "first:60", "desk": "first:100", "paper": "first:1000"}

_SHOWN = 3  # images; the paper shows one
_GAP = 2  # white pixels between pictures

_CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def _channels(units: AuthorsUnits) -> dict[str, Channel]:
    return {
        "CD, 32 values": units.cd(32),
        "FC, 30 %": units.fc(30),
        "Gauss, ε .03": units.gauss(0.03),
        "Uniform, ε .03": units.uniform(0.03),
    }


def _cells(setting: Setting) -> tuple[Cell, ...]:
    made = crafts(setting, default_cw(setting.scale))
    out: list[Cell] = []
    for name, channel in _channels(setting.units).items():
        behind = Defense(setting.network, channel)
        tasks = tuple(
            Analyse(c.data, behind, Pictures(), c, execution=setting.execution) for c in made
        )
        out.append(Cell((("series", name),), tasks))
    return tuple(out)


def _strip(rows: list[dict[str, Any]]) -> np.ndarray:
    """Original, adversarial and what each channel makes of it, side by side."""
    shape = rows[0]["height"], rows[0]["width"], rows[0]["colours"]
    parts = [rows[0]["original"], rows[0]["adversarial"], *(row["seen"] for row in rows)]
    images = [np.frombuffer(part, np.uint8).reshape(shape) for part in parts]
    white = np.full((shape[0], _GAP, shape[2]), 255, np.uint8)
    spaced = [piece for image in images for piece in (image, white)][:-1]
    strip = np.concatenate(spaced, axis=1)
    return strip[:, :, 0] if shape[2] == 1 else strip


def _pictures(setting: Setting, results: tuple[Result, ...]) -> tuple[Picture, ...]:
    names = _CIFAR10 if setting.scale != "smoke" else tuple("0123456789")
    found = {str(r.place["series"]): r.draws.to_pylist() for r in results}
    out: list[Picture] = []
    for i in np.flatnonzero(moved(results[0]))[:_SHOWN]:
        rows = {name: lines[i] for name, lines in found.items()}
        one = next(iter(rows.values()))
        behind = "; ".join(
            f"behind {name}: {names[row['predicted']]} (L2 {row['l2']:.2f})"
            for name, row in rows.items()
        )
        caption = (
            f"Image {one['index']}, from left to right: the original, {names[one['said_of_original']]}; after "
            f"C&W: {names[one['said_of_x']]}; {behind}. L2 is from the original. {setting.words}."
        )
        out.append(Picture(caption, _strip(list(rows.values()))))
    return tuple(out)


def _sections(setting: Setting, results: tuple[Result, ...]) -> tuple[Section, ...]:
    title = "Figure 17: what is seen"
    if not moved(results[0]).any():
        return (Section(title, ("No attack succeeded: nothing to show.",)),)
    rows = tuple(
        (
            str(r.place["series"]),
            number(mean_of(r.draws["l2"].to_numpy()[moved(r)])),
            share_of(recovered(r)),
        )
        for r in results
    )
    grid = Grid(
        "Labels recovered",
        ("channel", "mean L2 from the original", "right labels"),
        rows,
        f"Of {int(moved(results[0]).sum())} images that C&W moved across. The paper shows one.",
    )
    return (Section(title, (*_pictures(setting, results), grid)),)


def _claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    if not moved(results[0]).any():
        return ()
    shares = {str(r.place["series"]): share_of(recovered(r)) for r in results}
    worst = min(shares.values(), key=lambda e: e.value)
    said = ", ".join(f"{name}: {100 * e.value:.1f} %" for name, e in shares.items())
    # Margin beforehand: one image's recovered label is most images' here, behind each of the four.
    return (
        Claim(
            "fig17-recovered",
            "After the attack the label is recovered through CD, FC, Gaussian and uniform noise (of most images).",
            every(*(above(e, 0.5) for e in shares.values())),
            f"right labels behind {said}; the least {worst.percent}; {worst.n} images",
            "O",
            worst,
        ),
    )


FIG17 = Experiment("fig17", "Figure 17: what is seen", SUBSETS, _cells, _sections, _claims)
