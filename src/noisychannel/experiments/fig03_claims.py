"""Section 4.7 on the rows of Figure 3: which network is better, where, and how far an attack must go.

Networks are compared at C&W's c = .4, the paper's own example (and at c = 10 where it speaks of high distortion), and
under PGD of 40 steps at ε = .031. A network is better where the whole interval of the difference, image by image,
says so.
"""

from typing import NamedTuple

from noisychannel.experiments.defended import points
from noisychannel.experiments.setting import Claim, Result, Scale
from noisychannel.experiments.verdict import above, every, given, number
from noisychannel.experiments.white_box import further, gap, length, single
from noisychannel.report.numbers import equivalent
from noisychannel.report.stats import Estimate

__all__ = ["CONSTANT", "NETWORKS", "RADIUS", "Rows", "Spot", "claims"]

NETWORKS = ("Plain", "AdvTrain", "PNI-W-Adv", "RobustNet", "RobustNetAdv")

CONSTANT = 0.4
_FAR = 10.0  # "highly distorted": beyond the knee of all curves, and part of every scale
# 0.031 is what the networks were trained against; small networks on 8 × 8 digits stand more.
RADIUS: dict[Scale, float] = {"smoke": 0.2, "desk": 0.031, "paper": 0.031}


class Spot(NamedTuple):
    """One cell: `clean`, `C&W` of constant `strength`, or `PGD` of radius `strength`."""

    data: str
    network: str
    attack: str
    strength: float
    steps: int


class Rows:
    """Results of CIFAR-10 (or of digits for it), or of the `second` data set, SVHN."""

    def __init__(self, results: tuple[Result, ...], *, second: bool) -> None:
        spots = {
            Spot(*(r.place[f] for f in Spot._fields)): r  # pyright: ignore[reportArgumentType]
            for r in results
        }
        self.all = {s: r for s, r in spots.items() if (s.data == "SVHN") == second}
        self.clean = {s.network: r for s, r in self.all.items() if s.attack == "clean"}
        # Where networks are compared.
        self.pgd = {
            s.network: r
            for s, r in self.all.items()
            if s.attack == "PGD" and s.steps == 40 and s.strength in RADIUS.values()
        }
        self.cw = {name: by[CONSTANT] for name in NETWORKS if CONSTANT in (by := self.curve(name))}

    def curve(self, name: str) -> dict[float, Result]:
        """c → C&W's result."""
        return {
            s.strength: r for s, r in self.all.items() if (s.network, s.attack) == (name, "C&W")
        }


_Pair = tuple[str, str, str]
"""An attack (`C&W` or `PGD`), the network that is to be the better one, and the other."""


def claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    """The sentences of section 4.7 of which both sides were run."""
    first, second = (Rows(results, second=s) for s in (False, True))
    over = "RobustNetAdv provides an improvement in comparison to PNI-W-Adv"
    wanted = (
        ("fig03-pgd-trained", "AdvTrain and PNI-W-Adv are trained against PGD and perform better than RobustNet.",
         first, (("PGD", "AdvTrain", "RobustNet"), ("PGD", "PNI-W-Adv", "RobustNet"))),
        ("fig03-cw-robustnet", "For C&W, RobustNet outperforms AdvTrain.", first, (("C&W", "RobustNet", "AdvTrain"),)),
        ("fig03-cw-robustnetadv", f"{over} for CIFAR-10 when using C&W.", first, (("C&W", *_BOTH),)),
        ("fig03-pgd-robustnetadv", f"{over} for CIFAR-10 when using PGD.", first, (("PGD", *_BOTH),)),
        ("fig03-combined-robustnetadv", "Combining adversarial training with noise injection is beneficial.", first,
         tuple((a, "RobustNetAdv", n) for a in ("PGD", "C&W") for n in ("AdvTrain", "RobustNet"))),
        ("fig03-svhn-cw-robustnetadv", f"{over} for SVHN when using C&W.", second, (("C&W", *_BOTH),)),
        ("fig03-svhn-pgd-robustnetadv", f"{over} for SVHN when using PGD.", second, (("PGD", *_BOTH),)),
    )  # fmt: skip
    ordered = [c for name, said, rows, pairs in wanted for c in _ordered(name, said, rows, pairs)]
    return (*ordered, *_par(first), *_far(first), *_distortion(first))


