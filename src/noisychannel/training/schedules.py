"""Learning rates over a training, as pure functions of where it stands: nothing to save, nothing to restore."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from noisychannel.errors import expected
from noisychannel.training.checks import number, whole

__all__ = ["SCHEDULES", "Moment", "OneCycle", "Plateau", "Schedule", "Steps"]


class Moment(NamedTuple):
    """Where a training stands: `step` of `steps_per_epoch` · `epochs`, and the mean loss of each finished epoch."""

    step: int
    steps_per_epoch: int
    epochs: int
    losses: tuple[float, ...] = ()


@runtime_checkable
class Schedule(Protocol):
    """A factor of the peak learning rate."""

    version: ClassVar[int]

    def factor(self, at: Moment) -> float:
        """The factor at one step, 0 < factor ≤ 1."""
        ...


@dataclass(frozen=True)
class OneCycle:
    """Half a cosine from 1/25 up to 1, then half a cosine down to 4·10⁻⁶, over all steps.

    Args:
        warmup: share of the steps on the way up, in (0, 1).

    Raises:
        UserError: warmup out of range.

    Source: Smith & Topin 2018; numbers as in torch's `OneCycleLR`. Differs: 1. the end of the curve comes
    after the last step, not at it, where a step of 4·10⁻⁶ would be wasted.
    """

    version: ClassVar[int] = 1
    warmup: float = 0.3

    def __post_init__(self) -> None:
        if not (number(self.warmup, 0) and self.warmup < 1):
            raise expected("warmup", "a number in (0, 1)", self.warmup)

    def factor(self, at: Moment) -> float:
        """The factor at one step."""
        total = max(1, at.steps_per_epoch * at.epochs)
        turn = max(1.0, self.warmup * total - 1)
        if at.step <= turn:
            return _half_cosine(1 / 25, 1.0, at.step / turn)
        return _half_cosine(1.0, 4e-6, (at.step - turn) / max(1.0, total - turn))


@dataclass(frozen=True)
class Steps:
    """1, multiplied by `drop` at each of the given epochs.

    Args:
        epochs: when to drop, ascending.
        drop: by what factor, in (0, 1).

    Raises:
        UserError: drop out of range, or epochs that do not ascend.

    Source: details §5 (the authors' ResNet-20: ·0.1 at 80 and 120 of 160).
    """

    version: ClassVar[int] = 1
    epochs: tuple[int, ...] = (80, 120)
    drop: float = 0.1

    def __post_init__(self) -> None:
        if not (number(self.drop, 0) and self.drop < 1):
            raise expected("drop", "a number in (0, 1)", self.drop)
        if not _ascending(self.epochs):
            raise expected("epochs of the drops", "ascending numbers", self.epochs)

    def factor(self, at: Moment) -> float:
        """The factor at one step."""
        epoch = at.step // max(1, at.steps_per_epoch)
        return self.drop ** sum(epoch >= e for e in self.epochs)


@dataclass(frozen=True)
class Plateau:
    """1, multiplied by `drop` whenever the training loss has not fallen by 0.01 % for more than `patience` epochs.

    Args:
        patience: epochs without progress that are borne, ≥ 0.
        drop: by what factor, in (0, 1).

    Raises:
        UserError: a number out of range.

    Source: details §5 (the authors' ResNet-18 and FCN); rule as in torch's `ReduceLROnPlateau`.
    """

    version: ClassVar[int] = 1
    patience: int = 10
    drop: float = 0.5

    def __post_init__(self) -> None:
        if not whole(self.patience, 0):
            raise expected("patience", "a whole number ≥ 0", self.patience)
        if not (number(self.drop, 0) and self.drop < 1):
            raise expected("drop", "a number in (0, 1)", self.drop)

    def factor(self, at: Moment) -> float:
        """The factor at one step, from the losses of the epochs before."""
        factor, best, waited = 1.0, math.inf, 0
        for loss in at.losses:
            waited = 0 if loss < best * (1 - 1e-4) else waited + 1
            best = loss if waited == 0 else best
            if waited > self.patience:
                factor, waited = factor * self.drop, 0
        return factor


def _ascending(epochs: object) -> bool:
    if not isinstance(epochs, tuple | list):
        return False
    items: list[Any] = [*epochs]  # pyright: ignore[reportUnknownArgumentType]
    return all(number(e) for e in items) and items == sorted(set(items))


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2


SCHEDULES: tuple[Schedule, ...] = (OneCycle(), Steps(), Plateau())
