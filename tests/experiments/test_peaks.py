"""Where a curve peaks, and what is answered there."""

import numpy as np
import pyarrow as pa
import pytest

from noisychannel.decision import Single
from noisychannel.experiments.peaks import Levels, spread
from noisychannel.experiments.verdict import below
from noisychannel.report.stats import accuracy

IMAGES = 200


def draws(right: np.ndarray, length: float) -> pa.Table:
    """One answer per image, in no order."""
    n = len(right)
    table = pa.table(
        {
            "index": np.arange(n) * 5,
            "label": np.zeros(n, dtype=np.int64),
            "candidate": np.zeros(n, dtype=np.int32),
            "draw": np.zeros(n, dtype=np.int32),
            "predicted": np.where(right, 0, 1),
            "margin": np.ones(n, dtype=np.float32),
            "defended_l2": np.full(n, length, dtype=np.float32),
            "probabilities": pa.FixedSizeListArray.from_arrays(
                pa.array(np.full(2 * n, 0.5, dtype=np.float32)), 2
            ),
        }
    )
    return table.take(pa.array(np.random.default_rng(n).permutation(n)))


def curve(shares: tuple[float, ...], lengths: tuple[float, ...], seed: int) -> Levels:
    generator = np.random.default_rng(seed)
    return Levels(
        [draws(generator.random(IMAGES) < s, x) for s, x in zip(shares, lengths, strict=True)]
    )


def test_the_peak_of_each_half_is_chosen_on_the_other_half() -> None:
    """One level is right about every second image, the next about the rest: neither half may choose for itself."""
    even = np.arange(IMAGES) % 2 == 0
    found = Levels([draws(even, 1.0), draws(~even, 2.0)]).at_peak()
    assert sorted(found["index"].to_pylist()) == list(range(0, 5 * IMAGES, 5))
    assert accuracy(found, Single()).value == 0.0


def test_a_peak_of_equal_levels_is_not_higher_than_they_are() -> None:
    """12 levels of 50 %: the greatest is 1.6 standard errors (5.8 points) above, what is chosen elsewhere is not."""
    found = [curve((0.5,) * 12, (1.0,) * 12, seed) for seed in range(20)]
    assert np.mean([c.right.mean(axis=1).max() for c in found]) > 0.54
    chosen = [accuracy(c.at_peak(), Single()).value for c in found]
    assert np.mean(chosen) == pytest.approx(0.5, abs=3 * 0.035 / 20**0.5)


def test_sharp_peaks_lie_as_far_apart_as_they_do() -> None:
    at = (0.25, 0.5, 1.0, 3.0)
    one, other = (curve(s, at, 1) for s in ((0.2, 0.9, 0.5, 0.1), (0.1, 0.2, 0.5, 0.9)))
    assert one.peak == 0.5
    apart = spread([one, one, other])
    assert (apart.value, apart.low, apart.high) == pytest.approx((6.0, 6.0, 6.0))
    assert below(apart, 2.0) is False
    assert below(spread([one, one, one]), 2.0)


def test_where_flat_curves_peak_is_not_known() -> None:
    """Six level curves: their greatest accuracies stand anywhere, which denies nothing and proves nothing."""
    at = (0.25, 0.5, 1.0, 2.0)
    for seed in range(5):
        apart = spread([curve((0.8,) * 4, at, 100 * seed + i) for i in range(6)])
        assert below(apart, 2.0) is None
