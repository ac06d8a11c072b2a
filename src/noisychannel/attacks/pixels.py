"""Pixels set to black or white: one at a time, or many at random."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.variants import best_variants, planes
from noisychannel.errors import expected
from noisychannel.types import Adversarials, Batch, View

__all__ = ["MultiplePixels", "SinglePixel"]


@dataclass(frozen=True)
class SinglePixel:
    """Set one pixel, all its channels, to 0 or to 1; both are tried at each place.

    A place of a series is a moment.

    Args:
        places: how many are tried, drawn at random without repetition; every one where an example has fewer.

    Raises:
        UserError: a number out of range.

    Source: foolbox 1, SinglePixelAttack (1,000 places).
    Differs: 1. the best of all, not the first that succeeds, is handed over where a view's verdict is not
    certain.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    places: int = 1000

    def __post_init__(self) -> None:
        check_fields(self)
        if self.places < 0:
            raise expected("places", "a whole number ≥ 0", self.places)

    @property
    def gradients(self) -> int:
        """None: it sees labels or scores only."""
        return 0

    @property
    def queries(self) -> int:
        """Questions per example at most."""
        return 2 * self.places + 1

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        flat = planes(batch.x)
        count = min(self.places, flat.shape[2])
        order = _shuffled(batch.index, flat, whole=count == flat.shape[2])

        def make(rows: Tensor, chunk: range) -> Tensor:
            variants = flat[rows].repeat(len(chunk), 1, 1)
            number = torch.tensor(chunk, device=flat.device).repeat_interleave(len(rows))
            place = order[rows.repeat(len(chunk)), number // 2]
            every = torch.arange(len(variants), device=flat.device)
            variants[every, :, place] = (number % 2).to(flat.dtype)[:, None]
            return variants.view(-1, *batch.x.shape[1:])

        return best_variants(view, batch, 2 * count, make)


@dataclass(frozen=True)
class MultiplePixels:
    """Set n random pixels, all channels of each, to 0 or to 1 at random; the best of some trials.

    A place of a series is a moment.

    Args:
        pixels: n; every pixel where an example has fewer.
        trials: independent choices of pixels and values.

    Raises:
        UserError: a number out of range.

    Source: paper J, figure 18 (n = 0 … 1,000, one trial), after foolbox's single pixel.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    pixels: int = 100
    trials: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if self.pixels < 0 or self.trials < 1:
            raise expected(
                "pixels and trials", "whole numbers ≥ 0 and ≥ 1", (self.pixels, self.trials)
            )

    @property
    def gradients(self) -> int:
        """None: it sees labels or scores only."""
        return 0

    @property
    def queries(self) -> int:
        """Questions per example at most."""
        return self.trials + 1

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        flat = planes(batch.x)
        count = min(self.pixels, flat.shape[2])

        def make(rows: Tensor, chunk: range) -> Tensor:
            variants = flat[rows].repeat(len(chunk), 1, 1)
            stream = rng.Stream("attack", batch.index[rows], draws=chunk, part="pixels")
            place = rng.uniform(variants[:, 0], stream).topk(count, dim=1).indices
            value = rng.uniform(variants[:, 0], stream.named("values")).round().gather(1, place)
            wide = (-1, flat.shape[1], -1)
            variants.scatter_(2, place[:, None].expand(wide), value[:, None].expand(wide))
            return variants.view(-1, *batch.x.shape[1:])

        return best_variants(view, batch, self.trials, make)


def _shuffled(index: Tensor, flat: Tensor, *, whole: bool) -> Tensor:
    """An order of the places of each example (n, places): at random, or as they stand if all are tried."""
    if whole:
        return torch.arange(flat.shape[2], device=flat.device).expand(len(flat), -1)
    stream = rng.Stream("attack", index, part="places")
    return rng.uniform(flat[:, 0], stream).argsort(dim=1)
