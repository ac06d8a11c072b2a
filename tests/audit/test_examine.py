"""An examination finds what each planted liar hides, slanders no honest network, and refuses what is none."""

import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import fakes_networks as fakes
from noisychannel.attacks import PGD, Square
from noisychannel.audit import Examination, Facts, examine
from noisychannel.audit.subject import LAW_DRAWS, compared
from noisychannel.audit.watch import Watch
from noisychannel.data import from_arrays
from noisychannel.defenses import PNI, Defense, Operated, ParamNet, RobustNet
from noisychannel.engine import Craft, Measure, Store, run, serial, table
from noisychannel.errors import UserError
from noisychannel.networks import Foreign, SmallNet
from noisychannel.noise import GaussLaw
from noisychannel.norms import Linf
from noisychannel.threats import adaptive
from noisychannel.types import Batch

DATA = fakes.digits()


class Expected(NamedTuple):
    """What must be found, and what may be: nothing else may be more than a pass."""

    must: dict[str, str]
    may: tuple[str, ...] = ()
    facts: Mapping[str, object] = MappingProxyType({})


NO_GRADIENT = {"gradient-reaches-input": "fail"}

LIES = {
    "argmax": Expected(
        {**NO_GRADIENT, "logits": "warn"}, ("gradient-faithful",), {"differentiable": "zero"}
    ),
    "loud": Expected({"logits": "fail"}, facts={"differentiable": "present"}),
    "quantised": Expected(
        {**NO_GRADIENT, "gradient-faithful": "fail"}, facts={"differentiable": "zero"}
    ),
    "thermometer": Expected(NO_GRADIENT, ("gradient-faithful",), {"differentiable": "none"}),
    "random gradient": Expected({"gradient-faithful": "fail"}, facts={"random": False}),
    "shared noise": Expected(
        {"independent-draws": "warn"}, facts={"random": True, "shared_by": "batch"}
    ),
    "hash seeded": Expected(
        {"fresh-draws": "fail"},
        ("gradient-faithful",),
        {"random": False, "seeded_by_input": True, "clobbers_generator": False},
    ),
    "grid hash seeded": Expected(
        {"fresh-draws": "fail"}, facts={"random": False, "seeded_by_input": True}
    ),
    "fixed seed": Expected(
        {"fresh-draws": "fail", "batch-size": "fail"},
        facts={"random": False, "seeded_fixed": True, "clobbers_generator": True},
    ),
    "no_grad": Expected({"no-grad": "fail"}, ("gradient-faithful",), {"mode_dependent": True}),
    "alone": Expected(
        {"batch-size": "fail"}, facts={"batch_size_dependent": True, "batch_dependent": False}
    ),
    "counting": Expected({"number-of-calls": "fail"}, facts={"call_dependent": True}),
    "off grid": Expected(
        {"eight-bit-grid": "fail", **NO_GRADIENT}, ("gradient-faithful",), {"off_grid": True}
    ),
    "resize and pad": Expected(
        {"independent-draws": "warn"}, facts={"random": True, "shared_by": "batch"}
    ),
    "dropout": Expected({"eval-mode": "warn"}, facts={"random": True, "shared_by": "example"}),
    "logit noise": Expected({"randomness": "warn"}, facts={"random": True}),
    "decoy slope": Expected({"gradient-faithful": "warn"}, facts={"differentiable": "present"}),
    "ripples": Expected({"gradient-faithful": "fail"}, facts={"differentiable": "present"}),
    # Noise that varies with the input as fast as a hash of it, and is as good.
    "random ripples": Expected(
        {"fresh-draws": "fail", "gradient-faithful": "fail"}, facts={"random": True}
    ),
    # These lie where no gradient is asked for before the attack: what gives them away is that others win more.
    "sawtooth": Expected({}),
    "squashed": Expected({}),
    "squashed noise": Expected({}, facts={"random": True}),
    "remembering": Expected({}),
    "NaN gradient": Expected(NO_GRADIENT, ("gradient-faithful",), {"differentiable": "zero"}),
    "abstaining": Expected(NO_GRADIENT, ("gradient-faithful",), {"differentiable": "zero"}),
}

