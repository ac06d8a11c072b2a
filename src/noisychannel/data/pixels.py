"""Pixels: from encoded images and 8-bit integers to floats in [0, 1], and back."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from noisychannel.errors import DataError

__all__ = ["decode", "from_uint8", "is_gray", "stack", "to_uint8"]

_GRAY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La")


def to_uint8(x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Pixels in [0, 1] → the nearest of 0 … 255; values outside [0, 1] become 0 or 255.

    Truncating, as (x·255).astype(uint8) does, would darken a continuous image by half a level.
    """
    return (x.clamp(0, 1) * 255).round_().to(torch.uint8)


def from_uint8(x: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0 … 255 → pixels in [0, 1], float32."""
    return x.float().div_(255)


def is_gray(value: Any) -> bool:
    """Whether a stored image has one colour channel; reads only the header of encoded images."""
    data = _encoded(value)
    return _open(data).mode in _GRAY if data is not None else np.ndim(value) < 3


def decode(value: Any, *, gray: bool) -> NDArray[Any]:
    """One stored example → (c, h, w), or (c, l) for series; uint8, or float as stored.

    Args:
        value: encoded bytes, `{"bytes": …, "path": …}` as Hugging Face stores images, or nested
            numbers: (l,) a series, (h, w) gray, (h, w, c) colour.
        gray: whether the data set is gray; gray images among colour ones become colour.

    Raises:
        DataError: unreadable bytes, a colour image in a gray data set, or more than 8 bits.
    """
    data = _encoded(value)
    if data is None:
        return _from_numbers(np.asarray(value))
    image = _open(data)
    if image.mode not in _GRAY + _COLOUR:
        raise DataError(
            f"image: expected 8 bits per colour, got mode {image.mode}; convert it first"
        )
    if gray and image.mode not in _GRAY:
        raise DataError(
            f"image: expected gray like the first one, got mode {image.mode}; "
            "store all images of a data set with the same number of colours"
        )
    pixels = np.asarray(image.convert("L" if gray else "RGB"))
    return pixels[None] if gray else pixels.transpose(2, 0, 1)


def stack(arrays: Iterable[NDArray[Any]]) -> Tensor:
    """Decoded examples of one size → float32 in [0, 1], (n, …).

    Raises:
        DataError: examples of different sizes.
    """
    found = list(arrays)
    shapes = {array.shape: None for array in found}
    if len(shapes) > 1:
        first, second = list(shapes)[:2]
        raise DataError(
            f"images: expected one size, got {first} and {second}; resize or crop them to one size"
        )
    joined = torch.from_numpy(np.stack(found))
    return from_uint8(joined) if joined.dtype == torch.uint8 else joined.float()


def _encoded(value: Any) -> bytes | None:
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return value["bytes"]
        with open(value["path"], "rb") as file:  # noqa: PTH123
            return file.read()
    return value if isinstance(value, bytes) else None


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise DataError(
            f"image: expected bytes that Pillow decodes (PNG, JPEG, WebP …), got {data[:8]!r}…"
        ) from None


def _from_numbers(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        raise DataError(
            f"image: expected whole numbers 0 … 255 or floats in [0, 1], got {array.dtype} numbers"
        )
    if array.ndim in (1, 2):
        return array[None]
    if array.ndim == 3:
        return array.transpose(2, 0, 1)
    raise DataError(f"image: expected (l,), (h, w) or (h, w, c) numbers, got shape {array.shape}")
