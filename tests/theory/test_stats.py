"""Intervals cover what they promise, votes follow the binomial law, and luck is not counted."""

import time

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats as reference

from noisychannel.decision import MeanProb, Single, Vote
from noisychannel.report import stats


def table(correct: np.ndarray, classes: int = 3, index: np.ndarray | None = None) -> pa.Table:
    """Draws for (n, m) outcomes: label 0; a wrong draw is class 1; rows in shuffled order."""
    n, m = correct.shape
    predicted = np.where(correct, 0, 1).astype(np.int64).ravel()
    probabilities = np.full((n * m, classes), 0.1 / (classes - 1), dtype=np.float32)
    probabilities[np.arange(n * m), predicted] = 0.9
    order = np.random.default_rng(5).permutation(n * m)
    index = np.arange(n) if index is None else index
    columns = {
        "index": np.repeat(index, m).astype(np.int64),
        "label": np.zeros(n * m, dtype=np.int64),
        "candidate": np.zeros(n * m, dtype=np.int32),
        "draw": np.tile(np.arange(m), n).astype(np.int32),
        "predicted": predicted,
        "margin": np.where(predicted == 0, 1, -1).astype(np.float32),
        "defended_l2": np.zeros(n * m, dtype=np.float32),
    }
    arrays = {name: pa.array(values[order]) for name, values in columns.items()}
    flat = pa.array(probabilities[order].ravel())
    arrays["probabilities"] = pa.FixedSizeListArray.from_arrays(flat, classes)
    return pa.table(arrays)


def coins(p: float | np.ndarray, n: int, m: int, seed: int) -> np.ndarray:
    """(n, m) outcomes of probability p, one p for all or one per image."""
    return np.random.default_rng(seed).random((n, m)) < np.broadcast_to(p, (n,))[:, None]


@pytest.mark.parametrize(
    ("successes", "n"), [(0, 10), (1, 7), (61, 100), (500, 500), (8402, 10_000)]
)
def test_wilson_equals_scipy(successes: int, n: int) -> None:
    ours = stats.wilson(successes, n)
    low, high = reference.binomtest(successes, n).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-12)
    assert ours.value == successes / n
    assert ours.method == "wilson"


def test_wilson_published_value() -> None:
    """Newcombe 1998 (Statistics in Medicine 17:857), table I: 81 of 263, and 0 of 20."""
    assert stats.wilson(81, 263)[1:3] == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert stats.wilson(0, 20)[1:3] == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_numbers_of_no_examples_raise() -> None:
    with pytest.raises(ValueError, match="at least 1 example, got 0"):
        stats.wilson(0, 0)
    with pytest.raises(ValueError, match="successes: expected 0"):
        stats.wilson(4, 3)
    with pytest.raises(ValueError, match="empty"):
        stats.accuracy(table(np.ones((1, 1), bool)).slice(0, 0), Single())
    with pytest.raises(ValueError, match="at least 1 attack"):
        stats.worst_case({}, Single())


def test_matrix_is_ordered_by_index_then_draw() -> None:
    outcomes = coins(0.5, 20, 4, seed=1)
    assert (stats.correct_matrix(table(outcomes)).numpy() == outcomes).all()
    chunked = pa.concat_tables([table(outcomes).slice(0, 31), table(outcomes).slice(31)])
    assert (stats.correct_matrix(chunked).numpy() == outcomes).all()


def test_malformed_tables_are_refused() -> None:
    good = table(coins(0.5, 5, 4, seed=1))
    with pytest.raises(ValueError, match="same number per example, got 3 to 4"):
        stats.correct_matrix(good.slice(1))
    candidates = pa.array(np.arange(20, dtype=np.int32))
    with pytest.raises(ValueError, match="one candidate per example"):
        stats.correct_matrix(good.set_column(2, "candidate", candidates))
    draws = pa.array(np.zeros(20, dtype=np.int32))
    with pytest.raises(ValueError, match="repeated"):
        stats.correct_matrix(good.set_column(3, "draw", draws))
    with pytest.raises(ValueError, match="at least 5 per example for Vote"):
        stats.accuracy(good, Vote(5))


@pytest.mark.parametrize("rule", [Vote(5), MeanProb(5)])
def test_vote_follows_the_binomial_law(rule: Vote | MeanProb) -> None:
    """P(majority of k right) = Σ_{i > k/2} C(k, i) pⁱ (1 − p)^(k−i), for two classes and equal certainty."""
    estimate = stats.accuracy(table(coins(0.6, 4000, 20, seed=2), classes=2), rule)
    exact = reference.binom.sf(2, 5, 0.6)
    assert estimate.value == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 16_000) ** 0.5)
    assert estimate.method == "bootstrap"


def test_left_over_draws_are_not_used() -> None:
    outcomes = coins(0.5, 300, 7, seed=3)
    assert stats.accuracy(table(outcomes), Vote(3)) == stats.accuracy(
        table(outcomes[:, :6]), Vote(3)
    )


