"""Channels against their formulas and the paper's numbers."""

import math

import pytest
import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.channels import CD, FC, SVD, Gauss, Laplace, Uniform
from noisychannel.channels.frequency import frequency_mask, kept_fraction
from noisychannel.interop.authors import CIFAR10, IMAGENET, table1_channels, table3_channels
from noisychannel.types import Channel

CPU = torch.device("cpu")


def noise(channel: Channel, n: int, shape: tuple[int, ...]) -> Tensor:
    with rng.bracket(rng.Stream("scoring", torch.arange(n), part="theory")):
        return channel(torch.zeros(n, *shape, dtype=torch.float64))


def images(*shape: int) -> Tensor:
    stream = rng.Stream("attack", torch.arange(shape[0]), part="theory")
    return rng.uniform(torch.empty(shape, dtype=torch.float64), stream)


# ---------------------------------------------------------------- noise
@pytest.mark.parametrize(
    ("channel", "std", "kurtosis"),
    [
        (Gauss(0.1), 0.1, 3.0),
        (Uniform(0.1), 0.1 / math.sqrt(3), 1.8),
        (Laplace(0.1), 0.1 * math.sqrt(2), 6.0),
    ],
    ids=repr,
)
def test_noise_moments(channel: Channel, std: float, kurtosis: float) -> None:
    e = noise(channel, 1000, (1, 1000)).flatten()
    n = len(e)
    assert abs(float(e.mean())) < 4 * std / math.sqrt(n)
    # Standard error of a sample variance: σ² √((κ − 1)/n).
    assert abs(float(e.var()) / std**2 - 1) < 4 * math.sqrt((kurtosis - 1) / n)
    assert float((e**4).mean()) / std**4 == pytest.approx(kurtosis, rel=0.03)


