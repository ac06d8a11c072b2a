"""Many variants of each example, asked about in few questions: what the attacks that only see scores share."""

from collections.abc import Callable, Iterator
from math import prod

import torch
from torch import Tensor

from noisychannel.attacks.shortlist import KEEP, Shortlist, conclude, ranked
from noisychannel.objectives import Margin
from noisychannel.types import Adversarials, Batch, View

__all__ = ["best_variants", "chunks", "planes", "repeated", "sheet"]

# Rows of one question: enough to fill a core, few enough that 224 × 224 images fit into memory.
_ROWS = 256
# Variants between two looks at who may leave: a fixed number, so that nobody's result depends on batch mates.
_STAGE = 16


def planes(x: Tensor) -> Tensor:
    """Examples as (n, channels, places): a place is a pixel, or a moment of a series, with all its channels."""
    return x.flatten(2) if x.ndim > 2 else x[:, None]  # (n, d) has one channel


def sheet(shape: torch.Size) -> tuple[int, int, int]:
    """Channels, height and width of one example; a series is one line high."""
    if len(shape) == 1:
        return 1, 1, shape[0]
    return shape[0], prod(shape[1:-1]), shape[-1]


def repeated(batch: Batch, times: int) -> Batch:
    """The same examples `times` over, draw-major: the rows of a question about several variants."""
    return batch.rows(torch.arange(len(batch), device=batch.x.device).repeat(times))


def chunks(total: range, rows: int) -> Iterator[range]:
    """A range in parts such that `rows` rows for each of its members make one question."""
    size = max(1, _ROWS // max(1, rows))
    for start in range(total.start, total.stop, size):
        yield range(start, min(start + size, total.stop))


def best_variants(
    view: View, batch: Batch, count: int, make: Callable[[Tensor, range], Tensor]
) -> Adversarials:
    """Ask about each example and `count` variants of it, and hand over the best.

    All variants of an example are shown to the same draws of a random view: one that looks better then is
    better, at least for these, where fresh draws for each would rank them by luck. What wins is decided on
    selection draws all the same.

    Args:
        view: who is asked.
        batch: the examples.
        count: variants of each.
        make: (positions in the batch (m,), numbers of d variants) → the variants (d · m, …), draw-major.
    """
    kept = Shortlist(batch.x, KEEP if view.stochastic else 1)
    rows = torch.arange(len(batch), device=batch.x.device)
    if len(rows):
        query = view.query(batch.x, batch, Margin(), 0, gradient=False)
        kept.offer(rows, batch.x, ranked(view, query), query.fooled)
    for start in range(0, count, _STAGE):
        if view.certain and view.compact:
            rows = rows[~kept.fooled[:, rows].any(dim=0)]
        if len(rows) == 0:
            break
        for chunk in chunks(range(start, min(start + _STAGE, count)), len(rows)):
            _ask(view, batch.rows(rows), rows, make(rows, chunk), kept)
    return conclude(view, batch, kept)


def _ask(view: View, batch: Batch, rows: Tensor, x: Tensor, kept: Shortlist) -> None:
    """Offer the best of some variants x (d · m, …) of the examples `rows` (m,)."""
    query = view.query(x, repeated(batch, len(x) // len(rows)), Margin(), 1, gradient=False)
    score = ranked(view, query)
    order = score.view(-1, len(rows)).argsort(dim=0, stable=True)[: kept.slots]
    every = torch.arange(len(rows), device=rows.device)
    for place in order * len(rows) + every:
        kept.offer(rows, x[place], score[place], query.fooled[place])
