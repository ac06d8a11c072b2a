"""What one defense answered to all attempts on it, example by example."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from noisychannel.audit.attempts import Attempt, Family, Setting
from noisychannel.audit.request import Request
from noisychannel.decision import Decision, Single
from noisychannel.defenses import Defense
from noisychannel.engine import Store, adversarials, table
from noisychannel.norms import Linf
from noisychannel.report.draws import arrange
from noisychannel.report.stats import Estimate, WorstCase, accuracy, worst_case
from noisychannel.report.worst import halves
from noisychannel.types import Batch

__all__ = ["CLEAN", "LOST", "Side"]

CLEAN = "clean"
"""Name of the attempt without an attack."""

LOST = 0.1
"""Share of right draws at which a voted example is given up; one that is asked once must have none."""


class Side:
    """A defense and its rows by attempt, read from the store once.

    An example that an attempt was not made on, or whose candidate lies beyond the budget, counts there as its clean
    image: what is chosen among attempts is then never worse than what was found.

    Args:
        request: the audit.
        store: where the rows are.
        defense: which one: that which is audited, or what it is compared with.
    """

    def __init__(self, request: Request, store: Store, defense: Defense) -> None:
        self.request, self.store, self.defense = request, store, defense
        self.attempts: dict[str, Attempt] = {}
        self._answers: dict[str, pa.Table] = {}
        self._examples: dict[str, pa.Table] = {}
        self._filled: dict[tuple[str, float], pa.Table] = {}
        self._rates: dict[str, Tensor] = {}

    @property
    def rule(self) -> Decision:
        """By which this defense decides."""
        return self.defense.rule

    @cached_property
    def batch(self) -> Batch:
        """The clean examples, decoded once: steps and pages ask for them dozens of times."""
        return self.request.data.load()

    @property
    def index(self) -> np.ndarray:
        """Name of each example, in the order of the data."""
        return self.batch.index.numpy()

    def know(self, attempt: Attempt) -> None:
        """An attempt whose tasks are in the store now."""
        self.attempts[attempt.name] = attempt

    def named(self, *settings: Setting, families: Sequence[Family] = ()) -> tuple[str, ...]:
        """Attempts of these settings, and of these families if some are named, as they were made."""
        return tuple(
            a.name
            for a in self.attempts.values()
            if a.setting in settings and (not families or a.family in families)
        )

    def answers(self, name: str) -> pa.Table:
        """What the defense answered, whatever the candidates' distance, under the examples' own names."""
        if name not in self._answers:
            attempt = self.attempts[name]
            rows = pa.concat_tables([table(self.store, m) for m in attempt.measures])
            if attempt.setting != "clean" and not attempt.crafts:
                # Images of ours, which a data set in memory numbers from 0.
                own = self.index[np.array(attempt.positions)][rows["index"].to_numpy()]
                where = rows.schema.get_field_index("index")
                rows = rows.set_column(where, rows.schema.field("index"), pa.array(own))
            self._answers[name] = rows
        return self._answers[name]

    def examples(self, name: str) -> pa.Table:
        """What became of each example under the attack."""
        if name not in self._examples:
            crafts = self.attempts[name].crafts
            self._examples[name] = pa.concat_tables([table(self.store, c) for c in crafts])
        return self._examples[name]

    def candidates(self, name: str) -> Tensor:
        """Images (n, …) in the order of the data; the clean ones where the attempt was not made."""
        attempt, x = self.attempts[name], self.batch.x.clone()
        images = (
            [adversarials(self.store, c) for c in attempt.crafts]
            if attempt.crafts
            else [m.data.load().x for m in attempt.measures]
        )
        x[list(attempt.positions)] = torch.cat(images)
        return x

    def within(self, name: str, epsilon: float | None = None) -> pa.Table:
        """The draws of all examples; see the class for those beyond the budget or not attacked."""
        budget = self.request.epsilon if epsilon is None else epsilon
        if (name, budget) not in self._filled:
            self._filled[name, budget] = self._fill(name, budget)
        return self._filled[name, budget]

    def accuracy(
        self, name: str, epsilon: float | None = None, at: Sequence[int] | None = None
    ) -> Estimate:
        """Accuracy under one attempt; at some of the examples."""
        return accuracy(self.only(self.within(name, epsilon), at), self.rule)

    def tables(self, names: Iterable[str], at: Sequence[int] | None = None) -> dict[str, pa.Table]:
        """Draws by attempt, those of the clean images among them; at some of the examples."""
        return {n: self.only(self.within(n), at) for n in (CLEAN, *names)}

    def worst(self, names: Iterable[str], at: Sequence[int] | None = None) -> WorstCase:
        """Accuracy where each example meets the attempt that does best on it, chosen and scored on other draws."""
        return worst_case(self.tables(names, at), self.rule)

    def standing(self, names: Iterable[str]) -> tuple[int, ...]:
        """Places of the examples that none of these attempts broke, judged by the draws that choose attacks alone."""
        most = 0.0 if isinstance(self.rule, Single) else LOST
        least = torch.stack([self._rate(n) for n in (CLEAN, *names)]).amin(dim=0)
        return tuple(int(i) for i in (least > most).nonzero()[:, 0])

    def only(self, rows: pa.Table, at: Sequence[int] | None) -> pa.Table:
        """Rows of some of the examples."""
        if at is None or len(at) == len(self.index):
            return rows
        return rows.filter(pa.array(np.isin(rows["index"].to_numpy(), self.index[list(at)])))

    def _rate(self, name: str) -> Float[Tensor, "n"]:
        if name not in self._rates:
            d = arrange(self.within(name))
            choose, _ = halves(d.predicted.shape[1], self.rule)
            right = d.predicted[:, choose] == d.label[:, None]
            self._rates[name] = right.float().mean(dim=1)
        return self._rates[name]

    def _fill(self, name: str, budget: float) -> pa.Table:
        answers = self.answers(name)
        if self.attempts[name].setting == "clean":
            return answers
        missing = np.setdiff1d(self.index, answers["index"].to_numpy())
        beyond = np.array([], dtype=self.index.dtype)
        if self.attempts[name].crafts:
            examples = self.examples(name)
            column = "linf" if self.request.norm == Linf() else "l2"
            # Projection and clipping round in float32, so a candidate on the sphere may stand a hair outside.
            far = examples[column].to_numpy() > budget * (1 + 1e-4) + 1e-7
            beyond = examples["index"].to_numpy()[far]
        if len(missing) + len(beyond) == 0:
            return answers
        clean = self.answers(CLEAN)
        keep = ~np.isin(answers["index"].to_numpy(), beyond)
        back = np.isin(clean["index"].to_numpy(), np.concatenate([missing, beyond]))
        return pa.concat_tables([answers.filter(pa.array(keep)), clean.filter(pa.array(back))])
