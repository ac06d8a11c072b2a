"""What each example has cost."""

import torch
from torch import Tensor

from noisychannel.types import Batch, Cost

__all__ = ["Bill"]


class Bill:
    """Passes through the network, by the identity of the examples that stood in them."""

    def __init__(self) -> None:
        self._items: list[tuple[Tensor, int, int]] = []

    def add(self, index: Tensor, forwards: int, backwards: int) -> None:
        """Each of the examples named `index` (m,) stood in so many passes; one may be named several times."""
        self._items.append((index, forwards, backwards))

    def settled(self, batch: Batch) -> Cost:
        """The sums for the examples of a batch; the bill begins anew."""
        order = batch.index.argsort()
        place = batch.index[order]
        counts = torch.zeros(2, len(batch), dtype=torch.int64, device=batch.index.device)
        for index, forwards, backwards in self._items:
            rows = order[torch.searchsorted(place, index)]
            counts[0].index_add_(0, rows, torch.full_like(rows, forwards))
            counts[1].index_add_(0, rows, torch.full_like(rows, backwards))
        self._items.clear()
        return Cost.passes(counts[0], counts[1])
