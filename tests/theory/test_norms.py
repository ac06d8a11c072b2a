"""Norms against their definitions: projection, steepest step, and the law of a random point of the ball."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from noisychannel import rng
from noisychannel.norms import L0, L2, NORMS, Linf, Norm, per_example

EVERY = pytest.mark.parametrize("norm", NORMS, ids=repr)
CONVEX = pytest.mark.parametrize("norm", [L2(), Linf()], ids=repr)
SEEDS = st.integers(0, 2**31)
SIZES = st.floats(1e-3, 1e3)
TOLERANCE = 2e-6


def random(seed: int, rows: int = 4, shape: tuple[int, ...] = (2, 3, 3)) -> Tensor:
    return rng.normal(torch.empty(rows, *shape), rng.Stream("attack", torch.arange(rows), seed))


def radii(norm: Norm, seed: int, rows: int = 4) -> Tensor:
    """One per example, among them radii that bind and radii that do not."""
    if norm == L0():
        return torch.tensor([0.0, 3.0, 7.5, 30.0])[:rows]
    return (
        rng.uniform(torch.empty(rows, 1), rng.Stream("selection", torch.arange(rows), seed))[:, 0]
        * 5
    )


def dual_size(norm: Norm, g: Tensor) -> Tensor:
    """max ⟨g, s⟩ over ‖s‖ ≤ 1 (L0: over one changed element of ±1)."""
    order = {L2(): 2.0, Linf(): 1.0, L0(): math.inf}[norm]  # type: ignore[index]
    return g.flatten(1).norm(p=order, dim=1)


# ---------------------------------------------------------------- measure


def test_sizes_by_hand() -> None:
    delta = torch.tensor([[[3.0, -4.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, -0.5]]])
    assert L2().size(delta).tolist() == [5.0, 0.5]
    assert Linf().size(delta).tolist() == [4.0, 0.5]
    assert L0().size(delta).tolist() == [2.0, 1.0]


@EVERY
@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_distance_is_the_size_of_the_difference(norm: Norm, seed: int) -> None:
    x, y = random(seed), random(seed + 1)
    assert torch.equal(norm.distance(x, y), norm.size(x - y))
    assert not norm.distance(x, x).any()


# ---------------------------------------------------------------- project


@EVERY
@given(seed=SEEDS, scale=SIZES)
@settings(max_examples=50, deadline=None)
def test_projection_is_inside_idempotent_and_leaves_what_is_inside(
    norm: Norm, seed: int, scale: float
) -> None:
    delta, radius = random(seed) * scale, radii(norm, seed)
    if norm != L0():
        radius = radius * scale
    before = delta.clone()
    once = norm.project(delta, radius)
    assert torch.equal(delta, before)
    assert (norm.size(once) <= radius * (1 + TOLERANCE)).all()
    torch.testing.assert_close(norm.project(once, radius), once, rtol=TOLERANCE, atol=0)
    inside = norm.size(delta) <= radius
    assert torch.equal(once[inside], delta[inside])


@CONVEX
@given(seed=SEEDS, scale=SIZES)
@settings(max_examples=50, deadline=None)
def test_projection_is_the_nearest_point(norm: Norm, seed: int, scale: float) -> None:
    """p is nearest ⇔ ⟨δ − p, z − p⟩ ≤ 0 for all z of the ball ⇔ radius · ‖δ − p‖_dual ≤ ⟨δ − p, p⟩."""
    delta, radius = random(seed).double() * scale, radii(norm, seed).double() * scale
    p = norm.project(delta, radius)
    rest = delta - p
    left, right = radius * dual_size(norm, rest), (rest * p).flatten(1).sum(dim=1)
    assert (left <= right + 1e-9 * scale**2).all()


@given(seed=SEEDS, radius=st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_l0_projection_is_the_nearest_of_all_subsets(seed: int, radius: int) -> None:
    delta = random(seed, rows=1, shape=(6,))
    p = L0().project(delta, float(radius))
    others = []
    for kept in itertools.combinations(range(6), radius):
        other = torch.zeros_like(delta)
        other[:, list(kept)] = delta[:, list(kept)]
        others.append(float((delta - other).norm()))
    assert float((delta - p).norm()) <= min(others) + 1e-6
    assert int(L0().size(p)) == radius


def test_l0_projection_of_ties_keeps_the_count() -> None:
    delta = torch.ones(2, 3, 3)
    assert L0().size(L0().project(delta, torch.tensor([2.0, 5.9]))).tolist() == [2.0, 5.0]


@EVERY
@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_radii_are_per_example(norm: Norm, seed: int) -> None:
    delta, radius = random(seed), radii(norm, seed)
    together = norm.project(delta, radius)
    stream = rng.Stream("attack", torch.arange(4), part="start")
    sampled = norm.sample(delta, radius, stream)
    for i in range(4):
        alone = norm.project(delta[i : i + 1], float(radius[i]))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-6, atol=0)
        mine = rng.Stream("attack", torch.tensor([i]), part="start")
        alone = norm.sample(delta[i : i + 1], float(radius[i]), mine)
        torch.testing.assert_close(sampled[i : i + 1], alone, rtol=1e-6, atol=0)


def test_per_example_shapes_a_number_or_a_row() -> None:
    like = torch.zeros(3, 2, 4, dtype=torch.float64)
    assert per_example(2.0, like).shape == (3, 1, 1)
    assert per_example(torch.tensor([1.0, 2.0, 3.0]), like)[:, 0, 0].tolist() == [1.0, 2.0, 3.0]
    assert per_example(torch.tensor([1, 2, 3]), like).dtype == torch.float64


# ---------------------------------------------------------------- steepest


@EVERY
@given(seed=SEEDS, magnitude=st.sampled_from([1e-35, 1e-20, 1e-3, 1.0, 1e15, 1e30]))
@settings(max_examples=50, deadline=None)
def test_steepest_attains_the_dual_norm(norm: Norm, seed: int, magnitude: float) -> None:
    g = random(seed) * magnitude
    step = norm.steepest(g)
    torch.testing.assert_close(norm.size(step), torch.ones(4), rtol=1e-5, atol=0)
    gain = (g.double() * step.double()).flatten(1).sum(dim=1)
    torch.testing.assert_close(gain, dual_size(norm, g.double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("flushed", [False, True], ids=["denormals", "flushed"])
@EVERY
def test_no_gradient_no_step(norm: Norm, flushed: bool) -> None:
    """A zero gradient gives a zero step for that example alone; a NaN gradient spoils only its own example."""
    torch.set_flush_denormal(flushed)  # every task is computed with denormals flushed
    g = random(0)
    g[1] = 0
    g[2, 0, 0, 0] = torch.nan
    step = norm.steepest(g)
    assert not step[1].any()
    assert torch.equal(step[[0, 3]], norm.steepest(random(0))[[0, 3]])


# ---------------------------------------------------------------- sample


@EVERY
@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_samples_lie_in_the_ball(norm: Norm, seed: int) -> None:
    radius = radii(norm, seed)
    like = random(seed)
    sample = norm.sample(like, radius, rng.Stream("attack", torch.arange(4), seed))
    assert sample.shape == like.shape
    assert (norm.size(sample) <= radius * (1 + TOLERANCE)).all()
    assert not norm.sample(like, 0.0, rng.Stream("attack", torch.arange(4), seed)).any()


def ball(norm: Norm, radius: float, rows: int = 20000, d: int = 6) -> Tensor:
    stream = rng.Stream("attack", torch.arange(rows), part="start")
    return norm.sample(torch.empty(rows, d), radius, stream).double()


def test_l2_sample_is_uniform_in_the_ball() -> None:
    """(‖δ‖/r)^d is uniform; the direction is uniform on the sphere and independent of the length."""
    sample, d = ball(L2(), 0.7), 6
    size = sample.norm(dim=1)
    share = (size / 0.7) ** d
    assert stats.kstest(share.numpy(), "uniform").pvalue > 1e-3
    # A coordinate t of the sphere in d dimensions: (t + 1)/2 ~ Beta((d − 1)/2, (d − 1)/2).
    direction = sample / size[:, None]
    for i in range(d):
        t = ((direction[:, i] + 1) / 2).numpy()
        assert stats.kstest(t, stats.beta((d - 1) / 2, (d - 1) / 2).cdf).pvalue > 1e-3
        assert (
            abs(stats.spearmanr(direction[:, i].numpy(), size.numpy()).statistic) < 5 / 20000**0.5
        )
    across = direction.T @ direction / len(direction)
    torch.testing.assert_close(across, torch.eye(d, dtype=torch.float64) / d, rtol=0, atol=0.01)


def test_linf_sample_is_uniform_in_the_cube() -> None:
    sample = ball(Linf(), 0.7)
    for i in range(6):
        assert stats.kstest((sample[:, i] / 0.7).numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    across = sample.T @ sample / len(sample) / (0.49 / 3)
    torch.testing.assert_close(across, torch.eye(6, dtype=torch.float64), rtol=0, atol=0.05)


def test_l0_sample_changes_elements_at_random() -> None:
    sample = ball(L0(), 2.9)
    changed = sample != 0
    assert (changed.sum(dim=1) == 2).all()
    assert stats.chisquare(changed.sum(dim=0).numpy()).pvalue > 1e-3
    assert stats.kstest(sample[changed].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3


@EVERY
def test_samples_follow_their_stream(norm: Norm) -> None:
    like = torch.zeros(4, 2, 3, 3)
    stream = rng.Stream("attack", torch.arange(4), 1)
    first = norm.sample(like, 2.0, stream)
    assert torch.equal(first, norm.sample(like + 1, 2.0, stream))
    assert not torch.equal(first, norm.sample(like, 2.0, rng.Stream("attack", torch.arange(4), 2)))
    assert torch.equal(
        first[[2, 0]], norm.sample(like[:2], 2.0, rng.Stream("attack", torch.tensor([2, 0]), 1))
    )
