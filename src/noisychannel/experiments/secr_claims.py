"""Section R's sentences, checked, and the rows that they are about."""

from typing import NamedTuple

import numpy as np

from noisychannel.experiments.defended import points
from noisychannel.experiments.series_setting import NETWORKS
from noisychannel.experiments.setting import Claim, Result
from noisychannel.experiments.verdict import above, below, every, number
from noisychannel.experiments.window import answers, best_level, said_anyway, window
from noisychannel.report.numbers import difference_of
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
    """The series that C&W fooled the network with, but for classes answered whatever is shown; None: there are none."""
    cells = [r for r in results if r.place["what"] == "window"]
    cells.sort(key=lambda r: float(r.place["sigma"]))
    if not cells:
        return None
    anyway = np.concatenate([said_anyway(r.draws) for r in cells])
    series = np.setdiff1d(answers(cells[0].draws).examples, anyway)
    found = [answers(r.draws, series) for r in cells]
    if len(series) == 0:
        return None
    # In units of the series' standard deviation, of which one is the same everywhere.
    unit = float(cells[0].place["unit"])
    far = np.array([f.to_original.mean() for f in found])
    return Seen(
        np.stack([f.shares for f in found]), far / unit, float(found[0].attack.mean()) / unit
    )


def claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    """Of the window, where a series was fooled; of the defenses, where all were run."""
    seen = fooled(results)
    return (*(() if seen is None else _about_window(seen)), *_about_defenses(Rows(results)))


_NARROW = 4.0
_WINDOW = "There is a narrow recovery window of L2 distortions where the perturbation is a successful defense."


def _about_window(seen: Seen) -> list[Claim]:
    found = window(seen.shares, seen.distances)
    n = seen.shares.shape[1]
    if found is None:
        _, lead = best_level(seen.shares)
        evidence = (
            f"the original class leads at none of {len(seen.distances)} distortions; original answers less the next "
            f"class's where that is greatest: {points(lead)}; {n} fooled series"
        )
        return [Claim("secr-window", _WINDOW, False if lead.high < 0 else None, evidence, "R", lead)]  # fmt: skip
    apart = found.high.value / found.low.value
    ends = (
        f"from L2 {number(found.low)} to {number(found.high)}, {apart:.1f} times; {n} fooled series"
    )
    # Margins stated beforehand: each end within a factor of two of the paper's, on other series; narrow is within a
    # factor of 4 (the paper's ends are 2.3 apart).
    ends_apart = found.high.low / found.low.high, found.high.high / found.low.low
    narrow = True if ends_apart[1] < _NARROW else False if ends_apart[0] > _NARROW else None
    near = [
        every(above(e, p / 2), below(e, 2 * p))
        for e, p in zip((found.low, found.high), PAPER_WINDOW, strict=True)
    ]
    return [
        Claim(
            "secr-window",
            _WINDOW,
            # It leads at a distortion chosen on one half of the series, and neither at the least nor at the most.
            every(above(found.lead, 0.0), narrow, *(below(e, 0.0) for e in found.outside)),
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
            gaps = {n: difference_of(one - o) for n, o in others.items() if o is not None}
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
