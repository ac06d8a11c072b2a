"""SVHN as its authors distribute it: `train_32x32.mat`, `test_32x32.mat`, `extra_32x32.mat`."""

import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from noisychannel.data.files import State, file_hash, state
from noisychannel.data.pixels import AS_STORED, Frame, framed, stack
from noisychannel.data.subset import Rows
from noisychannel.errors import DataError

__all__ = ["SVHN", "svhn_folder"]

_ENDING = "_32x32.mat"
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, NotImplementedError, zlib.error)
"""What SciPy's reader raises for damaged files, for a variable that is missing, and for MATLAB 7.3."""


class SVHN:
    """One of the `.mat` files: X (32, 32, 3, n) uint8 and y (n, 1), where 10 means the digit 0.

    Source: Netzer et al., Reading Digits in Natural Images, 2011, format 2.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def labels(self) -> Rows:
        """0 … 9, the digits."""
        stored = _variable(self._file, "y", state(self._file))
        return stored.reshape(-1).astype(np.int64) % 10

    def classes(self) -> int:
        """Ten."""
        return 10

    def images(self, rows: Rows, frame: Frame = AS_STORED) -> Tensor:
        """(n, 3, 32, 32)."""
        stored = _variable(self._file, "X", state(self._file))
        if stored.shape[3] != len(self.labels()):
            raise DataError(
                f"SVHN: expected as many images as labels ({len(self.labels())}), "
                f"got {stored.shape[3]} in {self._file}; load it anew"
            )
        return stack(framed(image, frame) for image in stored.transpose(3, 2, 0, 1)[rows])

    def fingerprint(self) -> str:
        """Hash of the file's bytes."""
        return file_hash(self._file).hex()


def svhn_folder(folder: Path, split: str) -> SVHN | None:
    """A split of a folder that has SVHN's files, else None.

    Raises:
        DataError: the folder has other splits only.
    """
    files = {f.name.removesuffix(_ENDING): f for f in sorted(folder.glob(f"*{_ENDING}"))}
    if files and split not in files:
        raise DataError(f"split: expected one of {', '.join(files)}, got {split!r}")
    return SVHN(files[split]) if files else None


@lru_cache(maxsize=4)
def _variable(file: Path, name: str, _state: State) -> NDArray[Any]:
    from scipy.io import loadmat  # noqa: PLC0415 (slow, and needed for these files only)
    from scipy.io.matlab import MatReadError  # noqa: PLC0415

    try:
        found: Any = loadmat(file, variable_names=[name])[name]
    except (*_UNREADABLE, MatReadError) as error:
        raise DataError(
            f"SVHN: expected {file} to be a MATLAB 5 file with X and y, got {error!r}; load it anew"
        ) from error
    if name == "X":
        fits = found.shape[:3] == (32, 32, 3) and found.ndim == 4 and found.dtype == np.uint8
    else:
        fits = found.size == len(found) and bool(np.isin(found, np.arange(1, 11)).all())
    if not fits:
        raise DataError(
            "SVHN: expected X (32, 32, 3, n) of bytes and y (n, 1) of 1 … 10, "
            f"got {name} {found.shape} {found.dtype} in {file}"
        )
    return found
