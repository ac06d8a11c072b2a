"""An audit from its first step to its verdicts."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from noisychannel.audit.attempts import SETTINGS
from noisychannel.audit.checks import CHECKS
from noisychannel.audit.controls import controls
from noisychannel.audit.evidence import Evidence
from noisychannel.audit.finding import Finding
from noisychannel.audit.request import Request
from noisychannel.audit.side import CLEAN
from noisychannel.audit.steps import Step, attacks_on
from noisychannel.audit.verdict import Evaluation, Gain, evaluation, gain
from noisychannel.engine import Binarize, Store, Task, binarization_rows, pace, plan
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
        found = gain(self.difference)
        # What a broken evaluation leaves standing may fall to a better one; that nothing is left may not.
        sound = self.evaluation in ("VALID", "UNDER-POWERED")
        return "UNDECIDED" if found == "REAL" and not sound else found

    @cached_property
    def settings(self) -> dict[str, Estimate]:
        """Accuracy by threat setting, each attacker with all that the weaker ones have."""
        mine = self.evidence.mine
        out: dict[str, Estimate] = {"clean": mine.accuracy(CLEAN)}
        known: list[str] = []
        for setting in SETTINGS:
            found = () if setting in ("clean", "control") else mine.named(setting)
            known += found
            if found:
                out[setting] = mine.worst(known).estimate
        return out


def conduct(request: Request, store: Store, run: Run, *, minutes: float | None = None) -> Evidence:
    """Run the steps that are needed; one that would not end in time is left out, and said.

    Args:
        request: the audit.
        store: where rows are kept: an audit that was killed goes on from them.
        run: makes a step's tasks.
        minutes: of the whole; None: as long as it takes.
    """
    evidence, began = Evidence(request, store), time.monotonic()
    for steps in (attacks_on, controls):
        for step in steps(evidence):
            if evidence.decided and not step.needed:
                continue
            wanted = [*(m for a in step.attempts for m in a.measures), *step.other.values()]
            if minutes is not None:
                whole = plan(wanted)
                left = whole.todo(store).work / pace(whole, store).rate
                if time.monotonic() - began + left > 60 * minutes and not step.needed:
                    evidence.skip(step.name)
                    continue
            run(step.name, wanted)
            evidence.know(step.attempts)
            for name, task in step.other.items():
                assert isinstance(task, Binarize)
                evidence.other[name] = binarization_rows(store, task)
    return evidence


def foresee(request: Request, store: Store) -> tuple[Step, ...]:
    """All steps at their dearest: an audit may end earlier, and attacks what is left alone."""
    evidence = Evidence(request, store, foreseen=True)
    found: list[Step] = []
    for steps in (attacks_on, controls):
        for step in steps(evidence):
            found.append(step)
            evidence.know(step.attempts)
    return tuple(found)
