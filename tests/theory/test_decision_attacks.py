"""Decision-based attacks where the answer is known: shares of noise and grey, Φ, a noisy boundary."""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from linear import LinearNetwork
from noisychannel import rng
from noisychannel.attacks import (
    AdditiveNoise,
    BlendedNoise,
    Boundary,
    ContrastReduction,
    HopSkipJump,
    MinimalContrast,
)
from noisychannel.attacks.oracle import Doubt
from noisychannel.attacks.starts import noise_image
from noisychannel.channels import Gauss
from noisychannel.decision import Decision, Single, Vote
from noisychannel.defenses import Defense
from noisychannel.norms import L2, Linf
from noisychannel.threats import DefenseView, adaptive, non_adaptive
from noisychannel.types import Adversarials, Attack, Batch, Status

NETWORK = LinearNetwork(gain=5.0)
PAIR = LinearNetwork(gain=5.0, classes=2)
AUTHORS = BlendedNoise(directions=1000, steps=100, search="linear", coarse=False, doubt=None)
SHORT = BlendedNoise(directions=10, steps=6)


def run(attack: Attack, batch: Batch, network: LinearNetwork = PAIR, **how: Any) -> Adversarials:
    """The attack on the bare network, under a root of its own."""
    with rng.root("decision"):
        return attack(DefenseView(non_adaptive(Defense(network))), batch, **how)


def logits_margin(network: LinearNetwork, x: Tensor, y: Tensor) -> Tensor:
    """z_y − z_k for every k (n, K); infinite for k = y."""
    z = network.build()(x)
    gap = z.gather(1, y[:, None]) - z
    return gap.scatter(1, y[:, None], torch.inf)


# ---------------------------------------------------------------- shares of grey and noise


def crossing(network: LinearNetwork, x: Tensor, towards: Tensor, y: Tensor) -> Tensor:
    """The smallest t at which (1 − t)·x + t·towards leaves the class y of a linear network; infinite if none."""
    here, there = logits_margin(network, x, y), logits_margin(network, towards, y)
    t = here / (here - there)
    return t.where(there < 0, torch.inf).nan_to_num(nan=torch.inf).amin(dim=1)


@pytest.mark.parametrize("level", [0.0, 0.2, 0.9])  # at ½ all logits are 0
def test_contrast_gives_in_where_a_margin_crosses(level: float) -> None:
    """To 2^−10/20 of the way, on five classes; not found where grey itself is of the example's class."""
    batch = NETWORK.batch(n=40)
    attack = MinimalContrast(level=level, scan=20, halvings=10)
    found = run(attack, batch, NETWORK)
    grey = torch.full_like(batch.x, level)
    exact = crossing(NETWORK, batch.x, grey, batch.y)
    there = exact < 1
    assert torch.equal(found.status == int(Status.FOUND), there)
    assert (found.status[~there] == int(Status.NOT_FOUND)).all()
    share = L2().distance(found.x, batch.x) / L2().distance(grey, batch.x)
    assert (share[there] >= exact[there] - 1e-5).all()
    assert (share[there] <= exact[there] + 2**-10 / 20 + 1e-5).all()
    one = there.nonzero()[:1, 0]
    for factor, wins in ((1.02, True), (0.98, False)):
        with_share = ContrastReduction(factor * float(exact[one]), level)
        said = run(with_share, batch.rows(one), NETWORK).status
        assert (said == int(Status.FOUND)).tolist() == [wins]


@pytest.mark.parametrize("search", ["binary", "linear"])
def test_blended_noise_gives_in_where_a_margin_crosses(search: Any) -> None:
    """x′ stands just beyond the crossing of its own line: to 2^−12 of the noise (binary), to 1/100 of it (linear)."""
    batch, steps = NETWORK.batch(n=24), 12 if search == "binary" else 100
    found = run(BlendedNoise(search=search, steps=steps, coarse=False), batch, NETWORK)
    assert (found.status == int(Status.FOUND)).all()
    way = crossing(NETWORK, batch.x, found.x, batch.y)
    # Uniform noise is farther away than any of its blends, so a step of the search is at most this long.
    step = (2**-12 if search == "binary" else 1 / 100) * 192**0.5
    assert (way <= 1 + 1e-5).all()
    assert ((1 - way) * L2().distance(found.x, batch.x) <= step).all()


