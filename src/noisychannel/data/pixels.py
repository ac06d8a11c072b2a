"""Pixels: from encoded images and 8-bit integers to floats in [0, 1], and back."""

import io
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from noisychannel.errors import DataError

__all__ = ["AS_STORED", "Frame", "decode", "framed", "from_uint8", "is_gray", "stack", "to_uint8"]

_GRAY = ("1", "L", "LA")
_COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La")


class Frame(NamedTuple):
    """The size that images are brought to: shorter side scaled to `resize`, then the centre of `crop` × `crop`.

    0 leaves out the step.
    """

    resize: int = 0
    crop: int = 0


AS_STORED = Frame()


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
        DataError: unreadable or broken bytes, a colour image in a gray data set, or more than 8 bits.
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
    try:
        pixels = np.asarray(image.convert("L" if gray else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
        raise DataError(f"image: expected a whole image, got {error}; load it anew") from error
    return pixels[None] if gray else pixels.transpose(2, 0, 1)


def framed(array: NDArray[Any], frame: Frame) -> NDArray[Any]:
    """A decoded image (c, h, w) brought to the size of the frame: bicubic and antialiased, by Pillow.

    Rounds sides and corner as torchvision's Resize and CenterCrop do.

    Raises:
        DataError: a series, or an image smaller than the crop.
    """
    if frame == AS_STORED:
        return array
    if array.ndim != 3:
        raise DataError(f"resize, crop: expected images, got a series {array.shape}; leave them 0")
    if frame.resize:
        array = _scaled(array, frame.resize)
    if not frame.crop:
        return array
    height, width = array.shape[1:]
    if frame.crop > min(height, width):
        raise DataError(
            f"crop: expected at most {min(height, width)} for an image of {height} × {width}, "
            f"got {frame.crop}; give resize={frame.crop} or more"
        )
    top, left = round((height - frame.crop) / 2), round((width - frame.crop) / 2)
    return array[:, top : top + frame.crop, left : left + frame.crop]


def _scaled(array: NDArray[Any], short: int) -> NDArray[Any]:
    kind = np.uint8 if array.dtype == np.uint8 else np.float32
    height, width = (short * side // min(array.shape[1:]) for side in array.shape[1:])
    planes = [
        Image.fromarray(np.ascontiguousarray(plane, kind)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for plane in array
    ]
    # Bicubic overshoots at edges; Pillow clips bytes only.
    return np.stack([np.asarray(plane) for plane in planes]).clip(array.min(), array.max())


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
            f"images: expected one size, got {first} and {second}; give resize and crop, or store them in one size"
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
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"image: expected a whole image, got {error}; load it anew") from error


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
