"""From stored rows to what is known of a defense: accuracy by threat setting, and by budget."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from noisychannel.audit.plan import SETTINGS, Cell, Request, cells
from noisychannel.engine import Store, table
from noisychannel.norms import Linf
from noisychannel.report.stats import Estimate, accuracy, worst_case

__all__ = ["Ladder", "Outcome", "Rung", "outcome"]


_BLIND = 1e-12
"""Cross-entropy's slope of a network that is sure of everything underflows; below this no step is guided."""
_FEW = 0.05
"""Share of images on which a vanishing gradient is no news."""


@dataclass(frozen=True)
class Rung:
    """One threat setting: accuracy under each attack at the budget, and under the best of them per example."""

    setting: str
    attacks: dict[str, Estimate]
    worst: Estimate


@dataclass(frozen=True)
class Ladder:
    """Accuracy against the attacker's budget, from one smallest-distortion attack per setting."""

    setting: str
    budgets: tuple[float, ...]
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True)
class Outcome:
    """What an audit found; `rungs` run from no attack to the adaptive one.

    `doubts` are sentences on why the numbers may say too much; a page that has any begins with them.
    """

    request: Request
    rungs: tuple[Rung, ...]
    ladders: tuple[Ladder, ...]
    doubts: tuple[str, ...]

    @property
    def headline(self) -> Estimate:
        """The lowest accuracy of any setting: what the defense can be said to give at this budget."""
        known = [e for rung in self.rungs for e in (rung.worst, *rung.attacks.values())]
        return min(known, key=lambda e: e.value)


def outcome(request: Request, store: Store) -> Outcome:
    """Reduce the rows of every cell of the audit, which must all be in the store.

    Raises:
        MissingArtifact: a task was not run yet.
    """
    rows = {(c.setting, c.attack): _Rows.read(c, store) for c in cells(request)}
    clean = rows["clean", ""]
    rule = request.defense.rule
    plain = accuracy(clean.draws, rule)
    rungs = [Rung("clean", {}, plain)]
    ladders: list[Ladder] = []
    budgets = tuple(float(b) for b in np.linspace(0.0, 2 * request.epsilon, 21))
    for setting in list(SETTINGS)[1:]:
        within = {
            attack: cell.within(request, request.epsilon, clean)
            for (name, attack), cell in rows.items()
            if name == setting
        }
        each = {attack: accuracy(t, rule) for attack, t in within.items()}
        rungs.append(Rung(setting, each, worst_case(within, rule).estimate))
        smallest = list(within)[-1]
        curve = tuple(
            accuracy(rows[setting, smallest].within(request, b, clean), rule) for b in budgets
        )
        ladders.append(Ladder(setting, budgets, curve))
    return Outcome(request, tuple(rungs), tuple(ladders), _doubts(rows, rungs))


def _doubts(rows: dict[tuple[str, str], "_Rows"], rungs: list[Rung]) -> tuple[str, ...]:
    """What shows in the rows that the attacks did not do their work."""
    said: list[str] = []
    clean = rows["clean", ""].draws
    unanswered = float((clean["predicted"].to_numpy() < 0).mean())
    if unanswered:
        said.append(
            f"The network gave no answer (NaN) to {100 * unanswered:.1f} % of clean questions; they count as wrong."
        )
    for (setting, attack), cell in rows.items():
        if cell.examples is None:
            continue
        failed = (np.array(cell.examples["status"].to_pylist()) == "failed").mean()
        if failed:
            said.append(
                f"{attack}, {setting}: the network raised or gave NaN on {100 * failed:.0f} % of the images; they were "
                "not attacked, so the accuracy says too much."
            )
        blind = (cell.examples["slope"].to_numpy() < _BLIND).mean()
        if setting == "adaptive" and blind > _FEW:
            said.append(
                f"{attack}, {setting}: the gradient vanishes on {100 * blind:.0f} % of the images, so gradient attacks "
                "see nothing there and a high accuracy is no evidence of robustness."
            )
    adaptive = rungs[-1].worst
    said += [
        f"The adaptive attack does worse than the {weaker.setting} one: a sign of gradient masking."
        for weaker in rungs[1:-1]
        if adaptive.low > weaker.worst.high
    ]
    return tuple(said)


@dataclass(frozen=True)
class _Rows:
    """The two tables of one cell."""

    draws: pa.Table
    examples: pa.Table | None

    @staticmethod
    def read(cell: Cell, store: Store) -> "_Rows":
        draws = pa.concat_tables([table(store, m) for m in cell.measures])
        crafts = [m.craft for m in cell.measures if m.craft is not None]
        found = pa.concat_tables([table(store, c) for c in crafts]) if crafts else None
        return _Rows(draws, found)

    def within(self, request: Request, budget: float, clean: "_Rows") -> pa.Table:
        """The draws, where a candidate beyond the budget is replaced by the clean image that it began as."""
        assert self.examples is not None
        column = "linf" if request.norm == Linf() else "l2"
        # Projection and clipping round in float32, so a candidate on the sphere may stand a hair outside.
        far = self.examples[column].to_numpy() > budget * (1 + 1e-4) + 1e-7
        beyond = self.examples["index"].to_numpy()[far]
        keep = ~np.isin(self.draws["index"].to_numpy(), beyond)
        fallback = np.isin(clean.draws["index"].to_numpy(), beyond)
        return pa.concat_tables(
            [self.draws.filter(pa.array(keep)), clean.draws.filter(pa.array(fallback))]
        )
