"""An audit from its first step to its verdicts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from noisychannel.audit.again import again
from noisychannel.audit.attempts import SETTINGS
from noisychannel.audit.certificates import certificates
from noisychannel.audit.checks import CHECKS
from noisychannel.audit.controls import controls
from noisychannel.audit.evidence import Evidence
from noisychannel.audit.finding import Finding
from noisychannel.audit.request import Request
from noisychannel.audit.side import CLEAN
from noisychannel.audit.steps import Step, attacks_on
from noisychannel.audit.verdict import Evaluation, Gain, evaluation, gain
from noisychannel.engine import (
    Binarize,
    Certify,
    Craft,
    Measure,
    Store,
    Task,
    binarization_rows,
    pace,
    plan,
    table,
)
from noisychannel.engine import certificates as certified
from noisychannel.report.stats import Estimate

__all__ = ["Judged", "Run", "conduct", "foresee"]

Run = Callable[[str, Sequence[Task]], None]
"""Makes the tasks of a step, by its name."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What the rows of an audit say.

    Args:
        evidence: the rows.
        examined: findings about the network as it was handed over, before any attack.
    """

    evidence: Evidence
    examined: tuple[Finding, ...] = ()

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """Of the examination and of all checks."""
        return (*self.examined, *(check(self.evidence) for check in CHECKS))

    @cached_property
    def headline(self) -> Estimate:
        """Accuracy under the worst that any attacker tested can do, example by example."""
        return self.evidence.headline

    @cached_property
    def evaluation(self) -> Evaluation:
        """Whether the headline can be believed."""
        return evaluation(
            self.findings,
            decided=self.evidence.decided,
            skipped=bool(self.evidence.skipped),
        )

    @cached_property
    def difference(self) -> Estimate | None:
        """Robust accuracy less that of the base or strength-0 twin; None: there is none, or it was not attacked."""
        return self.evidence.difference

    @cached_property
    def gain(self) -> Gain:
        """Whether the defense is worth anything beside its base."""
        found = gain(self.difference, self.headline, self.evidence.request.data.classes)
        # What a broken evaluation leaves standing may fall to a better one; that nothing is left may not.
        sound = self.evaluation in ("VALID", "UNDER-POWERED")
        return "UNDECIDED" if found == "REAL" and not sound else found

    @cached_property
    def smallest(self) -> Estimate | None:
        """Accuracy under the attacker of the paper's Figure 1: smallest distortion, and no word of the defense."""
        mine = self.evidence.mine
        found = [n for n in mine.named("non-adaptive") if not n.startswith("PGD")]
        return mine.accuracy(found[0]) if found else None

    @property
    def ladder(self) -> dict[str, Estimate]:
        """`settings` with `smallest` in its place: what the same knowledge leaves to who stops at the boundary."""
        out: dict[str, Estimate] = {}
        for setting, estimate in self.settings.items():
            if setting == "non-adaptive" and self.smallest is not None:
                out["smallest change"] = self.smallest
            out[setting] = estimate
        return out

    @cached_property
    def settings(self) -> dict[str, Estimate]:
        """Accuracy by threat setting, each attacker with all that the weaker ones have."""
        mine = self.evidence.mine
        out: dict[str, Estimate] = {"clean": mine.accuracy(CLEAN)}
        known: list[str] = []
        for setting in SETTINGS:
            found = () if setting == "clean" else mine.named(setting)
            known += found
            if found:
                out[setting] = mine.worst(known).estimate
        return out


def conduct(
    request: Request, store: Store, run: Run, *, minutes: float | None = None, workers: int = 1
) -> Evidence:
    """Run the steps that are needed; one that would not end in time is left out, and said.

    Args:
        request: the audit.
        store: where rows are kept: an audit that was killed goes on from them.
        run: makes a step's tasks.
        minutes: of the whole; None: as long as it takes.
        workers: tasks that `run` makes side by side.
    """
    evidence, began = Evidence(request, store), time.monotonic()
    made: list[Task] = []
    for steps in (attacks_on, controls, certificates, again):
        for step in steps(evidence):
            if evidence.decided and not step.needed:
                continue
            wanted = step.tasks
            if minutes is not None and not step.needed:
                left = 60 * minutes - (time.monotonic() - began)
                if left <= 0 or _seconds(wanted, made, store, workers) > left:
                    evidence.skip(step.name)
                    continue
            run(step.name, wanted)
            made += wanted
            evidence.know(step.attempts)
            for name, task in step.other.items():
                evidence.other[name] = _rows(store, task)
    return evidence


def _seconds(wanted: Sequence[Task], made: Sequence[Task], store: Store, workers: int) -> float:
    """How long tasks will take, by those that were made; by a trial, which takes its time, where none are alike."""
    rates = pace(plan([*made, *wanted]), store)
    return rates.seconds(plan(wanted).todo(store).tasks, workers)


def _rows(store: Store, task: Task) -> pa.Table:
    match task:
        case Binarize():
            return binarization_rows(store, task)
        case Certify():
            return certified(store, task)
        case Craft() | Measure():
            return table(store, task)
        case _:
            raise ValueError(f"task: expected one with rows, got {task}")


def foresee(request: Request, store: Store) -> tuple[Step, ...]:
    """All steps at their dearest: an audit may end earlier, and attacks what is left alone."""
    evidence = Evidence(request, store, foreseen=True)
    found: list[Step] = []
    for steps in (attacks_on, controls, certificates, again):
        for step in steps(evidence):
            found.append(step)
            evidence.know(step.attempts)
    return tuple(found)
