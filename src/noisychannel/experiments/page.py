"""An experiment as a page: its figures and tables, and its claims checked."""

from dataclasses import replace

from noisychannel.engine import Store
from noisychannel.experiments.setting import Claim, Experiment, Setting, read
from noisychannel.report.figure import Grid
from noisychannel.report.html import Provenance, Section, page

__all__ = ["render"]


def render(
    experiment: Experiment, where: Setting, store: Store, provenance: Provenance
) -> tuple[str, tuple[Section, ...], tuple[Claim, ...]]:
    """The page's text, what it shows, and the claims, from stored rows.

    Raises:
        MissingArtifact: a task was not run yet.
    """
    results = tuple(read(cell, store) for cell in experiment.cells(where))
    claims = experiment.claims(results)
    rows = tuple((c.sentence, _verdict(c), c.evidence) for c in claims)
    checked = Grid("Claims", ("the paper says", "on these rows", "evidence"), rows)
    shown = (*experiment.sections(where, results), Section("Claims, checked", (checked,)))
    if experiment.words is not None:
        samples = f"{where.data.size} images; {experiment.words[where.scale]}"
        provenance = replace(provenance, samples=samples)
    held = sum(c.holds for c in claims)
    lead = f"{held} of {len(claims)} checks of the paper's claims hold on these rows; they stand at the end."
    return page(f"{experiment.title} ({where.scale})", lead, shown, provenance), shown, claims


def _verdict(claim: Claim) -> str:
    return "holds" if claim.holds else "does not hold"
