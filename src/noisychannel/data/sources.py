"""Where examples come from: scikit-learn's digits, a folder of Parquet files, anything that `datasets` reads."""

import hashlib
import json
import os
import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from noisychannel.data.pixels import decode, is_gray, stack
from noisychannel.data.subset import Rows
from noisychannel.errors import DataError

__all__ = ["Digits", "HuggingFace", "ParquetFolder", "Source", "open_source", "parquet_files"]


@runtime_checkable
class Source(Protocol):
    """One split of a data set; nothing is read before it is asked for."""

    def labels(self) -> Rows:
        """Label of every example of the split."""
        ...

    def classes(self) -> int:
        """Number of classes K."""
        ...

    def images(self, rows: Rows) -> Tensor:
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

    def images(self, rows: Rows) -> Tensor:
        """(n, 1, 8, 8)."""
        return torch.from_numpy(self._x[rows])

    def fingerprint(self) -> str:
        """Hash of the arrays."""
        return hashlib.sha256(self._x.tobytes() + self._y.tobytes()).hexdigest()


@lru_cache(maxsize=1)
def _load_digits() -> tuple[NDArray[Any], Rows]:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return (bunch.images / 16).astype(np.float32)[:, None], bunch.target.astype(np.int64)


class ParquetFolder:
    """Parquet files with an image and a label column, read by PyArrow; no copy is cached."""

    def __init__(self, files: list[Path], image_column: str, label_column: str) -> None:
        self._files = [pq.ParquetFile(file) for file in files]
        self._paths, self._image, self._label = files, image_column, label_column
        check_columns(self._files[0].schema_arrow.names, image_column, label_column)

    def labels(self) -> Rows:
        """The label column."""
        return self._labels

    @cached_property
    def _labels(self) -> Rows:
        whole = pa.concat_tables([file.read([self._label]) for file in self._files])
        return check_labels(whole.column(0), self._label)

    def classes(self) -> int:
        """Number of the label names that Hugging Face stores in the schema, else largest label + 1."""
        metadata = self._files[0].schema_arrow.metadata or {}
        features = (
            json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        )
        names = features.get(self._label, {}).get("names")
        return len(names) if names else int(self._labels.max(initial=-1)) + 1

    @cached_property
    def _gray(self) -> bool:
        return is_gray(self._values(np.arange(1))[0])

    def images(self, rows: Rows) -> Tensor:
        """Only the row groups that hold these rows are read, only these rows are decoded."""
        return stack(decode(value, gray=self._gray) for value in self._values(rows))

    def _values(self, rows: Rows) -> list[Any]:
        values: list[Any] = []
        start = 0
        for file in self._files:
            for group in range(file.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                wanted = rows[(rows >= start) & (rows < stop)] - start
                if len(wanted):
                    column = file.read_row_group(group, [self._image]).column(0)
                    values += column.take(pa.array(wanted)).to_pylist()
                start = stop
        return values

    def fingerprint(self) -> str:
        """Hash of the files' bytes."""
        whole = hashlib.sha256()
        for path in self._paths:
            state = path.stat()  # a changed file is hashed again
            whole.update(_file_hash(path, (state.st_size, state.st_mtime_ns)))
        return whole.hexdigest()


@lru_cache(maxsize=1024)
def _file_hash(path: Path, _state: tuple[int, int]) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class HuggingFace:
    """Whatever `datasets.load_dataset` reads: a hub name, or a folder of images. Never remote code."""

    def __init__(self, name: str, split: str, image_column: str, label_column: str) -> None:
        try:
            import datasets
            from datasets.exceptions import DatasetsError
        except ImportError:
            raise DataError(
                f"data set: {name!r} needs the package datasets (pip install 'noisychannel[hub]'); "
                "without it only digits and folders of Parquet files can be read"
            ) from None
        try:
            found: Any = datasets.load_dataset(name, split=split)
        except (OSError, ValueError, DatasetsError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"data set: cannot load {name!r}, split {split!r}: {reason}") from error
        check_columns(found.column_names, image_column, label_column)
        if isinstance(found.features[image_column], datasets.Image):
            found = found.cast_column(image_column, datasets.Image(decode=False))
        self._data, self._image, self._label = found, image_column, label_column

    def labels(self) -> Rows:
        """The label column."""
        return self._labels

    @cached_property
    def _labels(self) -> Rows:
        return check_labels(self._data.with_format("arrow")[self._label][:], self._label)

    def classes(self) -> int:
        """Number of label names if it has any, else largest label + 1."""
        names = getattr(self._data.features[self._label], "names", None)
        return len(names) if names else int(self._labels.max(initial=-1)) + 1

    @cached_property
    def _gray(self) -> bool:
        return is_gray(self._data[0][self._image])

    def images(self, rows: Rows) -> Tensor:
        """Only these rows are decoded."""
        chosen = self._data.select(rows)
        return stack(decode(row[self._image], gray=self._gray) for row in chosen)

    @cached_property
    def _hash(self) -> str:
        whole = hashlib.sha256(self._labels.tobytes())
        for row in self._data:
            value = row[self._image]
            if isinstance(value, dict) and value.get("bytes") is None:
                value = Path(value["path"]).read_bytes()
            whole.update(repr(value).encode())
        return whole.hexdigest()

    def fingerprint(self) -> str:
        """Hash of labels and stored images."""
        return self._hash


@lru_cache(maxsize=8)
def _hugging_face(name: str, split: str, image_column: str, label_column: str) -> HuggingFace:
    return HuggingFace(name, split, image_column, label_column)


def check_columns(names: list[str], image: str, label: str) -> None:
    """Refuse a table without the two columns."""
    for column, option in ((image, "image_column"), (label, "label_column")):
        if column not in names:
            raise DataError(
                f"data set: expected a column {column!r}, got {', '.join(names)}; name it by {option}"
            )


def check_labels(column: Any, name: str) -> Rows:
    """A label column as int64, or a sentence about what it is instead."""
    if not pa.types.is_integer(column.type):
        raise DataError(
            f"labels: expected whole numbers 0 … K−1 in column {name!r}, got {column.type}; "
            "encode the classes as numbers"
        )
    if column.null_count:
        raise DataError(
            f"labels: expected a label for every example, got {column.null_count} empty"
        )
    return column.to_numpy().astype(np.int64)


def parquet_files(folder: Path, split: str) -> list[Path] | None:
    """The files of a split in a folder that holds nothing but Parquet (and its README), else None.

    As in `datasets`: a file belongs to the split that its path names (`train-00000-of-00005`),
    and a folder that names no split is `train`.

    Raises:
        DataError: the folder has other splits only.
    """
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and not f.name.startswith(".")]
    data = [f for f in files if f.suffix == ".parquet"]
    others = [
        f for f in files if f.suffix != ".parquet" and f.suffix.lower() not in (".md", ".txt")
    ]
    readme = folder / "README.md"
    configured = readme.exists() and re.search(
        r"^configs:", readme.read_text("utf-8"), re.MULTILINE
    )
    if others or not data or configured:
        return None
    splits: dict[str, list[Path]] = {}
    for file in data:
        words = re.split(r"[-_./ ]", str(file.relative_to(folder)).lower())
        named = [name for name in ("train", "validation", "test") if _ALIASES[name] & set(words)]
        splits.setdefault(named[0] if named else "train", []).append(file)
    if split not in splits:
        raise DataError(f"split: expected one of {', '.join(sorted(splits))}, got {split!r}")
    return splits[split]


_ALIASES = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}


def open_source(name: str, split: str, image_column: str, label_column: str) -> Source:
    """A split of the data set called `name`: digits, a folder (of `$NOISYCHANNEL_DATA` or any), a hub name.

    Raises:
        DataError: nothing of that name.
    """
    if name == "digits":
        return Digits(split)
    root = os.environ.get("NOISYCHANNEL_DATA")
    places = [Path(name).expanduser()]
    if root and not Path(name).is_absolute():
        places.insert(0, Path(root).expanduser() / name)
    folder = next((place for place in places if place.is_dir()), None)
    if folder is not None:
        files = parquet_files(folder, split)
        if files is not None:
            return ParquetFolder(files, image_column, label_column)
        return _hugging_face(str(folder), split, image_column, label_column)
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
        return _hugging_face(name, split, image_column, label_column)
    known = ["digits"] + (sorted(p.name for p in Path(root).glob("*/")) if root else [])
    raise DataError(
        f"data set: expected one of {', '.join(known)}, a folder, or a hub name owner/name, "
        f"got {name!r}; $NOISYCHANNEL_DATA, the folder of data sets, is {root or 'not set'}"
    )