_BOTH = ("RobustNetAdv", "PNI-W-Adv")


def _ordered(name: str, sentence: str, rows: Rows, pairs: tuple[_Pair, ...]) -> list[Claim]:
    """Every first network has the higher accuracy, by its whole interval; no claim where a network was not run."""
    if any(n not in rows.clean for _, *both in pairs for n in both):
        return []
    strength = {"C&W": f"c = {CONSTANT:g}", "PGD": "40 steps"}
    gaps: list[Estimate] = []
    said: list[str] = []
    for attack, one, two in pairs:
        at = rows.cw if attack == "C&W" else rows.pgd
        gaps.append(gap(at[one], at[two]))
        said.append(
            f"{attack} ({strength[attack]}): {one} less {two} {points(gaps[-1])}, {gaps[-1].n} images"
        )
    verdict = every(*(above(g, 0.0) for g in gaps))
    only = gaps[0] if len(gaps) == 1 else None
    return [Claim(name, sentence, verdict, "; ".join(said), "4.7", only)]


def _par(rows: Rows) -> list[Claim]:
    """On par is within five points, where one of them answers better than by guessing (else they are alike anyhow)."""
    if not {"PNI-W-Adv", "AdvTrain"} <= rows.cw.keys():
        return []
    ours, left = (single(rows.cw[n]) for n in ("PNI-W-Adv", "AdvTrain"))
    found = gap(rows.cw["PNI-W-Adv"], rows.cw["AdvTrain"])
    return [
        Claim(
            "fig03-cw-par",
            "PNI-W-Adv is on par with AdvTrain for C&W for most distortion levels (within 5 points at c = 0.4).",
            given(above(max(ours, left, key=lambda e: e.low), 0.1), equivalent(found, 0.05)),
            f"PNI-W-Adv less AdvTrain {points(found)}; AdvTrain {left.percent}; {found.n} images",
            "4.7",
            found,
        )
    ]


def _far(rows: Rows) -> list[Claim]:
    """Highly distorted is c = 10."""
    one, two, three = (rows.curve(n).get(_FAR) for n in ("PNI-W-Adv", "RobustNet", "AdvTrain"))
    if one is None or two is None or three is None:
        return []
    gaps = gap(one, three), gap(two, three)
    return [
        Claim(
            "fig03-cw-far",
            "PNI-W-Adv slightly outperforms AdvTrain for highly distorted examples, similarly to RobustNet.",
            every(*(above(g, 0.0) for g in gaps)),
            f"c = {_FAR:g}: PNI-W-Adv less AdvTrain {points(gaps[0])}; RobustNet less AdvTrain {points(gaps[1])}; "
            f"{gaps[0].n} images",
            "4.7",
        )
    ]


def _distortion(rows: Rows) -> list[Claim]:
    """The distance is required to attack only if the attack takes something: both networks lose accuracy."""
    names = ("RobustNet", "AdvTrain")
    if any(n not in rows.cw for n in names):
        return []
    robust, trained = (rows.cw[n] for n in names)
    found = further(robust, trained)
    lost = [above(gap(rows.clean[n], rows.cw[n]), 0.0) for n in names]
    return [
        Claim(
            "fig03-distortion",
            "For c = 0.4 the distortion required to attack RobustNet (0.63) is higher than for AdvTrain (0.57).",
            given(every(*lost), above(found, 0.0)),
            f"mean L2 over all images: RobustNet {number(length(robust))}, AdvTrain {number(length(trained))}; "
            f"difference {number(found)}; {found.n} images",
            "4.7",
            found,
        )
    ]
