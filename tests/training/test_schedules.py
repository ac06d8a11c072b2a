"""Learning rates step by step against torch's schedulers, which keep state where ours are functions."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from noisychannel.errors import UserError
from noisychannel.training import SCHEDULES, OneCycle, Plateau, Schedule, Steps
from noisychannel.training.schedules import Moment


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def rates(make: lr_scheduler.LRScheduler, count: int) -> Iterator[float]:
    """The rate of each update: torch's update number i, from 0, has seen i calls of `step`."""
    for _ in range(count):
        yield make.get_last_lr()[0]
        make.optimizer.step()
        make.step()


# ---------------------------------------------------------------- one cycle
@pytest.mark.parametrize("warmup", [0.2, 0.3, 0.5, 0.05])
@pytest.mark.parametrize(("steps", "epochs"), [(7, 6), (390, 3), (1, 50)])
def test_one_cycle_is_torchs_with_its_last_rate_after_the_last_update(
    warmup: float, steps: int, epochs: int
) -> None:
    """torch's turn is at pct·total − 1 and its end at total − 1; ours are at warmup·T − 1 and at T.

    T updates are numbered 0 … T − 1, so total = T + 1 and pct = warmup·T / (T + 1) are the same
    curve: torch spends its last update at 4·10⁻⁶ of the peak, which moves nothing; ours does not.
    """
    total = steps * epochs
    torchs = lr_scheduler.OneCycleLR(
        optimizer(), max_lr=1.0, total_steps=total + 1, pct_start=warmup * total / (total + 1),
        div_factor=25, final_div_factor=1e4, cycle_momentum=False,
    )  # fmt: skip
    ours = [OneCycle(warmup).factor(Moment(i, steps, epochs)) for i in range(total)]
    assert ours == pytest.approx(list(rates(torchs, total)), rel=1e-9, abs=1e-12)
    assert OneCycle(warmup).factor(Moment(total, steps, epochs)) == pytest.approx(4e-6)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_one_cycle_of_so_few_steps_that_nothing_is_left_to_rise(total: int) -> None:
    ours = [OneCycle(0.3).factor(Moment(i, total, 1)) for i in range(total)]
    assert ours[0] == pytest.approx(1 / 25)
    assert max(ours[1:], default=1.0) == pytest.approx(1.0)


# ---------------------------------------------------------------- steps
@given(
    st.lists(st.integers(1, 30), unique=True, max_size=4).map(sorted),
    st.floats(0.05, 0.95),
    st.integers(1, 5),
)
def test_steps_are_torchs(epochs: list[int], drop: float, steps: int) -> None:
    torchs = lr_scheduler.MultiStepLR(optimizer(), epochs, gamma=drop)
    for epoch, rate in enumerate(rates(torchs, 32)):
        for i in (0, steps - 1):  # the first update of the epoch and the last
            ours = Steps(tuple(epochs), drop).factor(Moment(epoch * steps + i, steps, 32))
            assert ours == pytest.approx(rate, rel=1e-12)


def test_the_authors_steps() -> None:
    at = {e: Steps((80, 120)).factor(Moment(10 * e, 10, 160)) for e in (0, 79, 80, 119, 120, 159)}
    assert list(at.values()) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


# ---------------------------------------------------------------- plateau
near_one = st.floats(0.9998, 1.0001)  # steps about the threshold of 0.01 %, where the rule decides
anything = st.floats(0.01, 3.0)


@given(
    st.one_of(st.lists(anything, max_size=60), st.lists(near_one, max_size=60)),
    st.integers(0, 6),
    st.sampled_from([0.5, 0.1]),
)
def test_plateau_is_torchs(losses: list[float], patience: int, drop: float) -> None:
    # eps=0: torch ignores drops of less than 10⁻⁸ of a rate; ours has no such floor.
    at = optimizer()
    torchs = lr_scheduler.ReduceLROnPlateau(at, factor=drop, patience=patience, eps=0.0)
    for epoch, loss in enumerate(losses):
        torchs.step(loss)
        ours = Plateau(patience, drop).factor(Moment(epoch + 1, 1, 100, tuple(losses[: epoch + 1])))
        assert ours == pytest.approx(at.param_groups[0]["lr"], rel=1e-9)


def test_plateau_forgets_nothing_of_the_epochs_before() -> None:
    """The whole history counts: it halves at 3 stuck epochs, waits anew, and keeps the best loss."""
    losses = (1.0, 1.0, 1.0, 1.0, 0.5, 0.6, 0.6, 0.6)
    factors = [Plateau(2, 0.5).factor(Moment(0, 1, 9, losses[:i])) for i in range(9)]
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


# ---------------------------------------------------------------- all
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_factors_are_positive_and_at_most_one(schedule: Schedule) -> None:
    for step in range(400):
        factor = schedule.factor(Moment(step, 2, 200, tuple(1.0 for _ in range(step // 2))))
        assert 0 < factor <= 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: OneCycle(0.0), r"warmup: expected a number in \(0, 1\), got 0.0"),
        (
            lambda: Steps((80, 80)),
            r"epochs of the drops: expected ascending numbers, got \(80, 80\)",
        ),
        (lambda: Steps((80,), 1.0), r"drop: expected a number in \(0, 1\), got 1.0"),
        (lambda: Plateau(-1), "patience: expected a whole number ≥ 0, got -1"),
        (lambda: Plateau(1, 0.0), r"drop: expected a number in \(0, 1\), got 0.0"),
    ],
)
def test_bad_numbers(make: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()  # type: ignore[operator]
