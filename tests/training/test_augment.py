"""Crops and flips: exact windows, evenly drawn, each example's its own."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from noisychannel import rng
from noisychannel.errors import UserError
from noisychannel.training import Augment


def distinct(n: int, height: int, width: int, channels: int = 2) -> Tensor:
    """Images of which every pixel is another number > 0, so that a window says where it was cut."""
    count = n * channels * height * width
    return (torch.arange(count) + 1.0).reshape(n, channels, height, width) / (count + 1)


def stream(n: int, step: int = 0, first: int = 0) -> rng.Stream:
    return rng.Stream("train", torch.arange(first, first + n), step=step)


def windows(x: Tensor, seen: Tensor, pad: int) -> list[list[tuple[int, int, bool]]]:
    """For each example, all (top, left, mirrored) that give exactly what was seen; by search."""
    padded = functional.pad(x, (pad,) * 4)
    height, width = seen.shape[2:]
    return [
        [
            (top, left, mirrored)
            for top in range(padded.shape[2] - height + 1)
            for left in range(padded.shape[3] - width + 1)
            for mirrored, sight in ((False, image), (True, image.flip(2)))
            if torch.equal(sight, whole[:, top : top + height, left : left + width])
        ]
        for whole, image in zip(padded, seen, strict=True)
    ]


@pytest.mark.parametrize("shape", [(5, 5), (4, 7), (6, 3)], ids=str)
@pytest.mark.parametrize("pad", [0, 1, 2])
def test_what_is_seen_is_one_window_of_the_padded_image(shape: tuple[int, int], pad: int) -> None:
    x = distinct(40, *shape)
    for flip in (True, False):
        seen = Augment(pad=pad, flip=flip)(x, stream(40), 0.0)
        assert seen.shape == x.shape
        found = windows(x, seen, pad)
        assert all(len(one) == 1 for one in found)
        # Without flips no window is mirrored; with them, among 40, both kinds occur.
        assert {one[0][2] for one in found} == ({True, False} if flip else {False})


def test_offsets_and_mirrors_are_drawn_evenly_and_independently() -> None:
    """χ² of (top, left, mirrored) over 5 · 5 · 2 cells; the stream is fixed, so this is no game of chance."""
    n, pad = 5000, 2
    # One image with a marked pixel in the middle and one beside it: where they land tells the window.
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2], x[0, 0, 2, 1] = 1.0, 0.5
    seen = Augment(pad=pad)(x.expand(n, -1, -1, -1), stream(n), 0.0)[:, 0]
    at, beside = ((seen == mark).flatten(1).int().argmax(dim=1) for mark in (1.0, 0.5))
    shown = (seen == 0.5).flatten(1).any(dim=1)
    # The neighbour is on the other side where mirrored; where it left the window, the side is the edge's.
    mirrored = torch.where(shown, beside > at, at % 5 == 4)
    counts = torch.bincount(at * 2 + mirrored.long(), minlength=50)
    assert len(counts) == 50
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_a_window_depends_on_its_example_and_step_alone() -> None:
    x = distinct(32, 6, 6)
    how = Augment(pad=2)
    whole = how(x, stream(32), 0.0)
    alone = torch.cat([how(x[i : i + 1], stream(1, first=i), 0.0) for i in range(32)])
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    shuffled = how(x[order], rng.Stream("train", order), 0.0)
    assert torch.equal(alone, whole)
    assert torch.equal(shuffled, whole[order])
    assert not torch.equal(how(x, stream(32, step=1), 0.0), whole)


@pytest.mark.parametrize(("shape", "small"), [((8, 8), (5, 5)), ((8, 4), (5, 4))], ids=str)
def test_early_windows_are_smaller_and_later_ones_whole(
    shape: tuple[int, int], small: tuple[int, int]
) -> None:
    x = distinct(20, *shape)
    how = Augment(pad=1, early_size=5, early_share=0.6)
    for epoch in range(10):
        seen = how(x, stream(20, step=epoch), epoch / 10)
        assert seen.shape[2:] == (small if epoch < 6 else shape)
        assert all(len(one) == 1 for one in windows(x, seen, 1))


def test_nothing_asked_for_is_the_identity_bit_by_bit() -> None:
    x = distinct(9, 7, 5, channels=3)
    assert torch.equal(Augment(pad=0, flip=False)(x, stream(9), 0.0), x)


def test_the_images_given_are_untouched() -> None:
    x = distinct(9, 7, 5)
    before = x.clone()
    Augment()(x, stream(9), 0.0).fill_(math.nan)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Augment(pad=-1), "pad: expected a whole number ≥ 0, got -1"),
        (lambda: Augment(early_size=-1), "early_size: expected a whole number ≥ 0, got -1"),
        (lambda: Augment(early_share=1.5), "early_share: expected a number in 0 … 1, got 1.5"),
        (lambda: Augment()(torch.zeros(2, 1, 50), stream(2), 0.0),
         r"augment: expected images \(n, c, h, w\), got examples of shape .*1, 50"),
    ],
)  # fmt: skip
def test_bad_numbers_and_series(make: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()  # type: ignore[operator]
