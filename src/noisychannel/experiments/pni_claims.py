"""PNI's gain over AdvTrain: the rows that it is read from, how much of it survives, and the claims."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from noisychannel.decision import Single
from noisychannel.experiments.defended import points
from noisychannel.experiments.setting import Claim, Result
from noisychannel.experiments.verdict import above, below, given
from noisychannel.experiments.white_box import gap, single
from noisychannel.report.gains import worst_case_gain
from noisychannel.report.numbers import difference_of, ratio_of_means
from noisychannel.report.stats import Estimate, correct_matrix, worst_case
from noisychannel.report.worst import worst

__all__ = ["NETWORKS", "OFF", "ON", "TRAINED", "Rows", "Spot", "claims", "label", "percent"]

TRAINED, ON, OFF = "AdvTrain", "PNI-W-Adv", "PNI, noise off"
NETWORKS = (TRAINED, ON, OFF)
_HALF = 0.5
_WHERE = "He et al. 2019"


class Spot(NamedTuple):
    """One cell: whose answers, to which images (`clean`, an attack's, or `from …`), and the draws per gradient."""

    network: str
    attack: str
    eot: int


def label(attack: str, eot: int) -> str:
    """An attack in words.

    >>> label("PGD", 4), label("from AdvTrain", 1)
    ('PGD on the margin, 4 draws per gradient', 'PGD on the margin of AdvTrain, transferred')
    """
    drawn = "1 draw" if eot == 1 else f"{eot} draws"
    if attack.startswith("from "):
        return f"PGD on the margin of {attack.removeprefix('from ')}, transferred"
    words = {"PGD": "PGD on the margin", "APGD-T": "APGD on targeted DLR"}
    return attack if attack == "clean" else f"{words.get(attack, attack)}, {drawn} per gradient"


class Rows:
    """Results by place, and what is read from them."""

    def __init__(self, results: tuple[Result, ...]) -> None:
        self.all = {
            Spot(*(r.place[f] for f in Spot._fields)): r  # pyright: ignore[reportArgumentType]
            for r in results
        }
        self.top = max((s.eot for s in self.all), default=1)

    def at(self, network: str, attack: str, eot: int = 1) -> Result | None:
        """A network's answers; where nothing is random, one draw per gradient stands for all numbers of draws."""
        found = self.all.get(Spot(network, attack, eot))
        return self.all.get(Spot(network, attack, 1)) if found is None and network != ON else found

    def accuracy(self, network: str, attack: str, eot: int = 1) -> Estimate | None:
        """Of single answers; None: not run."""
        found = self.at(network, attack, eot)
        return None if found is None else single(found)

    def gain(
        self, attack: str, eot: int = 1, network: str = ON, base: str = TRAINED
    ) -> Estimate | None:
        """Accuracy of one network less that of another under the same attack, image by image."""
        one, two = self.at(network, attack, eot), self.at(base, attack, eot)
        return None if one is None or two is None else gap(one, two)

    def attacks(self, network: str) -> dict[str, pa.Table]:
        """Every attack on a network, by its words."""
        return {
            label(s.attack, s.eot): r.draws
            for s, r in self.all.items()
            if s.network == network and s.attack != "clean"
        }

    def worst(self, network: str) -> Estimate | None:
        """Accuracy under the worst of all attacks, image by image."""
        found = self.attacks(network)
        return worst_case(found, Single()).estimate if found else None

    def strongest(self, network: str) -> str:
        """The attack that is the worst for the most images, and their share."""
        winners = worst_case(self.attacks(network), Single()).winner
        name = max(sorted(set(winners)), key=winners.count)
        return f"{name} ({100 * winners.count(name) / len(winners):.0f} % of the images)"

    def worst_gain(self) -> Estimate | None:
        """What PNI keeps in its worst case more than AdvTrain in its own."""
        mine, theirs = self.attacks(ON), self.attacks(TRAINED)
        return worst_case_gain(mine, theirs, Single()) if mine and theirs else None

    def gains(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Per image, the gain in the worst case and under PGD-7; None: not both were run."""
        one, two = self.at(ON, "PGD-7"), self.at(TRAINED, "PGD-7")
        if one is None or two is None:
            return None
        cases = [worst(self.attacks(n), Single()).outcomes for n in (ON, TRAINED)]
        published = [correct_matrix(r.draws) for r in (one, two)]
        left, had = ([m.double().mean(dim=1).numpy() for m in pair] for pair in (cases, published))
        return left[0] - left[1], had[0] - had[1]

    def survived(self) -> Estimate | None:
        """(gain in the worst case) / (gain under PGD-7); None where the latter is not above 0 by its whole interval."""
        found, had = self.gains(), self.gain("PGD-7")
        if found is None or had is None or above(had, 0.0) is not True:
            return None
        return ratio_of_means(*found)

    def over_half(self) -> Estimate | None:
        """Gain in the worst case less half of the gain under PGD-7."""
        found = self.gains()
        if found is None:
            return None
        widest = 1 + _HALF  # what it can be for an image
        # Images alone are resampled: of 20 and more draws the shared weights add little to what images do.
        much = difference_of((found[0] - _HALF * found[1]) / widest)
        value, low, high = (float(widest * v) for v in (much.value, much.low, much.high))
        return much._replace(value=value, low=low, high=high)


def claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    """What PNI's authors say, and what is left of it; of what was run."""
    rows = Rows(results)
    return (*_of_the_gain(rows), *_of_eot(rows), *_of_silence(rows))


def _of_the_gain(rows: Rows) -> list[Claim]:
    published, left, half = rows.gain("PGD-7"), rows.worst_gain(), rows.over_half()
    if published is None or left is None or half is None:
        return []
    had, now = f"under PGD-7 {points(published)}", f"in the worst case {points(left)}"
    share, count = rows.survived(), f"{left.n} images"
    of = "no share of a gain that is not above 0" if share is None else f"share {percent(share)}"
    return [
        Claim(
            "pni-gain",
            "PNI beats AdvTrain under the published attack (PGD-7 without EOT).",
            above(published, 0.0),
            f"PNI less AdvTrain {had}; {count}",
            _WHERE,
            published,
        ),
        Claim(
            "pni-survives",
            "PNI beats AdvTrain under the worst of all attacks, EOT among them.",
            above(left, 0.0),
            f"PNI less AdvTrain {now}; {had}; {count}",
            "",
            left,
        ),
        Claim(
            "pni-half",
            "At least half of PNI's gain under the published attack is left under the worst of all.",
            # Of a gain that is none nothing can be left.
            given(above(published, 0.0), above(half, 0.0)),
            f"worst case less half of PGD-7 {points(half)}; PNI less AdvTrain {now}, {had}; {of}; {count}",
            "",
            half,
        ),
    ]


def _of_eot(rows: Rows) -> list[Claim]:
    one, many = (rows.all.get(Spot(ON, "PGD", k)) for k in (1, rows.top))
    if one is None or many is None or rows.top == 1:
        return []
    taken = gap(one, many)
    return [
        Claim(
            "pni-eot",
            f"Averaging gradients over the noise ({rows.top} draws) makes PGD stronger against PNI.",
            above(taken, 0.0),
            f"accuracy after 1 draw less that after {rows.top} {points(taken)}; {taken.n} images",
            "",
            taken,
        )
    ]


def _of_silence(rows: Rows) -> list[Claim]:
    calm = rows.gain("PGD-7", network=OFF)
    if calm is None:
        return []
    return [
        Claim(
            "pni-off",
            "With its noise off at test PNI is below AdvTrain (PGD-7).",
            below(calm, 0.0),
            f"noise off less AdvTrain {points(calm)}; {calm.n} images",
            _WHERE,
            calm,
        )
    ]


def percent(share: Estimate) -> str:
    """A ratio in percent with its interval; unlike an accuracy it may be below 0 or above 100.

    >>> percent(Estimate(0.5, -0.25, 1.25, 50, "bootstrap"))
    '50 % [-25, 125]'
    """
    value, low, high = (100 * v for v in (share.value, share.low, share.high))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]"
