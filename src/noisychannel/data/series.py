"""Series: files of the UCR archive (`.tsv`) and of sktime and aeon (`.ts`), plain or gzipped, mapped into [0, 1].

The library's examples are in [0, 1]: attacks clip there, and every norm is in those units. Series are
z-normalised, with values such as −7 … 7, so each data set has one affine map x ↦ (x − low)/(high − low)
for all its values. Being the same for every value it changes no ratio of distortions, and
`series_range` gives low and high to undo it. They come from the train file alone, widened by a quarter of
its range on either side: the test split stays unseen, and an attack has room beyond what occurs in nature.
Values of the test file that lie still further out are clipped.
"""

import gzip
import hashlib
import math
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from noisychannel.data.files import State, places, state
from noisychannel.data.pixels import AS_STORED, Frame, framed, stack
from noisychannel.data.subset import Rows
from noisychannel.errors import DataError

__all__ = ["Range", "Series", "series_files", "series_names", "series_range"]

_ENDINGS = (".tsv", ".tsv.gz", ".ts", ".ts.gz")
_MARGIN = 0.25


class Range(NamedTuple):
    """The values of the files that became 0 and 1: raw = low + (high − low)·x."""

    low: float
    high: float


class _Stored(NamedTuple):
    """A file as it is: series (n, c, l) and the labels' texts."""

    x: NDArray[np.float64]
    labels: tuple[str, ...]


class _Row(NamedTuple):
    """A line of a file: the label's text and one list of values per dimension."""

    number: int
    label: str
    cells: list[list[str]]


class Series:
    """One split of a UCR data set. Labels are numbered 0 … K−1 in the order of the train file's sorted labels.

    Source: Dau et al., The UCR time series archive, 2019; https://timeseriesclassification.com.
    """

    def __init__(self, files: dict[str, Path], split: str) -> None:
        if split not in files:
            raise DataError(f"split: expected one of {', '.join(files)}, got {split!r}")
        train, own = _train(files), _read(files[split], state(files[split]))
        if own.x.shape[1:] != train.x.shape[1:]:
            raise DataError(
                f"series: expected (dimensions, length) {train.x.shape[1:]} as in the train file, "
                f"got {own.x.shape[1:]} in {files[split].name}"
            )
        number = {label: i for i, label in enumerate(_distinct(train.labels))}
        unknown = [label for label in _distinct(own.labels) if label not in number]
        if unknown:
            raise DataError(
                f"labels: expected those of {files['train'].name}, got {unknown[0]!r} "
                f"in {files[split].name}; a network can only learn classes that it is shown"
            )
        low, high = _range(train)
        self._x = ((own.x - low) / (high - low)).clip(0, 1).astype(np.float32)
        self._y = np.array([number[_value(label)] for label in own.labels], np.int64)
        self._classes = len(number)

    def labels(self) -> Rows:
        """0 … K−1."""
        return self._y

    def classes(self) -> int:
        """Number of labels in the train file."""
        return self._classes

    def images(self, rows: Rows, frame: Frame = AS_STORED) -> Tensor:
        """(n, c, l) in [0, 1]."""
        return stack(framed(series, frame) for series in self._x[rows])

    def fingerprint(self) -> str:
        """Hash of the series in [0, 1] and of their numbered labels: the train file's range and labels count too."""
        shape = repr((self._x.shape, self._classes)).encode()
        return hashlib.sha256(shape + self._x.tobytes() + self._y.tobytes()).hexdigest()


def series_range(name: str) -> Range:
    """The values that became 0 and 1 in the data set `name`, such as `ucr/ECG5000`.

    A distortion in [0, 1] units times high − low is one in the files' units. A network that shall see
    the files' values begins with `Normalize((−low/(high − low),), (1/(high − low),))`.

    Raises:
        DataError: no series of that name, or a malformed train file.
    """
    for place in places(name):
        files = series_files(place)
        if files:
            return _range(_train(files))
    raise DataError(f"series: expected a data set of series such as ucr/ECG5000, got {name!r}")


def series_files(place: Path) -> dict[str, Path]:
    """The files of a data set by split: FOLDER/NAME_TRAIN.tsv, or FOLDER/NAME/NAME_TRAIN.tsv; often none.

    Args:
        place: FOLDER/NAME.
    """
    paths = (
        (split, folder / f"{place.name}_{split.upper()}{ending}")
        for split in ("train", "test")
        for folder in (place, place.parent)
        for ending in _ENDINGS
    )
    found: dict[str, Path] = {}
    for split, path in paths:
        if split not in found and path.is_file():
            found[split] = path
    return found


