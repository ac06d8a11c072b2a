"""Certificates that lie are found where their images are attacked; honest ones are left in peace."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import norm

from linear import LinearNetwork
from noisychannel.attacks import PGD
from noisychannel.audit.consistency import Attacked, attacked, consistency
from noisychannel.channels import Gauss
from noisychannel.data import from_arrays
from noisychannel.defenses import Defense
from noisychannel.engine import (
    Certify,
    Craft,
    Execution,
    Measure,
    Plan,
    Store,
    Tick,
    certificates,
    run,
    serial,
    table,
)
from noisychannel.errors import UserError
from noisychannel.measures import certified
from noisychannel.norms import L2
from noisychannel.threats import non_adaptive

SIGMA = 0.25


def rows_of(
    selection: np.ndarray, scoring: np.ndarray, n: int, alpha: float, sigma: float = SIGMA
) -> pa.Table:
    """What Certify stores of these votes."""
    found = certified(selection, scoring, n, sigma, alpha)
    columns = {
        "index": np.arange(len(scoring)),
        "predicted": found.predicted,
        "radius": found.radius,
    }
    return pa.table({**columns, "alpha": np.full(len(scoring), alpha)})


def pair(counts: np.ndarray, n: int) -> np.ndarray:
    return np.stack([counts, n - counts], axis=1)


class World:
    """Two classes and a plane between them: an image at distance m answers class 0 with Φ(m/σ)."""

    def __init__(self, distances: np.ndarray, seed: int = 0) -> None:
        self.distances = distances
        self.random = np.random.default_rng(seed)

    def votes(self, distances: np.ndarray, n: int) -> np.ndarray:
        return pair(self.random.binomial(n, norm.cdf(distances / SIGMA)), n)

    def worst(self, rows: pa.Table, draws: int) -> Attacked:
        """Each image moved by its whole radius, straight away from its certified class."""
        far = rows.column("radius").to_numpy()
        away = np.where(rows.column("predicted").to_numpy() == 1, -1.0, 1.0)
        votes = self.votes(self.distances - away * far, draws)
        return Attacked(np.arange(len(far)), far, votes, draws)


# ---------------------------------------------------------------- honest


def test_honest_certificates_are_never_slandered() -> None:
    """At the worst points there are, and with an α at which a twentieth of the images may be certified wrongly."""
    failed = warned = 0
    for seed in range(300):
        world = World(np.linspace(-0.3, 0.3, 100), seed)
        for alpha in (0.001, 0.05):
            rows = rows_of(
                world.votes(world.distances, 100), world.votes(world.distances, 1000), 1000, alpha
            )
            status = consistency(rows, world.worst(rows, 20_000)).status
            failed, warned = failed + (status == "fail"), warned + (status == "warn")
    assert failed <= 3
    assert warned <= 50


def test_an_image_on_the_boundary_errs_over_all_that_were_asked() -> None:
    """Those few that do not abstain are all wrong, and no more than α of all images."""
    world = World(np.zeros(2000))
    rows = rows_of(
        world.votes(world.distances, 100), world.votes(world.distances, 1000), 1000, 0.01
    )
    found = consistency(rows, world.worst(rows, 10**7))
    assert found.status == "pass"
    assert "of 2" not in found.evidence[:4]  # of the certified only, a score or so


# ---------------------------------------------------------------- liars


def test_a_radius_of_another_sigma_is_found() -> None:
    world = World(np.linspace(0.05, 0.4, 100))
    cast = (world.votes(world.distances, 100), world.votes(world.distances, 10_000))
    honest = rows_of(*cast, 10_000, 0.001)
    liar = rows_of(*cast, 10_000, 0.001, sigma=1.5 * SIGMA)
    assert consistency(honest, world.worst(honest, 1000)).status == "pass"
    found = consistency(liar, world.worst(liar, 1000))
    assert found.status == "fail"
    assert found.name == "certificate-consistency"
    assert "σ" in found.mend
    assert "1,000 votes" in found.evidence


def test_a_class_chosen_on_the_draws_that_bound_it_is_found() -> None:
    """Of two equal classes the luckier is bounded: twice α of the images are certified for nothing."""
    world = World(np.zeros(4000))
    n, alpha = 1000, 0.05
    scoring = world.votes(world.distances, n)
    honest = rows_of(world.votes(world.distances, n), scoring, n, alpha)
    liar = rows_of(scoring, scoring, n, alpha)
    assert consistency(honest, world.worst(honest, 10**7)).status == "pass"
    assert consistency(liar, world.worst(liar, 10**7)).status == "fail"


def test_few_draws_passed_off_as_many_are_found() -> None:
    world = World(np.full(200, 0.2))
    few, n = world.votes(world.distances, 100), 100_000
    honest, liar = rows_of(few, few, 100, 0.001), rows_of(few, few * (n // 100), n, 0.001)
    assert consistency(honest, world.worst(honest, 10_000)).status == "pass"
    assert consistency(liar, world.worst(liar, 10_000)).status == "fail"


def test_one_image_lost_is_a_warning() -> None:
    rows = rows_of(pair(np.array([10]), 10), pair(np.array([1000]), 1000), 1000, 0.001)
    lost = Attacked(np.array([0]), np.array([0.1]), pair(np.array([0]), 1000), 1000)
    found = consistency(rows, lost)
    assert found.status == "warn"
    assert found.mend


# ---------------------------------------------------------------- what counts


def one(radius: float, predicted: int = 0) -> pa.Table:
    many = np.arange(50)
    return pa.table(
        {
            "index": many + 7,
            "predicted": 0 * many + predicted,
            "radius": 0.0 * many + radius,
            "alpha": 0.0 * many + 0.001,
        }
    )


def points(l2: float, share: float, images: int = 50, times: int = 1) -> Attacked:
    index = np.tile(np.arange(images) + 7, times)
    counts = np.full(len(index), round(1000 * share))
    return Attacked(index, np.full(len(index), l2), pair(counts, 1000), 1000)


def test_only_points_within_the_radius_count() -> None:
    assert consistency(one(0.5), points(0.5, 0.1)).status == "fail"
    beyond = consistency(one(0.5), points(0.501, 0.1))
    assert beyond.status == "not run"
    assert "none of 50 attacked points" in beyond.evidence
    assert consistency(one(0.0, -1), points(0.0, 0.1)).status == "not run"  # it abstains
    others = replace(points(0.1, 0.1), index=np.arange(50) + 1000)
    assert consistency(one(0.5), others).status == "not run"


def test_votes_may_err_by_chance_but_not_more() -> None:
    """1,000 draws: ½ ± 0.016; a test at α/10 = 0.0001 lets 0.442 pass, and 0.440 not."""
    assert consistency(one(0.5), points(0.1, 0.442)).status == "pass"
    assert consistency(one(0.5), points(0.1, 0.440)).status == "fail"


def test_several_points_of_an_image_are_one_image() -> None:
    few = consistency(one(0.5), points(0.1, 0.3, images=1, times=40))
    assert "of 1 images" in few.evidence
    assert "1 lost" in few.evidence
    # 100 tests of one image share its chance to err: none is as sure as one alone has to be.
    assert consistency(one(0.5), points(0.1, 0.440, times=100)).status == "pass"


def test_order_does_not_matter() -> None:
    world = World(np.linspace(0.05, 0.4, 100))
    cast = (world.votes(world.distances, 100), world.votes(world.distances, 1000))
    rows = rows_of(*cast, 1000, 0.001, sigma=1.5 * SIGMA)
    found = world.worst(rows, 1000)
    mixed = world.random.permutation(100)
    turned = Attacked(found.index[mixed], found.l2[mixed], found.votes[mixed], found.draws)
    assert consistency(rows.take(world.random.permutation(100)), turned) == consistency(rows, found)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (replace(points(0.1, 0.5), draws=999), "votes: expected at least 1,000 draws.*got 999"),
        (replace(points(0.1, 0.5), votes=np.full((50, 2), 900)), "votes: expected 0 … 1000"),
        (replace(points(0.1, 0.5), votes=np.zeros((50, 0), dtype=int)), "a column for each class"),
    ],
)
def test_votes_that_cannot_be_are_refused(wrong: Attacked, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        consistency(one(0.5), wrong)


def test_an_image_certified_twice_is_refused() -> None:
    with pytest.raises(UserError, match="one row per image"):
        consistency(pa.concat_tables([one(0.5), one(0.4)]), points(0.1, 0.5))


# ---------------------------------------------------------------- from the tasks' own rows


def test_the_rows_of_real_tasks_are_judged(tmp_path: Path) -> None:
    """PGD on a linear network goes straight to the boundary; thrice the radius lies beyond it."""
    network = LinearNetwork(shape=(1, 4, 4), classes=3, gain=4.0)
    batch = network.batch(30, spread=0.15)
    true = network.optimum(batch, 2).numpy()
    data, how = from_arrays(batch.x, batch.y, classes=3), Execution(threads=1, max_rows=2048)
    smoothed = Defense(network, Gauss(0.05))
    sure = Certify(data, Defense(network), 0.05, n0=20, n=5_000, execution=how)
    epsilon = 0.12
    craft = Craft(data, non_adaptive(smoothed), PGD(L2(), epsilon=epsilon, steps=20), execution=how)
    measure = Measure(data, smoothed, craft, draws=1000, execution=how)
    store = Store(tmp_path)

    def unwatched(whole: Plan, todo: Plan) -> Tick:
        return [].append

    run([sure, measure], store, serial, unwatched)
    rows = certificates(store, sure)
    hit = attacked(table(store, craft), table(store, measure))
    assert hit.votes.sum(1).tolist() == [1000] * 30
    assert hit.draws == 1000
    assert np.allclose(hit.l2, epsilon, atol=1e-4)
    assert ((true > 0.04) & (true < epsilon)).any()  # images that the attack takes
    assert consistency(rows, hit).status in ("pass", "not run")
    wide = rows.set_column(
        rows.schema.get_field_index("radius"),
        "radius",
        pa.array(3 * rows.column("radius").to_numpy()),
    )
    assert consistency(wide, hit).status == "fail"
    fewer = table(store, measure).slice(1)
    with pytest.raises(UserError, match="draws: expected as many of each image"):
        attacked(table(store, craft), fewer)
