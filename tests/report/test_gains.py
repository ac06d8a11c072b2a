"""Worst cases compared: luck is not counted, pairs are of the same images, and ties go to the attack named first."""

import numpy as np
import pyarrow as pa
import pytest

from noisychannel.decision import Single, Vote
from noisychannel.report.gains import mcnemar, worst_case_gain
from noisychannel.report.luck import luck, restart_gain
from noisychannel.report.stats import accuracy, paired_difference, worst_case
from noisychannel.report.worst import worst, worst_draws
from synthetic import answers, latent, table


def drawn(p: float | np.ndarray, n: int, m: int, seed: int, *, shared: bool = False) -> pa.Table:
    g = np.random.default_rng(seed)
    return table(latent(np.broadcast_to(p, (n,)), m, g), shared=shared)


def test_by_hand() -> None:
    """The first draw of two chooses: attack b on image 0, a on image 1; the second scores: wrong, right."""
    a = answers(np.array([[True, True], [False, True]]))
    b = answers(np.array([[False, False], [True, False]]))
    base = answers(np.array([[False, False], [False, False]]))
    gain = worst_case_gain({"a": a, "b": b}, {"c": base}, Single())
    assert gain.value == pytest.approx(0.5)
    assert gain.n == 2
    # Under every attack at once both are wrong on the second draw: half of what is right is luck.
    assert luck({"a": a, "b": b}, Single()).value == pytest.approx(0.5)
    # Second draws: a right, right; b wrong, wrong; the mean over both is ½, the worst chosen ½.
    assert restart_gain({"a": a, "b": b}, Single()).value == pytest.approx(0.0)


def test_twenty_useless_attacks_win_nothing() -> None:
    """Random answers, right with p = 0.7 whatever is asked: their worst is 0.7, what is always lucky 0.7^20 < 0.001."""
    useless = {f"useless {i}": drawn(0.7, 300, 32, 500 + i) for i in range(20)}
    noise = (0.7 * 0.3 / (300 * 16)) ** 0.5
    assert worst_case(useless, Single()).estimate.value == pytest.approx(0.7, abs=3 * noise)
    drop = worst_case_gain({"useless 0": useless["useless 0"]}, useless, Single())
    assert drop.value == pytest.approx(0, abs=3 * 2**0.5 * noise)
    assert restart_gain(useless, Single()).value == pytest.approx(0, abs=3 * noise)
    assert luck(useless, Single()).value == pytest.approx(0.7 - 0.7**20, abs=3 * noise)


def test_useless_attacks_beside_a_strong_one_win_nothing() -> None:
    strong = {"strong": drawn(0.3, 200, 32, 600)}
    useless = {f"useless {i}": drawn(0.9, 200, 32, 610 + i) for i in range(20)}
    alone = worst_case(strong, Single()).estimate
    assert alone.low < worst_case(strong | useless, Single()).estimate.value < alone.high
    # What scoring each once and keeping the worst would have said.
    assert alone.value - luck(strong | useless, Single()).value < 0.1 < alone.low


def test_a_real_attack_among_useless_ones_is_found() -> None:
    tables = {f"useless {i}": drawn(0.9, 200, 32, 200 + i) for i in range(5)}
    tables["strong"] = drawn(0.2, 200, 32, 300)
    assert worst_case(tables, Single()).estimate.value == pytest.approx(0.2, abs=0.03)
    assert restart_gain(tables, Single()).value == pytest.approx(
        (5 * 0.9 + 0.2) / 6 - 0.2, abs=0.03
    )
    gain = worst_case_gain(tables, {"base": drawn(0.05, 200, 32, 301)}, Single())
    assert 0.1 < gain.low < 0.15 < gain.high < 0.2


