"""The tables of an audit's page: every attempt, every finding, what it took, and how it was set."""

from dataclasses import fields

from noisychannel.audit.conduct import Judged
from noisychannel.audit.cost import cost, sides, spent
from noisychannel.audit.explained import EXPLAINED
from noisychannel.audit.finding import Finding, Status
from noisychannel.audit.side import Side
from noisychannel.audit.verdict import EVALUATIONS
from noisychannel.audit.words import counted, data_words
from noisychannel.report.figure import Cell, Facts, Grid
from noisychannel.report.html import Part
from noisychannel.report.stats import Estimate, accuracy

__all__ = ["attempts", "configuration", "findings", "withstood"]

_GROUPS: dict[Status, str] = {
    "fail": "Failed: the headline cannot be taken as it stands",
    "warn": "Warnings: the headline stands, with this beside it",
    "not run": "Not run",
    "pass": "Passed",
}

_SIDES = {
    "defense": "On the defense",
    "base": "On its base",
    "frozen": "On the defense with its randomness frozen",
}


def findings(judged: Judged) -> tuple[Part, ...]:
    """Grouped by status, the gravest first."""
    groups: dict[Status, list[Finding]] = {
        s: [f for f in judged.findings if f.status == s] for s in _GROUPS
    }
    return tuple(_group(status, found) for status, found in groups.items() if found)


def _group(status: Status, found: list[Finding]) -> Grid:
    mends = any(f.mend for f in found)
    header = ("check", "what should be true", "evidence", *(("what to do",) if mends else ()))
    rows = [
        (_named(f), EXPLAINED[f.name], f.evidence, *((f.mend or "–",) if mends else ()))
        for f in found
    ]
    return Grid(f"{_GROUPS[status]} ({len(found)})", header, tuple(rows))


def _named(f: Finding) -> str:
    if f.status != "fail":
        return f.name
    verdict = next((v for v, names in EVALUATIONS.items() if f.name in names), None)
    return f.name if verdict is None else f"{f.name} → {verdict}"


def attempts(judged: Judged) -> tuple[Part, ...]:
    """Every attack and control, on each side."""
    return tuple(_attempted(_SIDES[name], side) for name, side in sides(judged).items())


def _attempted(title: str, side: Side) -> Grid:
    rows: list[tuple[Cell, ...]] = []
    for name, a in side.attempts.items():
        gradients, queries = (f"{n / len(a.positions):,.0f}" for n in spent(side, name))
        rows.append((name, a.setting, a.family, withstood(side, name), gradients, queries))
    header = (
        "attempt",
        "setting",
        "finds its way by",
        "accuracy on the images tried",
        "gradients",
        "other questions",
    )
    caption = (
        "Later attacks are tried on images that withstood the earlier ones, so that their accuracy is no measure of "
        "their strength. Gradients and questions: per image, all draws counted; 0 where images of others were used."
    )
    return Grid(f"{title} ({len(rows)})", header, tuple(rows), caption)


def withstood(side: Side, name: str) -> Estimate:
    """Accuracy on the images that an attempt was made on; of a control whatever its candidates' distance."""
    attempt = side.attempts[name]
    if attempt.setting == "control":
        return accuracy(side.answers(name), side.rule)
    return side.accuracy(name, at=attempt.positions)


def configuration(judged: Judged) -> tuple[Part, ...]:
    """Everything that a second run needs, and what the first took."""
    r, spend = judged.evidence.request, cost(judged)
    pairs = [
        ("Defense", str(r.defense)),
        ("Base", "–" if r.twin is None else str(r.twin)),
        ("Data", f"{data_words(r.data)}: {counted(r.data.size, 'example')}"),
        ("Fingerprint of the data", r.data.fingerprint()),
        ("Assumed by the partially adaptive attacker", str(r.assumed)),
        ("Seed", str(r.seed)),
        ("Execution", str(r.execution)),
    ]
    budget = tuple(
        (
            f.name.replace("_", " "),
            f"{getattr(r.budget, f.name):,}" if f.name != "name" else r.budget.name,
        )
        for f in fields(r.budget)
    )
    took = (
        ("Gradients", f"{spend.gradients:,}, over all images and draws"),
        ("Other questions of attackers", f"{spend.queries:,}"),
        ("Answers scored", f"{spend.answers:,}"),
        ("Time", _clock(spend.seconds)),
    )
    return (
        Facts("Cost", took),
        Facts("Configuration", tuple(pairs)),
        Facts(f"Budget {r.budget.name}", budget),
    )


def _clock(seconds: float) -> str:
    """Of the run that made the results, whenever that was."""
    minutes, rest = divmod(round(seconds), 60)
    spent_on = f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
    return f"{spent_on} of computing; what was found in the store counts as it did when it was made"