@pytest.mark.parametrize("spread", [0.0, 0.25, 0.5])
def test_bootstrap_covers_as_often_as_it_says(spread: float) -> None:
    """From draws that are pure noise (spread 0) to images that are nearly always right or wrong."""
    hits, runs = 0, 400
    for run in range(runs):
        p = 0.5 + spread * np.random.default_rng(10_000 + run).choice([-1.0, 1.0], size=80) * 0.98
        estimate = stats.accuracy(
            table(coins(p, 80, 8, seed=run)), Single(), seed=run, resamples=500
        )
        hits += estimate.low <= 0.5 <= estimate.high
    assert 0.95 - 4 * (0.95 * 0.05 / runs) ** 0.5 - 0.01 <= hits / runs <= 0.985


def test_unanimous_draws_get_a_wilson_interval() -> None:
    one = coins(0.7, 50, 1, seed=4)
    repeated = stats.accuracy(table(np.repeat(one, 16, axis=1)), Single())
    assert repeated == stats.wilson(int(one.sum()), 50)


def test_a_single_lucky_draw_does_not_collapse_the_interval() -> None:
    outcomes = np.zeros((200, 16), dtype=bool)
    outcomes[3, 5] = True
    estimate = stats.accuracy(table(outcomes), Single())
    assert estimate.value == pytest.approx(1 / 3200)
    assert estimate.high >= stats.wilson(0, 200).high


def test_same_seed_same_interval() -> None:
    draws = table(coins(0.5, 100, 8, seed=6))
    assert stats.accuracy(draws, Single(), seed=1) == stats.accuracy(draws, Single(), seed=1)
    assert stats.accuracy(draws, Single(), seed=1) != stats.accuracy(draws, Single(), seed=2)


def test_paired_difference_covers_and_is_antisymmetric() -> None:
    hits, runs = 0, 300
    for run in range(runs):
        p = np.random.default_rng(run).random(60) * 0.8
        a = table(coins(p + 0.1, 60, 4, seed=2 * run + 1000))
        b = table(coins(p, 60, 4, seed=2 * run + 1001))
        gap = stats.paired_difference(a, b, Single(), seed=run, resamples=500)
        hits += gap.low <= 0.1 <= gap.high
    assert 0.95 - 4 * (0.95 * 0.05 / runs) ** 0.5 - 0.01 <= hits / runs <= 0.99
    assert stats.paired_difference(b, a, Single()).value == pytest.approx(-gap.value)


def test_paired_difference_needs_the_same_examples() -> None:
    outcomes = coins(0.5, 10, 2, seed=7)
    other = table(outcomes, index=np.arange(1, 11))
    with pytest.raises(ValueError, match="same examples"):
        stats.paired_difference(table(outcomes), other, Single())


def test_no_observed_difference_is_not_certainty() -> None:
    draws = table(coins(0.5, 30, 1, seed=8))
    gap = stats.paired_difference(draws, draws, Single())
    assert gap.value == 0
    assert gap.low < 0 < gap.high


def test_worst_case_does_not_count_luck() -> None:
    """Ten attacks that do nothing: every draw is right with probability 0.7, whatever the attack."""
    tables = {f"attack {i}": table(coins(0.7, 1000, 16, seed=20 + i)) for i in range(10)}
    honest = stats.worst_case(tables, Single()).estimate
    assert honest.value == pytest.approx(0.7, abs=4 * (0.7 * 0.3 / 8000) ** 0.5)

    rates = np.stack([stats.correct_matrix(t).numpy().mean(axis=1) for t in tables.values()])
    assert rates.min(axis=0).mean() < 0.6


def test_worst_case_finds_the_attack_that_works() -> None:
    """Attack a breaks the even images, b the odd ones: together they break all."""
    even = np.arange(200) % 2 == 0
    tables = {
        "a": table(coins(np.where(even, 0.02, 0.98), 200, 8, seed=30)),
        "b": table(coins(np.where(even, 0.98, 0.02), 200, 8, seed=31)),
    }
    worst = stats.worst_case(tables, Single())
    assert worst.estimate.value == pytest.approx(0.02, abs=0.02)
    assert worst.winner == tuple("a" if e else "b" for e in even)
    assert worst.index.tolist() == list(range(200))


def test_worst_case_of_one_draw_is_the_minimum() -> None:
    a, b = coins(0.5, 100, 1, seed=40), coins(0.5, 100, 1, seed=41)
    worst = stats.worst_case({"a": table(a), "b": table(b)}, Single()).estimate
    assert worst == stats.wilson(int((a & b).sum()), 100)


def test_worst_case_needs_draws_to_choose_on() -> None:
    draws = table(coins(0.5, 20, 4, seed=50))
    assert stats.worst_case({"a": draws, "b": draws}, Vote(3)).estimate.n == 20
    with pytest.raises(ValueError, match="expected more than 4 per example"):
        stats.worst_case({"a": draws, "b": draws}, Vote(4))


def test_ten_thousand_images_take_a_moment() -> None:
    draws = table(coins(0.5, 10_000, 16, seed=60), classes=10)
    start = time.perf_counter()
    stats.accuracy(draws, Vote(4))
    stats.worst_case({"a": draws, "b": draws}, Single())
    assert time.perf_counter() - start < 10
