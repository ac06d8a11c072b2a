"""Folders of images, one folder per class: SPLIT/CLASS/image or CLASS/image."""

import hashlib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from noisychannel.data.files import SPLITS, State, data_files, state
from noisychannel.data.pixels import AS_STORED, Frame, decode, framed, is_gray, stack
from noisychannel.data.subset import Rows
from noisychannel.errors import DataError

__all__ = ["ImageFolder", "image_folder"]

_ENDINGS = {
    ".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"
}  # fmt: skip


class ImageFolder:
    """The image files of one split, sorted by class and name; a file's class is the folder it lies in.

    Args:
        files: the images of the split.
        names: the class folders of all splits, so that every split numbers the classes alike.
    """

    def __init__(self, files: list[Path], names: list[str]) -> None:
        self._files, self._names = files, names

    def labels(self) -> Rows:
        """Position of each file's class among the sorted class names."""
        number = {name: i for i, name in enumerate(self._names)}
        return np.array([number[file.parent.name] for file in self._files], np.int64)

    def classes(self) -> int:
        """Number of class folders."""
        return len(self._names)

    @cached_property
    def _gray(self) -> bool:
        return is_gray(self._files[0].read_bytes())

    def images(self, rows: Rows, frame: Frame = AS_STORED) -> Tensor:
        """Only these files are read."""
        return stack(self._image(self._files[row], frame) for row in rows)

    def _image(self, file: Path, frame: Frame) -> NDArray[Any]:
        try:
            return framed(decode(file.read_bytes(), gray=self._gray), frame)
        except DataError as error:
            raise DataError(f"{file}: {error}") from None

    def fingerprint(self) -> str:
        """Hash of the class names, and of each file's class and bytes; hashed anew if a file's size or time changed."""
        return _content(tuple(self._names), tuple((file, state(file)) for file in self._files))


@lru_cache(maxsize=8)
def _content(names: tuple[str, ...], files: tuple[tuple[Path, State], ...]) -> str:
    whole = hashlib.sha256(repr(names).encode())
    for path, _ in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        whole.update(repr(path.parent.name).encode() + digest)
    return whole.hexdigest()


def image_folder(folder: Path, split: str) -> ImageFolder | None:
    """A split of a folder that holds nothing but images in class folders (and its README), else None.

    Raises:
        DataError: the folder has other splits only, or no class folders.
    """
    files = data_files(folder, _ENDINGS)
    depths = {len(file.relative_to(folder).parts) for file in files}
    tops = sorted({file.relative_to(folder).parts[0] for file in files})
    named = {top: split for top in tops for split, words in SPLITS.items() if top.lower() in words}
    if depths == {2} and len(named) == len(tops):
        raise DataError(
            f"image folder: expected SPLIT/CLASS/image, got {files[0].relative_to(folder)}; "
            "put the images of each class into a folder of their own"
        )
    if depths == {2}:
        roots = {folder: "train"}
    elif depths == {3} and len(named) == len(tops):
        roots = {folder / top: name for top, name in named.items()}
    else:
        return None
    wanted = next((name for name, words in SPLITS.items() if split in words), split)
    if wanted not in roots.values():
        raise DataError(
            f"split: expected one of {', '.join(sorted(set(roots.values())))}, got {split!r}"
        )
    chosen = {root for root, name in roots.items() if name == wanted}
    names = {p.name for root in roots for p in root.iterdir() if p.is_dir() and p.name[0] != "."}
    return ImageFolder([f for f in files if f.parent.parent in chosen], sorted(names))
