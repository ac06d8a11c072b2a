"""The claims of section 4.6, and the rows that they are read from."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from noisychannel.decision import MeanProb, Single
from noisychannel.experiments.defended import points, said
from noisychannel.experiments.setting import Claim, Result
from noisychannel.experiments.verdict import above, below, every, given, off
from noisychannel.experiments.votes import gain
from noisychannel.experiments.white_box import gap
from noisychannel.report.numbers import equivalent
from noisychannel.report.stats import Estimate

__all__ = ["MOST", "NETWORKS", "PASSES", "SIGMAS", "Rows", "Tensors", "claims"]

NETWORKS = ("Plain", "RobustNet", "VGG-16")
"""Whose tensors are looked at."""
# The authors' numbers of passes.
PASSES = (1, 2, 4, 8, 10, 16, 20, 30, 40, 50)
MOST = PASSES[-1]
# σ of Figure 2 C, and steps between: at .01 nothing is to be lost, at .02 everything.
SIGMAS = (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07)


@dataclass(frozen=True, eq=False)
class Tensors:
    """Per convolution, in the order in which they fire: std and elements of its input (per image) and its weight."""

    input_std: np.ndarray
    input_count: np.ndarray
    weight_std: np.ndarray
    weight_count: np.ndarray

    @property
    def count_ratio(self) -> float:
        """Elements of features over those of weights. Layers are all there are, no sample: nothing has an interval."""
        return float(self.input_count.sum() / self.weight_count.sum())

    @property
    def std_ratio(self) -> float:
        """Mean over layers of the features' std, over that of the weights'."""
        return float(self.input_std.mean() / self.weight_std.mean())


def _pooled(rows: pa.Table) -> Tensors:
    """One line per layer out of one per layer and micro-batch: √ of the mean variance over all images."""
    position, images = rows["position"].to_numpy(), rows["examples"].to_numpy()
    _, first = np.unique(position, return_index=True)
    variance = np.bincount(position, images * rows["input_std"].to_numpy() ** 2)
    counts = [rows[c].to_numpy()[first] for c in ("input_count", "weight_std", "weight_count")]
    return Tensors(np.sqrt(variance / np.bincount(position, images)), *counts)


class Rows:
    """Results by what they are for."""

    def __init__(self, results: tuple[Result, ...]) -> None:
        parts: dict[str, list[Result]] = {"ensemble": [], "tensors": [], "parameters": []}
        for r in results:
            parts[str(r.place["part"])].append(r)
        self.ensembles = {str(r.place["at"]): r for r in parts["ensemble"]}
        self.radii = {at: float(r.place["strength"]) for at, r in self.ensembles.items()}
        self.tensors = {str(r.place["at"]): _pooled(r.draws) for r in parts["tensors"]}
        self.noisy = {float(r.place["strength"]): r for r in parts["parameters"]}

    def gain(self, at: str) -> Estimate:
        """Accuracy of the ensemble of most passes less that of single answers."""
        return gain(self.ensembles[at].draws, MeanProb(MOST), Single())


def claims(results: tuple[Result, ...]) -> tuple[Claim, ...]:
    """Of what was run."""
    rows = Rows(results)
    return (*_of_ensembles(rows), *_of_tensors(rows), *_of_parameters(rows))


def _of_ensembles(rows: Rows) -> list[Claim]:
    """A good predictor answers more than half rightly, a poor one less than half; an "if" is a guard."""
    if rows.ensembles.keys() != {"clean", "weak", "strong"}:
        return []
    gains = {at: rows.gain(at) for at in rows.ensembles}
    alone = {at: said(r, Single()) for at, r in rows.ensembles.items()}
    good = {at: above(alone[at], 0.5) for at in alone}
    wanted = (
        (
            "sec46-ensemble-clean",
            "The ensemble performs better than a single model if each of its models is a good predictor (clean).",
            "clean",
            given(good["clean"], above(gains["clean"], 0.0)),
        ),
        (
            "sec46-ensemble-weak",
            "For weak attacks, RobustNet performs well and its good performance is amplified by the ensemble.",
            "weak",
            every(above(gains["weak"], 0.0), good["weak"]),
        ),
        (
            "sec46-ensemble-strong",
            "For strong attacks, the RobustNet predictor performs poorly and the ensemble magnifies the errors.",
            "strong",
            every(below(gains["strong"], 0.0), below(alone["strong"], 0.5)),
        ),
    )
    return [
        Claim(
            name,
            sentence,
            verdict,
            f"{at}{_radius(rows, at)}: one pass {alone[at].percent}; {MOST} passes less one {points(gains[at])}; "
            f"{gains[at].n} images",
            "4.6",
            gains[at],
        )
        for name, sentence, at, verdict in wanted
    ]


def _radius(rows: Rows, at: str) -> str:
    return f" (PGD, ε {rows.radii[at]:g})" if rows.radii[at] else ""


def _of_tensors(rows: Rows) -> list[Claim]:
    """An order of magnitude is a ratio of 10 or more, of the network that both kinds of noise are added to."""
    if "Plain" not in rows.tensors:
        return []
    found = rows.tensors["Plain"]
    counts, stds = found.count_ratio, found.std_ratio
    layers = f"{len(found.input_std)} layers"
    return [
        Claim(
            "sec46-fewer-parameters",
            "The number of parameters is an order of magnitude lower than the number of elements in the input and "
            "intermediate feature maps.",
            counts >= 10,
            f"{found.input_count.sum():,.0f} elements per image, {found.weight_count.sum():,.0f} weights: ratio "
            f"{counts:.3g}; {layers}",
            "4.6",
        ),
        Claim(
            "sec46-smaller-parameters",
            "The standard deviations of tensors for features are an order of magnitude higher than for parameters.",
            stds >= 10,
            f"means {found.input_std.mean():.3f} and {found.weight_std.mean():.3f}: ratio {stds:.3g}; {layers}",
            "4.6",
        ),
    ]


def _of_parameters(rows: Rows) -> list[Claim]:
    """Margins: negligible is less than two points; a random classifier has 10 % to within five points."""
    if not {0.0, 0.01, 0.02} <= rows.noisy.keys():
        return []
    plain = said(rows.noisy[0.0], Single())
    lost = gap(rows.noisy[0.0], rows.noisy[0.01])
    broken = said(rows.noisy[0.02], Single())
    # Of a network that answers rightly without noise: of another there is nothing to lose.
    works = above(plain, 0.5)
    return [
        Claim(
            "sec46-param-harmless",
            "For a small amount of noise (σ = 0.01) the drop in clean accuracy is negligible.",
            given(works, below(lost, 0.02)),
            f"σ 0 {plain.percent}; less σ 0.01 at test only: {points(lost)}; {lost.n} images",
            "4.6",
            lost,
        ),
        Claim(
            "sec46-param-random",
            "A slight increase (to σ = 0.02) during the test phase turns the network into a random classifier.",
            given(works, equivalent(off(broken, 0.1), 0.05)),
            f"σ 0 {plain.percent}; σ 0.02 at test only: {broken.percent} (a random one: 5 to 15 %); {broken.n} images",
            "4.6",
            broken,
        ),
    ]