REMARKS = {
    "probabilities": Expected({"logits": "warn"}, facts={"probabilities": True}),
    "input noise": Expected({}, facts={"random": True, "shared_by": "example"}),
    "weight noise": Expected(
        {"independent-draws": "warn"}, facts={"random": True, "shared_by": "weights"}
    ),
    "smoothed": Expected({}, facts={"random": True, "shared_by": "example"}),
    "RobustNet": Expected({}, facts={"random": True, "shared_by": "example"}),
}
"""Honest networks with something to say about them; of all others nothing is random and everything passes."""

AT_EASE = {
    "random": False,
    "reproducible": True,
    "shared_by": "example",
    "seeded_by_input": False,
    "seeded_fixed": False,
    "clobbers_generator": False,
    "differentiable": "present",
    "zero_gradients": 0.0,
    "probabilities": False,
    "batch_dependent": False,
    "batch_size_dependent": False,
    "mode_dependent": False,
    "call_dependent": False,
    "off_grid": False,
}


@lru_cache
def of(kind: str, name: str) -> Examination:
    made = fakes.HONEST[name]() if kind == "honest" else fakes.LIARS[name](fakes.plain())
    return examine(made, DATA, name)


def statuses(e: Examination) -> dict[str, str]:
    return {f.name: f.status for f in e.findings if f.status != "pass"}


def holds(e: Examination, expected: Expected) -> None:
    found = statuses(e)
    assert {n: s for n, s in found.items() if n not in expected.may} == expected.must
    facts = {n: getattr(e.facts, n) for n in expected.facts}
    assert facts == expected.facts


# ---------------------------------------------------------------- the two tables
def test_the_tables_are_whole() -> None:
    assert set(LIES) == set(fakes.LIARS)
    assert set(REMARKS) < set(fakes.HONEST)
    assert set(AT_EASE) == {n for n, v in vars(Facts).items() if isinstance(v, property)}


@pytest.mark.parametrize("liar", LIES)
def test_a_liar_is_found_and_for_what_it_does(liar: str) -> None:
    e = of("liar", liar)
    holds(e, LIES[liar])
    for finding in e.findings:
        assert (finding.mend != "") == (finding.status in ("warn", "fail")), finding


@pytest.mark.parametrize("honest", fakes.HONEST)
def test_an_honest_network_is_not_slandered(honest: str) -> None:
    expected = REMARKS.get(honest, Expected({}))
    holds(of("honest", honest), expected._replace(facts={**AT_EASE, **expected.facts}))


def test_findings_have_names_of_their_own_and_numbers() -> None:
    findings = of("honest", "RobustNet").findings
    assert len({f.name for f in findings}) == len(findings) == 13
    assert all(f.evidence.endswith(".") for f in findings)
    assert sum(any(c.isdigit() for c in f.evidence) for f in findings) >= 10


# ---------------------------------------------------------------- training mode
def test_training_mode_is_said_and_the_rest_is_examined_without() -> None:
    module = nn.Sequential(nn.Dropout(0.5), fakes.plain()).train()
    e = examine(module, DATA)
    assert statuses(e) == {"eval-mode": "fail"}
    assert module.training
    assert not e.facts.random
    assert "4 parts" not in e.findings[0].evidence
    assert "(the network, 0, 1, …)" in e.findings[0].evidence


def test_batch_statistics_in_eval_mode() -> None:
    module = fakes.plain("norm")
    module[1] = nn.BatchNorm2d(8, track_running_stats=False)  # type: ignore[index]
    found = statuses(examine(module.eval(), DATA))
    assert found["eval-mode"] == found["batch-mates"] == found["batch-size"] == "fail"


@pytest.mark.parametrize(
    ("call", "noted"),
    [
        (nn.Dropout(0.5).eval(), []),
        (lambda x: functional.dropout(x, 0.0, training=True), []),
        (lambda x: functional.dropout(x, 0.5), ["dropout"]),
        (functional.dropout2d, ["dropout2d"]),
        (lambda x: torch.dropout(x, 0.5, True), ["dropout"]),
        (lambda x: torch.dropout(x, 0.5, False), []),
        (nn.AlphaDropout().train(), ["alpha_dropout"]),
    ],
)
def test_dropout_is_seen_however_it_is_called(
    call: Callable[[Tensor], Tensor], noted: list[str]
) -> None:
    with Watch() as watch:
        call(torch.ones(2, 3, 4, 4))
    assert watch.dropouts == noted


# ---------------------------------------------------------------- randomness
class Changed(fakes.Wrapped):
    """Does something to images before an honest network sees them."""

    def __init__(self, change: Callable[[Tensor], Tensor], inner: nn.Module | None = None) -> None:
        super().__init__(fakes.plain() if inner is None else inner)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.change(x))


