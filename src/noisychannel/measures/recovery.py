"""What a channel does to adversarial images: distances both ways, deltas, and the images themselves."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from noisychannel.errors import expected
from noisychannel.measures.question import Asked, class_of, column
from noisychannel.norms import L2

__all__ = ["Deltas", "Pictures", "Recovery"]


@dataclass(frozen=True)
class Recovery:
    """Which class each draw answers, and how far what the network saw is from the original and from the adversarial.

    Columns: index, label, adversarial (what the network says of x itself, without the channel), draw, predicted,
    to_original ‖C(x) − x₀‖₂, to_adversarial ‖C(x) − x‖₂, attack ‖x − x₀‖₂ (pixels in [0, 1]).

    Args:
        draws: of a random channel.

    Raises:
        UserError: draws below 1.

    Source: paper I, Figure 7.
    Differs: the paper's text measures to the adversarial image, its code to the original (details §6): both here.
    """

    version: ClassVar[int] = 2
    draws: int = 100

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise expected("draws", "a whole number ≥ 1", self.draws)

    @property
    def work(self) -> float:
        """A pass per draw."""
        return float(self.draws)

    def __call__(self, asked: Asked) -> pa.Table:
        """Rows per (draw, example)."""
        x, clean, l2 = asked.x, asked.batch.x, L2()
        fooled = class_of(asked.bare(x))
        tables = [
            pa.table(
                {
                    "index": column(asked.batch.index),
                    "label": column(asked.batch.y),
                    "adversarial": column(fooled),
                    "draw": np.full(len(x), look.draw, dtype=np.int64),
                    "predicted": column(class_of(look.logits)),
                    "to_original": column(l2.distance(look.seen.detach(), clean)),
                    "to_adversarial": column(l2.distance(look.seen.detach(), x)),
                    "attack": column(l2.distance(x, clean)),
                }
            )
            for look in asked.looks(self.draws)
        ]
        return pa.concat_tables(tables)


@dataclass(frozen=True)
class Deltas:
    """The distribution of C(x_adv) − x over all elements: counts per bin, ends open.

    Columns: index, label, predicted, mean, std, l2, counts (bins).

    Args:
        bins: between `low` and `high`; a delta outside counts in the outermost.
        low: of the first bin, in pixels of [0, 1].
        high: of the last bin.

    Raises:
        UserError: fewer than 2 bins, or high ≤ low.

    Source: paper H, Figure 6.
    """

    version: ClassVar[int] = 2
    bins: int = 200
    low: float = -0.3
    high: float = 0.3

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise expected("bins", "a whole number ≥ 2", self.bins)
        if self.high <= self.low:
            raise expected("high", f"more than low ({self.low})", self.high)

    @property
    def work(self) -> float:
        """One pass."""
        return 1.0

    @property
    def middles(self) -> np.ndarray:
        """Middle of each bin."""
        edges = np.linspace(self.low, self.high, self.bins + 1)
        return (edges[1:] + edges[:-1]) / 2

    def __call__(self, asked: Asked) -> pa.Table:
        """One row per example, of one draw."""
        (look,) = asked.looks(1)
        delta = (look.seen.detach() - asked.batch.x).flatten(1)
        places = ((delta - self.low) / (self.high - self.low) * self.bins).floor()
        counts = torch.zeros(len(delta), self.bins, device=delta.device)
        places = places.clamp(0, self.bins - 1).long()
        counts.scatter_add_(1, places, torch.ones_like(delta))
        flat = counts.cpu().numpy().astype(np.int64)
        return pa.table(
            {
                "index": column(asked.batch.index),
                "label": column(asked.batch.y),
                "predicted": column(class_of(look.logits)),
                "mean": column(delta.mean(dim=1)),
                "std": column(delta.std(dim=1, correction=0)),
                "l2": column(delta.norm(dim=1)),
                "counts": pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), self.bins),
            }
        )


@dataclass(frozen=True)
class Pictures:
    """The images that a figure shows: original, x, and what the network sees of x, 8 bits a colour.

    Columns: index, label, said_of_original, said_of_x, predicted (behind the channel), l2 ‖C(x) − x₀‖₂, height,
    width, colours, original, adversarial, seen (bytes, height × width × colours, clipped to [0, 1] for the eye).

    Source: paper O, Figure 17.
    """

    version: ClassVar[int] = 2

    @property
    def work(self) -> float:
        """Three passes."""
        return 3.0

    def __call__(self, asked: Asked) -> pa.Table:
        """One row per image, of one draw.

        Raises:
            UserError: series instead of images.
        """
        if asked.x.ndim != 4:
            raise expected("Pictures", "images (n, colours, height, width)", tuple(asked.x.shape))
        (look,) = asked.looks(1)
        n, colours, height, width = asked.x.shape
        original, attacked = (class_of(asked.bare(x)) for x in (asked.batch.x, asked.x))
        return pa.table(
            {
                "index": column(asked.batch.index),
                "label": column(asked.batch.y),
                "said_of_original": column(original),
                "said_of_x": column(attacked),
                "predicted": column(class_of(look.logits)),
                "l2": column(L2().distance(look.seen.detach(), asked.batch.x)),
                "height": np.full(n, height),
                "width": np.full(n, width),
                "colours": np.full(n, colours),
                "original": _bytes(asked.batch.x),
                "adversarial": _bytes(asked.x),
                "seen": _bytes(look.seen.detach()),
            }
        )


def _bytes(images: Tensor) -> list[bytes]:
    eight = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [image.tobytes() for image in eight]
