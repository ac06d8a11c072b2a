"""The worst of several attacks, example by example: chosen on some of the draws, answered on the others."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from noisychannel.decision import Decision, Single
from noisychannel.report.draws import Draws, arrange, decided, same_examples

__all__ = ["Worst", "arranged", "badness", "fitting", "halves", "worst", "worst_draws"]


@dataclass(frozen=True, eq=False)
class Worst:
    """What a defense answers where each example meets the attack that did best on it.

    Args:
        index: of the examples.
        every: right or wrong by attack, example and decision, on draws that did not choose.
        chosen: the attack per example.
        shared: whether draws of the weights answered all examples.
        apart: whether other draws chose than decided; not where there is but one.
    """

    index: Int[Tensor, "n"]
    every: Bool[Tensor, "a n groups"]
    chosen: Int[Tensor, "n"]
    shared: bool
    apart: bool

    @property
    def outcomes(self) -> Bool[Tensor, "n groups"]:
        """Right or wrong under the chosen attack."""
        return self.every[self.chosen, torch.arange(self.every.shape[1])]


def worst(tables: Mapping[str, pa.Table], rule: Decision) -> Worst:
    """Choose the attack of each example by the first draws, and decide on the last.

    The attack is the one with the highest rate of wrong draws; ties go to the smaller mean margin, then to the
    attack named first.

    Raises:
        ValueError: no table, different examples, or too few draws to choose and score apart.
    """
    found = arranged(tables)
    m = next(iter(found.values())).predicted.shape[1]
    select, score = halves(m, rule)
    return Worst(
        next(iter(found.values())).index,
        torch.stack([decided(d.take(score), rule) for d in found.values()]),
        torch.stack([badness(d, select) for d in found.values()]).argmin(dim=0),
        any(d.shared for d in found.values()),
        m > 1,
    )


def worst_draws(tables: Mapping[str, pa.Table], rule: Decision) -> pa.Table:
    """The draws of each example's chosen attack that did not choose it, as one draws table.

    Every reduction of one table then holds for the worst case too: votes, persistence, what k attempts win.

    Raises:
        ValueError: what `worst` refuses.
    """
    found, kept = worst(tables, rule), list[pa.Table]()
    for number, table in enumerate(tables.values()):
        mine = found.index[found.chosen == number].numpy()
        index, draw = table["index"].to_numpy(), table["draw"].to_numpy()
        _, score = halves(len(draw) // len(found.index), rule)
        # Draws are numbered per example; rank them, since a table may begin at any number.
        order = np.lexsort((draw, index))
        rank = np.empty(len(draw), dtype=np.int64)
        rank[order] = np.tile(np.arange(len(draw) // len(found.index)), len(found.index))
        kept.append(table.filter(pa.array(np.isin(index, mine) & (rank >= score.start))))
    return pa.concat_tables(kept)


def arranged(tables: Mapping[str, pa.Table]) -> dict[str, Draws]:
    """Tables of the same examples with the same number of draws, as arrays.

    Raises:
        ValueError: no table, different examples, or unequal numbers of draws.
    """
    if not tables:
        raise ValueError("tables: expected at least 1 attack, got none")
    found = {name: arrange(table) for name, table in tables.items()}
    same_examples(found)
    draws = {d.predicted.shape[1] for d in found.values()}
    if len(draws) != 1:
        raise ValueError(
            f"tables: expected the same draws per example of every attack, got {sorted(draws)}"
        )
    return found


def fitting(tables: Mapping[str, pa.Table], rule: Decision) -> Decision:
    """The rule; for one draw per example, as deterministic defenses have, `Single`: all rules answer alike there."""
    first = next(iter(tables.values()), None)
    if first is not None and len(first) == len(np.unique(first["index"].to_numpy())):
        return Single()
    return rule


def halves(m: int, rule: Decision) -> tuple[slice, slice]:
    """Which draws choose the attack, and which score it.

    Raises:
        ValueError: not one draw more than a decision takes.
    """
    if m == 1:
        return slice(0, 1), slice(0, 1)
    scoring = max(rule.draws, m // 2)
    if scoring >= m:
        raise ValueError(
            f"draws: expected more than {rule.draws} per example, to choose the worst attack on draws"
            f" that do not score it, got {m}"
        )
    return slice(0, m - scoring), slice(m - scoring, m)


def badness(d: Draws, which: slice) -> Float[Tensor, "n"]:
    """Small where the attack is strong: the rate of right draws, then the margin squeezed below one draw."""
    right = (d.predicted[:, which] == d.label[:, None]).double().sum(dim=1)
    return right + 0.5 * d.margin[:, which].double().mean(dim=1).sigmoid()