class OwnGenerator(fakes.Wrapped):
    """Draws from a generator of its own, which no seed of ours reaches."""

    def __init__(self) -> None:
        super().__init__(fakes.plain())
        self.own = torch.Generator().manual_seed(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.1 * torch.randn(x.shape, generator=self.own))


def test_noise_that_nobody_can_repeat() -> None:
    e = examine(OwnGenerator(), DATA)
    assert e.facts.random
    assert not e.facts.reproducible
    assert statuses(e) == {"randomness": "warn", "gradient-faithful": "warn"}


def _dark_noise(x: Tensor) -> Tensor:
    dark = (
        x.flatten(1).mean(dim=1) < 0.4
    )  # digits, but not the uniform noise that networks are probed with
    return x + 0.2 * dark.view(-1, 1, 1, 1) * torch.randn_like(x)


def test_noise_that_the_probes_do_not_meet() -> None:
    e = examine(Changed(_dark_noise), DATA)
    assert statuses(e)["randomness"] == "fail"
    assert "taken for deterministic" in e.findings[1].evidence


def _seeds(x: Tensor) -> Tensor:
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    return x


def test_other_generators_are_watched_too_and_the_users_are_left_alone() -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    before = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002
    e = examine(Changed(_seeds), DATA)
    examine(fakes.FixedSeed(fakes.plain()), DATA)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (repr(np.random.get_state()), random.getstate()) == before[1:]  # noqa: NPY002
    assert e.facts.draws.reseeded == ("NumPy", "Python")
    assert statuses(e) == {"fresh-draws": "fail"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("surgery", "shared"),
    [
        (RobustNet(GaussLaw(0.1), GaussLaw(0.1)), "example"),
        (ParamNet(0.02), "weights"),
        (ParamNet(0.02, sharing="own"), "example"),
        (PNI(), "weights"),
    ],
    ids=repr,
)
def test_our_own_random_networks(surgery: RobustNet | ParamNet | PNI, shared: str) -> None:
    network = Operated(SmallNet(width=4), surgery)
    e = examine(network, DATA)
    assert e.facts.random
    assert e.facts.shared_by == shared
    # It was never trained.
    assert set(statuses(e)) <= {"input-scaling", "independent-draws"}
    assert "fail" not in statuses(e).values()


# ---------------------------------------------------------------- laws of answers, where equal draws cannot be named
class InFirst(fakes.Wrapped):
    """Noise from torch's generator before another's behaviour, so that equal seeds say little of equal laws."""

    def __init__(self, inner: nn.Module, sigma: float = 0.05) -> None:
        super().__init__(inner)
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(int(torch.is_grad_enabled()) + len(x))  # moves the generator, and nothing else
        return self.inner(x + self.sigma * torch.randn_like(x))


@pytest.mark.parametrize(
    ("inner", "found"),
    [
        (fakes.plain, {}),
        (lambda: fakes.NoGradOnly(fakes.plain()), {"no-grad": "fail"}),
        (lambda: fakes.AloneOnly(fakes.plain()), {"batch-size": "fail"}),
        (lambda: fakes.Counting(fakes.plain()), {"number-of-calls": "fail"}),
    ],
    ids=["honest", "no_grad", "alone", "counting"],
)
def test_laws_are_compared_where_draws_differ(
    inner: Callable[[], nn.Module], found: dict[str, str]
) -> None:
    got = statuses(examine(InFirst(inner()), DATA))
    got.pop("gradient-faithful", None)  # differences and gradients have other draws here
    assert got == found


