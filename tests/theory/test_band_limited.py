"""Band-limited and half-precision layers against formulas written out in numpy."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from noisychannel.defenses.band_limited import (
    BandLimited,
    Size,
    SpectralLayer,
    highest_kept,
    kept_share,
    transform_size,
)
from noisychannel.defenses.layers import Altered
from noisychannel.defenses.precision import HalfPrecision, HalfType, RoundedLayer, rounded
from noisychannel.defenses.surgery import altered, operate
from noisychannel.errors import UserError
from noisychannel.networks import FCN, ResNet20, SmallNet, prepare

Conv = nn.Conv1d | nn.Conv2d
IMAGE, SERIES = (6, 13, 10), (6, 23)
SHAPE = {nn.Conv1d: SERIES, nn.Conv2d: IMAGE}
RATES = (0.0, 30.0, 80.0, 100.0)
SIZES: tuple[Size, ...] = ("fast", "authors")
KINDS = pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d])
EVERY_SIZE = pytest.mark.parametrize("size", SIZES)
HALVES = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])


def layer_of(kind: type[Conv], *args: Any, **kwargs: Any) -> nn.Sequential:
    torch.manual_seed(7)
    return nn.Sequential(kind(*args, **kwargs))


def inputs(shape: tuple[int, ...], n: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


# ---------------------------------------------------------------- the formula, the slow way


def in_band(n: int, k: int) -> np.ndarray:
    """Whether |frequency| ≤ k, for each of n coefficients of a full spectrum."""
    return np.abs(np.fft.fftfreq(n, 1 / n).round()) <= k


def mask_of(sizes: tuple[int, ...], rate: float) -> np.ndarray:
    """M on the full spectrum, from details §4."""
    half = [n // 2 + 1 for n in sizes]
    if len(sizes) == 1:
        return in_band(sizes[0], max(1, int(half[0] * (100 - rate) / 100)) - 1)
    k = [int(v * math.sqrt((100 - rate) / 100)) for v in half]
    return np.logical_and.outer(in_band(sizes[0], k[0]), in_band(sizes[1], k[1]))


def setting(conv: Conv, shape: tuple[int, ...], size: Size) -> dict[str, Any]:
    """Filter with its dilation, and the sizes, of a convolution with padding in numbers."""
    w = conv.weight.detach().double().numpy()
    spread = [d * (k - 1) + 1 for d, k in zip(conv.dilation, w.shape[2:], strict=True)]
    wide = np.zeros((*w.shape[:2], *spread))
    wide[(..., *(slice(None, None, d) for d in conv.dilation))] = w
    long = [s + 2 * int(p) for s, p in zip(shape[1:], conv.padding, strict=True)]
    out = [i - f + 1 for i, f in zip(long, spread, strict=True)]
    if size == "authors":
        least = [i + max(o, f) - 1 for i, o, f in zip(long, out, spread, strict=True)]
        sizes = [next(2**e for e in range(20) if 2**e >= m) for m in least]
    else:
        smooth = {2**a * 3**b * 5**c for a in range(9) for b in range(6) for c in range(4)}
        sizes = [
            min(m for m in smooth if m >= i + f - 1) for i, f in zip(long, spread, strict=True)
        ]
    return {"wide": wide, "sizes": tuple(sizes), "out": out}


def reference(conv: Conv, x: Tensor, rate: float, size: Size = "fast") -> np.ndarray:
    how = setting(conv, tuple(x.shape[1:]), size)
    sizes, axes = how["sizes"], tuple(range(2, x.ndim))
    data = np.pad(x.double().numpy(), [(0, 0), (0, 0), *((int(p), int(p)) for p in conv.padding)])
    keep = mask_of(sizes, rate)
    fx = keep * np.fft.fftn(data, s=sizes, axes=axes)
    fw = keep * np.fft.fftn(how["wide"], s=sizes, axes=axes)
    outs, ins = len(fw) // conv.groups, fw.shape[1]
    product = np.zeros((len(x), len(fw), *sizes), dtype=complex)
    for o, i in itertools.product(range(len(fw)), range(ins)):
        product[:, o] += fx[:, o // outs * ins + i] * fw[o, i].conj()
    full = np.fft.ifftn(product, axes=axes)
    assert np.abs(full.imag).max() < 1e-10  # M is symmetric
    cut = tuple(slice(0, o, s) for o, s in zip(how["out"], conv.stride, strict=True))
    bias = 0 if conv.bias is None else conv.bias.detach().numpy().reshape(-1, *[1] * len(axes))
    return full.real[(..., *cut)] + bias


def agrees_with_reference(
    surgery: Callable[..., nn.Module], net: nn.Sequential, rate: float
) -> None:
    conv = net[0]
    assert isinstance(conv, nn.Conv1d | nn.Conv2d)
    shape = SHAPE[type(conv)]
    x = inputs(shape)
    with torch.no_grad():
        got = surgery(net, shape)(x).numpy()
    np.testing.assert_allclose(got, reference(conv, x, rate), rtol=0, atol=1e-5)


# ---------------------------------------------------------------- BandLimited, forward


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@KINDS
@EVERY_SIZE
@pytest.mark.parametrize("kernel", [1, 3, 5, 8])
def test_at_rate_zero_it_is_the_spatial_convolution(
    kind: type[Conv], size: Size, kernel: int
) -> None:
    grid = itertools.product((1, 2), (0, 1, 2, "same", "valid"), (1, 2), (1, 2, 6))
    for stride, padding, dilation, groups in grid:
        room = 10 + (2 * padding if isinstance(padding, int) else 0)
        if (padding == "same" and stride == 2) or (
            padding != "same" and dilation * (kernel - 1) >= room
        ):
            continue
        options = {"dilation": dilation, "groups": groups, "bias": padding != 1}
        net = layer_of(kind, 6, 12, kernel, stride, padding, **options)
        x = inputs(SHAPE[kind], 2)
        with torch.no_grad():
            want, got = net(x), BandLimited(0, size)(net, SHAPE[kind])(x)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@KINDS
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_other_paddings(kind: type[Conv], mode: str) -> None:
    net = layer_of(kind, 6, 4, 3, stride=2, padding=2, padding_mode=mode)
    x = inputs(SHAPE[kind])
    torch.testing.assert_close(BandLimited(0)(net, SHAPE[kind])(x), net(x), rtol=0, atol=1e-5)


@EVERY_SIZE
@pytest.mark.parametrize("rate", RATES)
@KINDS
def test_at_every_rate_it_is_the_formula(kind: type[Conv], rate: float, size: Size) -> None:
    for kernel, stride, padding, dilation, groups in [
        (3, 1, 1, 1, 1), (5, 2, 2, 1, 2), (3, 2, 0, 2, 1), (8, 1, 4, 1, 6), (1, 2, 0, 1, 1),
    ]:  # fmt: skip
        net = layer_of(kind, 6, 12, kernel, stride, padding, dilation=dilation, groups=groups)
        x = inputs(SHAPE[kind])
        with torch.no_grad():
            got = BandLimited(rate, size)(net, SHAPE[kind])(x).numpy()
        want = reference(net[0], x, rate, size)  # type: ignore[arg-type]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


class Unlimited(SpectralLayer):
    """A liar: it says that it drops frequencies."""

    def __call__(self, layer: Altered, x: Tensor) -> Tensor:
        return layer.affine(x, layer.weight, layer.bias)


class Narrower(SpectralLayer):
    """Another: it drops more than it says."""

    def __call__(self, layer: Altered, x: Tensor) -> Tensor:
        return SpectralLayer(BandLimited(self.how.compression + 12))(layer, x)


@pytest.mark.parametrize("liar", [Unlimited, Narrower])
def test_liars_are_caught(liar: type[SpectralLayer]) -> None:
    net, effect = layer_of(nn.Conv2d, 6, 4, 3, padding=1), liar(BandLimited(50))
    agrees_with_reference(BandLimited(50), net, 50)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        agrees_with_reference(lambda m, s: operate(m, lambda _: effect, s), net, 50)


def test_sizes_of_the_transforms() -> None:
    maps = (32, 16, 8, 4, 2)
    assert [transform_size(n + 2, 3, "authors") for n in maps] == [128, 64, 32, 16, 8]  # details §4
    assert [transform_size(n + 2, 3) for n in maps] == [36, 20, 12, 8, 6]
    assert [transform_size(n, 1) for n in (7, 31, 97)] == [8, 32, 100]


@pytest.mark.parametrize("sizes", [(36, 36), (20, 15), (9, 8), (40,), (27,)])
def test_share_kept(sizes: tuple[int, ...]) -> None:
    half = (*sizes[:-1], sizes[-1] // 2 + 1)
    shares: list[float] = []
    for rate in range(0, 101, 5):
        one_sided = mask_of(sizes, rate)[..., : half[-1]]
        assert kept_share(sizes, rate) == pytest.approx(one_sided.sum() / math.prod(half))
        shares.append(kept_share(sizes, rate))
    assert shares[0] == 1
    assert shares[-1] == 1 / math.prod(half)  # the mean
    assert shares == sorted(shares, reverse=True)


def test_share_kept_is_about_what_the_rate_says() -> None:
    for rate in (20, 50, 80):
        k = int(65 * math.sqrt(1 - rate / 100))
        assert highest_kept((128, 128), rate) == (k, k)
        share = ((k + 1) ** 2 + k * (k + 1)) / (128 * 65)
        assert kept_share((128, 128), rate) == pytest.approx(share)
        assert share == pytest.approx(1 - rate / 100, abs=0.03)
    assert kept_share((12, 12), 80) == pytest.approx(1 / 3)  # as its docstring says of small maps
    assert kept_share((32, 32), 80) == pytest.approx(0.22, abs=0.005)


@pytest.mark.parametrize(("kind", "shape"), [(nn.Conv1d, (2, 45)), (nn.Conv2d, (2, 24, 15))])
def test_output_has_no_energy_outside_the_band(kind: type[Conv], shape: tuple[int, ...]) -> None:
    """A 1 × 1 filter at sizes that are fast: nothing is cut off the result, so its spectrum is the product."""
    net = layer_of(kind, 2, 5, 1, bias=False)
    sizes, x = shape[1:], inputs(shape)
    with torch.no_grad():
        y, plain = BandLimited(60)(net, shape)(x).double().numpy(), net(x).double().numpy()
    axes = tuple(range(2, y.ndim))
    keep = mask_of(sizes, 60)
    spectrum, whole = np.fft.fftn(y, axes=axes), np.fft.fftn(plain, axes=axes)
    energy = (np.abs(spectrum) ** 2).sum()
    assert (np.abs(spectrum[..., ~keep]) ** 2).sum() < 1e-10 * energy
    # A flat filter spectrum: the kept coefficients are the plain convolution's, and Parseval.
    inside = (np.abs(whole[..., keep]) ** 2).sum() / math.prod(sizes)
    assert (y**2).sum() == pytest.approx(inside, rel=1e-5)


# ---------------------------------------------------------------- BandLimited, backward


@KINDS
@pytest.mark.parametrize("rate", [0.0, 50.0, 90.0])
def test_gradients(kind: type[Conv], rate: float) -> None:
    shape = (4, 7) if kind is nn.Conv1d else (4, 4, 3)
    net = layer_of(kind, 4, 2, 3, stride=2, padding=1, groups=2)
    limited = BandLimited(rate)(net, shape).double()
    names = dict(limited.named_parameters())

    def function(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(limited, dict(zip(names, values, strict=True)), (x,))

    x = inputs(shape, 1, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(function, (x, *names.values()))
    assert torch.autograd.gradgradcheck(function, (x, *names.values()), fast_mode=True)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_the_closed_form_in_the_band(stride: int) -> None:
    """∂x = F⁻¹(M·F ∂y · F W) and ∂W = F⁻¹(M·F x · conj(F ∂y)), cut to their supports."""
    net, rate, axes = layer_of(nn.Conv2d, 6, 4, 3, stride=stride, bias=False), 70.0, (2, 3)
    conv = net[0]
    assert isinstance(conv, nn.Conv2d)
    limited = BandLimited(rate)(net, IMAGE).double()
    x = inputs(IMAGE, dtype=torch.float64).requires_grad_()
    y = limited(x)
    g = torch.randn_like(y)
    weight = limited.get_parameter("0.weight")
    got_x, got_w = torch.autograd.grad(y, (x, weight), g)
    how = setting(conv, IMAGE, "fast")
    sizes, keep = how["sizes"], mask_of(how["sizes"], rate)
    spread = np.zeros((3, 4, *how["out"]))
    spread[..., ::stride, ::stride] = g.numpy()
    fg, fx, fw = (
        keep * np.fft.fftn(v, s=sizes, axes=axes) for v in (spread, x.detach().numpy(), how["wide"])
    )
    want_x = np.fft.ifftn(np.einsum("nouv,oiuv->niuv", fg, fw), axes=axes).real
    want_w = np.fft.ifftn(np.einsum("niuv,nouv->oiuv", fx, fg.conj()), axes=axes).real
    np.testing.assert_allclose(got_x, want_x[..., : IMAGE[1], : IMAGE[2]], rtol=0, atol=1e-12)
    np.testing.assert_allclose(got_w, want_w[..., :3, :3], rtol=0, atol=1e-12)


@KINDS
def test_backward_needs_kept_coefficients_only(kind: type[Conv]) -> None:
    """Of what autograd remembers, the real tensors give the gradients no more than their sizes."""
    shape, n = SHAPE[kind], 3
    limited = BandLimited(80)(layer_of(kind, 6, 4, 3, padding=1, bias=False), shape)
    x, coefficients = inputs(shape, n).requires_grad_(), list[int]()

    def spoil(kept: Tensor) -> Tensor:
        if kept.is_complex():
            coefficients.append(kept.numel())
            return kept
        return torch.full_like(kept, math.nan)

    with saved_tensors_hooks(spoil, lambda kept: kept):
        y = limited(x)
    every = (x, *limited.parameters())
    got = torch.autograd.grad(y, every, torch.ones_like(y))
    want = torch.autograd.grad(limited(x), every, torch.ones_like(y))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    sizes = tuple(transform_size(s + 2, 3) for s in shape[1:])
    kept = round(kept_share(sizes, 80) * math.prod(sizes[:-1]) * (sizes[-1] // 2 + 1))
    assert sorted(coefficients) == sorted([n * 6 * kept, 4 * 6 * kept])


# ---------------------------------------------------------------- whole networks


@pytest.mark.parametrize(
    ("network", "shape"),
    [(ResNet20(), (3, 32, 32)), (SmallNet(channels=3), (3, 9, 8)), (FCN(), (1, 40))],
)
def test_whole_networks(network: Any, shape: tuple[int, ...]) -> None:
    net = network.build()
    with torch.no_grad():
        x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(2))
        zero = BandLimited(80).identity()(net, shape)
        torch.testing.assert_close(zero(x), net(x), rtol=0, atol=1e-4)
        limited = BandLimited(80)(net, shape)
        assert not torch.allclose(limited(x), net(x), rtol=0, atol=1e-4)
        torch.testing.assert_close(prepare(limited)(x), limited(x), rtol=0, atol=1e-4)
    assert list(limited.state_dict()) == list(net.state_dict())
    assert not any(isinstance(layer, nn.Linear) for _, layer in altered(limited))
    convolutions = [m for m in limited.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    assert len(list(altered(limited))) == len(convolutions)


def test_refusals() -> None:
    for wrong in (-1.0, 100.5, math.nan):
        with pytest.raises(UserError, match="compression: expected 0 … 100 percent"):
            BandLimited(wrong)
    # Pytest's own type checks would refuse wrong words first; without them it is the part that does.
    for part, field, words in (
        (BandLimited(), "size", "fast or authors"),
        (HalfPrecision(), "dtype", "float16 or bfloat16"),
    ):
        object.__setattr__(part, field, "other")
        with pytest.raises(UserError, match=f"{field}: expected {words}, got 'other'"):
            part.__post_init__()
    net = layer_of(nn.Conv2d, 6, 6, 3, groups=6)
    with pytest.raises(UserError, match=r"expected inputs \(n, 6, h, w\), got \(2, 1, 8, 8\)"):
        BandLimited(50)(net, IMAGE)(torch.zeros(2, 1, 8, 8))


# ---------------------------------------------------------------- half precision


def half_of(dtype: HalfType) -> torch.dtype:
    return torch.float16 if dtype == "float16" else torch.bfloat16


LAYERS = pytest.mark.parametrize(
    ("layer", "shape", "arithmetic"),
    [
        (nn.Conv1d(6, 4, 3, stride=2), SERIES, lambda x, w, b: functional.conv1d(x, w, b, 2)),
        (nn.Conv2d(6, 4, 3, padding=1), IMAGE, lambda x, w, b: functional.conv2d(x, w, b, 1, 1)),
        (nn.Linear(6, 4), (6,), functional.linear),
    ],
    ids=["Conv1d", "Conv2d", "Linear"],
)


@HALVES
@LAYERS
def test_half_precision(
    dtype: HalfType, layer: nn.Module, shape: tuple[int, ...], arithmetic: Callable[..., Tensor]
) -> None:
    half, x = half_of(dtype), inputs(shape)
    w, b = layer.get_parameter("weight").detach(), layer.get_parameter("bias").detach()
    with torch.no_grad():
        got = HalfPrecision(dtype)(nn.Sequential(layer), shape)(x)
        exact = arithmetic(*(v.to(half).double() for v in (x, w, b)))
        plain = layer(x)
    assert got.dtype == torch.float32
    assert torch.equal(got, got.to(half).float())  # 16 bits are enough for every value
    assert torch.equal(got, arithmetic(*(v.to(half).float() for v in (x, w, b))).to(half).float())
    # Half a step of the 16-bit numbers from the exact sum of the rounded operands, but for float32's own error.
    step = torch.finfo(half).eps / 2
    torch.testing.assert_close(got.double(), exact, rtol=1.001 * step, atol=1e-6)
    assert not torch.allclose(got, plain, rtol=step / 100, atol=0)


@HALVES
@LAYERS
def test_half_precision_gradients(
    dtype: HalfType, layer: nn.Module, shape: tuple[int, ...], arithmetic: Callable[..., Tensor]
) -> None:
    """Those of the layer at the rounded operands, and as small as float32 allows."""
    half = half_of(dtype)
    net = HalfPrecision(dtype)(nn.Sequential(layer), shape)
    own = [inputs(shape).requires_grad_(), *net.parameters()]
    y = net(own[0])
    g = 1e-9 * torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    got = torch.autograd.grad(y, own, g)
    there = [v.detach().to(half).float().requires_grad_() for v in own]
    want = torch.autograd.grad(arithmetic(*there), there, g)
    for a, b in zip(got, want, strict=True):
        assert a.abs().max() > 0
        assert torch.equal(a, b)


def test_casts_would_lose_small_gradients() -> None:
    """Why the gradient of rounding is written by hand: autograd's own casts round it to half too."""
    x = torch.ones(3, requires_grad=True)
    g = torch.full((3,), 1e-9)
    assert torch.equal(torch.autograd.grad(x.half().float(), x, g)[0], torch.zeros(3))
    assert torch.equal(torch.autograd.grad(rounded(x, "float16"), x, g)[0], g)


def test_rounding() -> None:
    x = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11, 1 / 3, 65519.0, 65520.0, -1e6, 1e-8])
    want = torch.tensor([1, 1 + 2**-9, 0.333251953125, 65504, math.inf, -math.inf, 0])
    assert torch.equal(rounded(x, "float16"), want)
    assert torch.isfinite(rounded(x, "bfloat16")).all()


def test_half_precision_networks() -> None:
    shape = (3, 9, 8)
    net = SmallNet(channels=3).build()
    x = inputs(shape)
    low = HalfPrecision()(net, shape)
    assert {type(layer.effect) for _, layer in altered(low)} == {RoundedLayer}
    assert len(list(altered(low))) == 4  # three convolutions and a linear layer
    assert list(low.state_dict()) == list(net.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(low(x), net(x), rtol=0, atol=5e-3)
        # The last bits of float32 may turn a rounding over: one step of half precision.
        torch.testing.assert_close(prepare(low)(x), low(x), rtol=2**-10, atol=1e-3)
        each = torch.func.vmap(lambda one: low(one[None])[0])(x)
        torch.testing.assert_close(each, low(x), rtol=2**-10, atol=1e-3)
    assert HalfPrecision().identity() is None
