"""Data sets as parts: a name, a split, a subset → a batch; the key holds their content, never their path."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noisychannel.data.pixels import Frame, from_uint8
from noisychannel.data.sources import Source, open_source
from noisychannel.data.subset import Rows, check_subset, select
from noisychannel.errors import DataError
from noisychannel.types import Batch

__all__ = ["ArrayData", "DataSpec", "Dataset", "from_arrays"]


@dataclass(frozen=True)
class DataSpec:
    """A data set by name.

    Args:
        name: `digits`; a folder, in `$NOISYCHANNEL_DATA` (such as `cifar10`) or anywhere; series in
            a folder (`ucr/ECG5000`, see `data/series.py`); or a hub name `owner/name`. Folders of
            Parquet, of images (SPLIT/CLASS/image), and SVHN's `.mat` files need no other package;
            all else is read by `datasets`.
        split: `train`, `test`, …
        subset: `all`, `first:200`, `every:5`, `balanced:200@7`, joined by `/` (see `data/subset.py`).
        part: start and stop within the subset: one task's share. None: all.
        image_column: column of encoded images or of nested numbers.
        label_column: column of whole numbers 0 … K−1.
        resize: the shorter side of every image is scaled to this, bicubic and antialiased. 0: as stored.
        crop: then the centre of crop × crop is cut out. 0: the whole image.

    Raises:
        DataError: a subset that is not in the language, or sizes that cannot be. (What the data set
            itself lacks is said on reading it.)
    """

    version: ClassVar[int] = 1
    name: str = field(repr=False)  # may be a path; the fingerprint speaks for the content
    split: str = "test"
    subset: str = "all"
    part: tuple[int, int] | None = None
    image_column: str = "image"
    label_column: str = "label"
    resize: int = 0
    crop: int = 0

    def __post_init__(self) -> None:
        check_subset(self.subset)
        if min(self.resize, self.crop) < 0 or 0 < self.resize < self.crop:
            raise DataError(
                f"resize, crop: expected 0 ≤ crop ≤ resize, or resize 0, got {self.resize}, {self.crop}"
            )

    def __repr__(self) -> str:
        sizes = f", resize={self.resize}, crop={self.crop}" if self.resize or self.crop else ""
        return f"DataSpec({self.name!r}, {self.split!r}, {self.subset!r}, part={self.part}{sizes})"

    def _open(self) -> Source:
        return open_source(self.name, self.split, self.image_column, self.label_column)

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(select(self._open().labels(), self.subset, self.part))

    @property
    def classes(self) -> int:
        """Number of classes K of the split."""
        return self._open().classes()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.slice(0, 1).load().x.shape[1:])

    def load(self) -> Batch:
        """Read, decode and check the chosen examples; `index` is the position in the split.

        Raises:
            DataError: unknown name or split, missing columns, images of several sizes or outside
                [0, 1], labels that are no integers or out of range, an empty subset.
        """
        source = self._open()
        labels = source.labels()
        rows = select(labels, self.subset, self.part)
        images = source.images(rows, Frame(self.resize, self.crop))
        return _checked(images, labels[rows], rows, source.classes())

    def slice(self, start: int, stop: int) -> "DataSpec":
        """The examples from start up to stop of these."""
        return replace(self, part=_within(self.part, start, stop))

    def take(self, positions: Sequence[int]) -> "DataSpec":
        """The examples at these positions of these, ascending."""
        return replace(self, subset=_at(self.subset, self.part, positions), part=None)

    def fingerprint(self) -> str:
        """Hash of the split's content."""
        return self._open().fingerprint()


@dataclass(frozen=True)
class ArrayData:
    """A user's own tensors as a data set; made by `from_arrays`."""

    version: ClassVar[int] = 1
    name: str = field(repr=False, compare=False)
    x: Tensor = field(repr=False, compare=False)
    y: Tensor = field(repr=False, compare=False)
    classes: int
    digest: str
    subset: str = "all"
    part: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_subset(self.subset)

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(select(self.y.numpy(), self.subset, self.part))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.x.shape[1:])

    def load(self) -> Batch:
        """The chosen examples; `index` is the position in the arrays."""
        rows = select(self.y.numpy(), self.subset, self.part)
        return _checked(self.x[rows], self.y.numpy()[rows], rows, self.classes)

    def slice(self, start: int, stop: int) -> "ArrayData":
        """The examples from start up to stop of these."""
        return replace(self, part=_within(self.part, start, stop))

    def take(self, positions: Sequence[int]) -> "ArrayData":
        """The examples at these positions of these, ascending."""
        return replace(self, subset=_at(self.subset, self.part, positions), part=None)

    def fingerprint(self) -> str:
        """Hash of the tensors' bytes."""
        return self.digest