def test_linear_search_stands_on_its_grid() -> None:
    """(x′ − x)/(u − x) is k/20 for the noise u of the first direction that is adversarial itself."""
    from noisychannel.attacks.starts import noise_image

    batch = PAIR.batch(n=8)
    found = run(BlendedNoise(search="linear", steps=20, coarse=False), batch)
    with rng.root("decision"):
        images = [noise_image(batch.x, batch.index, k, coarse=False) for k in range(30)]
    for i in range(8):
        wins = [u[i] for u in images if int(PAIR.build()(u)[i].argmax()) != int(batch.y[i])]
        share = ((found.x[i] - batch.x[i]) / (wins[0] - batch.x[i])).median() * 20
        assert abs(float(share) - round(float(share))) < 1e-3


# ---------------------------------------------------------------- additive noise


@pytest.mark.parametrize(
    ("attack", "deviation"),
    [
        (AdditiveNoise("gauss", L2(), epsilon=1.0), 1 / 192**0.5),
        (AdditiveNoise("uniform", L2(), epsilon=1.0), 1 / 192**0.5),
        (AdditiveNoise("uniform", Linf(), epsilon=0.1), 0.1 / 3**0.5),
        (AdditiveNoise("uniform", Linf(), epsilon=0.3, squared=True), 0.09 / 3**0.5),
    ],
    ids=repr,
)
def test_noise_succeeds_as_phi_says(attack: AdditiveNoise, deviation: float) -> None:
    """P(success) = Φ(−margin/(s‖w‖)) on two classes, s the deviation per pixel; the central limit does the rest."""
    batch = PAIR.batch(n=2000, spread=0.03)
    found = run(attack, batch)
    chance = torch.distributions.Normal(0.0, 1.0).cdf(-PAIR.optimum(batch, 2.0) / deviation)
    wanted, variance = chance.sum(), (chance * (1 - chance)).sum()
    assert wanted > 20
    won = (found.status == int(Status.FOUND)).sum()
    assert abs(float(won - wanted)) < 4.5 * float(variance) ** 0.5


def test_more_repeats_find_more_where_nothing_is_random() -> None:
    """1 − (1 − p)^k: k independent draws of noise."""
    batch = PAIR.batch(n=1000, spread=0.03)
    attack = AdditiveNoise("gauss", L2(), epsilon=1.0, repeats=5)
    chance = torch.distributions.Normal(0.0, 1.0).cdf(-PAIR.optimum(batch, 2.0) * 192**0.5)
    chance = 1 - (1 - chance) ** 5
    won = (run(attack, batch).status == int(Status.FOUND)).sum()
    assert abs(float(won - chance.sum())) < 4.5 * float((chance * (1 - chance)).sum()) ** 0.5


# ---------------------------------------------------------------- starts


def test_a_given_start_is_walked_from() -> None:
    """And one that is not adversarial gives way to noise."""
    batch = PAIR.batch(n=8)
    far = PAIR.batch(n=40, spread=0.3, seed=9)
    start = torch.stack([far.x[(far.y != y).nonzero()[0, 0]] for y in batch.y])
    near = L2().distance(start, batch.x)
    found = run(Boundary(steps=1), batch, start=start)
    assert (found.status == int(Status.FOUND)).all()
    assert (L2().distance(found.x, batch.x) <= near + 1e-5).all()
    assert (L2().distance(found.x, start) <= 0.6 * near).all()  # one step of .05, and .3 aside
    start[3] = batch.x[3]
    found = run(HopSkipJump(steps=1, probes=5), batch, start=start)
    assert (found.status == int(Status.FOUND)).all()


@pytest.mark.parametrize("attack", [Boundary(start=SHORT), HopSkipJump(start=SHORT), SHORT])
def test_no_start_is_a_status(attack: Attack) -> None:
    constant = LinearNetwork(gain=0.0)
    batch = replace(constant.batch(n=4), y=torch.zeros(4, dtype=torch.int64))
    found = run(attack, batch, constant)
    assert (found.status == int(Status.INIT_FAILED)).all()
    assert (found.cost.forwards <= attack.queries + 2).all()  # two candidates are judged


