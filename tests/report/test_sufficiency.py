"""Whether more draws per gradient, or more images, would change the answer."""

import numpy as np
import pyarrow as pa
import pytest

from noisychannel.decision import Single, Vote
from noisychannel.report.gains import worst_case_gain
from noisychannel.report.stats import wilson
from noisychannel.report.sufficiency import Doubling, doubling, doublings, powered, saturated
from synthetic import answers, latent, table


def rung(p: float, n: int, seed: int, m: int = 32) -> pa.Table:
    return table(latent(np.full(n, p), m, np.random.default_rng(seed)))


def test_by_hand() -> None:
    """Rung 2 looks worse on both halves of image 0 only: of two images one is lost."""
    ladder = {
        2: answers(np.array([[False] * 4, [True] * 4])),
        1: answers(np.array([[True] * 4, [True] * 4])),
        8: answers(np.array([[True] * 4, [True] * 4])),
    }
    first, second = doublings(ladder, Single())
    assert (first.draws, first.drop.value, first.left) == (2, 0.5, 0.5)
    assert (second.draws, second.drop.value, second.left) == (8, 0.0, 0.5)


def test_a_ladder_that_still_falls_is_not_saturated() -> None:
    won = doublings({1: rung(0.99, 500, 1), 2: rung(0.5, 500, 2), 4: rung(0.2, 500, 3)}, Single())
    assert [w.draws for w in won] == [2, 4]
    assert won[0].drop.low < 0.49 < won[0].drop.high
    # A rung is added to those below: on the few images where the older attack looked worse, it stays.
    assert 0.26 < won[1].drop.value < 0.3
    assert won[1].drop.value < won[1].upper < won[1].drop.high
    assert not saturated(won[1])


def test_luck_is_no_drop() -> None:
    """Six rungs that are alike: the luckiest answers fall by points with each, the honest ones by nothing."""
    ladder = {2**i: rung(0.7, 1000, 10 + i, m=64) for i in range(6)}
    for won in doublings(ladder, Single()):
        assert won.drop.low <= 0 <= won.drop.high
        assert won.upper < won.drop.high or won.drop.value == 0
    assert saturated(doublings(ladder, Single())[-1])


def test_few_images_never_saturate_where_much_is_left() -> None:
    """None of 200 lost: up to 1.3 points may be (Wilson, one-sided), none of 300: 0.9."""
    few, many = answers(np.ones((200, 1), dtype=bool)), answers(np.ones((300, 1), dtype=bool))
    assert doublings({1: few, 2: few}, Single())[0].upper == pytest.approx(0.0133, abs=1e-4)
    assert not saturated(doublings({1: few, 2: few}, Single())[0])
    assert saturated(doublings({1: many, 2: many}, Single())[0])


def test_nothing_left_is_saturated() -> None:
    none = answers(np.zeros((20, 4), dtype=bool))
    (won,) = doublings({1: none, 2: none}, Single())
    assert won.upper > 0.01
    assert saturated(won)
    assert not saturated(won._replace(left=0.02))


def test_half_the_draws_choose_and_both_score_where_they_can() -> None:
    """Each half scores what the other chose, so twice the decisions of a worst case; a vote of 20 of 32 has one."""
    ladder = {1: rung(0.7, 400, 20), 2: rung(0.7, 400, 21)}
    tables = {str(n): t for n, t in ladder.items()}
    for rule, narrower in ((Single(), True), (Vote(16), True), (Vote(20), False)):
        both = doublings(ladder, rule)[0].drop
        half = worst_case_gain({"1": tables["1"]}, tables, rule)
        assert (both.half_width < 0.85 * half.half_width) == narrower
        assert narrower or both.value == half.value


def test_a_rung_counts_what_nothing_before_it_won() -> None:
    """Image 0 falls to the first attack, image 1 to the second and the rung, image 2 to the rung alone."""
    known = [answers(np.array([[f] * 4, [True] * 4, [True] * 4])) for f in (False, True)]
    known.append(answers(np.array([[True] * 4, [False] * 4, [True] * 4])))
    last = answers(np.array([[True] * 4, [False] * 4, [False] * 4]))
    won = doubling(8, known, last, Single())
    assert (won.draws, won.drop.value, won.left) == (8, pytest.approx(1 / 3), 0.0)
    assert doubling(8, known[:1], last, Single()).drop.value == pytest.approx(2 / 3)
    assert doubling(8, [*known, last], known[0], Single()).drop.value == 0


def test_ladders_are_refused_that_do_not_double() -> None:
    one = rung(0.5, 20, 30, m=4)
    for rungs in ((1,), (2, 3), (1, 2, 3)):
        with pytest.raises(ValueError, match="each twice the last"):
            doublings(dict.fromkeys(rungs, one), Single())
    with pytest.raises(ValueError, match="expected more than 4 per example"):
        doublings({1: one, 2: one}, Vote(4))


def test_margin_of_saturation() -> None:
    gap = wilson(5, 100)
    last = Doubling(16, gap, upper=0.012, left=0.4)
    assert not saturated(last)
    assert saturated(last, margin=0.015)


@pytest.mark.parametrize(("n", "half_width"), [(150, 0.08), (475, 0.045), (940, 0.032)])
def test_half_widths_of_the_budgets(n: int, half_width: float) -> None:
    """At 50 %, so many images are just enough, and a tenth less is not."""
    assert powered(wilson(n / 2, n), half_width)
    assert not powered(wilson(0.45 * n, round(0.9 * n)), half_width)
    assert wilson(n / 2, n).half_width == pytest.approx(half_width, rel=0.02)


def test_few_examples_have_no_power() -> None:
    assert not powered(wilson(9, 9), 0.9)
    with pytest.raises(ValueError, match="half_width"):
        powered(wilson(50, 100), 8)