@pytest.mark.parametrize("channel", [Gauss(0.1), Uniform(0.1), Laplace(0.1)], ids=repr)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)], ids=str)
def test_expected_l2_of_noise(channel: Channel, shape: tuple[int, ...]) -> None:
    lengths = noise(channel, 4_000_000 // math.prod(shape), shape).flatten(1).norm(dim=1)
    error = 4 * float(lengths.std()) / math.sqrt(len(lengths))
    expected = channel.expected_l2(shape)
    assert expected is not None
    assert float(lengths.mean()) == pytest.approx(expected, abs=error + 3e-4 * expected)


def test_uniform_noise_reaches_its_bound_and_not_further() -> None:
    e = noise(Uniform(0.1), 100, (1, 1000))
    assert 0.0999 < float(e.abs().max()) <= 0.1


# ---------------------------------------------------------------- FC
SIZES = pytest.mark.parametrize("size", [(32, 32), (8, 8), (9, 9), (12, 20), (21, 10)], ids=str)


@SIZES
@pytest.mark.parametrize("compression", [0.0, 30.0, 80.0])
def test_fc_is_an_orthogonal_projection(size: tuple[int, int], compression: float) -> None:
    fc, x, y = FC(compression), images(2, 3, *size), images(5, 3, *size)[3:]
    torch.testing.assert_close(fc(fc(x)), fc(x))
    torch.testing.assert_close((fc(x) * y).sum(), (x * fc(y)).sum())


@SIZES
def test_fc_drops_the_energy_beyond_the_disk(size: tuple[int, int]) -> None:
    """Parseval: ‖C(x) − x‖² = Σ over the dropped two-sided spectrum of |x̂|² / (h w)."""
    h, w = size
    x = images(2, 3, h, w)
    rows, columns = torch.arange(h), torch.arange(w)
    f = torch.minimum(rows, h - rows)[:, None] / h
    g = torch.minimum(columns, w - columns)[None] / w
    radius2 = 2 * 0.4 * h * (w // 2 + 1) / math.pi  # the equation of the docstring, c = 60 %
    dropped = (f**2 + g**2) * h * w >= radius2
    energy = (torch.fft.fft2(x).abs() ** 2 * dropped).sum(dim=(1, 2, 3)) / (h * w)
    torch.testing.assert_close(((FC(60.0)(x) - x) ** 2).sum(dim=(1, 2, 3)), energy)


@SIZES
@pytest.mark.parametrize("compression", [0.0, 50.0, 99.0, 100.0])
def test_fc_keeps_constant_images(size: tuple[int, int], compression: float) -> None:
    x = torch.full((1, 3, *size), 0.7, dtype=torch.float64)
    torch.testing.assert_close(FC(compression)(x), x)


def test_fc_at_zero_percent_is_not_the_identity() -> None:
    x = images(1, 3, 32, 32)
    assert float((FC(0.0)(x) - x).norm()) > 1
    assert FC(0.0).identity() is None


def test_fc_at_hundred_percent_keeps_the_mean_alone() -> None:
    x = images(2, 3, 32, 32)
    torch.testing.assert_close(FC(100.0)(x), x.mean(dim=(2, 3), keepdim=True).expand_as(x))


def test_fc_of_series_keeps_the_lowest_frequencies() -> None:
    t = torch.arange(140, dtype=torch.float64) / 140
    low, high = torch.cos(2 * math.pi * 5 * t), torch.cos(2 * math.pi * 60 * t)
    out = FC(50.0)((low + high)[None, None])
    torch.testing.assert_close(out[0, 0], low)
    assert kept_fraction((140,), 50.0) == pytest.approx(35 / 71)
    x = images(2, 1, 141)
    torch.testing.assert_close(FC(0.0)(x), x)


# Shares of the one-sided spectrum that the authors' code keeps: details §1, 32 and 224 pixels.
KEPT = {
    0: (0.915, 0.908), 10: (0.864, 0.866), 20: (0.809, 0.800), 30: (0.695, 0.705),
    40: (0.610, 0.603), 50: (0.522, 0.498), 60: (0.382, 0.403), 70: (0.316, 0.301),
    75: (0.261, 0.251), 80: (0.206, 0.199), 85: (0.158, 0.152), 90: (0.081, 0.102),
    95: (0.055, 0.051), 99: (0.004, 0.010),
}  # fmt: skip


@pytest.mark.parametrize("compression", KEPT)
def test_fc_keeps_what_the_authors_keep(compression: int) -> None:
    for size, share, slack in zip((32, 224), KEPT[compression], (0.042, 0.01), strict=True):
        assert round(kept_fraction((size, size), compression, "authors"), 3) == share
        assert kept_fraction((size, size), compression) == pytest.approx(share, abs=slack)


def test_authors_mask_keeps_one_negative_frequency_more() -> None:
    mask = frequency_mask((32, 32), 50.0, "authors", CPU)
    first = mask[:, 0]
    assert int(first[:16].sum()) == 13
    assert int(first[16:].sum()) == 13
    assert first[13:19].tolist() == [False] * 6  # rows 0 … 12 are 0 … 12; rows 19 … 31 are −13 … −1
    disk = frequency_mask((32, 32), 50.0, "disk", CPU)
    assert torch.equal(disk[1:, :], disk[1:, :].flip(0))


# ---------------------------------------------------------------- CD
@pytest.mark.parametrize("bits", range(1, 9))
def test_cd_error_is_bounded_and_of_the_expected_length(bits: int) -> None:
    x = images(100, 3, 32, 32)
    error = CD(bits)(x) - x
    assert float(error.abs().max()) <= 0.5 / (2**bits - 1) + 1e-12
    assert len(CD(bits)(x).unique()) == 2**bits
    length = CD(bits).expected_l2((3, 32, 32))
    assert length == pytest.approx(math.sqrt(3072 / 12) / (2**bits - 1))
    assert float(error.flatten(1).norm(dim=1).mean()) == pytest.approx(length, rel=0.02)


def test_cd_rounds_and_does_not_truncate() -> None:
    x = images(10, 3, 32, 32)
    levels = 255 * (CD(8)(x) - x)
    assert abs(float(levels.mean())) < 0.01  # truncation shifts by −0.5
    assert CD(1)(torch.tensor([[[0.5]]])).item() == 0  # halves to even
    assert CD(2)(torch.tensor([[[0.5]]])).item() == pytest.approx(2 / 3)


def test_cd_by_values() -> None:
    assert CD(values=16) == CD(4)
    assert CD(values=6).levels == 6
    assert CD(values=6)(images(10, 1, 32, 32)).unique().tolist() == pytest.approx(
        [0, 0.2, 0.4, 0.6, 0.8, 1]
    )
    x = torch.arange(256).view(1, 1, 16, 16) / 255
    torch.testing.assert_close(CD(8)(x), x)


# ---------------------------------------------------------------- SVD
@pytest.mark.parametrize("size", [(32, 32), (12, 20), (21, 10)], ids=str)
@pytest.mark.parametrize("compression", [25.0, 50.0, 100.0])
def test_svd_is_the_best_of_its_rank(size: tuple[int, int], compression: float) -> None:
    """Eckart & Young: the error of the best rank-k approximation is √(Σ_{i>k} σᵢ²)."""
    x = images(3, 2, *size)
    k = SVD(compression).kept(*size)
    assert k == int((1 - compression / 100) * min(size))
    values = torch.linalg.svdvals(x)
    seen = SVD(compression)(x)
    best = values[..., k:].square().sum(dim=-1).sqrt()
    torch.testing.assert_close((seen - x).norm(dim=(2, 3)), best)
    assert int(torch.linalg.matrix_rank(seen, rtol=1e-9).max()) == k


def test_svd_agrees_with_lapack_in_float32() -> None:
    x = images(20, 3, 32, 32).float()
    u, s, v = torch.linalg.svd(x.double())
    reference = (u[..., :16] * s[..., None, :16]) @ v[..., :16, :]
    torch.testing.assert_close(SVD(50.0)(x).double(), reference, rtol=0, atol=1e-5)


def test_svd_of_90_percent_of_ten_keeps_one() -> None:
    assert SVD(90.0).kept(10, 10) == 1  # int((1 - 0.9) * 10) is 0 in floating point


def test_svd_around_a_mean() -> None:
    x, mean, std = images(2, 3, 16, 16), CIFAR10.mean, torch.tensor(CIFAR10.std).view(3, 1, 1)
    centre = torch.tensor(mean, dtype=x.dtype).view(3, 1, 1)
    normalised = SVD(50.0)((x - centre) / std) * std + centre  # as the authors did
    torch.testing.assert_close(SVD(50.0, mean)(x), normalised)
    assert not torch.allclose(SVD(50.0)(x), normalised, atol=1e-3)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_svd_gradient_is_finite_where_singular_values_coincide(rank: int) -> None:
    a, b = images(2, 1, 8, 3)[..., :rank], images(4, 1, 3, 8)[2:, :, :rank]
    x = (a @ b).requires_grad_()
    (gradient,) = torch.autograd.grad(SVD(50.0)(x).square().sum(), x)
    assert gradient.isfinite().all()
    # Inside the ranks that are kept, ½‖C(A)‖² has gradient A.
    torch.testing.assert_close(gradient, 2 * x.detach(), rtol=1e-6, atol=1e-9)
    identity = torch.eye(8, dtype=torch.float64)[None, None].requires_grad_()
    (gradient,) = torch.autograd.grad((SVD(50.0)(identity) * images(1, 1, 8, 8)).sum(), identity)
    assert gradient.isfinite().all()


# ---------------------------------------------------------------- the authors' units
def test_authors_strengths_give_the_published_distances() -> None:
    """Details §2: standard deviation and expected L2 of CIFAR-10 channels in [0, 1]."""
    shape = (3, 32, 32)
    table = [(CIFAR10.gauss(0.03), 1.06), (CIFAR10.uniform(0.04), 1.41), (CIFAR10.laplace(0.03), 1.50),
             (CIFAR10.gauss(0.1), 3.54), (CIFAR10.uniform(0.1), 3.54)]  # fmt: skip
    for channel, length in table:
        assert channel.expected_l2(shape) == pytest.approx(length, abs=0.006)
    assert CIFAR10.gauss(1.0).sigma == pytest.approx(0.638, abs=1e-3)
    assert CIFAR10.gauss(1.0).expected_l2(shape) == pytest.approx(35.4, abs=0.1)
    assert CIFAR10.laplace(1.0).expected_l2(shape) == pytest.approx(50.0, abs=0.1)
    assert IMAGENET.gauss(1.0).expected_l2((3, 224, 224)) == pytest.approx(240.9, abs=0.5)


def test_tables_have_six_channels() -> None:
    assert list(table1_channels()) == ["FC", "CD", "SVD", "Gauss", "Uniform", "Laplace"]
    assert table1_channels()["CD"] == CD(4)
    assert table3_channels()["Gauss"] == IMAGENET.gauss(0.04)
    with pytest.raises(ValueError, match="epsilon: expected a number ≥ 0, got -1"):
        CIFAR10.gauss(-1)