Dataset = DataSpec | ArrayData
"""What the engine takes for a data set. A union, not a protocol: checking a protocol would read the data."""


def from_arrays(
    x: Tensor | NDArray[Any],
    y: Tensor | NDArray[Any] | list[int],
    *,
    name: str = "arrays",
    classes: int | None = None,
    subset: str = "all",
) -> ArrayData:
    """A data set from tensors or arrays in memory, copied.

    Args:
        x: images (n, c, h, w) or series (n, c, l): floats in [0, 1], or uint8 0 … 255.
        y: labels (n,), whole numbers 0 … K−1.
        name: what reports call it.
        classes: K; None: the largest label + 1.
        subset: text in the subset language.

    Raises:
        DataError: wrong shapes, kinds of numbers, ranges, or no examples.
    """
    x, y = torch.as_tensor(x).cpu(), torch.as_tensor(y).cpu()
    x = from_uint8(x) if x.dtype == torch.uint8 else x
    if not x.is_floating_point():
        raise DataError(f"images: expected floats in [0, 1] or uint8 0 … 255, got {x.dtype}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise DataError(f"labels: expected whole numbers 0 … K−1, got {y.dtype}")
    x, y = x.detach().float().clone(memory_format=torch.contiguous_format), y.long().clone()
    if y.ndim != 1 or len(y) != len(x):
        raise DataError(f"labels: expected one per image, ({len(x)},), got {tuple(y.shape)}")
    count = classes if classes is not None else int(y.max()) + 1 if len(y) else 0
    _checked(x, y.numpy(), np.arange(len(y)), count)
    digest = hashlib.sha256(
        repr(tuple(x.shape)).encode() + x.numpy().tobytes() + y.numpy().tobytes()
    )
    return ArrayData(name, x, y, count, digest.hexdigest(), subset)


def _within(part: tuple[int, int] | None, start: int, stop: int) -> tuple[int, int]:
    offset, end = part if part is not None else (0, None)
    if not 0 <= start < stop or (end is not None and offset + stop > end):
        size = "the size" if end is None else end - offset
        raise DataError(f"slice: expected 0 ≤ start < stop ≤ {size}, got {start}:{stop}")
    return offset + start, offset + stop


def _at(subset: str, part: tuple[int, int] | None, positions: Sequence[int]) -> str:
    start, stop = part if part is not None else (0, None)
    if not positions or min(positions) < 0 or (stop is not None and start + max(positions) >= stop):
        size = "the size" if stop is None else stop - start
        raise DataError(f"take: expected positions from 0 up to {size}, got {list(positions)}")
    return f"{subset}/at:{','.join(str(start + i) for i in positions)}"


def _checked(x: Tensor, labels: Rows, rows: Rows, classes: int) -> Batch:
    """The door: what passes here is as `Batch` promises."""
    if not len(rows):
        raise DataError("data set: expected at least one example, got none")
    if x.ndim not in (3, 4):
        raise DataError(
            f"images: expected (n, c, h, w) or series (n, c, l), got {tuple(x.shape)}; "
            "add the colour axis with x[:, None]"
        )
    if x.ndim == 4 and x.shape[1] > 4 and x.shape[3] in (1, 3, 4):
        raise DataError(
            f"images: expected colours before height and width, got {tuple(x.shape)}; "
            "use x.permute(0, 3, 1, 2)"
        )
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # NaN fails too
        raise DataError(
            f"images: expected pixels in [0, 1], got {low:g} … {high:g}; rescale them and let the "
            "network's first layer normalise"
        )
    if not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise DataError(
            f"labels: expected 0 … {classes - 1}, got {labels.min()} … {labels.max()}; "
            "number the classes from 0"
        )
    return Batch(x, torch.from_numpy(labels), torch.from_numpy(rows))
