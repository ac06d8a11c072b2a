"""Attacks whose examples stand at different places of their search keep one row of every tensor per example."""

from torch import Tensor

__all__ = ["keep_rows"]


def keep_rows(lanes: object, names: tuple[str, ...], stay: Tensor) -> None:
    """Only the examples that `stay` (a mask) go on: the rows of the attributes named, all of them (n, …)."""
    for name in names:
        setattr(lanes, name, getattr(lanes, name)[stay])
