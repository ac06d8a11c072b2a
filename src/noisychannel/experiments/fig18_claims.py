"""What section Q claims of Figure 18, checked on pairs of networks that saw the same images."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from noisychannel.decision import Single
from noisychannel.experiments.defended import points
from noisychannel.experiments.setting import Claim, Result
from noisychannel.experiments.verdict import above, below, every
from noisychannel.report.numbers import equivalent
from noisychannel.report.stats import Estimate, paired_difference

__all__ = ["claims"]

# Margins and strengths stated beforehand, from the paper's own curves: where its plain network falls from
# four fifths of its clean accuracy to guessing. A difference is of means over these strengths, of the same images.
_RANGES = {"gauss": (0.3, 1.0), "uniform": (0.3, 0.6), "contrast": (0.7, 0.9), "contrast-cd": (0.7, 0.9)}  # fmt: skip
_SPATIAL = (1.0, 20.0)  # every angle and every shift
# "Not defended" is a gain of 5 points at most; a network that loses more is not defended either.
_GAIN = 0.05
# A tenth of the pixels, of 64 and of 1,024.
_TENTH = (6.0, 100.0)
_ENOUGH = 10  # images that both networks must get right for a word about what becomes of them

_KINDS = {"": "", " at test": "-at-test"}
"""Ending of a network's name → of a claim's."""


class _Rows:
    """Results by panel, network and strength."""

    def __init__(self, results: tuple[Result, ...]) -> None:
        self.at: dict[tuple[str, str], dict[float, Result]] = {}
        self.against: dict[str, str] = {}
        for r in results:
            panel, network = str(r.place["panel"]), str(r.place["network"])
            self.at.setdefault((panel, network), {})[float(r.place["strength"])] = r
            self.against[network] = str(r.place["against"])

    def has(self, panel: str, *networks: str) -> bool:
        """Whether all were run there."""
        return all((panel, network) in self.at for network in networks)

    def pooled(self, panel: str, network: str, ends: tuple[float, float]) -> pa.Table:
        """The answers at all strengths between the ends, as draws of one candidate: their mean is what counts."""
        inside = [
            r.draws for s, r in sorted(self.at[panel, network].items()) if ends[0] <= s <= ends[1]
        ]
        return pa.concat_tables([_numbered(table, i) for i, table in enumerate(inside)])

    def gap(self, panel: str, one: str, other: str) -> Estimate:
        """Accuracy of the one minus that of the other."""
        mine, theirs = (self.pooled(panel, name, _RANGES[panel]) for name in (one, other))
        return paired_difference(mine, theirs, Single())

    def survival(self, panel: str, one: str, other: str) -> Estimate | None:
        """The same of the images that both get right unattacked; None: they are fewer than 10."""
        mine, theirs = (_right(self.at[panel, name][0.0].draws) for name in (one, other))
        both = np.intersect1d(mine, theirs)
        if len(both) < _ENOUGH:
            return None
        a, b = (_of(both, self.pooled(panel, name, _SPATIAL)) for name in (one, other))
        return paired_difference(a, b, Single())


def claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    """Of networks trained with a compression, and of the plain one that gets it at test; none where one is missing."""
    rows = _Rows(results)
    out: list[Claim] = []
    for kind, ending in _KINDS.items():
        remark = " (Compressed at test time only.)" if kind else ""
        for check in (_noise, _reduced_precision, _colour_depth, _high_pass, _spatial):
            out += [
                replace(c, name=f"fig18-{c.name}{ending}", sentence=c.sentence + remark)
                for c in check(rows, kind)
            ]
    return (*out, *_pixels(rows))


def _noise(rows: _Rows, kind: str) -> list[Claim]:
    out: list[Claim] = []
    for panel, words in (("gauss", "Gaussian"), ("uniform", "uniform")):
        limited = [n for c in (50, 85) if rows.has(panel, n := f"{c} %{kind}")]
        if not limited or not rows.has(panel, base := rows.against[limited[0]]):
            continue
        pairs = list(pairwise((base, *limited)))
        gaps = [rows.gap(panel, more, fewer) for fewer, more in pairs]
        said = (
            f"{more} less {fewer} {points(g)}" for (fewer, more), g in zip(pairs, gaps, strict=True)
        )
        out.append(
            Claim(
                panel,
                f"The more band-limited model, the more robust it is to the introduced noise ({words}).",
                every(*(above(gap, 0) for gap in gaps)),
                f"{'; '.join(said)}; {gaps[0].n} images",
                "Q.1.1",
                min(gaps, key=lambda e: e.low),
            )
        )
    return out


def _reduced_precision(rows: _Rows, kind: str) -> list[Claim]:
    limited = [f"{c} %{kind}" for c in (50, 85)]
    # What stops early has nothing to be done at test.
    others = [f"RPA{kind}"] if kind else [f"RPA{kind}", f"early stopping{kind}"]
    rivals = "the RPA-based method" if kind else "the RPA-based method and under-fitted models"
    if not rows.has("gauss", *limited, *others):
        return []
    gaps = {(a, b): rows.gap("gauss", a, b) for a in limited for b in others}
    worst = min(gaps.values(), key=lambda e: e.low)
    return [
        Claim(
            "rpa",
            f"Band-limited CNNs also outperform {rivals} under noise.",
            every(*(above(gap, 0) for gap in gaps.values())),
            "; ".join(f"{a} less {b} {points(gap)}" for (a, b), gap in gaps.items()),
            "Q.1.1",
            worst,
        )
    ]


def _colour_depth(rows: _Rows, kind: str) -> list[Claim]:
    found = [n for v in (2, 8, 32) if rows.has("contrast-cd", n := f"CD {v}{kind}")]
    out: list[Claim] = []
    if found and rows.has("contrast-cd", base := rows.against[found[0]]):
        gain = rows.gap("contrast-cd", found[0], base)
        out.append(
            Claim(
                "cd",
                "The CD does defend the contrast reduction attack to some extent.",
                above(gain, 0),
                f"{found[0]} less {base} {points(gain)}, {gain.n} images",
                "Q.1.2",
                gain,
            )
        )
    if len(found) > 1:
        pairs = list(pairwise(found))
        gaps = [rows.gap("contrast-cd", a, b) for a, b in pairs]
        said = (f"{a} less {b} {points(g)}" for (a, b), g in zip(pairs, gaps, strict=True))
        out.append(
            Claim(
                "cd-fewer",
                "The fewer values per channel (the stronger the CD), the more robust against contrast reduction.",
                every(*(above(gap, 0) for gap in gaps)),
                "; ".join(said),
                "Q.1.2",
                min(gaps, key=lambda e: e.low),
            )
        )
    return out


def _high_pass(rows: _Rows, kind: str) -> list[Claim]:
    name = f"high-pass{kind}"
    base = rows.against.get(name, "")
    if not rows.has("contrast", name, base):
        return []
    gain = rows.gap("contrast", name, base)
    return [
        Claim(
            "high-pass",
            "Another way to defend the contrast reduction attack is a high-pass filter.",
            above(gain, 0),
            f"{name} less {base} {points(gain)}, {gain.n} images",
            "Q.1.2",
            gain,
        )
    ]


def _spatial(rows: _Rows, kind: str) -> list[Claim]:
    out: list[Claim] = []
    for panel in ("rotation", "translation"):
        for defense, how, names in (
            ("band-limited", "removing the high-frequency coefficients", ("85 %", "50 %")),
            ("cd", "quantization (CD)", ("CD 2", "CD 8", "CD 32")),
        ):
            name = next((f"{n}{kind}" for n in names if rows.has(panel, f"{n}{kind}")), "")
            base = rows.against.get(name, "")
            if not rows.has(panel, name, base):
                continue
            gain = rows.survival(panel, name, base)
            out.append(
                Claim(
                    f"{panel}-{defense}",
                    f"Spatial attacks are not defended by {how} ({panel}, a gain of 5 points at most).",
                    None if gain is None else below(gain, _GAIN),
                    f"fewer than {_ENOUGH} images that both get right"
                    if gain is None
                    else f"{name} less {base}, of {gain.n} images that both get right: {points(gain)}; "
                    f"as plain within 5 points: {_SAID[equivalent(gain, _GAIN)]}",
                    "Q.2",
                    gain,
                )
            )
    return out


_SAID = {True: "yes", False: "no", None: "undecided"}


def _pixels(rows: _Rows) -> list[Claim]:
    """On the images that the single pixel was tried on."""
    if not rows.has("single", "plain") or not rows.has("pixels", "plain"):
        return []
    many = next(r for s, r in rows.at["pixels", "plain"].items() if s in _TENTH)
    (one,) = (r for s, r in rows.at["single", "plain"].items() if s > 0)
    shared = _of(one.draws["index"].to_numpy(), many.draws)
    gap = paired_difference(one.draws, shared, Single())
    return [
        Claim(
            "fig18-pixels",
            "The natural extension is to increase the number of pixels, where the single-pixel attack does not succeed "
            "(a tenth of the pixels, one trial, leaves less than the best of many single ones).",
            above(gap, 0),
            f"single less multiple {points(gap)}, {gap.n} images, plain network",
            "Q.1.3",
            gap,
        )
    ]


def _numbered(table: pa.Table, draw: int) -> pa.Table:
    column = table.schema.get_field_index("draw")
    numbers = pa.array(np.full(table.num_rows, draw, dtype=np.int32))
    return table.set_column(column, "draw", numbers)


def _of(images: np.ndarray, table: pa.Table) -> pa.Table:
    """The rows of these images."""
    return table.filter(pa.array(np.isin(table["index"].to_numpy(), images)))


def _right(table: pa.Table) -> np.ndarray:
    """Indices of the images that are classified rightly."""
    index, label, answer = (table[c].to_numpy() for c in ("index", "label", "predicted"))
    return index[label == answer]