class SilentAlone(fakes.Wrapped):
    """Noise of mean 0 on the logits, in company only."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return logits + (len(x) > 1) * torch.randn_like(logits)


def test_noise_in_company_only_is_found_by_its_variance() -> None:
    assert statuses(examine(SilentAlone(fakes.plain()), DATA))["batch-size"] == "fail"


def test_equal_laws_are_rarely_told_apart() -> None:
    """Two means of 12 draws on 8 examples, even if each example has but one degree of freedom."""
    false = 0
    for trial in range(200):
        made = torch.Generator().manual_seed(trial)

        def way(draw: int, rows: range, made: torch.Generator = made) -> Tensor:
            return torch.randn(len(rows), 1, generator=made) * torch.tensor([[1.0, -1.0]])

        false += compared(way, way, range(8), random=True).differs
    assert false <= 1
    assert LAW_DRAWS == 12


class HashSeededBesideTheGrid(fakes.HashSeeded):
    """Noise for images that are no 8-bit ones: no neighbour on the grid shows it."""

    def forward(self, x: Tensor) -> Tensor:
        off = ((x * 255 - (x * 255).round()).abs() > 1e-3).flatten(1).any(dim=1)
        return torch.where(off[:, None], super().forward(x), self.inner(x))


def test_noise_seeded_by_a_hair() -> None:
    e = examine(HashSeededBesideTheGrid(fakes.plain()), DATA)
    assert e.facts.seeded_by_input
    assert not e.facts.random


# ---------------------------------------------------------------- scales of pixels
def _from_bytes(x: Tensor) -> Tensor:
    return x / 255


def _from_signed(x: Tensor) -> Tensor:
    return (x + 1) / 2


def _from_normalised(x: Tensor) -> Tensor:
    return 0.37 * x + 0.31  # mean and std of the digits


@pytest.mark.parametrize(
    ("wants", "scale"),
    [
        (_from_bytes, "times 255"),
        (_from_signed, "in [-1, 1]"),
        (_from_normalised, "less their mean, by their std"),
    ],
)
def test_a_normalisation_that_is_missing_is_named(
    wants: Callable[[Tensor], Tensor], scale: str
) -> None:
    e = examine(Changed(wants, fakes.plain("pool")), DATA)
    (found,) = (f for f in e.findings if f.name == "input-scaling")
    assert found.status == "fail"
    assert scale in found.evidence


def test_noise_that_is_large_beside_pixels_is_no_mistake_of_scale() -> None:
    """At 255 times the pixels any noise is small; a network that reads most digits as they are was meant for them."""
    noisy = Changed(lambda x: x + 0.4 * torch.randn_like(x))
    assert statuses(examine(noisy, DATA)) == {"input-scaling": "warn"}
    bytes_too = Changed(lambda x: _from_bytes(x + 20 * torch.randn_like(x)), fakes.plain("pool"))
    assert statuses(examine(bytes_too, DATA))["input-scaling"] == "fail"


def test_a_network_that_guards_its_range_is_not_blamed() -> None:
    def guarded(x: Tensor) -> Tensor:
        if x.min() < 0 or x.max() > 1:
            raise ValueError("pixels in [0, 1], please")
        return x

    e = examine(Changed(guarded), DATA)
    assert statuses(e) == {}
    assert e.facts.scalings == ()


def test_an_untrained_network_is_no_better_than_chance() -> None:
    batch = DATA.load()
    shuffled = Batch(batch.x, batch.y.roll(7), batch.index)
    assert statuses(examine(fakes.plain(), shuffled)) == {"input-scaling": "warn"}


def test_sorted_data_are_seen_from_end_to_end() -> None:
    whole = fakes.digits(count=300).load()
    order = whole.y.argsort()
    data = from_arrays(whole.x[order], whole.y[order])

    def always_nought(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] * 1e-3 + functional.one_hot(torch.zeros(len(x)).long(), 10)

    facts = examine(always_nought, data).facts
    assert facts.scaled == 64
    assert facts.examples == 32
    assert 2 <= facts.right <= 16  # all 64, if only the first were shown


# ---------------------------------------------------------------- gradients
def test_two_backward_passes_are_told_apart_from_two_draws() -> None:
    """Noise in forward makes gradients differ from draw to draw, never from one backward pass to the next."""
    lying, noisy = of("liar", "random gradient").facts, of("honest", "input noise").facts
    assert lying.slopes.passes > 1
    assert (noisy.slopes.passes, noisy.slopes.draws > 0.1) == (0.0, True)


class StraightThrough(fakes.Wrapped):
    """Rounds to 16 levels, and differentiates as if it did not: an author who hides nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + ((x * 15).round() / 15 - x).detach())


def test_a_straight_through_gradient_is_faithful_at_the_steps_of_attacks() -> None:
    found = statuses(examine(StraightThrough(fakes.plain()), DATA))
    assert found.get("gradient-faithful", "pass") != "fail"
    assert "gradient-reaches-input" not in found


