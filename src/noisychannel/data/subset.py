"""The subset language: which examples of a split, in the order of the split.

`all` · `first:200` · `every:5` · `balanced:200@7` (as many of each class, drawn by seed 7) · `at:0,3,7` (those at
these positions, ascending), read from left to right: `every:5/first:400` is the first 400 of every fifth example.
"""

import re

import numpy as np
import torch
from numpy.typing import NDArray

from noisychannel import rng
from noisychannel.errors import DataError

__all__ = ["check_subset", "select"]

_STEP = re.compile(r"all|first:[1-9]\d*|every:[1-9]\d*|balanced:[1-9]\d*@\d+|at:\d+(,\d+)*")
_FORMS = "all, first:N, every:K, balanced:N@SEED or at:I,J,…, joined by /"

Rows = NDArray[np.int64]


def check_subset(subset: str) -> None:
    """Refuse what `select` would not understand.

    Raises:
        DataError: the text is not in the language.
    """
    if not all(_STEP.fullmatch(step) for step in subset.split("/")):
        raise DataError(f"subset: expected {_FORMS}, got {subset!r}")


def select(labels: Rows, subset: str, part: tuple[int, int] | None = None) -> Rows:
    """Positions in the split of the chosen examples, ascending.

    Args:
        labels: label of every example of the split.
        subset: text in the subset language.
        part: of what the subset chose, only from start up to stop (a shard).

    Raises:
        DataError: more examples asked for than there are, or none left.
    """
    rows = np.arange(len(labels))
    for step in subset.split("/"):
        rows = _apply(step, rows, labels)
    if part is not None:
        start, stop = part
        if not 0 <= start < stop <= len(rows):
            raise DataError(f"part: expected 0 ≤ start < stop ≤ {len(rows)}, got {start}:{stop}")
        rows = rows[start:stop]
    if not len(rows):
        raise DataError(f"subset: expected at least one example, got none from {subset!r}")
    return rows


def _apply(step: str, rows: Rows, labels: Rows) -> Rows:
    name, _, argument = step.partition(":")
    if name == "all":
        return rows
    if name == "every":
        return rows[:: min(int(argument), len(rows))]
    if name == "first":
        if int(argument) > len(rows):
            raise DataError(f"subset: expected first:N with N ≤ {len(rows)}, got {step}")
        return rows[: int(argument)]
    if name == "at":
        return rows[_positions(argument, len(rows))]
    count, _, seed = argument.partition("@")
    return _balanced(rows, labels[rows], int(count), int(seed))


def _positions(argument: str, size: int) -> Rows:
    found = np.array([int(i) for i in argument.split(",")])
    if (np.diff(found) <= 0).any() or found[-1] >= size:
        raise DataError(
            f"subset: expected at: with ascending positions below {size}, got {argument!r}"
        )
    return found


def _balanced(rows: Rows, labels: Rows, count: int, seed: int) -> Rows:
    """`count` rows, class counts equal up to one (the first classes get the rest)."""
    classes, sizes = np.unique(labels, return_counts=True)
    if count > len(classes) * sizes.min():
        raise DataError(
            f"subset: expected balanced:N with N ≤ {len(classes) * sizes.min()} ({len(classes)} "
            f"classes, the smallest with {sizes.min()} examples), got {count}"
        )
    with rng.root("subset"):  # the same examples whatever task asks
        generator = rng.generator("selection", f"balanced|{seed}")
    order = torch.randperm(len(rows), generator=generator).numpy()
    taken = [
        order[labels[order] == label][: count // len(classes) + (i < count % len(classes))]
        for i, label in enumerate(classes)
    ]
    return np.sort(rows[np.concatenate(taken)])
