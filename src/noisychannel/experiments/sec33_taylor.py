"""Section 3.3: how a small random perturbation changes a class's confidence, and what its expansion says of it.

f(x + ε) − f(x) of the predicted class's confidence, its first and second term, at clean and at C&W images, for
Gaussian ε of several lengths; and M₁ = ‖∇f‖₂, M₂ = ‖∇²f‖, as the section defines them.

Differs:
    1. The paper shows no number of the expansion, only M₁ (Figures 12 to 15) and M₂ (Figure 16).
    2. The Hessian's term is exact for a piecewise linear network, almost everywhere; kinks are in what is left over.
    3. M₂ is the eigenvalue of largest size, the operator norm that the section means: near the maximum of the
       confidence the largest with its sign is 0.
    4. Network and images: the authors' ResNet-20, pixels of [0, 1].
"""

import numpy as np
import pyarrow as pa

from noisychannel.defenses import Defense
from noisychannel.engine import Analyse
from noisychannel.experiments.defended import points
from noisychannel.experiments.gradients import crafts, default_cw
from noisychannel.experiments.setting import Cell, Claim, Experiment, Result, Scale, Setting
from noisychannel.experiments.verdict import above, below, every, number
from noisychannel.measures import Jacobian, TaylorTerms, eigenvalues, gradient_norms
from noisychannel.report.figure import Figure, Grid, Panel, Series
from noisychannel.report.html import Section
from noisychannel.report.numbers import difference_of, mean_of, ratio_of_means, share_of

__all__ = ["SEC33", "SUBSETS"]

SUBSETS: dict[Scale, str] = {"smoke": "first:60", "desk": "first:300", "paper": "first:1000"}

# From a hundredth of the C&W distance (about .4 on CIFAR-10) to ten times it, where channels of Figure 1 work.
_LENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_AT = ("clean", "C&W")


def _cells(setting: Setting) -> tuple[Cell, ...]:
    made = crafts(setting, default_cw(setting.scale))
    bare = Defense(setting.network)
    out: list[Cell] = []
    for what, question in (("terms", TaylorTerms(_LENGTHS)), ("bounds", Jacobian())):
        for at in _AT:
            tasks = tuple(
                Analyse(
                    part,
                    bare,
                    question,
                    craft if at == "C&W" else None,
                    execution=setting.execution,
                )
                for part, craft in zip(setting.parts(), made, strict=True)
            )
            out.append(Cell((("what", what), ("at", at)), tasks))
    return tuple(out)


class _Rows:
    """Terms by (at, length) and bounds by at, of the images that C&W moved across: right when clean, then wrong."""

    def __init__(self, results: tuple[Result, ...]) -> None:
        by = {(r.place["what"], r.place["at"]): r.draws for r in results}
        clean = by["bounds", "clean"]
        label = clean["label"].to_numpy()
        right = clean["predicted"].to_numpy() == label
        moved = right & (by["bounds", "C&W"]["predicted"].to_numpy() != label)
        self.n = int(moved.sum())
        self.slope: dict[str, np.ndarray] = {}
        self.curve: dict[str, np.ndarray] = {}
        self._terms: dict[tuple[str, float, str], np.ndarray] = {}
        index = clean["index"].to_numpy()
        for at in _AT:
            rows = by["bounds", at]
            said = rows["predicted"].to_numpy()
            norms = gradient_norms(rows, "confidence")
            self.slope[at] = norms[np.arange(len(said)), said][moved]
            self.curve[at] = np.abs(eigenvalues(rows, "confidence")).max(axis=1)[moved]
            terms = by["terms", at]
            these = np.isin(terms["index"].to_numpy(), index[moved])
            lengths = terms["length"].to_numpy()
            for length in _LENGTHS:
                here = these & np.isclose(lengths, length)
                for name in ("changed", "first", "second", "kept"):
                    values = terms[name].to_numpy()[here].astype(np.float64)
                    self._terms[at, length, name] = _per_image(values, terms, here)

    def term(self, at: str, length: float, name: str) -> np.ndarray:
        """(images, draws)."""
        return self._terms[at, length, name]


def _per_image(values: np.ndarray, terms: pa.Table, here: np.ndarray) -> np.ndarray:
    index, draw = (terms[c].to_numpy()[here] for c in ("index", "draw"))
    order = np.lexsort((draw, index))
    return values[order].reshape(len(np.unique(index)), -1)