def test_no_budget_is_a_status() -> None:
    """Whose budget does not reach to a start is exhausted; whose steps it cuts short hands over what he has."""
    constant = LinearNetwork(gain=0.0)
    batch = replace(constant.batch(n=4), y=torch.zeros(4, dtype=torch.int64))
    found = run(Boundary(queries=8), batch, constant)
    assert (found.status == int(Status.BUDGET_EXHAUSTED)).all()
    assert (found.cost.forwards <= 8 + 3).all()
    found = run(Boundary(queries=100), PAIR.batch(n=6))
    assert (found.status == int(Status.FOUND)).all()
    assert (found.cost.forwards <= 100 + 3).all()
    assert (found.cost.forwards >= 100).all()


@pytest.mark.parametrize("make", [Boundary, HopSkipJump], ids=lambda make: make.__name__)
def test_nobody_spends_more_than_his_budget(make: Any) -> None:
    """Examples run out of it at different times; who has, is not asked on while others are."""
    batch = NETWORK.batch(n=6)
    noisy = replace(adaptive(Defense(NETWORK, Gauss(0.3), Vote(9))), selection_draws=0)
    attack = make(queries=700, steps=60, start=BlendedNoise(search="linear"))
    with rng.root("poor"):
        found = attack(DefenseView(noisy), batch)
    assert (found.cost.forwards <= 700).all()
    assert (found.cost.forwards > 500).any()


@dataclass
class _Lucky:
    """An oracle to which .3 of the way to noise of mean `size` is adversarial while searched, .36 from then on."""

    batch: Batch
    size: Tensor
    most: int = 1
    doubt: Doubt | None = Doubt()
    asked: int = 0

    def __post_init__(self) -> None:
        self.silent = self.exhausted = torch.zeros_like(self.batch.y, dtype=torch.bool)

    def solvent(self, rows: Tensor, _: int) -> Tensor:
        return rows

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        self.asked += 1
        least = 0.3 if self.asked <= 2 + SHORT.steps else 0.36
        return x.flatten(1).mean(dim=1) >= least * self.size[rows]

    if_paid = __call__


@pytest.mark.usefixtures("unchecked")
def test_what_only_luck_found_is_sought_a_little_farther_out() -> None:
    """Not at the noise image itself: where the search ends is refused, .05 of the rest as well, .15 of it confirmed."""
    zeros = torch.zeros(2, dtype=torch.int64)
    batch = Batch(torch.zeros(2, 1, 4, 4), zeros, torch.arange(2))
    size = noise_image(batch.x, batch.index, 0, coarse=True).flatten(1).mean(dim=1)
    lucky: Any = _Lucky(batch, size)
    began = SHORT.begin(lucky, None)
    assert began.found.all()
    edge = math.ceil(0.3 * 2**SHORT.steps) / 2**SHORT.steps
    share = began.x.flatten(1).mean(dim=1) / size
    torch.testing.assert_close(share, torch.full_like(share, edge + 0.15 * (1 - edge)))


def test_answers_that_are_all_equal_have_a_direction() -> None:
    """foolbox #670, ART #307: deep inside the other class every probe agrees; the walk goes on, and is finite."""
    batch = PAIR.batch(n=6)
    found = run(HopSkipJump(halvings=1, reach=1e-4, steps=4, probes=8), batch)
    assert (found.status == int(Status.FOUND)).all()
    assert found.x.isfinite().all()


# ---------------------------------------------------------------- foolbox beside them


