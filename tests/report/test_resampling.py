"""What makes intervals honest: few that carry a sum, columns that share weights, skewness."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from noisychannel.report.resampling import carriers, columns, corrected, interval, tails
from noisychannel.report.stats import mean_gap, mean_outcome, wilson


def test_carriers_by_hand() -> None:
    """Of 0/1 parts, their number; of equal parts, all; two whole ones beside 95 of 1/32 count as two, and a bit."""
    assert carriers(np.array([1.0] * 7 + [0.0] * 50)) == pytest.approx(7)
    assert carriers(np.full(30, 1e-120)) == pytest.approx(30)
    assert carriers(np.zeros(5)) == 0
    assert 2 < carriers(np.array([1.0] * 2 + [1 / 32] * 95)) < 2.5


def test_columns_by_hand() -> None:
    """Rows that are alike leave no cells: what columns add is s²/m. One column tells nothing of it."""
    column = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    scale, freedom = columns(torch.from_numpy(np.tile(column, (9, 1))))
    assert scale**2 == pytest.approx(column.var(ddof=1) / 6)
    assert freedom == 5
    assert columns(torch.ones(9, 1)).scale == 0


@pytest.mark.parametrize("effect", [0.0, 0.05])
def test_what_columns_add_is_told_without_the_cells(effect: float) -> None:
    """Means of 16 columns vary by σ²/16 and by the cells; the cells' part, ¼/(16 · 100), is the rows' to tell."""
    g, found = np.random.default_rng(1), []
    for _ in range(400):
        p = 0.5 + effect * g.standard_normal(16)
        found.append(columns(torch.from_numpy(1.0 * (g.random((100, 16)) < p))).scale ** 2)
    cells = 0.25 / 1600
    # Nothing below 0 is told, and 2/15 of the cells are left in.
    assert effect**2 / 16 < np.mean(found) < effect**2 / 16 + 0.5 * cells


def test_an_even_law_is_cut_evenly_and_a_skewed_one_further_up() -> None:
    assert corrected(tails(), 0.01, 0.0) == pytest.approx([0.025, 0.975])
    assert tails(0.9) == pytest.approx([-norm.ppf(0.95), norm.ppf(0.95)])
    up, down = corrected(tails(), 0.01, 1e-4), corrected(tails(), 0.01, -1e-4)
    assert (up > [0.025, 0.975]).all()
    assert up == pytest.approx(1 - down[::-1])
    assert corrected(tails(), 0.0, 0.0) == pytest.approx([0.025, 0.975])


def test_misses_are_about_as_many_on_either_side() -> None:
    """93 % of images nearly always right: plain percentiles lie above the truth in 5 to 6 % of tables, below in 1."""
    truth, above, below, runs = 0.93 * 0.99 + 0.07 * 0.01, 0, 0, 1000
    for seed in range(runs):
        g = np.random.default_rng(seed)
        p = np.where(g.random(200) < 0.07, 0.01, 0.99)
        outcomes = torch.from_numpy(g.binomial(32, p) / 32)[:, None]
        e = mean_outcome(outcomes, seed, 400, shared=False)
        above, below = above + (e.low > truth), below + (e.high < truth)
    assert max(above, below) / runs < 0.04
    assert 0.03 < (above + below) / runs < 0.07


def test_interval_of_nothing_that_varies_and_of_two_levels() -> None:
    same = np.full(40, 0.3)
    assert interval(same, [], seed=0, resamples=50) == pytest.approx((0.3, 0.3))
    v = np.random.default_rng(2).random(60)
    wide = interval(v, [], seed=0, resamples=1000)
    inner = interval(v, [], seed=0, resamples=1000, level=0.9)
    assert wide[0] < inner[0] < v.mean() < inner[1] < wide[1]


def test_few_differences_are_put_together_from_two_of_wilsons() -> None:
    """3 more and 1 less of 100: −√(…)…, by hand from Wilson's (0.0103, 0.0845) of 3 and (0.0018, 0.0545) of 1."""
    one, two = torch.zeros(100, 1), torch.zeros(100, 1)
    one[:3], two[3] = 1, 1
    gap = mean_gap(one.double(), two.double(), shared=(False, False))
    more, less = wilson(3, 100), wilson(1, 100)
    assert (more.low, more.high, less.low, less.high) == pytest.approx(
        (0.0103, 0.0845, 0.0018, 0.0545), abs=1e-4
    )
    assert gap.value == pytest.approx(0.02)
    assert gap.low == pytest.approx(0.02 - (0.0197**2 + 0.0445**2) ** 0.5, abs=2e-4)
    assert gap.high == pytest.approx(0.02 + (0.0545**2 + 0.0082**2) ** 0.5, abs=2e-4)
    assert gap.method == "wilson"
