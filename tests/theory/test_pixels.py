"""Single and multiple pixels, and local search, against the fewest pixels that a linear network needs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from linear import LinearNetwork
from noisychannel import rng
from noisychannel.attacks import LocalSearch, MultiplePixels, SinglePixel
from noisychannel.attacks.variants import planes
from noisychannel.defenses import Defense
from noisychannel.objectives import label_margin
from noisychannel.threats import DefenseView, non_adaptive
from noisychannel.types import Adversarials, Batch, Status

SHAPES = pytest.mark.parametrize("shape", [(3, 8, 8), (2, 50)], ids=["images", "series"])


def made(shape: tuple[int, ...], classes: int = 2) -> tuple[LinearNetwork, Batch]:
    # 5 σ of weight on white noise: most margins need a few pixels, some one, some more.
    network = LinearNetwork(shape=shape, classes=classes, gain=5.0)
    return network, network.batch(n=24, spread=0.2)


def attacked(attack: Any, network: LinearNetwork, batch: Batch) -> Adversarials:
    with rng.root("pixels"):
        return attack(DefenseView(non_adaptive(Defense(network))), batch)


def gains(network: LinearNetwork, batch: Batch, goal: Tensor, to: Tensor) -> Tensor:
    """What each place gives towards class k against the label when its channels go `to` (n, c, places): (n, places)."""
    w = network.weight()
    slope = planes((w[goal] - w[batch.y]).view_as(batch.x))
    return (slope * (to - planes(batch.x))).sum(dim=1)


def fewest(margin: Tensor, gain: Tensor) -> Tensor:
    """The smallest k whose k largest gains exceed the margin (n,)."""
    total = gain.sort(dim=1, descending=True).values.cumsum(dim=1)
    return (total <= margin[:, None]).sum(dim=1) + 1


def moved_places(found: Adversarials, batch: Batch) -> Tensor:
    return (planes(found.x) != planes(batch.x)).any(dim=1).sum(dim=1)


@SHAPES
def test_single_pixel_finds_the_best_one(shape: tuple[int, ...]) -> None:
    """Won exactly where the largest gain exceeds the margin; else the best pixel is handed over."""
    network, batch = made(shape)
    margin = label_margin(network.build()(batch.x), batch.y)
    flat = planes(batch.x)
    ends = [gains(network, batch, 1 - batch.y, torch.full_like(flat, v)) for v in (0.0, 1.0)]
    best = torch.stack(ends).amax(dim=(0, 2))
    found = attacked(SinglePixel(), network, batch)
    won = found.status == int(Status.FOUND)
    assert torch.equal(won, best > margin)
    assert won.any()
    assert not won.all()
    after = label_margin(network.build()(found.x), batch.y)
    torch.testing.assert_close(after[~won], (margin - best)[~won], rtol=1e-4, atol=1e-4)
    assert (moved_places(found, batch) == 1).all()


@SHAPES
def test_local_search_is_greedy_where_it_probes_everything(shape: tuple[int, ...]) -> None:
    """All places probed, one moved per round, to the nearer end: as many pixels as the largest gains need, exactly."""
    network, batch = made(shape)
    margin = label_margin(network.build()(batch.x), batch.y)
    near = gains(network, batch, 1 - batch.y, planes(batch.x).round()).clamp_min(0)
    enough = near.sum(dim=1) > margin
    batch, margin, near = batch.rows(enough), margin[enough], near[enough]
    assert len(batch) > 12
    everything = LocalSearch(
        pixels=1, rounds=64, move=1e9, probe=0.5, neighbours=64, share=1.0, most=64
    )
    found = attacked(everything, network, batch)
    assert (found.status == int(Status.FOUND)).all()
    assert torch.equal(moved_places(found, batch), fewest(margin, near))


@pytest.mark.parametrize(
    "attack",
    [
        SinglePixel(),
        MultiplePixels(pixels=3, trials=20),
        LocalSearch(rounds=30),
        LocalSearch(pixels=1, rounds=30, move=1e9, probe=0.5),
    ],
    ids=repr,
)
@SHAPES
def test_nobody_needs_fewer_pixels_than_the_optimum(attack: Any, shape: tuple[int, ...]) -> None:
    """Each channel at its better end, for the easiest of four classes: the closed form in L0."""
    network, batch = made(shape, classes=5)
    logits = network.build()(batch.x)
    least = torch.full((len(batch),), 10**6)
    for k in range(5):
        goal = torch.full_like(batch.y, k)
        w = network.weight()
        slope = planes((w[goal] - w[batch.y]).view_as(batch.x))
        gain = gains(network, batch, goal, (slope > 0).float())
        margin = logits.gather(1, batch.y[:, None])[:, 0] - logits[:, k]
        least = torch.where(goal == batch.y, least, torch.minimum(least, fewest(margin, gain)))
    found = attacked(attack, network, batch)
    won = found.status == int(Status.FOUND)
    assert won.any()
    assert (moved_places(found, batch)[won] >= least[won]).all()


@SHAPES
@pytest.mark.parametrize("pixels", [0, 1, 20, 1000])
def test_multiple_pixels_sets_n_places_to_black_or_white(
    shape: tuple[int, ...], pixels: int
) -> None:
    network = LinearNetwork(shape=shape, gain=0.0)  # nobody leaves
    batch = replace(network.batch(n=6), y=torch.zeros(6, dtype=torch.int64))

    def first(trial: int) -> Tensor:
        """A budget attack hands over the first of equals: the clean example, so look at the variants themselves."""
        seen: list[Tensor] = []
        view = DefenseView(non_adaptive(Defense(network)))
        ask = view.query

        def query(x: Tensor, *rest: Any, **words: Any) -> Any:
            seen.append(x)
            return ask(x, *rest, **words)

        view.query = query  # type: ignore[method-assign]
        with rng.root("pixels"):
            MultiplePixels(pixels, trials=2)(view, batch)
        return seen[1].view(2, 6, *shape)[trial]

    places = batch.x[0, 0].numel()
    for trial in range(2):
        x = planes(first(trial))
        touched = (x != planes(batch.x)).any(dim=1)
        assert (touched.sum(dim=1) == min(pixels, places)).all()
        values = x.transpose(1, 2)[touched]
        assert ((values == 0) | (values == 1)).all()
        assert (values == values[:, :1]).all()
        if pixels >= 20:
            assert 0.3 < float(values.mean()) < 0.7
    if 0 < pixels < places:
        assert not torch.equal(first(0), first(1))


def test_moves_leave_by_one_side_and_come_in_by_the_other() -> None:
    x = torch.tensor([0.0, 0.1, 0.4, 0.5, 0.7, 0.9, 1.0]).view(1, 1, 7)
    attack = LocalSearch(pixels=7, move=1.5)
    every = torch.arange(7)[None]
    # v = −.5, −.4, −.1, 0, .2, .4, .5 → −.75, −.6, −.15, 0, .3, .6, .75 → .25, .4, −.15, 0, .3, −.4, −.25
    wanted = torch.tensor([0.75, 0.9, 0.35, 0.5, 0.8, 0.1, 0.25])
    torch.testing.assert_close(attack._moved(x, every).flatten(), wanted)
    nothing = torch.full_like(every, -1)
    assert torch.equal(attack._moved(x, nothing), x)


@pytest.mark.parametrize("shape", [(3, 6, 9), (2, 50)], ids=str)
@pytest.mark.parametrize("reach", [0, 1, 3, 100])
def test_neighbours_are_those_within_d_along_each_side(shape: tuple[int, ...], reach: int) -> None:
    height, width = (1, shape[1]) if len(shape) == 2 else shape[1:]
    places = torch.tensor([[0, 13, -1], [-1, 49, 20]])
    near = LocalSearch(neighbours=reach)._beside(torch.Size(shape), places)
    for example, row in zip(near, places.tolist(), strict=True):
        for place, is_near in enumerate(example.tolist()):
            wanted = any(
                abs(place // width - p // width) <= reach
                and abs(place % width - p % width) <= reach
                for p in row
                if p >= 0
            )
            assert is_near == wanted
    assert near.shape == (2, height * width)


@SHAPES
def test_local_search_is_aimed_by_a_target(shape: tuple[int, ...]) -> None:
    network, batch = made(shape, classes=3)
    batch = replace(batch, target=(batch.y + 1) % 3)
    found = attacked(LocalSearch(rounds=40, move=1e9, probe=0.5), network, batch)
    won = found.status == int(Status.FOUND)
    assert won.float().mean() > 0.5
    assert torch.equal(network.build()(found.x).argmax(dim=1)[won], batch.target[won])


@pytest.mark.parametrize(
    "make",
    [
        lambda: LocalSearch(pixels=0),
        lambda: LocalSearch(rounds=0),
        lambda: LocalSearch(move=-1.0),
        lambda: LocalSearch(probe=0.0),
        lambda: LocalSearch(neighbours=-1),
        lambda: LocalSearch(share=0.0),
        lambda: LocalSearch(most=0),
        lambda: SinglePixel(places=-1),
        lambda: MultiplePixels(pixels=-1),
        lambda: MultiplePixels(trials=0),
    ],
)
def test_bad_numbers_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"expected .*, got "):
        make()
