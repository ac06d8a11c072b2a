"""Data sets: examples in [0, 1] with labels, by name, by folder, by hub name, or from a user's arrays."""

from noisychannel.data.pixels import from_uint8, to_uint8
from noisychannel.data.series import Range, series_range
from noisychannel.data.spec import ArrayData, Dataset, DataSpec, from_arrays

__all__ = [
    "ArrayData",
    "DataSpec",
    "Dataset",
    "Range",
    "from_arrays",
    "from_uint8",
    "series_range",
    "to_uint8",
]
