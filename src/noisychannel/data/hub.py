"""Whatever else the package `datasets` reads."""

import hashlib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from noisychannel.data.parquet import check_columns, check_labels
from noisychannel.data.pixels import AS_STORED, Frame, decode, framed, is_gray, stack
from noisychannel.data.subset import Rows
from noisychannel.errors import DataError

__all__ = ["HuggingFace", "hugging_face"]


class HuggingFace:
    """Whatever `datasets.load_dataset` reads: a hub name, or a folder. Never remote code."""

    def __init__(self, name: str, split: str, image_column: str, label_column: str) -> None:
        try:
            import datasets
            from datasets.exceptions import DatasetsError
        except ImportError:
            raise DataError(
                f"data set: {name!r} needs the package datasets (pip install 'noisychannel[hub]'); "
                "without it digits, UCR series, SVHN's .mat files and folders of Parquet files or "
                "of images can be read"
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

    def images(self, rows: Rows, frame: Frame = AS_STORED) -> Tensor:
        """Only these rows are decoded."""
        values = (row[self._image] for row in self._data.select(rows))
        return stack(framed(decode(value, gray=self._gray), frame) for value in values)

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
def hugging_face(name: str, split: str, image_column: str, label_column: str) -> HuggingFace:
    """The same, opened once."""
    return HuggingFace(name, split, image_column, label_column)
