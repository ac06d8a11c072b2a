"""FC: high frequencies are dropped."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noisychannel.errors import UserError, expected
from noisychannel.types import Gradient, Images

__all__ = ["FC", "Mask", "frequency_mask", "kept_fraction"]

Mask = Literal["disk", "authors"]


@dataclass(frozen=True)
class FC:
    """Frequency compression: C(x) = F⁻¹(M · F x), M ∈ {0, 1} keeping a disk of low frequencies.

    Per colour, with frequencies f (rows) and g (columns) of an h × w image, n = √(h·w) and the
    one-sided spectrum of h × v, v = ⌊w/2⌋ + 1, a coefficient is kept if

        (n·f/h)² + (n·g/w)² < r²,   r² = 2 (1 − c/100) h v / π,

    or if it is the mean: a circle in cycles per pixel whose half disk has the share 1 − c/100 of
    the area of the one-sided spectrum. A series of length l keeps its max(1, ⌊(1 − c/100)(⌊l/2⌋ + 1)⌋)
    lowest frequencies. M is a symmetric projection: the exact gradient is M itself.

    Args:
        compression: c, percent of the spectrum to drop, 0 … 100. 0 % is not the identity: a disk
            leaves the corners of the spectrum out (7 % of a 32 × 32 image).
        mask: `disk`, or `authors`: their mask of square images, which keeps one negative vertical
            frequency more than positive ones, in quarter disks of radius max(1, ⌊r⌋).

    Raises:
        UserError: compression outside 0 … 100, another mask, or `authors` on anything but square images.

    Source: paper D; details §1.
    Differs: 1. symmetric, and r is not rounded down: at 32 × 32 up to 4 % of the spectrum more or
        less is kept than by `authors`, at 224 × 224 1 %. 2. rectangles and series. 3. the mean is
        kept at 100 %.
    """

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    gradients: ClassVar[tuple[Gradient, ...]] = ("exact", "straight_through")
    compression: float
    mask: Mask = "disk"

    def __post_init__(self) -> None:
        if not 0 <= self.compression <= 100:
            raise expected("compression", "0 … 100 percent", self.compression)
        if self.mask not in ("disk", "authors"):
            raise expected("mask", "disk or authors", repr(self.mask))

    def __call__(self, x: Images) -> Images:
        size = tuple(x.shape[2:])
        keep = frequency_mask(size, self.compression, self.mask, x.device)
        if len(size) == 1:
            return torch.fft.irfft(torch.fft.rfft(x) * keep, n=size[0])
        return torch.fft.irfft2(torch.fft.rfft2(x) * keep, s=size)

    def identity(self) -> None:
        """None: even 0 % drops the corners of an image's spectrum."""
        return

    def expected_l2(self, shape: tuple[int, ...]) -> None:
        """Unknown: it is the energy of the image beyond the disk (Parseval)."""
        return


def kept_fraction(size: tuple[int, ...], compression: float, mask: Mask = "disk") -> float:
    """Share of the one-sided spectrum's coefficients that FC keeps for images or series of this size."""
    return float(frequency_mask(size, compression, mask, torch.device("cpu")).float().mean())


@lru_cache(maxsize=64)
def frequency_mask(
    size: tuple[int, ...], compression: float, mask: Mask, device: torch.device
) -> Tensor:
    """The mask M on the one-sided spectrum of images (h, w) or series (l,), True where kept."""
    if len(size) == 1 and mask == "disk":
        half = size[0] // 2 + 1
        return torch.arange(half, device=device) < max(1, int((100 - compression) * half / 100))
    if len(size) != 2 or (mask == "authors" and size[0] != size[1]):
        wanted = "square images" if mask == "authors" else "images (n, c, h, w) or series (n, c, l)"
        raise UserError(f"FC: expected {wanted}, got size {size}; use mask='disk' or reshape")
    return (_disk if mask == "disk" else _authors)(*size, compression).to(device)


def _squared_radius(h: int, w: int, compression: float) -> float:
    return 2 * (1 - compression / 100) * h * (w // 2 + 1) / math.pi


def _disk(h: int, w: int, compression: float) -> Tensor:
    rows = torch.arange(h, dtype=torch.float64)
    f = torch.minimum(rows, h - rows)[:, None]
    g = torch.arange(w // 2 + 1, dtype=torch.float64)[None]
    distance = f**2 * (w / h) + g**2 * (h / w)
    return (distance < _squared_radius(h, w, compression)) | (distance == 0)


def _authors(h: int, w: int, compression: float) -> Tensor:
    """Distance < r to one of the four corners of the h × h grid, cropped to the first ⌊w/2⌋ + 1 columns."""
    position = torch.arange(h)
    corner = torch.minimum(position, h - 1 - position)
    radius = max(1, math.floor(math.sqrt(_squared_radius(h, w, compression))))
    inside = corner[:, None] ** 2 + corner[None] ** 2 < radius**2
    return inside[:, : w // 2 + 1]
