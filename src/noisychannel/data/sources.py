"""Where examples come from: what a source offers, scikit-learn's digits, and which source a name means."""

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from noisychannel.data.files import places
from noisychannel.data.folders import image_folder
from noisychannel.data.hub import hugging_face
from noisychannel.data.parquet import ParquetFolder, parquet_files
from noisychannel.data.pixels import AS_STORED, Frame, framed, stack
from noisychannel.data.series import Series, series_files, series_names
from noisychannel.data.subset import Rows
from noisychannel.data.svhn import svhn_folder
from noisychannel.errors import DataError

__all__ = ["Digits", "Source", "open_source"]


@runtime_checkable
class Source(Protocol):
    """One split of a data set; nothing is read before it is asked for."""

    def labels(self) -> Rows:
        """Label of every example of the split."""
        ...

    def classes(self) -> int:
        """Number of classes K."""
        ...

    def images(self, rows: Rows, frame: Frame = AS_STORED) -> Tensor:
        """The examples at these positions (ascending), float32 (n, c, h, w) or (n, c, l)."""
        ...

    def fingerprint(self) -> str:
        """Hash of the split's content, never of where it lies."""
        ...


class Digits:
    """The 1,797 handwritten digits of scikit-learn, 8 × 8 gray, pixels k/16.

    Split: of each class, in scikit-learn's order, every fifth image (the 5th, 10th, …) is test.
    """

    def __init__(self, split: str) -> None:
        if split not in ("train", "test"):
            raise DataError(f"split: expected train or test for digits, got {split!r}")
        x, y = _load_digits()
        rank = np.zeros_like(y)
        for label in range(10):
            rank[y == label] = np.arange((y == label).sum())
        chosen = (rank % 5 == 4) == (split == "test")
        self._x, self._y = x[chosen], y[chosen]

    def labels(self) -> Rows:
        """0 … 9."""
        return self._y

    def classes(self) -> int:
        """Ten."""
        return 10

    def images(self, rows: Rows, frame: Frame = AS_STORED) -> Tensor:
        """(n, 1, 8, 8)."""
        return stack(framed(image, frame) for image in self._x[rows])

    def fingerprint(self) -> str:
        """Hash of the arrays."""
        return hashlib.sha256(self._x.tobytes() + self._y.tobytes()).hexdigest()


@lru_cache(maxsize=1)
def _load_digits() -> tuple[NDArray[Any], Rows]:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return (bunch.images / 16).astype(np.float32)[:, None], bunch.target.astype(np.int64)


_HOMES = {
    "cifar10": "its folder cifar10 holds Parquet files with train and test in their names",
    "svhn": "its folder svhn holds train_32x32.mat and test_32x32.mat",
    "ucr": "its folder ucr holds NAME_TRAIN.tsv and NAME_TEST.tsv",
}
"""What to put where, for the data sets of the presets."""


def open_source(name: str, split: str, image_column: str, label_column: str) -> Source:
    """A split of the data set called `name`: digits, a folder (of `$NOISYCHANNEL_DATA` or any), a hub name.

    Raises:
        DataError: nothing of that name.
    """
    if name == "digits":
        return Digits(split)
    for place in places(name):
        series = series_files(place)
        if series:
            return Series(series, split)
        if place.is_dir():
            return _open_folder(place, split, image_column, label_column)
    for place in places(name):
        _check_no_series(place.parent, name)
    home = _HOMES.get(
        name.partition("/")[0], ""
    )  # what we call by a folder of ours is no owner on the hub
    if not home and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        return hugging_face(name, split, image_column, label_column)
    root = os.environ.get("NOISYCHANNEL_DATA")
    known = ["digits"] + (sorted(p.name for p in Path(root).glob("*/")) if root else [])
    raise DataError(
        f"data set: expected one of {', '.join(known)}, a folder, or a hub name owner/name, "
        f"got {name!r}; $NOISYCHANNEL_DATA, the folder of data sets, is {root or 'not set'}, and "
        f"{home or 'the README says what a folder holds'}"
    )


def _open_folder(folder: Path, split: str, image_column: str, label_column: str) -> Source:
    files = parquet_files(folder, split)
    if files is not None:
        return ParquetFolder(files, image_column, label_column)
    _check_no_series(folder, str(folder))
    found = svhn_folder(folder, split) or image_folder(folder, split)
    return found or hugging_face(str(folder), split, image_column, label_column)


def _check_no_series(folder: Path, name: str) -> None:
    names = series_names(folder)
    if names:
        raise DataError(
            f"data set: expected {folder.name}/NAME with NAME one of {', '.join(names)}, got {name!r}"
        )
