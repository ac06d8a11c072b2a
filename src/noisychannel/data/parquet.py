"""Folders of Parquet files, as the Hugging Face hub stores data sets; read by PyArrow."""

import hashlib
import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from noisychannel.data.files import SPLITS, data_files, file_hash
from noisychannel.data.pixels import AS_STORED, Frame, decode, framed, is_gray, stack
from noisychannel.data.subset import Rows
from noisychannel.errors import DataError

__all__ = ["ParquetFolder", "check_columns", "check_labels", "parquet_files"]


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

    def images(self, rows: Rows, frame: Frame = AS_STORED) -> Tensor:
        """Only the row groups that hold these rows are read, only these rows are decoded."""
        return stack(framed(decode(v, gray=self._gray), frame) for v in self._values(rows))

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
            whole.update(file_hash(path))
        return whole.hexdigest()


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

    As in `datasets`: a file belongs to the split that its path names (`train-00000-of-00005`), and
    a folder that names no split is `train`. Beside named splits, `extra-00000-of-00002` is `extra`.

    Raises:
        DataError: the folder has other splits only.
    """
    files = data_files(folder, {".parquet"})
    if not files:
        return None
    named = {file: _split(file.relative_to(folder)) for file in files}
    splits: dict[str, list[Path]] = {}
    for file, name in named.items():
        rest = re.split(r"[-_. ]", file.stem)[0] if any(named.values()) else "train"
        splits.setdefault(name or rest, []).append(file)
    if split not in splits:
        raise DataError(f"split: expected one of {', '.join(sorted(splits))}, got {split!r}")
    return splits[split]


def _split(path: Path) -> str | None:
    words = set(re.split(r"[-_./ ]", str(path).lower()))
    return next((name for name, aliases in SPLITS.items() if aliases & words), None)
