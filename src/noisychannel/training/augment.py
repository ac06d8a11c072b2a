"""Random crops and mirror images of a whole batch at once, on its device."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from noisychannel import rng
from noisychannel.errors import expected
from noisychannel.training.checks import number, whole

__all__ = ["Augment"]


@dataclass(frozen=True)
class Augment:
    """A random window of the zero-padded image, mirrored left to right with probability ½.

    Each example's window is named by its own stream, so it depends on no batch mate.

    Args:
        pad: zeros added on each side, ≥ 0; the window has the size of the image.
        flip: whether to mirror.
        early_size: side of a smaller window in the first epochs (fewer pixels, less time); 0: none.
        early_share: share of the epochs that have it.

    Raises:
        UserError: a number out of range.

    Source: He et al. 2016 §4.2 (pad 4, flip). The smaller windows are ours: half of the pixels, half of the time.
    """

    version: ClassVar[int] = 1
    pad: int = 4
    flip: bool = True
    early_size: int = 0
    early_share: float = 0.6

    def __post_init__(self) -> None:
        if not whole(self.pad, 0):
            raise expected("pad", "a whole number ≥ 0", self.pad)
        if not whole(self.early_size, 0):
            raise expected("early_size", "a whole number ≥ 0", self.early_size)
        if not (number(self.early_share, least=0) and self.early_share <= 1):
            raise expected("early_share", "a number in 0 … 1", self.early_share)

    def __call__(self, x: Tensor, stream: rng.Stream, done: float) -> Tensor:
        """The augmented batch (n, c, h', w').

        Args:
            x: images (n, c, h, w); series are refused.
            stream: names the draws.
            done: share of the epochs that are over, 0 … 1.
        """
        if x.ndim != 4:
            raise expected("augment", "images (n, c, h, w)", f"examples of shape {x.shape[1:]}")
        early = self.early_size > 0 and done < self.early_share
        height, width = (
            (min(self.early_size, x.shape[2]), min(self.early_size, x.shape[3]))
            if early
            else x.shape[2:]
        )
        padded = functional.pad(x, (self.pad,) * 4)
        unit = rng.uniform(x.new_empty(len(x), 3), stream.named("augment"))
        top = (unit[:, 0] * (padded.shape[2] - height + 1)).long()
        left = (unit[:, 1] * (padded.shape[3] - width + 1)).long()
        rows = top[:, None] + torch.arange(height, device=x.device)
        columns = left[:, None] + torch.arange(width, device=x.device)
        if self.flip:
            columns = torch.where(unit[:, 2:] < 0.5, columns.flip(1), columns)
        n = torch.arange(len(x), device=x.device)[:, None, None]
        # Channels last while gathering: one colour triple per pixel, read once.
        picked = padded.permute(0, 2, 3, 1)[n, rows[:, :, None], columns[:, None, :]]
        return picked.permute(0, 3, 1, 2)
