"""BandLimited: convolutions computed in the frequency domain, from low frequencies only."""

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from noisychannel.defenses.layers import Altered, AlteredConv1d, AlteredConv2d, Site
from noisychannel.defenses.surgery import check_patterns, operate
from noisychannel.errors import UserError, expected
from noisychannel.types import Sharing

__all__ = ["BandLimited", "Size", "SpectralLayer", "highest_kept", "kept_share", "transform_size"]

Size = Literal["fast", "authors"]
"""Length of the transform: the shortest fast one without overlap, or the authors' power of two."""


@dataclass(frozen=True)
class BandLimited:
    """Every convolution from low frequencies only: y = F⁻¹(M·F x · conj(M·F W)) + b, M ∈ {0, 1} the same for both.

    x is padded as the layer says, then x and W are padded with zeros to N per dimension (`size`), so
    that nothing overlaps; a stride takes every s-th value of the result. M keeps the frequencies
    |f| ≤ k in each dimension: of the one-sided spectrum of an image the corner of k + 1 rows and
    k + 1 columns at the top left and that of k rows at the bottom left, k = ⌊v·√((100 − c)/100)⌋,
    v = ⌊N/2⌋ + 1; of a series the lowest max(1, ⌊v·(100 − c)/100⌋) coefficients.

    The gradients follow from the same formula, so they too are computed from kept coefficients
    only: that of x is the adjoint, M's part of the spectrum of ∂y, times W's. Linear layers stay.

    Args:
        compression: c, percent of each spectrum to drop, 0 … 100. At 0 % the result is the spatial
            convolution to about 1e-6 of its size, not bit for bit; at 100 % the mean is kept.
        size: N: `fast`, the smallest 2^a·3^b·5^c that holds input, padding and filter without
            overlap; or `authors`, the smallest power of two ≥ input + padding + output − 1, which
            gives 4 times the map. That is several times slower, and closer to the rate on small
            maps, where k is a coarse choice: of an 8 × 8 map and a 3 × 3 filter at 80 %, `fast`
            (N = 12) keeps 33 % of the spectrum and `authors` (N = 32) 22 %.
        skip: patterns of names of convolutions that are left alone.

    Raises:
        UserError: compression outside 0 … 100, another size, or a network without convolutions.

    Source: paper 4.6, Figure 2; Dziedzic et al. 2019 (band-limited training); details §4.
    Differs: 1. biases, groups, dilations, other paddings and rectangles (each dimension its own k)
    work too. 2. series: the authors drop one coefficient more where c·v/100 is a whole number.
    """

    version: ClassVar[int] = 1
    compression: float = 80.0
    size: Size = "fast"
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_patterns("skip", self.skip)
        percent: object = self.compression
        if not isinstance(percent, Real) or not 0 <= percent <= 100:
            raise expected("compression", "0 … 100 percent", repr(percent))
        if self.size not in ("fast", "authors"):
            raise expected("size", "fast or authors", repr(self.size))

    @property
    def stochastic(self) -> bool:
        """No."""
        return False

    @property
    def weights(self) -> Sharing:
        """No noise on weights."""
        return "fixed"

    def identity(self) -> "BandLimited":
        """0 %: the same numbers to about 1e-6 of their size, still by Fourier transforms."""
        return replace(self, compression=0.0)

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        """A copy of the network whose convolutions are band-limited."""
        effect = SpectralLayer(self)
        return operate(module, lambda _site: effect, shape, skip=self.skip)


@dataclass(frozen=True)
class SpectralLayer:
    """y = F⁻¹(M·F x · conj(M·F W)) + b."""

    how: BandLimited

    def scale(self, site: Site) -> None:
        """Nothing is learnt."""
        return

    def __call__(self, layer: Altered, x: Tensor) -> Tensor:
        assert isinstance(layer, AlteredConv1d | AlteredConv2d)
        weight = _dilated(layer.weight, layer.dilation)
        x = _padded(layer, x)
        inputs, filters = tuple(x.shape[2:]), tuple(weight.shape[2:])
        sizes = tuple(
            transform_size(i, f, self.how.size) for i, f in zip(inputs, filters, strict=True)
        )
        highest = highest_kept(sizes, self.how.compression)
        product = _correlated(
            _spectrum(x, sizes, highest), _spectrum(weight, sizes, highest), layer.groups
        )
        outputs = tuple(i - f + 1 for i, f in zip(inputs, filters, strict=True))
        y = _signal(product, sizes, outputs, layer.stride)
        return y if layer.bias is None else y + layer.bias.view(-1, *[1] * len(sizes))