@pytest.mark.parametrize(
    ("name", "ours", "norm", "theirs"),
    [
        ("BoundaryAttack", Boundary(steps=300), L2(), {"steps": 300}),
        ("HopSkipJumpAttack", HopSkipJump(steps=4, probes=50), L2(), {"constraint": "l2"}),
        (
            "HopSkipJumpAttack",
            HopSkipJump(Linf(), steps=4, probes=50),
            Linf(),
            {"constraint": "linf"},
        ),
    ],
    ids=["Boundary", "HopSkipJump L2", "HopSkipJump Linf"],
)
def test_as_near_as_foolbox(name: str, ours: Any, norm: Any, theirs: dict[str, Any]) -> None:
    """From the same starts, after as many steps, the median distance is no larger than foolbox's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed")
    batch, module = NETWORK.batch(n=16), NETWORK.build()
    start = run(BlendedNoise(steps=1), batch, NETWORK).x
    if "constraint" in theirs:
        theirs = {**theirs, "steps": 4, "initial_gradient_eval_steps": 50}
    model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    torch.manual_seed(0)
    attack = getattr(foolbox.attacks, name)(**theirs)
    peer = attack(model, batch.x, batch.y, epsilons=None, starting_points=start)[1]
    found = run(ours, batch, NETWORK, start=start)
    assert (found.status == int(Status.FOUND)).all()
    mine, others = norm.distance(found.x, batch.x), norm.distance(peer, batch.x)
    assert mine.median() <= others.median()


# ---------------------------------------------------------------- a noisy boundary


def noisy_case(n: int) -> tuple[Batch, Tensor, float]:
    """Examples at 1.2 σ and more from the boundary, their distances, σ: a draw at the example errs with p < .12."""
    batch = PAIR.batch(n=2 * n)
    optimum = PAIR.optimum(batch, 2.0)
    sigma = float(optimum.median()) / 1.5
    far = (optimum > 1.2 * sigma).nonzero()[:n, 0]
    return batch.rows(far), optimum[far], sigma


def jury(x: Tensor, batch: Batch, channel: Gauss) -> Tensor:
    """Share of 400 scoring draws that err."""
    with rng.root("jury"), rng.bracket(rng.Stream("scoring", batch.index, draws=range(400))):
        seen = channel(x.repeat(400, 1, 1, 1))
    return (PAIR.build()(seen).argmax(dim=1).view(400, -1) != batch.y).float().mean(dim=0)


# Of .5 − .1: the choice is made on 16 draws, of which half must err: at p = .4 a quarter of the candidates passes,
# at p = .25 one of 40. And 400 draws of the jury see p to ± .025.
LEAST = 0.25


@pytest.mark.parametrize(
    ("attack", "factor"),
    [(Boundary(queries=1500), 8.0), (HopSkipJump(queries=1500), 6.0)],
    ids=["Boundary", "HopSkipJump"],
)
@pytest.mark.parametrize("rule", [Single(), Vote(16)], ids=repr)
def test_a_noisy_boundary_is_reached_without_luck(
    attack: Attack, factor: float, rule: Decision
) -> None:
    """P(error) Φ((r − r*)/σ) at least the target less the zone, so no nearer than r* − .25 σ; and not far away."""
    batch, optimum, sigma = noisy_case(8)
    channel = Gauss(sigma)
    with rng.root("noisy"):
        found = attack(DefenseView(adaptive(Defense(PAIR, channel, rule))), batch)
    assert (found.status == int(Status.FOUND)).all()
    rate = jury(found.x, batch, channel)
    assert (rate >= LEAST).all()
    assert rate.median() >= 0.4
    distance = L2().distance(found.x, batch.x)
    assert (distance >= optimum - 0.7 * sigma).all()  # Φ(−.7) = .24
    assert distance.median() <= factor * optimum.median()


def test_who_believes_single_draws_is_left_with_nothing() -> None:
    """The paper's "Boundary fails on RobustNet": each of many draws errs now and then, and he follows that draw."""
    batch, _, sigma = noisy_case(8)
    channel = Gauss(sigma)
    attack = Boundary(steps=300, doubt=None, start=AUTHORS)
    with rng.root("noisy"):
        found = attack(DefenseView(adaptive(Defense(PAIR, channel))), batch)
    rate = jury(found.x, batch, channel)
    assert rate.median() < 0.2
    assert (rate < 0.4).float().mean() >= 0.9
    assert (found.status == int(Status.NOT_FOUND)).float().mean() >= 0.9


@pytest.mark.parametrize("attack", [SHORT, Boundary(steps=20, start=SHORT)])
def test_truncated_questions_are_counted(attack: Any) -> None:
    """Of a test of 6 draws many are cut off; of one of 4,000 draws none is, nor of a single draw believed."""
    batch = PAIR.batch(n=20)
    view = DefenseView(adaptive(Defense(PAIR, Gauss(0.3), Vote(16))))
    cut = {}
    for doubt in (Doubt(missed=0.05, draws=6), Doubt(missed=0.05, draws=4000), None):
        start = replace(SHORT, doubt=doubt)
        walk = attack is not SHORT
        asked = replace(attack, doubt=doubt, start=start, queries=10**6) if walk else start
        with rng.root("cut off"):
            cost = asked(view, batch).cost
        cut[doubt] = int(cost.truncated.sum())
    few, many, blind = cut.values()
    assert few > 20
    assert many == blind == 0
