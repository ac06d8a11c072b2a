"""One draws table as arrays: checked at the door, ordered by index and then by draw."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from noisychannel.decision import Decision

__all__ = ["Draws", "arrange", "decided", "same_examples"]


@dataclass(frozen=True, eq=False)
class Draws:
    """n examples × m draws of one candidate each, k classes.

    `shared`: whether one draw of the network's weights answered all examples of a column, so that
    their errors are correlated.
    """

    index: Int[Tensor, "n"]
    label: Int[Tensor, "n"]
    predicted: Int[Tensor, "n m"]
    margin: Float[Tensor, "n m"]
    probabilities: Float[Tensor, "n m k"]
    shared: bool = False

    def take(self, which: slice) -> "Draws":
        """The same examples with some of their draws."""
        return replace(
            self,
            predicted=self.predicted[:, which],
            margin=self.margin[:, which],
            probabilities=self.probabilities[:, which],
        )


def arrange(table: pa.Table) -> Draws:
    """A draws table as arrays.

    Raises:
        ValueError: an empty table, several candidates or labels per example, a repeated draw, or unequal
            numbers of draws.
    """
    if table.num_rows == 0:
        raise ValueError("draws: expected at least 1 row, got an empty table")
    index, draw = _column(table, "index"), _column(table, "draw")
    order = np.lexsort((draw, index))
    unique, counts = np.unique(index, return_counts=True)
    m = int(counts[0])
    if (counts != m).any():
        raise ValueError(
            f"draws: expected the same number per example, got {counts.min()} to {counts.max()}"
        )
    n = len(unique)
    for name in ("candidate", "label"):
        values = _column(table, name)[order].reshape(n, m)
        if (values != values[:, :1]).any():
            raise ValueError(f"draws: expected one {name} per example, got several")
    if (np.diff(draw[order].reshape(n, m), axis=1) == 0).any():
        raise ValueError("draws: expected each draw once per example, got a repeated one")
    flat = table.column("probabilities").combine_chunks().flatten()
    probabilities = flat.to_numpy(zero_copy_only=False).reshape(n * m, -1)[order]
    return Draws(
        torch.from_numpy(unique),
        torch.from_numpy(_column(table, "label")[order].reshape(n, m)[:, 0].copy()),
        torch.from_numpy(_column(table, "predicted")[order].reshape(n, m)),
        torch.from_numpy(_column(table, "margin")[order].reshape(n, m)),
        torch.from_numpy(probabilities.reshape(n, m, -1)),
        _shared(table, n),
    )


def decided(d: Draws, rule: Decision) -> Bool[Tensor, "n groups"]:
    """Whether each group of `rule.draws` draws is decided rightly.

    Raises:
        ValueError: fewer draws per example than the rule takes.
    """
    n, m, classes = d.probabilities.shape
    groups = m // rule.draws
    if groups == 0:
        raise ValueError(f"draws: expected at least {rule.draws} per example for {rule}, got {m}")
    used = groups * rule.draws
    answer = rule.decide(
        d.predicted[:, :used].reshape(n * groups, rule.draws),
        d.probabilities[:, :used].reshape(n * groups, rule.draws, classes),
    )
    return answer.view(n, groups) == d.label[:, None]


def same_examples(tables: Mapping[str, Draws]) -> None:
    """Refuse named draws that are not of the same examples.

    Raises:
        ValueError: another index or label.
    """
    (first, reference), *rest = tables.items()
    for name, d in rest:
        if not (torch.equal(d.index, reference.index) and torch.equal(d.label, reference.label)):
            raise ValueError(f"draws: expected the same examples in {first} and {name}, got others")


def _shared(table: pa.Table, examples: int) -> bool:
    if "weight_draw" not in table.column_names or examples == 1:
        return False
    served = _column(table, "weight_draw")
    _, times = np.unique(served[served >= 0], return_counts=True)
    return bool((times > 1).any())


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy()