def transform_size(length: int, filter_length: int, size: Size = "fast") -> int:
    """N for a padded input and a dilated filter of these lengths."""
    if size == "authors":
        output = max(length - filter_length + 1, filter_length)
        return 1 << (length + output - 2).bit_length()
    n = length + filter_length - 1
    while not _smooth(n):
        n += 1
    return n


def highest_kept(sizes: tuple[int, ...], compression: float) -> tuple[int, ...]:
    """k of each dimension: the frequencies |f| ≤ k are kept. At 0 % it is all of them."""
    share = (100 - compression) / 100
    if len(sizes) == 1:
        return (max(1, int((sizes[0] // 2 + 1) * share)) - 1,)
    return tuple(int((n // 2 + 1) * math.sqrt(share)) for n in sizes)


def kept_share(sizes: tuple[int, ...], compression: float) -> float:
    """Share of the one-sided spectrum's coefficients that BandLimited keeps, for transforms of these sizes."""
    highest = highest_kept(sizes, compression)
    rows = [min(2 * k + 1, n) for n, k in zip(sizes[:-1], highest[:-1], strict=True)]
    half = sizes[-1] // 2 + 1
    return math.prod(rows) * min(highest[-1] + 1, half) / (math.prod(sizes[:-1]) * half)


def _smooth(n: int) -> bool:
    """Whether n has no prime factors but 2, 3 and 5."""
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def _padded(layer: AlteredConv1d | AlteredConv2d, x: Tensor) -> Tensor:
    """The input with the layer's own padding, numbers and words alike."""
    dimensions = len(layer.stride)
    if x.ndim != dimensions + 2 or x.shape[1] != layer.in_channels:
        raise UserError(
            f"BandLimited: expected inputs (n, {layer.in_channels}, "
            f"{', '.join('hw' if dimensions == 2 else 'l')}), got {tuple(x.shape)}"
        )
    pads = layer._reversed_padding_repeated_twice  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # 'same' too
    if layer.padding_mode == "zeros":
        return functional.pad(x, pads)
    return functional.pad(x, pads, layer.padding_mode)


def _dilated(weight: Tensor, dilation: tuple[int, ...]) -> Tensor:
    """The filter with zeros between its values."""
    if all(d == 1 for d in dilation):
        return weight
    lengths = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    wide = weight.new_zeros(*weight.shape[:2], *lengths)
    wide[(..., *(slice(None, None, d) for d in dilation))] = weight
    return wide


def _spectrum(x: Tensor, sizes: tuple[int, ...], highest: tuple[int, ...]) -> Tensor:
    """The kept coefficients, (n, c, kept) or (n, c, kept rows, kept columns); no other columns are transformed."""
    z = torch.fft.rfft(x, n=sizes[-1])[..., : highest[-1] + 1]
    if len(sizes) == 1:
        return z
    n, k = sizes[0], highest[0]
    z = torch.fft.fft(z, n=n, dim=-2)
    return z if 2 * k + 1 >= n else torch.cat((z[..., : k + 1, :], z[..., n - k :, :]), dim=-2)


def _correlated(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Σ over the input channels of each group: x · conj(weight), one matrix product per kept frequency."""
    n, kept = len(x), x.shape[2:]
    outs, ins = len(weight) // groups, weight.shape[1]
    weight = weight.conj()
    if ins == 1:
        return (x.unsqueeze(2) * weight.view(groups, outs, *kept)).flatten(1, 2)
    rows = x.reshape(n, groups, ins, -1).permute(3, 1, 0, 2)
    columns = weight.reshape(groups, outs, ins, -1).permute(3, 0, 2, 1)
    # Contiguous and conjugated beforehand: complex products of strided operands are several times slower.
    y = rows.contiguous() @ columns.resolve_conj().contiguous()
    return y.permute(2, 1, 3, 0).reshape(n, groups * outs, *kept)


def _signal(
    z: Tensor, sizes: tuple[int, ...], outputs: tuple[int, ...], stride: tuple[int, ...]
) -> Tensor:
    """The values whose kept coefficients are z, those before `outputs` and of them every stride-th."""
    if len(sizes) == 2:
        dropped = sizes[0] - z.shape[-2]
        if dropped:
            k = z.shape[-2] // 2
            gap = z.new_zeros(*z.shape[:2], dropped, z.shape[-1])
            z = torch.cat((z[..., : k + 1, :], gap, z[..., k + 1 :, :]), dim=-2)
        z = torch.fft.ifft(z, dim=-2)[..., : outputs[0] : stride[0], :]
    return torch.fft.irfft(z, n=sizes[-1])[..., : outputs[-1] : stride[-1]]