def test_gain_of_one_attack_each_is_the_paired_difference() -> None:
    p = np.random.default_rng(11).random(150)
    mine, theirs = drawn(p, 150, 16, 12), drawn(0.8 * p, 150, 16, 13)
    gain = worst_case_gain({"a": mine}, {"a": theirs}, Single(), seed=4)
    late = {
        name: t.filter(pa.array(t["draw"].to_numpy() >= 8))
        for name, t in (("m", mine), ("t", theirs))
    }
    assert gain == paired_difference(late["m"], late["t"], Single(), seed=4)
    flipped = worst_case_gain({"a": theirs}, {"a": mine}, Single())
    assert flipped.value == pytest.approx(-gain.value)


def test_a_deterministic_base_answers_once() -> None:
    defense = {"a": drawn(0.95, 100, 32, 14)}
    base = {"a": drawn(0.3, 100, 1, 15), "b": drawn(0.3, 100, 1, 16)}
    gain = worst_case_gain(defense, base, Vote(16))
    assert gain.value == pytest.approx(1 - 0.09, abs=0.1)
    assert worst_case_gain(base, base, Vote(16)).value == 0
    with pytest.raises(ValueError, match="expected more than 16 per example"):
        worst_case_gain({"a": drawn(0.3, 100, 2, 15)}, base, Vote(16))


def test_the_same_attacks_differ_by_nothing_and_yet_not_surely() -> None:
    tables = {"a": drawn(0.5, 60, 8, 17), "b": drawn(0.6, 60, 8, 18)}
    same = worst_case_gain(tables, tables, Single())
    assert same.value == 0
    assert same.low < 0 < same.high < 0.1


def test_ties_go_to_the_smaller_margin_then_to_the_first_name() -> None:
    right = np.random.default_rng(19).random((40, 4)) < 0.5
    same = answers(right)
    assert set(worst_case({"x": same, "y": same}, Single()).winner) == {"x"}
    closer = table(np.where(right, 0.5, -2.0))
    assert set(worst_case({"x": same, "y": closer}, Single()).winner) == {"y"}


def test_errors() -> None:
    a = drawn(0.5, 20, 4, 20)
    other = table(latent(np.full(20, 0.5), 4, np.random.default_rng(1)), first=1)
    with pytest.raises(ValueError, match="same examples in the defense and its base"):
        worst_case_gain({"a": a}, {"a": other}, Single())
    for none in ({}, {"a": a}):
        with pytest.raises(ValueError, match="at least 1 attack"):
            worst_case_gain(none, {} if none else {"a": a}, Single())
    with pytest.raises(ValueError, match="same draws per example of every attack"):
        luck({"a": a, "b": drawn(0.5, 20, 8, 21)}, Single())
    with pytest.raises(ValueError, match="one cannot show its own luck"):
        luck({"a": drawn(0.5, 20, 1, 22)}, Single())


@pytest.mark.parametrize("rule", [Single(), Vote(4)])
def test_the_worst_draws_are_a_table_of_the_worst_case(rule: Single | Vote) -> None:
    p = np.random.default_rng(23).random((3, 50))
    tables = {str(i): drawn(p[i], 50, 16, 24 + i) for i in range(3)}
    # A table may number its draws from anywhere.
    late = pa.array(tables["1"]["draw"].to_numpy() + 100)
    tables["1"] = tables["1"].set_column(tables["1"].column_names.index("draw"), "draw", late)
    left = worst_draws(tables, rule)
    assert left.num_rows == 50 * 8
    assert accuracy(left, rule) == worst_case(tables, rule).estimate
    assert not worst(tables, rule).shared


def test_mcnemar_by_hand() -> None:
    """8 of 10 that differ are the one's: p = 2 Σ_{i ≤ 2} C(10, i) / 2^10 = 0.109375; draws repeated change nothing."""
    one = np.array([True] * 8 + [False] * 2 + [True] * 5)
    two = np.array([False] * 8 + [True] * 2 + [True] * 5)
    first, second = answers(np.repeat(one[:, None], 3, axis=1)), answers(two[:, None])
    assert mcnemar(first, second) == pytest.approx(0.109375)
    assert mcnemar(second, first) == pytest.approx(0.109375)
    assert mcnemar(first, first) == 1.0
    with pytest.raises(ValueError, match="one: expected one answer per example, got draws"):
        mcnemar(drawn(0.5, 15, 4, 25), second)
