"""Rotations and translations: the worst of a grid, or of random ones."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from noisychannel import rng
from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.variants import best_variants, sheet
from noisychannel.errors import expected
from noisychannel.types import Adversarials, Batch, View

__all__ = ["Spatial", "moved"]


@dataclass(frozen=True)
class Spatial:
    """Turn an image by up to ± an angle and shift it by up to ± some pixels, and hand over the worst.

    x′(u) = x(R_φ u + t), u from −1 to 1 along each side, bilinear between pixels, 0 outside.

    A series is shifted in time, and has nothing to turn.

    Args:
        rotation: largest angle, degrees ≥ 0.
        translation: largest shift along each side, pixels ≥ 0.
        search: `grid`: every angle with every shift; `random`: `trials` uniform ones per example.
        angles: of the grid, evenly spaced, both ends included.
        shifts: of the grid along each side, likewise.
        trials: of the random search.

    Raises:
        UserError: a number out of range, or rotation alone of a series.

    Source: Engstrom et al. 2019, section 3; foolbox's SpatialAttack, whose transformations these are: a shift
    of t pixels moves by t·(side − 1)/side.
    Differs: 1. the worst, where foolbox takes the first that succeeds (so do we where the verdict is certain,
    at every sixteenth). 2. images that are not square are turned without shear.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    rotation: float = 30.0
    translation: float = 3.0
    search: Literal["grid", "random"] = "grid"
    angles: int = 5
    shifts: int = 5
    trials: int = 100

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("rotation", "translation"):
            if not getattr(self, name) >= 0:
                raise expected(name, "a number ≥ 0", getattr(self, name))
        if self.search not in ("grid", "random"):
            raise expected("search", "grid or random", repr(self.search))
        for name in ("angles", "shifts", "trials"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))

    @property
    def gradients(self) -> int:
        """None: it sees labels or scores only."""
        return 0

    @property
    def queries(self) -> int:
        """Questions per example at most."""
        count = self.trials if self.search == "random" else self.angles * self.shifts**2
        return count + 1

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        flat = batch.x.ndim < 4  # a series (n, c, l)
        if flat and self.rotation and not self.translation:
            raise expected("translation", "a number > 0 for a series, which cannot be turned", 0)
        x = batch.x.view(len(batch), *sheet(batch.x.shape[1:]))
        grid = self._grid(flat=flat).to(x)
        count = self.trials if self.search == "random" else len(grid)

        def make(rows: Tensor, chunk: range) -> Tensor:
            if self.search == "grid":
                how = grid[chunk.start : chunk.stop, None]
            else:
                how = self._drawn(batch.index[rows], chunk, flat=flat).to(x)
            return moved(x[rows], how).view(-1, *batch.x.shape[1:])

        return best_variants(view, batch, count, make)

    def _grid(self, *, flat: bool) -> Tensor:
        """Angle in degrees and shifts along width and height of each variant (v, 3)."""
        angles = _ticks(0.0 if flat else self.rotation, self.angles)
        across = _ticks(self.translation, self.shifts)
        down = _ticks(0.0 if flat else self.translation, self.shifts)
        return torch.cartesian_prod(angles, across, down)

    def _drawn(self, index: Tensor, chunk: range, *, flat: bool) -> Tensor:
        """The same drawn uniformly, per variant and example (d, n, 3)."""
        like = torch.empty(len(chunk) * len(index), 3, device=index.device)
        drawn = rng.uniform(like, rng.Stream("attack", index, draws=chunk, part="spatial"))
        turn, shift = (0.0 if flat else self.rotation), self.translation
        most = torch.tensor([turn, shift, 0.0 if flat else shift], device=index.device)
        return ((2 * drawn - 1) * most).view(len(chunk), len(index), 3)


def moved(x: Tensor, how: Tensor) -> Tensor:
    """Images x (n, c, h, w) by d movements: (d · n, c, h, w), draw-major.

    Args:
        x: images in [0, 1].
        how: degrees and shifts along width and height, in pixels: (d, n, 3), or (d, 1, 3) alike for all.
    """
    n, c, h, w = x.shape
    turn = torch.deg2rad(how[..., 0])
    cos, sin = turn.cos(), turn.sin()
    across, down = how[..., 1] / (w / 2), how[..., 2] / (h / 2)
    first = torch.stack([cos, -sin * (h / w), across], dim=-1)
    second = torch.stack([sin * (w / h), cos, down], dim=-1)
    theta = torch.stack([first, second], dim=-2).flatten(0, 1)  # (d · n or d, 2, 3)
    where = torch.einsum("hwk,dik->dhwi", _corners(h, w).to(x), theta)
    if how.shape[1] == 1:
        # One movement for all: the examples stand as channels of one image, and nothing is copied.
        stacked = x.reshape(1, n * c, h, w).expand(len(how), -1, -1, -1)
        out = functional.grid_sample(stacked, where, align_corners=True)
    else:
        out = functional.grid_sample(x.repeat(len(how), 1, 1, 1), where, align_corners=True)
    return out.view(-1, c, h, w).clamp_(0, 1)


def _corners(h: int, w: int) -> Tensor:
    """(u, v, 1) of each pixel, u and v from −1 to 1 along width and height (h, w, 3)."""
    down, across = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    return torch.stack([across, down, torch.ones_like(down)], dim=2)


def _ticks(most: float, count: int) -> Tensor:
    """`count` numbers from −most to most; one if there is no way to go."""
    return torch.linspace(-most, most, count) if most and count > 1 else torch.zeros(1)
