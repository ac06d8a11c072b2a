"""An audit as a page: what is known first, then the evidence, then everything that was done."""

from noisychannel.audit.assumptions import assumptions
from noisychannel.audit.conduct import Judged
from noisychannel.audit.headline import badges, known, lead
from noisychannel.audit.panels import convergence, settings, sweep, window
from noisychannel.audit.pictures import images
from noisychannel.audit.side_by_side import side_by_side, terminal_table
from noisychannel.audit.tables import attempts, configuration, findings
from noisychannel.audit.tries import tries
from noisychannel.audit.untested import untested
from noisychannel.errors import expected
from noisychannel.report.figure import Facts, Grid
from noisychannel.report.html import Provenance, Section, page

__all__ = ["render", "terminal_table"]


def render(audits: tuple[Judged, ...], provenance: Provenance) -> tuple[str, tuple[Section, ...]]:
    """The page's text, and what it shows: one audit in full, or several side by side.

    Args:
        audits: one or more.
        provenance: stands at the end.

    Raises:
        UserError: no audit, or several of other data, norms or budgets.
    """
    judged = next(iter(audits), None)
    if judged is None:
        raise expected("audits", "one or more", "none")
    if len(audits) > 1:
        return side_by_side(audits, provenance)
    shown = _sections(judged)
    title = f"noisychannel audit: {judged.evidence.request.name}"
    return page(title, lead(judged), shown, provenance, badges(judged)), shown


def _sections(judged: Judged) -> tuple[Section, ...]:
    missing = Grid("Not counted in the headline", ("why", "what"), untested(judged))
    model = Facts("Threat model", assumptions(judged.evidence.request))
    return (
        Section("What is known", (known(judged),)),
        Section("What the attacker may do", (model,)),
        Section("What was not tested", (missing,)),
        Section("Accuracy by threat setting", settings(judged)),
        Section("Accuracy against ε", sweep(judged)),
        Section("Convergence: draws, steps, restarts", convergence(judged)),
        Section("An attacker who tries again", tries(judged)),
        Section("Recovery window", window(judged)),
        Section("Images", images(judged)),
        Section("Findings", findings(judged)),
        Section("All attempts", attempts(judged)),
        Section("Configuration and cost", configuration(judged)),
    )
