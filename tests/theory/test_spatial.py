"""Rotations and translations against foolbox, scipy, and a search by hand."""

import warnings
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from linear import LinearNetwork
from noisychannel import rng
from noisychannel.attacks import Spatial
from noisychannel.attacks.spatial import moved
from noisychannel.defenses import Defense
from noisychannel.errors import UserError
from noisychannel.objectives import label_margin
from noisychannel.threats import DefenseView, non_adaptive
from noisychannel.types import Adversarials, Batch, Status

NETWORK = LinearNetwork(gain=5.0)
MOVES = [(0.0, 0.0, 0.0), (30.0, 0.0, 0.0), (-17.0, 2.0, -3.0), (5.0, 0.5, 1.25), (0.0, -3.0, 0.0)]


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def attacked(attack: Spatial, network: LinearNetwork, batch: Batch) -> Adversarials:
    with rng.root("spatial"):
        return attack(DefenseView(non_adaptive(Defense(network))), batch)


def peer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("foolbox", reason="foolbox is the peer")


# ---------------------------------------------------------------- one movement


@pytest.mark.parametrize("move", MOVES, ids=str)
@pytest.mark.parametrize("side", [8, 32])
def test_a_movement_is_foolbox_s(move: tuple[float, float, float], side: int) -> None:
    peer()
    import eagerpy
    from foolbox.attacks.spatial_attack_transformations import rotate_and_shift

    x = images(3, 2, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its meshgrid has no indexing
        theirs = rotate_and_shift(eagerpy.astensor(x), (move[1], move[2]), move[0]).raw
    ours = moved(x, torch.tensor(move).view(1, 1, 3))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("move", MOVES, ids=str)
@pytest.mark.parametrize("shape", [(8, 8), (6, 11)], ids=str)
def test_a_movement_turns_pixels_about_the_middle(
    move: tuple[float, float, float], shape: tuple[int, int]
) -> None:
    """Each pixel comes from where the rigid motion, written out in pixels, says; scipy interpolates."""
    from scipy.ndimage import map_coordinates

    (h, w), (angle, across, down) = shape, move
    x = images(1, 1, h, w)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    rows, columns = np.meshgrid(
        np.arange(h) - (h - 1) / 2, np.arange(w) - (w - 1) / 2, indexing="ij"
    )
    # Turned in units in which both sides run from −1 to 1 and a pixel is as long as wide: w/h, not (w − 1)/(h − 1).
    u, v = columns / (w - 1) * w, rows / (h - 1) * h
    u, v = cos * u - sin * v, sin * u + cos * v
    source_columns = u * (w - 1) / w + across * (w - 1) / w + (w - 1) / 2
    source_rows = v * (h - 1) / h + down * (h - 1) / h + (h - 1) / 2
    padded = np.pad(x[0, 0].double().numpy(), 2)  # so that scipy fades to zero as grid_sample does
    wanted = map_coordinates(padded, [source_rows + 2, source_columns + 2], order=1, cval=0.0)
    ours = moved(x, torch.tensor(move).view(1, 1, 3))[0, 0]
    torch.testing.assert_close(ours.double(), torch.from_numpy(wanted), rtol=0, atol=1e-5)


def test_a_right_angle_is_exact() -> None:
    x = images(2, 3, 8, 8)
    turned = moved(x, torch.tensor([90.0, 0.0, 0.0]).view(1, 1, 3))
    torch.testing.assert_close(turned, x.rot90(1, (2, 3)), rtol=0, atol=1e-5)


def test_each_example_may_have_its_own_movement() -> None:
    x = images(4, 3, 8, 8)
    how = torch.tensor(MOVES[:4] + MOVES[1:]).view(2, 4, 3)
    together = moved(x, how).view(2, 4, 3, 8, 8)
    for draw, example in product(range(2), range(4)):
        alone = moved(x[example : example + 1], how[draw, example].view(1, 1, 3))[0]
        torch.testing.assert_close(together[draw, example], alone, rtol=0, atol=1e-6)


# ---------------------------------------------------------------- the worst of a grid


def test_the_worst_of_the_grid_is_handed_over() -> None:
    """By hand over the whole grid and the example itself: won where any succeeds, else the lowest margin."""
    attack = Spatial(rotation=3.0, translation=0.2, angles=3, shifts=4)
    batch = NETWORK.batch(n=24)
    network = NETWORK.build()
    margins = [label_margin(network(batch.x), batch.y)]
    shifts = torch.linspace(-0.2, 0.2, 4).tolist()
    for how in product((-3.0, 0.0, 3.0), shifts, shifts):
        x = moved(batch.x, torch.tensor(how).view(1, 1, 3))
        margins.append(label_margin(network(x), batch.y))
    worst = torch.stack(margins).amin(dim=0)
    found = attacked(attack, NETWORK, batch)
    won = found.status == int(Status.FOUND)
    assert torch.equal(won, worst < 0)
    assert won.any()
    assert not won.all()
    after = label_margin(network(found.x), batch.y)
    assert (after[won] < 0).all()
    torch.testing.assert_close(after[~won], worst[~won], rtol=1e-4, atol=1e-4)
    assert (found.cost.forwards <= attack.queries + 1).all()


def test_the_same_images_fall_to_foolbox() -> None:
    """Its grid search wins exactly where ours does (on this network no margin of a variant is near 0)."""
    foolbox = peer()
    batch = NETWORK.batch(n=24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = foolbox.attacks.SpatialAttack(
            max_translation=0.2, max_rotation=3, num_translations=4, num_rotations=3
        )
        model = foolbox.PyTorchModel(NETWORK.build(), bounds=(0, 1), device="cpu")
        success = theirs(model, batch.x, batch.y)[2]
    ours = attacked(Spatial(rotation=3.0, translation=0.2, angles=3, shifts=4), NETWORK, batch)
    assert torch.equal(ours.status == int(Status.FOUND), success)
    assert success.any()
    assert not success.all()


def test_random_movements_stay_in_their_range() -> None:
    """Uniform on ± the angle and ± the shifts: the means of 2,000 within 4 standard errors, the ends reached."""
    attack = Spatial(rotation=20.0, translation=2.0, search="random")
    with rng.root("spatial"):
        drawn = attack._drawn(torch.arange(20), range(100), flat=False).flatten(0, 1)
    most = torch.tensor([20.0, 2.0, 2.0])
    assert (drawn.abs() <= most).all()
    assert (drawn.abs().amax(dim=0) > 0.99 * most).all()
    assert (drawn.mean(dim=0).abs() < 4 * most / 3**0.5 / 2000**0.5).all()


def test_more_random_movements_are_more_of_the_same() -> None:
    """Draw d of an example is the same however many are asked for: more never wins less."""
    batch = NETWORK.batch(n=24)
    won = [
        attacked(Spatial(3.0, 0.2, "random", trials=trials), NETWORK, batch).status
        == int(Status.FOUND)
        for trials in (5, 40)
    ]
    assert won[0].any()
    assert (won[1] | ~won[0]).all()


# ---------------------------------------------------------------- series


def test_a_series_is_shifted_in_time_and_not_turned() -> None:
    network = LinearNetwork(shape=(2, 50), gain=5.0)
    batch = network.batch(n=12)
    shifts = torch.linspace(-3, 3, 5).tolist()
    margins = [label_margin(network.build()(batch.x), batch.y)]
    times = np.arange(50)
    for shift in shifts:
        source = times + shift * 49 / 50
        rows = batch.x.double().numpy()
        x = [
            [np.interp(source, np.arange(-1, 51), np.pad(c, 1), left=0.0, right=0.0) for c in row]
            for row in rows
        ]
        margins.append(label_margin(network.build()(torch.tensor(np.array(x)).float()), batch.y))
    worst = torch.stack(margins).amin(dim=0)
    for rotation in (0.0, 30.0):
        found = attacked(Spatial(rotation=rotation), network, batch)
        won = found.status == int(Status.FOUND)
        assert torch.equal(won, worst < 0)
        after = label_margin(network.build()(found.x), batch.y)
        torch.testing.assert_close(after[~won], worst[~won], rtol=1e-3, atol=1e-3)
        assert (found.cost.forwards <= 5 + 1 + 1).all()


def test_a_series_that_could_only_be_turned_is_refused() -> None:
    network = LinearNetwork(shape=(2, 50))
    with pytest.raises(UserError, match=r"translation: expected .* series.*, got 0"):
        attacked(Spatial(translation=0.0), network, network.batch(n=2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Spatial(rotation=-1.0),
        lambda: Spatial(translation=float("nan")),
        lambda: Spatial(angles=0),
        lambda: Spatial(shifts=0),
        lambda: Spatial(trials=0),
    ],
)
def test_bad_numbers_are_refused(make: Any) -> None:
    with pytest.raises(UserError, match=r"expected .*, got "):
        make()
