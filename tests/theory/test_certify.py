"""Randomized smoothing: certificates of a network whose radius is known, and the statistics that they rest on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import binom, binomtest, norm
from torch import Tensor, nn

from linear import FixedNetwork, LinearNetwork
from noisychannel.channels import Chain, Clip, Gauss, Identity, Uniform
from noisychannel.data import DataSpec, from_arrays
from noisychannel.defenses import Defense, Operated, ParamNet
from noisychannel.engine import (
    Certify,
    Execution,
    Plan,
    Store,
    Tick,
    base_of,
    certificates,
    key_of,
    run,
    serial,
)
from noisychannel.errors import UserError
from noisychannel.measures import ABSTAIN, certified, predicted
from noisychannel.measures.certify import lower_bound, radius
from noisychannel.networks import SmallNet

NETWORK = LinearNetwork(shape=(1, 4, 4), classes=2, gain=4.0)
HOW = Execution(threads=1, micro_batch=64, max_rows=4096)
SIGMA = 0.25


class _Speechless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        one = torch.ones(len(x), 1)
        said = torch.cat([-one, one], 1)
        return said.where(x.flatten(1).mean(1, keepdim=True) < 0.52, torch.nan)


@dataclass(frozen=True)
class Speechless(FixedNetwork):
    """Class 1 where the mean is below 0.52; elsewhere no number."""

    shape: ClassVar[tuple[int, ...]] = (1, 4, 4)

    def build(self) -> nn.Module:
        return _Speechless().eval()


def unwatched(whole: Plan, todo: Plan) -> Tick:
    return [].append


def made(task: Certify, folder: Path) -> pa.Table:
    store = Store(folder)
    run([task], store, serial, unwatched)
    return certificates(store, task)


def column(rows: pa.Table, name: str) -> np.ndarray:
    return rows.column(name).to_numpy()


def votes(rows: pa.Table, name: str = "votes") -> np.ndarray:
    return np.stack(column(rows, name))


def at(distances: np.ndarray, away: float = 0.5) -> Tensor:
    """Points at these distances from the boundary of NETWORK, on the side of class 0."""
    w = NETWORK.weight()
    normal = (w[0] - w[1]) / (w[0] - w[1]).norm()
    return (away + torch.tensor(distances)[:, None] * normal.double()).float().view(-1, 1, 4, 4)


def task_at(distances: np.ndarray, **changes: object) -> Certify:
    data = from_arrays(at(distances), [0] * len(distances), classes=2)
    whole = Certify(data, Defense(NETWORK), SIGMA, n0=100, n=1000, alpha=0.001, execution=HOW)
    return replace(whole, **changes)


# ---------------------------------------------------------------- a linear network


def test_a_radius_is_above_the_true_one_at_most_as_often_as_alpha(tmp_path: Path) -> None:
    """Cohen et al., Theorem 2: for a linear network the smoothed radius is the distance from the boundary."""
    true = np.linspace(0.02, 0.5, 600)
    alpha = 0.05
    rows = made(task_at(true, alpha=alpha), tmp_path)
    wrong = (column(rows, "radius") > true) | (column(rows, "predicted") == 1)
    assert wrong.sum() <= binom.ppf(0.999, len(true), alpha)
    assert wrong.sum() >= binom.ppf(
        0.001, len(true), alpha / 2
    )  # a bound, and no lower than it has to be


def test_with_many_draws_the_radius_is_close_to_the_true_one(tmp_path: Path) -> None:
    true = np.array([0.05, 0.125, 0.25, 0.5])
    rows = made(task_at(true, n=100_000), tmp_path)
    share = norm.cdf(true / SIGMA)
    # To first order: the bound lies Φ⁻¹(1 − α) + |z| standard errors below, the slope of Φ⁻¹ is 1/φ.
    error = np.sqrt(share * (1 - share) / 100_000) / norm.pdf(true / SIGMA) * SIGMA
    assert (column(rows, "predicted") == 0).all()
    assert (column(rows, "radius") <= true).all()
    assert (column(rows, "radius") >= true - (3.1 + 4) * error).all()
    assert (column(rows, "radius") == SIGMA * norm.ppf(column(rows, "bound"))).all()


def test_on_the_boundary_it_abstains(tmp_path: Path) -> None:
    rows = made(task_at(np.zeros(500), alpha=0.05), tmp_path)
    sure = column(rows, "predicted") != ABSTAIN
    assert sure.sum() <= binom.ppf(0.999, 500, 0.05)
    assert (column(rows, "radius")[~sure] == 0).all()
    assert (column(rows, "radius")[sure] > 0).all()


def test_selection_and_scoring_share_no_draw(tmp_path: Path) -> None:
    rows = made(task_at(np.zeros(400), n0=200, n=200), tmp_path)
    one, two = votes(rows, "selection_votes")[:, 0], votes(rows)[:, 0]
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(400)
    for found in (one, two):  # and each is fair
        assert abs(found.mean() - 100) < 4 * np.sqrt(50 / 400)
        assert 0.7 < found.var() / 50 < 1.4


def test_twice_the_noise_at_twice_the_distance_has_the_same_votes_and_twice_the_radius(
    tmp_path: Path,
) -> None:
    true = np.linspace(0.02, 0.2, 8)
    near = made(task_at(true, n=4000), tmp_path)
    far = made(task_at(2 * true, n=4000, sigma=2 * SIGMA), tmp_path)
    assert np.abs(votes(near) - votes(far)).max() <= 2  # but for rounding: the same draws
    assert np.allclose(2 * column(near, "radius"), column(far, "radius"), rtol=1e-2, atol=1e-3)


def test_noise_is_not_clipped(tmp_path: Path) -> None:
    """At a corner of the box half of all noise points outside, where a clipped network would see none of it."""
    corner = torch.zeros(4, 1, 4, 4)
    w = NETWORK.weight()
    tilted = (w[0] - w[1]).norm()
    margin = float(-(w[0] - w[1]).sum() / 2)
    rows = made(
        replace(task_at(np.zeros(1)), data=from_arrays(corner, [0] * 4, classes=2), n=20_000),
        tmp_path,
    )
    share = norm.cdf(margin / (SIGMA * float(tilted)))
    assert np.abs(votes(rows)[:, 0] / 20_000 - share).max() < 5 * np.sqrt(0.25 / 20_000)


def test_a_base_that_is_itself_random_loses_radius(tmp_path: Path) -> None:
    """With noise τ of its own P(c) = Φ(m/√(σ² + τ²)): a radius of m·σ/√(σ² + τ²)."""
    tau = 0.25
    noisy = Defense(NETWORK, Chain(Identity(), Gauss(tau)))
    rows = made(task_at(np.array([0.1, 0.2]), defense=noisy, n=100_000), tmp_path)
    best = np.array([0.1, 0.2]) * SIGMA / np.hypot(SIGMA, tau)
    assert (column(rows, "radius") <= best).all()
    assert (column(rows, "radius") >= best - 0.02 * SIGMA).all()


def test_what_is_no_number_is_nobodys_vote(tmp_path: Path) -> None:
    rows = made(task_at(np.zeros(2), defense=Defense(Speechless()), n=400), tmp_path)
    cast = votes(rows)
    assert (cast[:, 0] == 0).all()
    assert (np.abs(cast[:, 1] / 400 - norm.cdf(0.02 / (SIGMA / 4))) < 5 * 0.5 / 20).all()
    assert (column(rows, "top_count") == cast[:, 1]).all()
    assert (column(rows, "bound") < 0.63).all()  # of all draws, not of those that answered


def test_series_are_examples_too(tmp_path: Path) -> None:
    net = LinearNetwork(shape=(1, 20), classes=3)
    batch = net.batch(3)
    data = from_arrays(batch.x, batch.y, classes=3)
    rows = made(Certify(data, Defense(net), 0.05, n0=10, n=50, execution=HOW), tmp_path)
    assert votes(rows).sum(1).tolist() == [50] * 3


# ---------------------------------------------------------------- the statistics


@pytest.mark.parametrize("n", [1, 10, 200])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
def test_the_bound_covers(n: int, alpha: float) -> None:
    """Over all counts: P(bound ≤ p) ≥ 1 − α for each p, and hardly more where there are many counts."""
    counts = np.arange(n + 1)
    bound = lower_bound(counts, n, alpha)
    p = np.linspace(0.001, 0.999, 333)
    covered = (binom.pmf(counts, n, p[:, None]) * (bound <= p[:, None])).sum(1)
    assert covered.min() >= 1 - alpha - 1e-9
    if n == 200 and alpha >= 0.05:
        assert np.median(covered) < 1 - 0.7 * alpha


def test_the_bound_at_its_ends() -> None:
    n = 1000
    low, high = lower_bound(np.array([0, n]), n, 0.001)
    assert low == 0
    assert high == pytest.approx(0.001 ** (1 / n))


def test_radii_of_the_authors_tables() -> None:
    """Cohen et al.'s released table for CIFAR-10, σ = 0.25, n = 100,000: with 0, 1 … draws of another class.

    Its largest radii are those of α = 0.01; the paper's 0.001 gives 0.953.
    """
    n = 100_000
    for alpha, theirs in ((0.01, (0.978, 0.955, 0.941, 0.929, 0.920)), (0.001, (0.953,))):
        scoring = np.array([[n - k, k] for k in range(len(theirs))])
        found = certified(scoring, scoring, n, 0.25, alpha)
        assert np.allclose(found.radius, theirs, rtol=0, atol=6e-4)


def test_the_class_is_the_selections_and_the_count_the_scorings() -> None:
    selection = np.array([[0, 10], [10, 0], [5, 5]])
    scoring = np.array([[990, 10], [990, 10], [990, 10]])
    found = certified(selection, scoring, 1000, 1.0, 0.001)
    assert found.top.tolist() == [1, 0, 0]
    assert found.count.tolist() == [10, 990, 990]
    assert found.predicted.tolist() == [ABSTAIN, 0, 0]
    assert found.radius[0] == 0
    assert found.radius[1] == pytest.approx(norm.ppf(lower_bound(np.array([990]), 1000, 0.001)[0]))


def test_a_bound_of_a_half_certifies_nothing() -> None:
    """With 10 of 10 votes the bound α^(1/10) passes ½ at α = 2⁻¹⁰."""
    ten = np.array([[10, 0]])
    assert certified(ten, ten, 10, 1.0, 2**-10 * 0.99).predicted.tolist() == [ABSTAIN]
    assert certified(ten, ten, 10, 1.0, 2**-10 * 1.01).predicted.tolist() == [0]


def test_radius_grows_with_sigma_and_is_zero_at_a_half() -> None:
    bound = np.array([0.5, 0.8413447460685429, 0.9772498680518208])
    assert np.allclose(radius(bound, 0.5), [0, 0.5, 1.0])
    assert np.allclose(radius(bound, 1.0), 2 * radius(bound, 0.5))


def test_predict_is_the_two_sided_binomial_test() -> None:
    """PREDICT: with 100 draws of two classes and α = 0.001 it takes 67 to 33."""
    assert predicted(np.array([[66, 34], [67, 33], [33, 67], [50, 50]]), 0.001).tolist() == [
        ABSTAIN,
        0,
        1,
        ABSTAIN,
    ]
    drawn = np.random.default_rng(0).multinomial(60, (0.5, 0.3, 0.2), size=200)
    for row, answer in zip(drawn, predicted(drawn, 0.05), strict=True):
        second, first = sorted(row.tolist())[1:]
        sure = binomtest(first, first + second, 0.5).pvalue <= 0.05
        assert answer == (row.argmax() if sure else ABSTAIN)


def test_predict_between_equal_classes_answers_at_most_as_often_as_alpha() -> None:
    n, alpha = 101, 0.05
    counts = np.arange(n + 1)
    answered = predicted(np.stack([counts, n - counts], 1), alpha) != ABSTAIN
    assert 0.5 * alpha < binom.pmf(counts, n, 0.5)[answered].sum() <= alpha


def test_predict_without_votes_abstains() -> None:
    assert predicted(np.zeros((1, 3), dtype=np.int64), 0.001).tolist() == [ABSTAIN]
    assert predicted(np.array([[1000]]), 0.001).tolist() == [0]  # a network of one class


# ---------------------------------------------------------------- the task


RANDOM = Defense(NETWORK, Uniform(0.3))
SHARED = Defense(Operated(SmallNet(classes=2, width=2), ParamNet(0.2)))


@pytest.mark.parametrize("base", [Defense(NETWORK), RANDOM, SHARED], ids=["fixed", "own", "shared"])
def test_draws_are_no_function_of_batches_or_parts(base: Defense, tmp_path: Path) -> None:
    net = base.network.shape
    data = from_arrays(
        torch.rand(7, *net, generator=torch.Generator().manual_seed(0)), [0, 1] * 3 + [0]
    )
    few = base == SHARED  # a pass per draw
    whole = Certify(data, base, SIGMA, n0=3, n=10 if few else 60, execution=HOW)
    one = made(whole, tmp_path)
    for micro, rows in ((3, 5), (1, 64)):
        other = made(replace(whole, execution=Execution("cpu", 1, micro, rows)), tmp_path)
        for name in ("index", "label", "predicted", "radius"):
            assert (column(one, name) == column(other, name)).all()
        for name in ("votes", "selection_votes"):
            assert (votes(one, name) == votes(other, name)).all()
    part = made(replace(whole, data=data.slice(4, 7)), tmp_path)
    assert part.equals(one.slice(4))


def test_another_seed_another_defense_other_draws(tmp_path: Path) -> None:
    task = task_at(np.zeros(50))
    one = votes(made(task, tmp_path))
    same = Defense(NETWORK, Chain(Identity()))  # in all but its name
    for other in (replace(task, seed=1), replace(task, defense=same)):
        assert (votes(made(other, tmp_path)) != one).any(1).mean() > 0.8


def test_more_draws_begin_with_the_same(tmp_path: Path) -> None:
    one = votes(made(task_at(np.zeros(5), n=500), tmp_path))
    two = votes(made(task_at(np.zeros(5), n=700), tmp_path))
    assert ((two >= one) & (two - one <= 200)).all()


def test_equal_keys_make_equal_bytes_and_progress_is_counted(tmp_path: Path) -> None:
    ticks: list[float] = []
    task = task_at(np.linspace(0.1, 0.3, 5), n0=7, n=300)
    one = task.run(Store(tmp_path), ticks.append)
    assert one == task.run(Store(tmp_path), ticks.append)
    assert sum(ticks) == 2 * task.work == 2 * 5 * 307


def test_a_killed_run_goes_on_from_the_parts_that_it_made(tmp_path: Path) -> None:
    parts = task_at(np.array([0.1, 0.2, 0.3, 0.4]), n=66_000).parts()
    assert [t.data.size for t in parts] == [3, 1]

    class Killed(Exception):
        pass

    def mortal(whole: Plan, todo: Plan) -> Tick:
        done = 0.0

        def tick(amount: float) -> None:
            nonlocal done
            done += amount
            if done > parts[0].work + 10_000:
                raise Killed

        return tick

    store, other = Store(tmp_path / "killed"), Store(tmp_path / "whole")
    with pytest.raises(Killed):
        run(parts, store, serial, mortal)
    assert [store.has(key_of(t)) for t in parts] == [True, False]
    left: list[int] = []

    def watch(whole: Plan, todo: Plan) -> Tick:
        left.append(len(todo.tasks))
        return [].append

    run(parts, store, serial, watch)
    assert left == [1]
    run(parts, other, serial, unwatched)
    for task in parts:
        assert certificates(store, task).equals(certificates(other, task))


def test_a_pass_of_shared_weights_is_filled_with_images() -> None:
    data = DataSpec("digits", subset="first:100")
    task = Certify(data, SHARED, SIGMA, n=100_000, execution=Execution(micro_batch=40))
    assert [t.data.size for t in task.parts()] == [40, 40, 20]
    assert len(replace(task, defense=Defense(SmallNet())).parts()) == 100


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"sigma": 0.0}, "sigma: expected a standard deviation > 0.*got 0.0"),
        ({"sigma": -1.0}, "sigma: expected a standard deviation > 0.*got -1"),
        ({"sigma": float("nan")}, "sigma: expected .*got nan"),
        ({"sigma": float("inf")}, "sigma: expected .*got inf"),
        ({"n0": 0}, "n0: expected a whole number ≥ 1, got 0"),
        ({"n": 0}, "n: expected a whole number ≥ 1, got 0"),
        ({"alpha": 0.0}, r"alpha: expected .*in \(0, 0.5\).*got 0.0"),
        ({"alpha": 0.5}, "alpha: expected .*got 0.5"),
        ({"alpha": float("nan")}, "alpha: expected .*got nan"),
        ({"defense": Defense(NETWORK, Gauss(0.1))}, "without the Gaussian noise.*base_of"),
        ({"defense": Defense(NETWORK, Chain(Gauss(0.1), Clip()))}, "without the Gaussian noise"),
    ],
)
def test_bad_numbers_are_refused(changed: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        task_at(np.zeros(1), **changed)


def test_too_few_classes_are_refused(tmp_path: Path) -> None:
    data = from_arrays(at(np.zeros(2)), [0, 4], classes=5)
    with pytest.raises(UserError, match=r"classes of the network: .* at least the 5.*got 2"):
        made(Certify(data, Defense(NETWORK), SIGMA, n=10, execution=HOW), tmp_path)


def test_votes_that_cannot_be_are_refused() -> None:
    some = np.array([[3, 1]])
    with pytest.raises(UserError, match="votes: expected 0 … 2 of 2 draws, got 3"):
        certified(some, some, 2, 1.0, 0.01)
    with pytest.raises(UserError, match="n: expected a whole number"):
        lower_bound(np.array([0]), 0, 0.01)
    with pytest.raises(UserError, match="alpha"):
        predicted(some, 0.7)


@pytest.mark.usefixtures("unchecked")
def test_votes_of_other_examples_are_refused() -> None:
    with pytest.raises(UserError, match=r"votes: expected selection \(1, 2\)"):
        certified(np.array([[3, 1], [1, 3]]), np.array([[3, 1]]), 4, 1.0, 0.01)


def test_a_smoothed_defense_is_its_base_and_its_noise() -> None:
    for channel, rest in (
        (Gauss(0.25), Identity()),
        (Chain(Gauss(0.25), Clip()), Clip()),
        (Chain(Chain(Gauss(0.25), Clip()), Uniform(0.1)), Chain(Clip(), Uniform(0.1))),
    ):
        for said in (None, 0.25):
            assert base_of(Defense(NETWORK, channel), said) == (Defense(NETWORK, rest), 0.25)
    assert base_of(Defense(NETWORK, Clip()), 0.5) == (Defense(NETWORK, Clip()), 0.5)
    assert base_of(Defense(NETWORK, Chain(Gauss(0.3), Gauss(0.4))))[1] == 0.5
    with pytest.raises(UserError, match=r"sigma: expected 0.25, the noise .*got 0.5"):
        base_of(Defense(NETWORK, Gauss(0.25)), 0.5)
    with pytest.raises(UserError, match="sigma: expected a target gauss:SIGMA, or --sigma"):
        base_of(Defense(NETWORK, Clip()))
