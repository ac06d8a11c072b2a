"""Accuracy against attackers who try again: by hand, unbiased, and no further than the draws reach."""

from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pytest

from noisychannel.decision import Single
from noisychannel.report.persistence import all_of_k, any_of_k, persistence, reductions
from noisychannel.report.stats import accuracy, wilson
from synthetic import answers, latent, table


def coins(p: float | np.ndarray, n: int, m: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((n, m)) < np.broadcast_to(p, (n,))[:, None]


def test_by_hand() -> None:
    """4, 3, 1 and 0 right of 4 draws: C(4, 2) = 6 pairs each, 6, 3, 0, 0 all right and 0, 0, 3, 6 all wrong."""
    right = np.arange(4) < np.array([4, 3, 1, 0])[:, None]
    found = reductions(answers(right), 2)
    assert found.any_of.value == pytest.approx((1 + 3 / 6) / 4)
    assert found.all_of.value == pytest.approx(1 - (1 + 3 / 6) / 4)
    assert found.expected == accuracy(answers(right), Single())
    assert found.expected.value == pytest.approx(8 / 16)
    assert all(e.low < e.value < e.high for e in found)
    # A tie of equally sure votes goes to the first class, which is the label here.
    assert found.vote.value == pytest.approx((1 + 1 + 0.5 + 0) / 4)


def test_it_is_the_mean_over_all_subsets() -> None:
    right = coins(0.7, 30, 6, seed=1)
    for k in range(1, 7):
        subsets = [list(s) for s in combinations(range(6), k)]
        assert any_of_k(answers(right), k).value == pytest.approx(
            np.mean([right[:, s].all(axis=1).mean() for s in subsets])
        )
        assert all_of_k(answers(right), k).value == pytest.approx(
            np.mean([right[:, s].any(axis=1).mean() for s in subsets])
        )


def test_one_try_is_expected_accuracy_and_all_draws_are_a_share() -> None:
    right = coins(np.linspace(0.8, 1, 100), 100, 8, seed=2)
    found = reductions(answers(right), 1)
    assert found.any_of[:3] == pytest.approx(found.expected[:3])
    assert found.all_of.value == pytest.approx(found.expected.value)
    assert any_of_k(answers(right), 8) == wilson(int(right.all(axis=1).sum()), 100)


def test_the_curve_is_not_biased_as_the_plug_in_is() -> None:
    """p = 0.9 on 4,000 images of 32 draws: 0.9^20 = 0.122; (right / 32)^20 has a mean of about 0.17."""
    right = coins(0.9, 4000, 32, seed=3)
    found, all_fail = any_of_k(answers(right), 20), all_of_k(answers(~right), 20)
    assert found.low < 0.9**20 < found.high
    assert all_fail.low < 1 - 0.9**20 < all_fail.high
    assert found.half_width == pytest.approx(all_fail.half_width)
    assert found.half_width < 0.01
    plug_in = (right.mean(axis=1) ** 20).mean()
    assert plug_in > found.high + 0.02


def test_the_curve_falls_and_its_band_holds_each_interval() -> None:
    z = latent(np.random.default_rng(4).beta(8, 1, 150), 24, np.random.default_rng(5))
    curve = persistence(table(z), resamples=400)
    assert (curve.reach, curve.draws) == (24, 24)
    values = [e.value for e in curve.estimates]
    assert all(a >= b for a, b in pairwise(values))
    for k, (e, (low, high)) in enumerate(zip(curve.estimates, curve.band, strict=True), start=1):
        assert e == any_of_k(table(z), k, resamples=400)
        assert low <= e.low <= e.value <= e.high <= high
    # Thirty chances to leave an interval of one k: the band must be wider somewhere.
    assert any(low < e.low for e, (low, _) in zip(curve.estimates, curve.band, strict=True))
    assert persistence(table(z), 5, resamples=400).reach == 5


def test_beyond_the_draws_there_are_bounds_and_no_estimate() -> None:
    """Of Beta(20, 1), E[p^k] = 20 / (20 + k): 0.167 at 100 tries, which 32 draws do not tell."""
    p = np.random.default_rng(6).beta(20, 1, 400)
    curve = persistence(table(latent(p, 32, np.random.default_rng(7))), 100, resamples=400)
    assert curve.reach == 32
    low, high = curve.beyond(100)
    assert low < 20 / 120 < high
    assert high <= curve.band[-1][1] < 0.5
    with pytest.raises(ValueError, match="more than the 32 that the curve reaches, got 32"):
        curve.beyond(32)
    # All draws right: the plug-in would promise 100 % for ever.
    sure = persistence(answers(np.ones((50, 4), dtype=bool)), 100, resamples=400)
    assert sure.beyond(100)[0] < 0.2


def test_more_tries_than_draws_are_refused() -> None:
    right = coins(0.5, 20, 8, seed=8)
    for k in (0, 9):
        with pytest.raises(ValueError, match=rf"k: expected 1..8 of 8 draws, got {k}"):
            any_of_k(answers(right), k)
    with pytest.raises(ValueError, match=r"1..4 of 8 draws \(half of the draws, since they share"):
        all_of_k(answers(right, shared=True), 5)
    assert persistence(answers(right, shared=True), resamples=400).reach == 4
    # Two columns know next to nothing of what weights add: Cauchy's law, in a band that stays within 0 and 1.
    two = persistence(answers(right[:, :2], shared=True), resamples=400)
    assert 0 <= two.band[0][0] < two.band[0][1] <= 1
    with pytest.raises(ValueError, match="at least 1 try"):
        persistence(answers(right), 0)
    with pytest.raises(ValueError, match="empty"):
        any_of_k(answers(right).slice(0, 0), 1)


def test_shared_weights_widen_the_interval_and_leave_the_value() -> None:
    g = np.random.default_rng(9)
    z = latent(np.full(200, 0.9), 32, g, correlation=0.1)
    own, shared = any_of_k(table(z), 4), any_of_k(table(z, shared=True), 4)
    assert own.value == pytest.approx(shared.value)
    assert shared.half_width > 1.5 * own.half_width
    one = accuracy(table(z, shared=True), Single(), seed=3)
    assert any_of_k(table(z, shared=True), 1, seed=3)[:3] == pytest.approx(one[:3])


def test_no_answer_is_wrong() -> None:
    rows = answers(np.ones((12, 4), dtype=bool))
    silent = rows.set_column(5, "predicted", pa.array(np.full(48, -1)))
    assert any_of_k(silent, 2).value == 0
    assert all_of_k(silent, 2).value == 0
