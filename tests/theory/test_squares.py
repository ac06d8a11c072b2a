"""The geometry of the Square attack: the published schedule, windows, stripes and pyramids."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from noisychannel import rng
from noisychannel.attacks import Square
from noisychannel.attacks.squares import (
    Size,
    _halves,
    pyramids,
    redistributed,
    repainted,
    stripes,
    window,
)
from noisychannel.norms import L2


def test_the_schedule_of_squares_is_the_published_one() -> None:
    """p halves after 10, 50, 200, 500, 1,000, 2,000, 4,000, 6,000 and 8,000 questions of 10,000."""
    attack = Square(queries=10_000)
    after = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    for count, at in enumerate(after):
        for asked, halvings in ((at, count), (at + 1, count + 1)):
            side = max(1, round((0.8 * 0.5**halvings * 32 * 32) ** 0.5))
            assert attack.size(asked, 32, 32) == Size(side, side)
    assert replace(attack, queries=1000).size(21, 32, 32) == attack.size(201, 32, 32)


def test_windows_fit_whatever_the_image() -> None:
    for height, width in ((32, 32), (8, 8), (1, 50), (3, 40), (1, 1), (2, 2)):
        for share in (1.0, 0.8, 0.1, 0.01, 0.001):
            for odd in (False, True):
                size = window(share, height, width, odd=odd)
                assert 1 <= size.height <= height
                assert 1 <= size.width <= width
    assert window(0.3, 1, 50, odd=False) == Size(1, 15)
    assert window(0.3, 32, 32, odd=True) == Size(19, 19)  # round(17.5) = 18, made odd


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 6, 9), (2, 1, 50)], ids=str)
def test_squares_are_painted_whole_and_always_change_something(shape: tuple[int, ...]) -> None:
    """Every change lies in one window, is ±ε per channel, and over many draws reaches every place."""
    n, epsilon, size = 500, 0.1, Size(min(2, shape[1]), 3)
    x = torch.full((n, *shape), 0.5)
    stream = rng.Stream("attack", torch.arange(n))
    start = stripes(x, epsilon, stream)
    torch.testing.assert_close((start - x).abs(), torch.full_like(x, epsilon))
    assert (start == start[:, :, :1]).all()  # one sign per column
    new = repainted(x, start, epsilon, size, stream)
    changed = (new != start).any(dim=1)
    assert changed.flatten(1).any(dim=1).all()
    assert (changed.any(dim=2).sum(dim=1) <= size.height).all()
    assert (changed.any(dim=1).sum(dim=1) <= size.width).all()
    torch.testing.assert_close((new - x).abs(), torch.full_like(x, epsilon))
    assert changed.any(dim=0).all()


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 6, 9), (2, 1, 50), (1, 3, 3)], ids=str)
def test_pyramids_keep_the_length_of_the_perturbation(shape: tuple[int, ...]) -> None:
    """From the start on ‖δ‖₂ = ε, away from black and white; mass leaves the second window for the first."""
    n, epsilon = 200, 0.3
    x = torch.full((n, *shape), 0.5)
    stream = rng.Stream("attack", torch.arange(n))
    best = pyramids(x, epsilon, stream)
    for turn in range(5):
        torch.testing.assert_close(L2().distance(best, x), torch.full((n,), epsilon))
        size = window(0.3, *shape[1:], odd=True)
        new = redistributed(x, best, epsilon, size, replace(stream, step=turn + 1))
        # Where one window holds all mass already, the same one of the same sign changes nothing.
        assert (new != best).flatten(1).any(dim=1).float().mean() > 0.95
        best = new


def test_pyramids_are_torchattacks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peers = pytest.importorskip("torchattacks", reason="torchattacks is the peer")
    peer = peers.Square(nn.Identity())
    peer.device = "cpu"
    for side in (3, 5, 6, 9):
        theirs = peer.eta(side)
        ours = _halves(side, side)
        assert any(torch.allclose(ours, t, atol=1e-6) for t in (theirs, theirs.T))
