"""What the PNI question shows: the published protocol, the attacks one by one, and the gain that is left."""

from collections.abc import Sequence

from noisychannel.experiments.defended import NOT_RUN, curve, points
from noisychannel.experiments.pni_claims import (
    NETWORKS,
    OFF,
    ON,
    TRAINED,
    Rows,
    Spot,
    label,
    percent,
)
from noisychannel.report.figure import Figure, Grid, Panel, Series
from noisychannel.report.stats import Estimate

__all__ = ["PNI_PAPER", "PUBLISHED", "answer", "beside", "figure", "gains", "ladder"]

PUBLISHED = ("clean", "FGSM", "PGD-7")

# He et al., ResNet-20, CIFAR-10: accuracy in percent, clean, under FGSM and under PGD-7.
PNI_PAPER: dict[str, tuple[float, float, float]] = {
    TRAINED: (83.84, 46.55, 39.14),
    ON: (84.89, 54.48, 45.94),
    OFF: (85.48, 42.55, 31.45),
}


def answer(rows: Rows) -> str:
    """How much of the published gain survives, in words."""
    had, left = rows.gain("PGD-7"), rows.worst_gain()
    if had is None or left is None:
        return f"How much of PNI's gain survives: {NOT_RUN}."
    both = (
        f"Accuracy of PNI-W-Adv less that of AdvTrain, {left.n} images: {points(had)} under the published attack "
        f"(PGD-7, one draw per gradient), {points(left)} under the worst of all attacks."
    )
    share = rows.survived()
    rest = (
        "Under PGD-7 these images do not show a gain above 0, so that no share of it can be said to survive."
        if share is None
        else f"{percent(share)} of the gain survives."
    )
    return f"{both} {rest} What is worst for most images of PNI-W-Adv: {rows.strongest(ON)}."


def beside(rows: Rows, words: str) -> Grid:
    """The published protocol and the worst of all attacks, beside what PNI's authors report."""
    lines: list[tuple[str | Estimate, ...]] = []
    for name in NETWORKS:
        line: list[str | Estimate] = [name]
        for attack, theirs in zip(PUBLISHED, PNI_PAPER[name], strict=True):
            line += [_shown(rows.accuracy(name, attack)), f"{theirs:.2f} %"]
        lines.append((*line, _shown(rows.worst(name))))
    header = [part for attack in PUBLISHED for part in (attack, f"{attack} (PNI's authors)")]
    return Grid(
        "The published protocol, and the worst of all attacks",
        ("network", *header, "worst of all attacks"),
        tuple(lines),
        "PNI's authors: their own ResNet-20s, 10,000 CIFAR-10 images. Ours are not their networks, but trained anew: "
        f"{words}. FGSM and PGD-7: one draw per gradient. {ON} answers "
        "with each of its draws alone; its worst case is chosen on one half of them and scored on the other.",
    )


def ladder(rows: Rows, spots: Sequence[Spot], tried: str) -> Grid:
    """The attacks one by one."""
    lines: list[tuple[str | Estimate, ...]] = []
    for _, attack, eot in spots:
        moved = attack.startswith(
            "from "
        )  # before the network that it was made for it stands above
        mine = _shown(rows.accuracy(ON, attack, eot))
        fixed = ["–" if moved else _shown(rows.accuracy(n, attack, eot)) for n in (TRAINED, OFF)]
        gain = "–" if moved else _more(rows.gain(attack, eot))
        lines.append((label(attack, eot), fixed[0], mine, fixed[1], gain))
    worst = [_shown(rows.worst(n)) for n in NETWORKS]
    lines.append(("worst of all attacks", *worst, _more(rows.worst_gain())))
    return Grid(
        "Attack by attack",
        ("attack", *NETWORKS, f"{ON} less {TRAINED}"),
        tuple(lines),
        f"{tried}. Only {ON} is random: the others' gradients need no averaging, and their numbers are the same for "
        "all numbers of draws. Differences are of the same images.",
    )


def gains(rows: Rows) -> Grid:
    """The gain over AdvTrain, and the share of it that survives."""
    (_, fgsm, pgd), at, off = (PNI_PAPER[n] for n in (TRAINED, ON, OFF))
    share = rows.survived()
    lines = (
        ("FGSM", _more(rows.gain("FGSM")), f"{at[1] - fgsm:+.1f} points"),
        ("PGD-7", _more(rows.gain("PGD-7")), f"{at[2] - pgd:+.1f} points"),
        (
            "PGD-7, noise off at test",
            _more(rows.gain("PGD-7", network=OFF)),
            f"{off[2] - pgd:+.1f} points",
        ),
        ("worst of all attacks", _more(rows.worst_gain()), "–"),
        (
            "share of PGD-7's gain left in the worst case",
            "–" if share is None else percent(share),
            "–",
        ),
    )
    return Grid(
        "The gain of PNI over AdvTrain",
        ("attack", "ours", "PNI's authors"),
        lines,
        "Accuracy of PNI less that of AdvTrain. No share is given where the gain under PGD-7 is not above 0 by its "
        "whole interval.",
    )


def figure(rows: Rows, words: str) -> Figure | str:
    """Accuracy under PGD on the margin against draws per gradient, and the gain there; the words alone: not run."""
    rungs = sorted(s.eot for s in rows.all if s[:2] == (ON, "PGD"))
    ahead = {float(k): g for k in rungs if (g := rows.gain("PGD", k)) is not None}
    curves: list[Series] = []
    for name in NETWORKS:
        # The same at every number of draws where nothing is random: a level line.
        found = {float(k): rows.accuracy(name, "PGD", k) for k in rungs or (1, 2)}
        if known := {x: v for x, v in found.items() if v is not None}:
            curves.append(curve(name, known))
    draws = "draws per gradient (EOT)"
    panels = [Panel("PGD on the margin", draws, "accuracy (%)", tuple(curves), log_x=True)]
    if ahead:
        lines = (curve("gain", ahead), *_levels(rows, tuple(ahead)))
        panels.append(Panel(f"Gain of {ON} over {TRAINED}", draws, "points", lines, log_x=True))
    caption = (
        f"Accuracy against the draws that the attacker averages each gradient over. {TRAINED} and “{OFF}” are not "
        f"random: level lines. {words}; bands: 95 % intervals."
    )
    return Figure("pni", "PNI under EOT", caption, tuple(panels)) if curves else words


def _levels(rows: Rows, xs: tuple[float, ...]) -> list[Series]:
    """Gains that do not depend on these draws per gradient, dashed."""
    known = {"gain, PGD-7": rows.gain("PGD-7"), "gain, worst case": rows.worst_gain()}
    return [
        Series(name, xs, (100 * g.value,) * len(xs), dashed=True)
        for name, g in known.items()
        if g is not None
    ]


def _shown(estimate: Estimate | None) -> str | Estimate:
    return NOT_RUN if estimate is None else estimate


def _more(gain: Estimate | None) -> str:
    return NOT_RUN if gain is None else points(gain)