def _curve(rows: _Rows, at: str, name: str, what: str) -> Series:
    means = [mean_of(np.abs(rows.term(at, x, name)).mean(axis=1)) for x in _LENGTHS]
    middle, low, high = zip(*((m.value, m.low, m.high) for m in means), strict=True)
    return Series(what, _LENGTHS, middle, low, high)


def _sections(setting: Setting, results: tuple[Result, ...]) -> tuple[Section, ...]:
    rows = _Rows(results)
    if rows.n == 0:
        return (Section("Section 3.3", ("No attack succeeded: nothing to draw.",)),)
    panels = tuple(
        Panel(
            f"{at} images",
            "length of the perturbation (L2, pixels of [0, 1])",
            "mean size of the change of confidence",
            (
                _curve(rows, at, "changed", "f(x + ε) − f(x)"),
                _curve(rows, at, "first", "first term"),
                _curve(rows, at, "second", "second term"),
            ),
            log_x=True,
            y_range=(0.0, 1.0),
        )
        for at in _AT
    )
    caption = (
        "What Gaussian perturbations change in the confidence of the predicted class, and the first two terms of its "
        f"expansion, at {rows.n} images when clean and when attacked by C&W. {setting.words}; bands: 95 %."
    )
    figure = Figure("sec33", "Section 3.3: the expansion on data", caption, panels)
    lines = [
        (
            name,
            *(number(mean_of(values[at])) for at in _AT),
            number(ratio_of_means(values["C&W"], values["clean"])),
        )
        for name, values in (
            ("M₁ = ‖∇f‖₂", rows.slope),
            ("M₂ = ‖∇²f‖, its eigenvalue of largest size", rows.curve),
        )
    ]
    lines += [
        (
            f"same class after ε of length {x:g}",
            *(f"{100 * rows.term(at, x, 'kept').mean():.1f} %" for at in _AT),
            "–",
        )
        for x in _LENGTHS
    ]
    grid = Grid("M₁, M₂ and stability", ("", *_AT, "C&W over clean"), tuple(lines))
    return (Section("Section 3.3: perturbation analysis", (figure, grid)),)


def _claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    rows = _Rows(results)
    if rows.n == 0:
        return ()
    ratios = [ratio_of_means(v["C&W"], v["clean"]) for v in (rows.slope, rows.curve)]
    # A perturbation a quarter as long as C&W's own: the expansion is of small ones.
    length = 0.1
    left = {
        at: np.abs(
            rows.term(at, length, "changed")
            - rows.term(at, length, "first")
            - rows.term(at, length, "second")
        ).mean(axis=1)
        for at in _AT
    }
    size = np.abs(rows.term("C&W", length, "changed")).mean(axis=1)
    rest = ratio_of_means(left["C&W"], size)
    stays = [rows.term(at, length, "kept").mean(axis=1) for at in _AT]
    kept = [share_of(s > 0.5) for s in stays]
    lost = difference_of(stays[1] - stays[0])
    terms = [np.abs(rows.term("C&W", length, which)).mean(axis=1) for which in ("second", "first")]
    second = ratio_of_means(*terms)
    return (
        *(
            Claim(
                f"sec33-{order}",
                f"{name} around adversarial examples exhibits signs of instability: larger than around natural ones.",
                above(ratio, 1.0),
                f"C&W over clean: {number(ratio)}; {ratio.n} images",
                "3.3",
                ratio,
            )
            for order, name, ratio in zip(("first", "second"), ("M₁", "M₂"), ratios, strict=True)
        ),
        Claim(
            "sec33-unstable",
            "Small perturbations to the input can change the predictions of adversarial examples drastically.",
            below(lost, 0.0),
            f"class kept by most ε of length {length:g}: clean {kept[0].percent}, C&W {kept[1].percent}; share of ε "
            f"that keep it, C&W less clean: {points(lost)}; {lost.n} images",
            "3.3",
            lost,
        ),
        # The terms govern the change if they leave less than a fifth of it; 1/2! is the second's factor.
        Claim(
            "sec33-governed",
            "The change in confidence is governed by the Taylor terms in factorially decreasing importance.",
            every(below(rest, 0.2), below(second, 0.5)),
            f"C&W images, ε of length {length:g}: two terms leave {number(rest)} of the change (less than .2); the "
            f"second is {number(second)} of the first (less than 1/2!)",
            "3.3",
            rest,
        ),
    )


SEC33 = Experiment(
    "sec33", "Section 3.3: perturbation analysis", SUBSETS, _cells, _sections, _claims
)