class Arrays(fakes.Wrapped):
    """Computes in NumPy, and therefore raises where gradients are asked for."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(torch.from_numpy(x.numpy().copy()))


class Whole(fakes.Wrapped):
    """Answers with whole numbers, which have no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.one_hot(self.inner(x).argmax(dim=1), 10)


@pytest.mark.parametrize(
    ("kind", "why"), [(Arrays, "Can't call numpy"), (Whole, "")], ids=["arrays", "whole numbers"]
)
def test_other_ways_to_have_no_gradient(kind: type[fakes.Wrapped], why: str) -> None:
    e = examine(kind(fakes.plain()), DATA)
    assert e.facts.differentiable == "none"
    assert why in e.facts.slopes.broken
    assert statuses(e)["gradient-reaches-input"] == "fail"
    assert not e.facts.mode_dependent


def test_an_audit_goes_on_without_gradients(tmp_path: Path) -> None:
    defense = Defense(Foreign(fakes.Thermometer(fakes.plain()), fakes.SHAPE, "blunt"))
    data = DATA.slice(0, 8)
    store, threat = Store(tmp_path), adaptive(defense)

    def made(attack: Square | PGD) -> Craft:
        craft = Craft(data, threat, attack)
        run([Measure(data, defense, craft)], store, serial, lambda *_: lambda _: None)
        return craft

    rows = table(store, made(Square(Linf(), epsilon=0.5, queries=200)))
    assert rows["status"].to_pylist().count("found") >= 6
    assert np.isnan(rows["slope"].to_numpy()).all()
    with pytest.raises(UserError, match=r"network 'blunt': expected gradients .* got none"):
        made(PGD(Linf(), epsilon=0.5, steps=2))


# ---------------------------------------------------------------- company
class Coupled(fakes.Wrapped):
    """Takes a part of the batch's mean off: what an image becomes depends on its neighbours."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x - 0.3 * x.mean(dim=0))


@pytest.mark.parametrize("count", [3, 64])
def test_batch_mates(count: int) -> None:
    data = fakes.digits(count=count)
    e = examine(Coupled(fakes.plain()), data)
    assert statuses(e)["batch-mates"] == "fail"
    assert e.facts.batch_dependent
    assert set(statuses(examine(fakes.plain(), data))) <= {"input-scaling"}


# ---------------------------------------------------------------- calls
def test_a_counter_is_seen_before_it_does_anything() -> None:
    e = examine(fakes.Counting(fakes.plain(), patience=1_000_000), DATA)
    assert statuses(e) == {"number-of-calls": "warn"}
    assert "calls" in e.findings[11].evidence
    assert not e.facts.call_dependent


def test_a_function_that_counts_cannot_be_copied_and_is_found() -> None:
    inner, calls = fakes.plain(), 0

    def counting(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return inner(x if calls <= 150 else x.flip(-1))

    assert statuses(examine(counting, DATA))["number-of-calls"] == "fail"


# ---------------------------------------------------------------- other data, refusals
def test_series() -> None:
    made = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 3, generator=made)
    x = torch.rand(40, 1, 24, generator=made)

    def linear(x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ weight

    data = from_arrays(x, linear(x).argmax(dim=1), classes=3)
    e = examine(linear, data, "series")
    assert statuses(e) == {}
    assert (e.facts.name, e.facts.scaled) == ("series", 40)


def _raising(_x: Tensor) -> Tensor:
    raise KeyError("no such layer")


def _raising_in_the_dark(x: Tensor) -> Tensor:
    if x.mean() < 0.4:
        raise KeyError("no such layer")
    return x.flatten(1)[:, :10]


def _writing(x: Tensor) -> Tensor:
    return x.mul_(0.5).flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (_raising, r"examples of shape \(1, 8, 8\), got: KeyError: 'no such layer'"),
        (_raising_in_the_dark, "an answer to any examples .* got: KeyError: 'no such layer'"),
        (lambda x: x.flatten(1)[:, :10] * torch.nan, "expected finite logits, got NaN"),
        (lambda x: (x.mean() < 0.4) * torch.nan + x.flatten(1)[:, :10], "expected finite logits"),
        (lambda x: x.flatten(1)[:, 0], r"expected logits \(16, k\)"),
        (_writing, "expected an input left as it is, got one written into"),
        (lambda x: x.flatten(1)[:, :5], "labels: expected classes 0 … 4 of the network, got 9"),
    ],
)
def test_refusals(network: Callable[[Tensor], Tensor], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        examine(network, DATA, "stranger")
