"""Certificates → certified accuracy against the radius, as a page and as the table that others read."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa

from noisychannel.measures import ABSTAIN
from noisychannel.measures.certify import lower_bound, radius
from noisychannel.report.figure import Figure, Grid, Panel, Series
from noisychannel.report.html import Provenance, Section, page
from noisychannel.report.numbers import mean_of, share_of
from noisychannel.report.stats import Estimate

__all__ = ["abstained", "certified_accuracy", "radii", "render", "tsv"]

_STEP = 0.25
_MOST = 20


def certified_accuracy(rows: pa.Table, at: float) -> Estimate:
    """Share of examples whose label is right and certified at an L2 radius of at least `at`.

    Source: Cohen, Rosenfeld & Kolter 2019, section 4.
    """
    return share_of(_right(rows) & (_column(rows, "radius") >= at))


def abstained(rows: pa.Table) -> Estimate:
    """Share of examples without a certificate."""
    return share_of(_column(rows, "predicted") == ABSTAIN)


def radii(rows: pa.Table) -> tuple[float, ...]:
    """0, 0.25, 0.5 … as far as a right label is certified; finer where that is near, coarser where it is far."""
    reach, step = _reach(rows), _STEP
    if reach == 0:
        return (0.0,)
    while reach < 2 * step:
        step /= 2
    while reach > _MOST * step:
        step *= 2
    return tuple(step * k for k in range(int(reach / step) + 1))


def tsv(rows: pa.Table, seconds: Sequence[float]) -> str:
    """Columns idx, label, predict (−1: abstains), radius, correct, time, as the authors' code writes and reads them.

    Args:
        rows: certificates.
        seconds: that each example took, as many as rows.

    Source: Cohen, Rosenfeld & Kolter 2019, their released tables.
    Differs: 1. the radius has all its digits: three could round it up to one that is not certified.
    """
    columns = ("index", "label", "predicted", "radius")
    lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
    values = zip(*(_column(rows, c).tolist() for c in columns), seconds, strict=True)
    for index, label, predicted, far, took in values:
        correct = int(predicted == label)
        lines.append(
            f"{index}\t{label}\t{predicted}\t{far!r}\t{correct}\t{timedelta(seconds=took)}"
        )
    return "\n".join(lines) + "\n"


def render(
    name: str, rows: pa.Table, provenance: Provenance, *, random_base: bool, elements: int
) -> tuple[str, tuple[Section, ...]]:
    """The page's text, and what it shows.

    Args:
        name: of what was certified.
        rows: certificates of one σ, α, n and n0.
        provenance: stands at the end.
        random_base: whether the network is random without the noise that certifies.
        elements: pixels × colours of an example.
    """
    shown = (
        Section("Certified accuracy", (_grid(rows), _figure(rows), _average(rows))),
        Section(
            "What is certified, and what is not",
            (_guarantee(rows), _limits(rows, elements), _RANDOM if random_base else _PLAIN),
        ),
    )
    return page(f"noisychannel certify: {name}", _lead(name, rows), shown, provenance), shown


def _lead(name: str, rows: pa.Table) -> str:
    far = radii(rows)
    middle = far[len(far) // 2]
    beyond = (
        f", {certified_accuracy(rows, middle).percent} within an L2 distance of {middle:g}"
        if middle
        else ""
    )
    return (
        f"{name}, smoothed by Gaussian noise of σ = {_one(rows, 'sigma'):g}: of {rows.num_rows} labels "
        f"{certified_accuracy(rows, 0).percent} are right and certified at some radius{beyond}; on "
        f"{abstained(rows).percent} it abstains."
    )


def _grid(rows: pa.Table) -> Grid:
    return Grid(
        "Right labels certified at a radius",
        ("L2 radius", "certified accuracy"),
        tuple((f"{r:g}", certified_accuracy(rows, r)) for r in radii(rows)),
        "No perturbation of this length or less changes the smoothed answer. Pixels in [0, 1].",
    )


def _figure(rows: pa.Table) -> Figure:
    table = radii(rows)
    fine = (table[1] if len(table) > 1 else _STEP) / 5
    # The first position beyond all certificates shows where the curve ends.
    places = tuple(fine * k for k in range(int(_reach(rows) / fine) + 2))
    found = [certified_accuracy(rows, r) for r in places]
    series = Series(
        f"σ = {_one(rows, 'sigma'):g}",
        places,
        tuple(e.value for e in found),
        tuple(e.low for e in found),
        tuple(e.high for e in found),
    )
    panel = Panel(
        "Certified accuracy",
        "L2 radius, pixels in [0, 1]",
        "share of examples",
        (series,),
        y_range=(0.0, 1.0),
    )
    return Figure(
        "certified",
        "Certified accuracy against the radius",
        "Share of examples whose label is right and certified at least at this radius, with 95 % intervals.",
        (panel,),
    )


def _average(rows: pa.Table) -> str:
    mean = mean_of(np.where(_right(rows), _column(rows, "radius"), 0.0))
    return (
        f"Mean certified radius, 0 for wrong labels and abstentions: {mean.value:.3f} "
        f"[{mean.low:.3f}, {mean.high:.3f}]."
    )


def _guarantee(rows: pa.Table) -> str:
    alpha, n, n0 = _one(rows, "alpha"), int(_one(rows, "n")), int(_one(rows, "n0"))
    return (
        f"For each image the class was chosen on {n0:,} noisy draws, and its probability bounded from below on "
        f"{n:,} others (Clopper-Pearson, one-sided). One certificate is wrong with a chance of at most {alpha:g}, so "
        f"that {alpha * rows.num_rows:.2g} of {rows.num_rows:,} are expected to be, at most. A right certificate holds "
        "against every attack within its radius, known or not."
    )


def _limits(rows: pa.Table, elements: int) -> str:
    n, sigma = int(_one(rows, "n")), _one(rows, "sigma")
    best = radius(lower_bound(np.array([n]), n, _one(rows, "alpha")), sigma)[0]
    return (
        "What is certified is the answer that most noisy copies of an image get, found by many draws; it says nothing "
        "of the network without the noise, nor of an answer from a single draw. It is about L2 distances alone: "
        f"a radius r in L2 is r/√{elements} = {1 / elements**0.5:.2g}·r in L∞. With {n:,} draws no radius above "
        f"{best:.3f} can be shown, however robust the network is."
    )


_RANDOM = (
    "The network is random without this noise too. The certificate is of the majority over all of that noise, drawn "
    "anew for every copy; a network that draws it once and keeps it is another one."
)
_PLAIN = "The network itself is not random: all randomness is the noise that was added."


def _right(rows: pa.Table) -> np.ndarray:
    return _column(rows, "predicted") == _column(rows, "label")


def _reach(rows: pa.Table) -> float:
    """The largest radius of a right label."""
    return float(np.where(_right(rows), _column(rows, "radius"), 0.0).max())


def _one(rows: pa.Table, name: str) -> float:
    return float(_column(rows, name)[0])


def _column(rows: pa.Table, name: str) -> np.ndarray:
    return rows.column(name).to_numpy()
