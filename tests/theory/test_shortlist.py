"""Which candidate is handed over: the best of several is the luckiest too, so it has to win again."""

from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pytest
import torch
from torch import Tensor

from noisychannel.attacks.shortlist import Shortlist, conclude
from noisychannel.norms import L2
from noisychannel.types import Batch, Cost, Status, Trial


def numbers(x: Tensor) -> Tensor:
    """1 from .004, 2 from .016, 3 from .064; 0 at the example."""
    return ((1000 * x[..., 0] + 1e-3).clamp_min(1).log() / torch.tensor(4.0).log()).floor().long()


@dataclass
class Jury:
    """A random view with a fixed opinion of candidates 1, 2, 3, at 4, 16, 64 thousandths, and of all beyond each."""

    first: tuple[float, ...]
    again: tuple[float, ...]
    heard: list[list[int]] = field(default_factory=list)
    points: list[list[float]] = field(default_factory=list)
    stochastic: bool = True
    compact: bool = True

    def trial(self, candidates: Tensor, _: Tensor, batch: Batch, *, final: bool = False) -> Trial:
        number = numbers(candidates)
        if final:
            assert candidates.shape == (1, len(batch), 1)
            self.heard.append(number[0].tolist())
            self.points.append(candidates[0, :, 0].tolist())
        rates = torch.tensor((0.0, *(self.again if final else self.first)))[number]
        return Trial(rates > 0.5, rates, -number.float())

    def cost(self, batch: Batch) -> Cost:
        return Cost.passes(batch.index * 0, batch.index * 0)


def chosen(jury: Any, minimal: bool) -> tuple[list[int], list[int]]:
    """Number and status of what is handed over for two examples at 0, of three candidates each."""
    zeros = torch.zeros(2, dtype=torch.int64)
    batch = Batch(torch.zeros(2, 1), zeros, torch.arange(2))
    kept = Shortlist(batch.x, 3)
    for number in (1, 2, 3):
        rows = torch.arange(2)
        kept.offer(rows, torch.full((2, 1), 4**number / 1000), torch.full((2,), 1.0), rows == rows)
    found = conclude(jury, batch, kept, norm=L2() if minimal else None)
    return numbers(found.x).tolist(), found.status.tolist()


pytestmark = pytest.mark.usefixtures("unchecked")  # the jury is no whole view
YES, NO = int(Status.FOUND), int(Status.NOT_FOUND)


@pytest.mark.parametrize(
    ("minimal", "first", "again", "who", "status", "asked"),
    [
        (True, (0.6, 0.7, 1.0), (0.6, 0.7, 1.0), 1, YES, [1]),  # the nearest that wins, twice
        (True, (0.6, 0.7, 1.0), (0.2, 0.7, 1.0), 2, YES, [1, 2]),  # its first win was luck
        (True, (0.6, 0.4, 0.7), (0.2, 0.9, 0.9), 3, YES, [1, 3]),  # who lost at once is not asked
        (True, (0.6, 0.7, 0.8), (0.2, 0.3, 0.1), 2, NO, [1, 2, 3]),  # none: the best of the second
        (
            True,
            (0.2, 0.5, 0.1),
            (0.9, 0.4, 0.9),
            2,
            NO,
            [2],
        ),  # half is not most, but hopeful: beyond
        (True, (0.2, 0.1, 0.2), (0.9, 0.9, 0.9), 3, NO, []),  # no hope: nobody is asked
        (False, (0.6, 0.7, 1.0), (0.6, 0.7, 1.0), 3, YES, [3]),  # the most often adversarial
        (False, (0.6, 0.7, 1.0), (0.6, 0.7, 0.9), 3, YES, [3]),  # that has won stays
        (False, (0.6, 0.8, 1.0), (0.6, 0.7, 0.4), 2, YES, [3, 2]),
        (False, (0.6, 0.8, 1.0), (0.3, 0.2, 0.4), 3, NO, [3, 2, 1]),
    ],
)
def test_the_chosen_one_wins_again(
    minimal: bool,
    first: tuple[float, ...],
    again: tuple[float, ...],
    who: int,
    status: int,
    asked: list[int],
) -> None:
    jury = Jury(first, again)
    assert chosen(jury, minimal) == ([who] * 2, [status] * 2)
    assert [one for one, _ in groupby(jury.heard)] == [[number] * 2 for number in asked]


def test_a_point_beyond_stands_in_for_one_on_the_boundary() -> None:
    """The nearest has half of the draws, the next stands at 64: 1.05, 1.15, 1.4 and 2 times as far are asked first."""
    jury = Jury((0.2, 0.5, 1.0), (0.0, 0.4, 1.0))
    assert chosen(jury, minimal=True) == ([3] * 2, [YES] * 2)
    asked = torch.tensor(jury.points)[:, 0]
    torch.testing.assert_close(asked, torch.tensor([0.0168, 0.0184, 0.0224, 0.032, 0.064]))


def test_nothing_is_asked_again_where_nothing_is_random() -> None:
    jury = Jury((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), stochastic=False)
    assert chosen(jury, minimal=True) == ([1] * 2, [YES] * 2)
    assert jury.heard == []