def series_names(folder: Path) -> list[str]:
    """The NAMEs of a folder's data sets of series."""
    official = [f for f in folder.glob("*/*_TRAIN.*") if f.name.startswith(f"{f.parent.name}_")]
    names = {
        f.name.partition("_TRAIN.")[0]
        for f in [*folder.glob("*_TRAIN.*"), *official]
        if f.name.endswith(_ENDINGS)
    }
    return sorted(names)


def _train(files: dict[str, Path]) -> _Stored:
    if "train" not in files:
        raise DataError(
            f"series: expected a train file, which tells range and labels, beside {files['test']}, got none"
        )
    return _read(files["train"], state(files["train"]))


def _range(train: _Stored) -> Range:
    low, high = float(train.x.min()), float(train.x.max())
    if low == high:
        raise DataError(f"series: expected more than one value in the train file, got {low:g} only")
    margin = _MARGIN * (high - low)
    return Range(low - margin, high + margin)


def _value(label: str) -> float | str:
    """A label as a number if it is one, so that `1` and `1.0` are one label, and −1 comes before 1."""
    try:
        number = float(label)
    except ValueError:
        return label
    return number if math.isfinite(number) else label


def _distinct(labels: tuple[str, ...]) -> list[float | str]:
    values = {_value(label) for label in labels}
    return sorted(values, key=lambda v: (isinstance(v, str), v))


@lru_cache(maxsize=8)
def _read(path: Path, _state: State) -> _Stored:
    lines = _lines(path)
    rows = _ts(lines, path) if path.name.endswith((".ts", ".ts.gz")) else _tsv(lines)
    found: list[NDArray[np.float64]] = []
    labels: list[str] = []
    for row in rows:
        lengths = sorted({len(cells) for cells in row.cells} | {len(x[0]) for x in found[:1]})
        if len(lengths) > 1:
            raise DataError(
                f"series: expected one length, got {lengths[0]} and {lengths[1]} in line "
                f"{row.number} of {path}; cut or pad them to one length"
            )
        x = _numbers(row, path)
        if found and len(x) != len(found[0]):
            raise DataError(
                f"series: expected {len(found[0])} dimensions, got {len(x)} in line {row.number} of {path}"
            )
        found.append(x)
        labels.append(row.label)
    if not found:
        raise DataError(f"series: expected at least one, got none in {path}")
    return _Stored(np.stack(found), tuple(labels))


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"series: expected {path} to be readable, got {error}") from error
    return data.decode("utf-8-sig", "replace").splitlines()  # some editors put a mark before line 1


def _tsv(lines: list[str]) -> Iterator[_Row]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            label, *cells = line.rstrip().split("\t")
            yield _Row(number, label.strip(), [cells])


def _ts(lines: list[str], path: Path) -> Iterator[_Row]:
    """Lines `v,v,…:v,v,…:label`, one part per dimension, after a header that ends with `@data`."""
    refused = {
        "@timestamps true": "series without time stamps",
        "@classlabel false": "class labels",
        "@targetlabel true": "class labels",
    }
    header, declared = True, list[str]()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text[0] == "#":
            continue
        if header:
            words = " ".join(text.lower().split()[:2])
            declared = text.split()[2:] if words == "@classlabel true" else declared
            if words in refused or text[0] != "@":
                wanted = refused.get(words, "a header that ends with @data")
                raise DataError(f"series: expected {wanted}, got {text[:40]!r} in {path}")
            header = words != "@data"
            continue
        *dimensions, label = text.split(":")
        if dimensions and declared and _value(label.strip()) not in map(_value, declared):
            raise DataError(
                f"series: expected a label of @classLabel ({', '.join(declared)}), got {label.strip()!r} "
                f"in line {number} of {path}"
            )
        yield _Row(number, label.strip(), [part.split(",") for part in dimensions])


def _numbers(row: _Row, path: Path) -> NDArray[np.float64]:
    where = f"line {row.number} of {path}"
    cells: list[Any] = [
        [math.nan if cell.strip() in ("", "?") else cell for cell in part] for part in row.cells
    ]
    try:
        x = np.array([[float(cell) for cell in part] for part in cells], np.float64)
    except ValueError:
        raise DataError(
            f"series: expected a label and numbers, got something else in {where}"
        ) from None
    if row.label.lower() in ("", "?", "nan") or not x.size:
        raise DataError(f"series: expected a label and numbers, got too little in {where}")
    if not np.isfinite(x).all():
        missing = int((~np.isfinite(x)).sum())
        raise DataError(
            f"series: expected no missing values, got {missing} in {where}; fill them in, or, where "
            "they stand for unequal lengths, cut the series to one length"
        )
    return x
