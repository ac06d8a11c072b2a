"""Experiments as pages: one with its figures and claims, and the whole paper with all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from noisychannel.engine import Execution, Store, key_of, plan
from noisychannel.experiments.abstract import CONTRADICTIONS, DISCREPANCIES, abstract
from noisychannel.experiments.setting import Claim, Experiment, Setting, read
from noisychannel.report.figure import Grid
from noisychannel.report.html import Provenance, Section, page

__all__ = ["Chapter", "chapter", "claims_grid", "paper", "render", "samples"]


@dataclass(frozen=True)
class Chapter:
    """What one experiment shows, from stored rows.

    Args:
        experiment: which.
        where: on what.
        sections: figures and tables.
        claims: the paper's sentences, checked.
        seconds: that its tasks took, those that it shares with others included.
    """

    experiment: Experiment
    where: Setting
    sections: tuple[Section, ...]
    claims: tuple[Claim, ...]
    seconds: float

    @property
    def words(self) -> str:
        """On how many examples, of what, with which networks."""
        return samples(self.experiment, self.where)


def samples(experiment: Experiment, where: Setting) -> str:
    """How many examples, of what, with which networks."""
    words = where.words if experiment.words is None else experiment.words[where.scale]
    return f"{where.data.size} {experiment.examples}; {words}"


def chapter(experiment: Experiment, where: Setting, store: Store) -> Chapter:
    """An experiment's results.

    Raises:
        MissingArtifact: a task was not run yet.
    """
    cells = experiment.cells(where)
    results = tuple(read(cell, store) for cell in cells)
    tasks = plan(m for cell in cells for m in cell.measures).tasks
    seconds = sum(float(str(store.run(key_of(t)).get("seconds", 0))) for t in tasks)
    shown = experiment.sections(where, results)
    claims = experiment.claims(results)
    if where.scale in experiment.stand_ins:
        words = (experiment.words or {}).get(where.scale, where.words)
        claims = tuple(replace(c, evidence=f"[{words}] {c.evidence}") for c in claims)
    return Chapter(experiment, where, shown, claims, seconds)


def claims_grid(claims: Sequence[Claim], title: str = "Claims") -> Grid:
    """Claims as a table."""
    rows = tuple((c.sentence, c.where or "–", c.verdict, c.evidence) for c in claims)
    return Grid(title, ("the paper says", "section", "on these rows", "evidence"), rows)


def render(one: Chapter, provenance: Provenance) -> tuple[str, tuple[Section, ...]]:
    """The experiment's page, and what it shows."""
    shown = (*one.sections, Section("Claims, checked", (claims_grid(one.claims),)))
    held = sum(c.holds is True for c in one.claims)
    lead = f"{held} of {len(one.claims)} checks of the paper's claims hold on these rows; they stand at the end."
    title = f"{one.experiment.title} ({one.where.scale})"
    return page(title, lead, shown, replace(provenance, samples=one.words)), shown


def paper(
    chapters: Sequence[Chapter], missing: Sequence[Experiment], provenance: Provenance
) -> tuple[str, str, tuple[Section, ...]]:
    """The whole paper: lead, page, and sections (which a Markdown twin shows as well)."""
    claims = [c for one in chapters for c in one.claims]
    verdicts = [c.verdict for c in claims]
    count = {v: verdicts.count(v) for v in ("holds", "does not hold", "undecided")}
    lead = (
        f"Of {len(claims)} checks of the paper's claims {count['holds']} hold, {count['does not hold']} do not, and "
        f"{count['undecided']} are undecided on these rows."
    )
    sections: list[Section] = [
        Section("The abstract's five results", (claims_grid(abstract(claims), "Five results"),)),
        Section("Conditions", (_conditions(chapters, missing),)),
    ]
    for one in chapters:
        parts = [part for section in one.sections for part in section.parts]
        ran = f"{one.words}. {_minutes(one.seconds)}: {_command(one)}"
        checked = claims_grid(one.claims, f"{one.experiment.title}: claims")
        sections.append(Section(one.experiment.title, (ran, *parts, checked)))
    sections += [
        Section("The paper beside itself", (Grid(*_BESIDE, CONTRADICTIONS),)),
        Section("The paper beside its authors' code", (Grid(*_CODE, DISCREPANCIES),)),
    ]
    shown = tuple(sections)
    return lead, page("The paper, reproduced", lead, shown, provenance), shown


_BESIDE = ("Where two places of the paper disagree", ("one place", "another", "which we check"))
_CODE = ("Where the text and the authors' code disagree", ("the paper", "the code", "we"))


def _conditions(chapters: Sequence[Chapter], missing: Sequence[Experiment]) -> Grid:
    rows = [(c.experiment.title, c.words, _minutes(c.seconds), _command(c)) for c in chapters]
    rows += [(e.title, "not run", "–", "–") for e in missing]
    header = ("figure or table", "on", "time of its tasks", "command")
    caption = "Tasks that figures share are counted with each. Machines and dates stand in each task's run.json."
    return Grid("What was run", header, tuple(rows), caption)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _command(one: Chapter) -> str:
    """What makes it again, but for folders; options that are the command's own are left out."""
    how, usual = one.where.execution, Execution()
    said = f"noisychannel run {one.experiment.name} --scale {one.where.scale}"
    for option in ("device", "threads", "micro_batch"):
        if getattr(how, option) != getattr(usual, option):
            said += f" --{option.replace('_', '-')} {getattr(how, option)}"
    return said
