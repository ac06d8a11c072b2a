"""Section R's sentences, checked, and the rows that they are about."""

from typing import NamedTuple

import numpy as np

from noisychannel.experiments.defended import points
from noisychannel.experiments.series_setting import NETWORKS
from noisychannel.experiments.setting import Claim, Result
from noisychannel.experiments.verdict import above, below, every, number
from noisychannel.experiments.window import best_lead, window
from noisychannel.report.numbers import mean_of
from noisychannel.report.stats import correct_matrix

__all__ = ["DEFENSES", "INPUT", "PAPER_WINDOW", "Rows", "Seen", "claims", "fooled"]

INPUT = "input noise"
"""The plain network behind a Gauss channel."""
DEFENSES = (*NETWORKS, INPUT)
"""The curves under adaptive attacks."""

PAPER_WINDOW = (0.7, 1.6)
"""Section R's L2 distortions between which noise recovers labels."""


class Rows:
    """Accuracies by attack, defense and strength."""

    def __init__(self, results: tuple[Result, ...]) -> None:
        self.by = {
            (str(r.place["what"]), str(r.place["series"]), float(r.place["strength"])): r
            for r in results
            if r.place["what"] != "window"
        }

    def strengths(self, kind: str) -> tuple[float, ...]:
        """Of an attack, those that were run."""
        return tuple(sorted({s for what, _, s in self.by if what == kind}))

    def kept(self, kind: str, name: str) -> np.ndarray | None:
        """Per series, the share of right answers, averaged over the attack's strengths; None: not run."""
        found = [self.by.get((kind, name, s)) for s in self.strengths(kind)]
        rights = [
            correct_matrix(r.draws).double().mean(dim=1).numpy() for r in found if r is not None
        ]
        return np.mean(rights, axis=0) if rights and None not in found else None


class Seen(NamedTuple):
    """Of the series that C&W fooled the network with: answers by noise, and distances."""

    shares: np.ndarray
    """(levels, n, 3): original, adversarial, other."""
    distances: np.ndarray
    """(levels,): mean L2 of what the network saw from the original, z-normalised."""
    attack: float
    """Mean L2 of the attack."""


def fooled(results: tuple[Result, ...]) -> Seen | None:
    """The series that C&W fooled the network with; None: there are none."""
    levels: list[np.ndarray] = []
    distances: list[float] = []
    attack = 0.0
    cells = [r for r in results if r.place["what"] == "window"]
    for r in sorted(cells, key=lambda r: float(r.place["sigma"])):
        rows, unit = r.draws, float(r.place["unit"])
        label, taken, answer, index, far, moved = (
            rows[c].to_numpy()
            for c in ("label", "adversarial", "predicted", "index", "to_original", "attack")
        )
        kept = (label != taken) & (moved > 1e-6)
        if not kept.any():
            return None
        names, place = np.unique(index[kept], return_inverse=True)
        counts = np.zeros((len(names), 3))
        which = np.where(answer == label, 0, np.where(answer == taken, 1, 2))[kept]
        np.add.at(counts, (place, which), 1)
        levels.append(counts / counts.sum(axis=1, keepdims=True))
        distances.append(float(far[kept].mean()) / unit)
        attack = float(moved[kept].mean()) / unit
    return Seen(np.stack(levels), np.array(distances), attack) if levels else None


def claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    """Of the window, where a series was fooled; of the defenses, where all were run."""
    seen = fooled(results)
    return (*(() if seen is None else _about_window(seen)), *_about_defenses(Rows(results)))


_WINDOW = "There is a narrow recovery window of L2 distortions where the perturbation is a successful defense."


def _about_window(seen: Seen) -> list[Claim]:
    found = window(seen.shares, seen.distances)
    n = seen.shares.shape[1]
    if found is None:
        lead = best_lead(seen.shares)
        evidence = (
            f"the original class leads at none of {len(seen.distances)} distortions; original answers less the next "
            f"class's where that is greatest: {points(lead)}; {n} fooled series"
        )
        return [Claim("secr-window", _WINDOW, False if lead.high < 0 else None, evidence, "R", lead)]  # fmt: skip
    ends = f"from L2 {number(found.low)} to {number(found.high)}; {n} fooled series"
    # Margin stated beforehand: each end within a factor of two of the paper's, on other series.
    near = [
        every(above(e, p / 2), below(e, 2 * p))
        for e, p in zip((found.low, found.high), PAPER_WINDOW, strict=True)
    ]
    return [
        Claim(
            "secr-window",
            _WINDOW,
            # It leads at a distortion chosen on one half of the series, and neither at the least nor at the most.
            every(above(found.lead, 0.0), *(below(e, 0.0) for e in found.outside)),
            f"{ends}; original answers less the next class's inside: {points(found.lead)}, at the least and the most "
            f"noise {points(found.outside[0])}, {points(found.outside[1])}",
            "R",
            found.lead,
        ),
        Claim(
            "secr-window-place",
            "The window of L2 distortions ranges from 0.7 to 1.6 (each end within a factor of two).",
            every(*near),
            ends,
            "R",
        ),
    ]


def _about_defenses(rows: Rows) -> list[Claim]:
    sentences = {
        "RobustNet": ("layers-best", "Layer-perturbation methods are the most effective adaptive defense."),
        "RobustNetAdv": ("combined-best", "Combining adversarial training with RobustNet gives superior performance."),
    }  # fmt: skip
    out: list[Claim] = []
    for kind in ("C&W", "PGD"):
        kept = {name: rows.kept(kind, name) for name in DEFENSES}
        for best, (short, sentence) in sentences.items():
            # Layer noise alone is against what has none in its layers; both together are against everything.
            rivals = [n for n in DEFENSES if n != best]
            if best == "RobustNet":
                rivals.remove("RobustNetAdv")
            one, others = kept[best], {n: kept[n] for n in rivals}
            if one is None or any(o is None for o in others.values()):
                continue
            gaps = {n: mean_of(one - o) for n, o in others.items() if o is not None}
            least = min(gaps.values(), key=lambda e: e.value)
            evidence = ", ".join(f"{n} {points(g)}" for n, g in gaps.items())
            out.append(
                Claim(
                    f"secr-{kind}-{short}",
                    sentence,
                    every(*(above(g, 0.0) for g in gaps.values())),
                    f"{best}, mean over {kind}'s strengths, less: {evidence}; {least.n} series",
                    "R",
                    least,
                )
            )
    return out
