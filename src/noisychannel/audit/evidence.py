"""What an audit knows so far of a defense and of what it is compared with."""

from collections.abc import Iterable

import pyarrow as pa

from noisychannel.audit.attempts import Attempt, rung
from noisychannel.audit.request import Request, follows
from noisychannel.audit.side import CLEAN, Side
from noisychannel.defenses import Defense
from noisychannel.engine import Store
from noisychannel.report.gains import worst_case_gain
from noisychannel.report.luck import luck
from noisychannel.report.stats import Estimate, paired_difference, wilson
from noisychannel.report.sufficiency import Doubling, doubling, doublings, saturated

__all__ = ["Evidence"]

BLIND = 1e-12
"""Cross-entropy's slope of a network that is sure of everything underflows; below this no step is guided."""

BROKEN = 0.01
"""Accuracy at or below which an attack has nothing left to win."""


class Evidence:
    """Both sides, and what of them says how far an attacker came.

    Args:
        request: the audit.
        store: where the rows are.
        foreseen: nothing was run: every step is then taken to be needed, at its dearest.

    `other` holds rows of tasks that are no attempts, by name; `skipped` what was left out for time.
    """

    def __init__(self, request: Request, store: Store, *, foreseen: bool = False) -> None:
        self.request, self.foreseen = request, foreseen
        self.mine = Side(request, store, request.defense)
        twin = request.twin
        self.theirs = None if twin is None else Side(request, store, twin)
        self.frozen: Side | None = None
        self.other: dict[str, pa.Table] = {}
        self.skipped: list[str] = []

    def know(self, attempts: Iterable[Attempt]) -> None:
        """Attempts whose tasks are in the store now."""
        others = [side for side in (self.theirs, self.frozen) if side is not None]
        for attempt in attempts:
            victim = attempt.measures[0].defense
            side = next((side for side in others if side.defense == victim), self.mine)
            side.know(attempt)

    def freeze(self, still: Defense) -> None:
        """A third side: the defense with its randomness frozen."""
        self.frozen = Side(self.request, self.mine.store, still)

    def __contains__(self, name: str) -> bool:
        return name in self.mine.attempts

    @property
    def everything(self) -> tuple[int, ...]:
        """Places of all examples."""
        return tuple(range(self.request.data.size))

    @property
    def pool(self) -> tuple[int, ...]:
        """Places of those examples on which controls are made."""
        return self.everything[: self.request.budget.controls]

    @property
    def attacked(self) -> tuple[str, ...]:
        """All attempts that the headline counts; a `control` is none."""
        return self.mine.named("non-adaptive", "partially adaptive", "adaptive")

    @property
    def white_box(self) -> tuple[str, ...]:
        """Attempts on the whole defense that follow its gradient."""
        return self.mine.named("adaptive", families=("gradient",))

    def standing(self, *, white_box: bool = False) -> tuple[int, ...]:
        """Examples that are worth an attack: no attempt broke them.

        Args:
            white_box: for an attempt that follows the defense's gradient. Among the controls' examples it also meets
                those that only others broke: else nobody knew whether its gradient shows the way to them.
        """
        if self.foreseen:
            return self.everything
        left = set(self.mine.standing(self.attacked))
        if white_box:
            left |= set(self.mine.standing(self.white_box)) & set(self.pool)
        return tuple(sorted(left))

    @property
    def headline(self) -> Estimate:
        """Accuracy under the worst of all attempts, example by example; without any, that of clean images."""
        return self.mine.worst(self.attacked).estimate

    @property
    def decided(self) -> bool:
        """Whether further attacks have nothing left to win: a low number is a proof."""
        return not self.foreseen and bool(self.attacked) and self.headline.value <= BROKEN

    @property
    def differentiable(self) -> bool:
        """Whether a gradient reaches the input at all."""
        return follows(self.request.defense.network)

    @property
    def difference(self) -> Estimate | None:
        """The headline less that of the twin under the same attacks and rule; None: no twin, or not attacked."""
        theirs = self.theirs
        if theirs is None or not self.attacked:
            return None
        on_twin = [n for n in theirs.attempts if n != CLEAN]
        if not on_twin:
            return None
        mine, other = self.mine.tables(self.attacked), theirs.tables(on_twin)
        return worst_case_gain(mine, other, self.request.defense.rule)

    @property
    def ladder(self) -> dict[int, str]:
        """Draws per gradient → the attempt, as far as the ladder was climbed."""
        return {n: rung(n) for n in self.request.budget.ladder if rung(n) in self}

    @property
    def draws_of_attacks(self) -> int:
        """Draws per gradient of the attacks beside the ladder: where its first part ended, or may end."""
        if not self.request.defense.stochastic:
            return 1
        most = self.request.budget.draws
        return most if self.foreseen else max((n for n in self.ladder if n <= most), default=1)

    @property
    def doublings(self) -> tuple[Doubling, ...]:
        """What each rung won over those below; what those won that were climbed last, over all attacks before."""
        if len(self.ladder) < 2:
            return ()
        found = {n: self.mine.within(name) for n, name in self.ladder.items()}
        low = self.draws_of_attacks
        return tuple(
            d if d.draws <= low else self._beyond(d.draws) for d in doublings(found, self.mine.rule)
        )

    def before(self, name: str) -> tuple[str, ...]:
        """Attempts that the headline counts and that were made before this one."""
        return self.attacked[: self.attacked.index(name)]

    def _beyond(self, draws: int) -> Doubling:
        """What a rung won beyond all attacks that were made before it."""
        known = self.mine.tables(self.before(rung(draws)))
        return doubling(draws, list(known.values()), self.mine.within(rung(draws)), self.mine.rule)

    @property
    def saturated(self) -> bool:
        """Whether another doubling of the draws would surely win less than a point."""
        found = self.doublings
        return bool(found) and saturated(found[-1])

    @property
    def luck(self) -> Estimate:
        """How much would have been won by scoring each attack once."""
        return luck(self.mine.tables(self.attacked), self.mine.rule)

    def gain(self, some: Iterable[str], more: Iterable[str], at: Iterable[int]) -> Estimate:
        """What further attempts win at these examples: the worst of some less the worst of all."""
        one, two = (self.mine.tables(names, tuple(at)) for names in (some, more))
        return worst_case_gain(one, two, self.mine.rule)

    def rise(self, far: str, near: str, budgets: tuple[float, float]) -> Estimate:
        """Accuracy under a control with more budget less that under one with less, at the controls' examples."""
        one, two = (self.mine.within(n, b) for n, b in zip((far, near), budgets, strict=True))
        kept = [self.mine.only(rows, self.pool) for rows in (one, two)]
        return paired_difference(kept[0], kept[1], self.mine.rule)

    @property
    def blind(self) -> Estimate | None:
        """Share of the examples attacked first at which the gradient vanishes; None: no attack looked."""
        if not self.white_box:
            return None
        slope = self.mine.examples(self.white_box[0])["slope"].to_numpy()
        return wilson(float((slope < BLIND).sum()), len(slope))

    @property
    def silent(self) -> tuple[Estimate, Estimate]:
        """Shares of clean questions without an answer, and of our attacks that the network ended by an error."""
        said = self.mine.answers(CLEAN)["predicted"].to_numpy()
        ours = [n for n in self.attacked if self.mine.attempts[n].family != "yours"]
        return wilson(float((said < 0).sum()), len(said)), self.failed(ours)

    def failed(self, names: Iterable[str]) -> Estimate:
        """Share of examples on which these attempts ended by an error."""
        crafted = [n for n in names if self.mine.attempts[n].crafts]
        status = [s for n in crafted for s in self.mine.examples(n)["status"].to_pylist()]
        return wilson(float(sum(s == "failed" for s in status)), max(1, len(status)))

    @property
    def why_not(self) -> str:
        """Why a check was not made."""
        if self.decided:
            return "Not needed: nothing is left to win."
        if not self.differentiable:
            return "No gradient reaches the input, so that no attack followed one."
        if self.skipped:
            return f"Left out for time: {', '.join(self.skipped)}."
        return "Nothing to compare."

    def joined(self, name: str) -> pa.Table | None:
        """Rows of the tasks that are parts of one, in their order; None: it was not made."""
        parts = [t for n, t in self.other.items() if n.startswith(f"{name}, ")]
        return pa.concat_tables(parts) if parts else None

    def skip(self, step: str) -> None:
        """A step that would not have ended in time."""
        if step not in self.skipped:
            self.skipped.append(step)
