"""The geometry of the Square attack: windows, stripes, and pyramids of mass."""

from functools import lru_cache
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from noisychannel import rng
from noisychannel.norms import L2

__all__ = ["Size", "pyramids", "redistributed", "repainted", "stripes", "window"]

# The L2 attack starts from this many pyramids along each side.
_TILES = 5


class Size(NamedTuple):
    """Of a window, in places."""

    height: int
    width: int


def window(share: float, height: int, width: int, *, odd: bool) -> Size:
    """The window nearest to a square that holds a share of the image; of an image one line high, an interval.

    `odd`: at least 3 along each side, and odd, where the image allows (pyramids need a middle).
    """

    def fit(side: float, most: int) -> int:
        whole = max(3 if odd else 1, round(side))
        return min(whole + (odd and whole % 2 == 0), most)

    area = share * height * width
    rows = fit(sqrt(area), height)
    columns = sqrt(area) if rows < height or height == width else area / rows
    return Size(rows, fit(columns, width))


def stripes(x: Tensor, epsilon: float, stream: rng.Stream) -> Tensor:
    """Each column of each channel (n, c, h, w) up or down by epsilon, at random."""
    return (x + epsilon * _signs(rng.uniform(x[:, :, :1], stream.named("start")))).clamp_(0, 1)


def repainted(x: Tensor, best: Tensor, epsilon: float, size: Size, stream: rng.Stream) -> Tensor:
    """`best` with one square of each example at x ± epsilon, the sign its own for each channel."""
    n, c, h, w = x.shape
    chance = rng.uniform(x.new_empty(n, 2 * c + 3), stream)
    top, left = _corner(chance[:, :2], h, w, size)
    inside = (
        _span(top, size.height, h)[:, None, :, None] & _span(left, size.width, w)[:, None, None]
    )
    up = chance[:, 2 : 2 + c] < 0.5
    painted = _painted(x, epsilon, up)
    idle = ~(inside & (painted != best)).flatten(1).any(dim=1)
    # What would change nothing is painted with other signs in some channels, at least in one.
    other = chance[:, 2 + c : 2 + 2 * c] < 0.5
    other.scatter_(1, (chance[:, -1:] * c).long(), value=True)
    again = idle[:, None] & other
    painted = torch.where(again[..., None, None], _painted(x, epsilon, ~up), painted)
    return torch.where(inside, painted, best)


def pyramids(x: Tensor, epsilon: float, stream: rng.Stream) -> Tensor:
    """A grid of pairs of pyramids, of norm epsilon together, at random signs and orientations."""
    n, c, h, w = x.shape
    size = Size(max(1, h // _TILES), max(1, w // _TILES))
    down, across = h // size.height, w // size.width
    chance = rng.uniform(x.new_empty(n, c + 1, down, across), stream.named("start"))
    kernels = _pair(size, x.device).view(2, size.height, size.width)
    tiles = kernels[(chance[:, 0] < 0.5).long()]  # (n, down, across, height, width)
    signed = _signs(chance[:, 1:])[..., None, None] * tiles[:, None]
    whole = signed.transpose(3, 4).reshape(n, c, down * size.height, across * size.width)
    top, left = (h - whole.shape[2]) // 2, (w - whole.shape[3]) // 2
    pad = (left, w - whole.shape[3] - left, top, h - whole.shape[2] - top)
    delta = functional.pad(whole, pad)
    return (x + L2().steepest(delta) * epsilon).clamp_(0, 1)


def redistributed(
    x: Tensor, best: Tensor, epsilon: float, size: Size, stream: rng.Stream
) -> Tensor:
    """`best` with the mass of a second window, and what is missing to epsilon, given to a first one."""
    n, c, h, w = x.shape
    chance = rng.uniform(x.new_empty(n, c + 5), stream)
    to = _cells(chance[:, :2], h, w, size)[:, None]
    source = _cells(chance[:, 2:4], h, w, size)[:, None]
    delta = (best - x).flatten(2)
    either = torch.zeros_like(delta[:, :1]).scatter_(2, to, 1.0).scatter_(2, source, 1.0)
    energy = delta.square()
    spare = (epsilon**2 - energy.sum(dim=(1, 2))).clamp_min(0) / c
    budget = (spare[:, None] + (energy * either).sum(dim=2)).sqrt()
    kernel = _pair(size, x.device)[(chance[:, 4] < 0.5).long()]
    old = delta.gather(2, to.expand(-1, c, -1))
    new = kernel[:, None] * _signs(chance[:, 5:])[..., None] + _unit(old)
    delta.scatter_(2, source.expand(-1, c, -1), 0.0)
    delta.scatter_(2, to.expand(-1, c, -1), _unit(new) * budget[..., None])
    return L2().steepest(delta).mul_(epsilon).view_as(x).add_(x).clamp_(0, 1)


def _painted(x: Tensor, epsilon: float, up: Tensor) -> Tensor:
    shift = torch.where(up, epsilon, -epsilon).to(x.dtype)
    return (x + shift[..., None, None]).clamp_(0, 1)


def _signs(chance: Tensor) -> Tensor:
    return (chance - 0.5).sign_()


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def _corner(chance: Tensor, h: int, w: int, size: Size) -> tuple[Tensor, Tensor]:
    """First row and column of a window, uniform over where it fits."""
    top = (chance[:, 0] * (h - size.height + 1)).long()
    return top, (chance[:, 1] * (w - size.width + 1)).long()


def _span(start: Tensor, length: int, side: int) -> Tensor:
    """Which of `side` places lie in [start, start + length): (n, side)."""
    place = torch.arange(side, device=start.device) - start[:, None]
    return (place >= 0) & (place < length)


def _cells(chance: Tensor, h: int, w: int, size: Size) -> Tensor:
    """Places of a random window of an h × w image, row by row: (n, height · width)."""
    top, left = _corner(chance, h, w, size)
    down = torch.arange(size.height, device=chance.device) * w
    grid = down[:, None] + torch.arange(size.width, device=chance.device)
    return grid.flatten() + (top * w + left)[:, None]


@lru_cache(maxsize=64)
def _pair(size: Size, device: torch.device) -> Tensor:
    """Two pyramids of opposite sign, of norm 1 together: one over the other, and side by side (2, height · width).

    An interval has them one after the other in both.
    """
    beside = _halves(size.width, size.height).T
    above = beside if size.height == 1 else _halves(size.height, size.width)
    return torch.stack([above.flatten(), beside.flatten()]).to(device)


def _halves(height: int, width: int) -> Tensor:
    half = height // 2
    whole = torch.cat([_pyramid(half, width), -_pyramid(height - half, width)])
    return whole / whole.norm()


def _pyramid(height: int, width: int) -> Tensor:
    """Σ_{k ≥ distance} (k + 1)⁻², distance = the larger of the two from the middle, brought to norm 1."""
    rows, columns = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    distance = torch.maximum(rows.abs()[:, None], columns.abs())
    rings = torch.arange(1, max(height, width) // 2 + 2).double() ** -2
    heights = rings.flip(0).cumsum(0).flip(0)[distance].float()
    return heights / heights.norm().clamp_min(1e-12)  # a half of one line has none above it
