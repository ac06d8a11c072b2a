"""The sequential test against coins of known bias: error rates, sample sizes, truncation, and what may not matter."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.attacks.oracle import Doubt, Oracle
from noisychannel.decision import Decision, Single, Vote
from noisychannel.errors import UserError
from noisychannel.types import Batch, Cost, Query, Trial

FIRM = Doubt(missed=0.05, draws=4000)  # so many draws that no test is truncated
MANY = 3000


@dataclass
class Coins:
    """A view that answers label k with probability `chances[k]`, and −1 with what is left of 1."""

    chances: tuple[float, ...]
    rule: Decision = Single()
    stochastic: bool = True
    compact: bool = True
    certain: bool = False
    sizes: tuple[int, ...] = ()

    def labels(self, x: Tensor, batch: Batch, step: int | Tensor = 0, draws: int = 1) -> Tensor:
        self.sizes += (len(x),)
        stream = rng.Stream("attacked-defense", batch.index, step, range(draws))
        u = rng.uniform(torch.empty(draws * len(x), 2), stream)[:, 0].view(draws, len(x))
        edges = torch.tensor(self.chances).cumsum(0)
        said = torch.searchsorted(edges, u.contiguous())
        return said.where(said < len(edges), -1)

    def query(self, *_: object, **__: object) -> Query:
        raise AssertionError("an oracle was asked for more than labels")

    def trial(self, *_: object) -> Trial:
        raise AssertionError("an oracle was asked for a final choice")

    def cost(self, batch: Batch) -> Cost:
        raise AssertionError(f"an oracle keeps its own accounts, of {len(batch)}")


def crowd(n: int = MANY, target: int | None = None) -> Batch:
    """Examples of label 0."""
    zeros = torch.zeros(n, dtype=torch.int64)
    goal = None if target is None else torch.full_like(zeros, target)
    return Batch(torch.zeros(n, 1), zeros, torch.arange(n), goal)


def asked(view: Coins, doubt: Doubt | None, batch: Batch | None = None) -> tuple[Tensor, Oracle]:
    batch = crowd() if batch is None else batch
    oracle = Oracle(view, batch, doubt, 10**9)
    with rng.root("coins"):
        return oracle(batch.x, torch.arange(len(batch))), oracle


def at_most(count: Tensor, rate: float, n: int = MANY) -> bool:
    """Whether a count of rare events is compatible with a rate of at most this (4.5 standard deviations)."""
    return float(count) <= n * rate + 4.5 * (n * rate * (1 - rate)) ** 0.5


def looks(doubt: Doubt, p: float) -> tuple[float, float]:
    """P(yes) and P(truncated) exactly: the distribution of the number of wins over the looks after 1st, +4, +4 …"""
    (win, loss), (yes, no) = doubt.evidence(0.5), doubt.bounds
    mass, spent, answer = {0: 1.0}, 0, 0.0
    while spent < doubt.draws:
        draws = min(4 if spent else doubt.first(0.5), doubt.draws - spent)
        spent += draws
        for _ in range(draws):
            new: dict[int, float] = {}
            for wins, weight in mass.items():
                new[wins + 1] = new.get(wins + 1, 0.0) + weight * p
                new[wins] = new.get(wins, 0.0) + weight * (1 - p)
            mass = new
        score = {wins: wins * win + (spent - wins) * loss for wins in mass}
        answer += sum(w for k, w in mass.items() if score[k] >= yes - 1e-5)
        mass = {k: w for k, w in mass.items() if no + 1e-5 < score[k] < yes - 1e-5}
    return answer, sum(mass.values())


@pytest.mark.parametrize("rule", [Single(), Vote(16)], ids=repr)
@pytest.mark.parametrize("p", [0.1, 0.4, 0.6, 0.9])
def test_error_rates_are_below_the_stated_ones(rule: Decision, p: float) -> None:
    yes, oracle = asked(Coins((1 - p, p), rule), FIRM)
    wrong = yes.sum() if p < 0.5 else (~yes).sum()
    assert at_most(wrong, 0.05)
    assert oracle.truncated.sum() == 0


@pytest.mark.parametrize("target", [0.2, 0.7])
def test_the_target_of_a_single_draw_can_be_any(target: float) -> None:
    doubt = Doubt(target=target, missed=0.05, draws=4000)
    for p, wrong in ((target - 0.1, True), (target + 0.1, False)):
        yes, _ = asked(Coins((1 - p, p)), doubt)
        assert at_most((yes == wrong).sum(), 0.05)


def test_sample_size_is_walds() -> None:
    """E[N] = (P(yes)·A + P(no)·B)/E[step] = 32.7 for p₀ = .4, p₁ = .6, errors .05, at p = .6, without overshoot.

    In whole draws: 8 wins more than losses, or the reverse, takes 37.0 (gambler's ruin); looking at every fourth
    draw, 2 more at most.
    """
    _, oracle = asked(Coins((0.4, 0.6)), FIRM)
    mean = oracle.asked.double().mean()
    error = oracle.asked.double().std() / MANY**0.5
    assert 37.0 - 4.5 * error < mean < 39.0 + 4.5 * error


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_obvious_is_cheap(p: float) -> None:
    """8 draws of one kind decide at 1.5⁸ > 20; where a no may be wrong more often, 4 decide it."""
    yes, oracle = asked(Coins((1 - p, p)), FIRM)
    assert (yes == (p == 1)).all()
    assert (oracle.asked == 8).all()
    _, oracle = asked(Coins((1 - p, p)), Doubt(missed=0.2))
    assert (oracle.asked == (8 if p == 1 else 4)).all()


@pytest.mark.parametrize(("p", "draws"), [(0.5, 16), (0.6, 16), (0.6, 64), (0.45, 9)])
def test_truncation_is_counted_and_answers_no(p: float, draws: int) -> None:
    doubt = Doubt(draws=draws)
    yes, oracle = asked(Coins((1 - p, p)), doubt)
    wanted, cut = looks(doubt, p)
    for share, exact in ((yes, wanted), (oracle.truncated, cut)):
        error = (exact * (1 - exact) / MANY) ** 0.5
        assert abs(float(share.double().mean()) - exact) < 4.5 * error
    assert not yes[oracle.truncated > 0].any()
    assert (oracle.asked <= draws).all()
    assert (oracle.asked[oracle.truncated > 0] == draws).all()


def test_a_vote_compares_the_label_with_its_strongest_rival() -> None:
    """.38 for the label beats .22, .2 and .2 in a vote, though six draws of ten err; .3 loses to .5."""
    kept, lost = Coins((0.38, 0.22, 0.2, 0.2)), Coins((0.3, 0.5, 0.2))
    assert at_most(
        (~asked(kept, FIRM)[0]).sum(), 0.05
    )  # .62 of the draws err: beyond the zone of a single draw
    kept.rule = lost.rule = Vote(16)
    assert at_most(asked(kept, FIRM)[0].sum(), 0.05)
    assert at_most((~asked(lost, FIRM)[0]).sum(), 0.05)


@pytest.mark.parametrize("rule", [Single(), Vote(16)], ids=repr)
def test_a_target_must_win_itself(rule: Decision) -> None:
    for chances, answer in (((0.2, 0.7, 0.1), True), ((0.1, 0.2, 0.7), False)):
        yes, _ = asked(Coins(chances, rule), FIRM, crowd(target=1))
        assert at_most((yes != answer).sum(), 0.05)


def test_no_number_is_no_evidence() -> None:
    yes, oracle = asked(Coins(()), Doubt())
    assert not yes.any()
    assert oracle.silent.all()
    assert (oracle.truncated == 1).all()
    assert not asked(Coins(()), None)[0].any()
    # half of the draws are no number, nine of ten of the others err
    yes, oracle = asked(Coins((0.05, 0.45)), FIRM)
    assert at_most((~yes).sum(), 0.05)


def test_answers_do_not_depend_on_batch_mates() -> None:
    view, batch = Coins((0.5, 0.5)), crowd(40)
    together, whole = asked(view, Doubt(), batch)
    for one in (0, 7, 39):
        alone, oracle = asked(view, Doubt(), batch.rows(torch.tensor([one])))
        assert alone[0] == together[one]
        assert oracle.asked[0] == whole.asked[one]


def test_two_questions_have_two_answers() -> None:
    batch = crowd()
    oracle = Oracle(Coins((0.5, 0.5)), batch, Doubt(), 10**9)
    first, second = (oracle(batch.x, torch.arange(MANY)) for _ in range(2))
    assert (first != second).float().mean() > 0.1


def test_the_decided_leave_where_they_may() -> None:
    leaving, staying = Coins((0.5, 0.5)), Coins((0.5, 0.5), compact=False)
    asked(leaving, Doubt(), crowd(50))
    asked(staying, Doubt(), crowd(50))
    assert leaving.sizes[0] == 50
    assert list(leaving.sizes) == sorted(leaving.sizes, reverse=True)
    assert leaving.sizes[-1] < 50
    assert set(staying.sizes) == {50}


def test_nothing_random_is_asked_once() -> None:
    yes, oracle = asked(Coins((0.0, 1.0), stochastic=False), Doubt())
    assert yes.all()
    assert (oracle.asked == 1).all()


def test_a_budget_is_never_exceeded() -> None:
    """Whoever may not be able to pay a question is turned away before it."""
    batch = crowd(200)
    oracle = Oracle(Coins((0.5, 0.5)), batch, Doubt(draws=20), 100)
    rows = torch.arange(200)
    while len(rows := oracle.solvent(rows, oracle.most)):
        oracle(batch.x[rows], rows)
    assert (oracle.asked <= 100).all()
    assert (oracle.asked > 80).all()
    assert oracle.exhausted.all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Doubt(target=0.0),
        lambda: Doubt(target=1.0),
        lambda: Doubt(indifference=0.0),
        lambda: Doubt(indifference=0.5),
        lambda: Doubt(target=0.9, indifference=0.1),
        lambda: Doubt(error=0.0),
        lambda: Doubt(missed=0.5),
        lambda: Doubt(draws=0),
    ],
)
def test_bad_numbers_are_refused(make: Callable[[], Doubt]) -> None:
    with pytest.raises(UserError, match=r"expected .*, got "):
        make()
