"""Whole audits of networks that lie about their robustness, and of honest ones that nobody may slander."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
import torch

import fakes_networks as fakes
from auditing import audited, request, statuses
from noisychannel.audit.conduct import Judged

pytestmark = pytest.mark.usefixtures("unchecked")

# A store waits for its disk at every artifact.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None

NEAR = 0.03
"""Points by which a liar's audited accuracy may exceed that of the network it is built on."""

MASKED = frozenset({"GRADIENT MASKING"})

# Attacks that follow a gradient which leads nowhere lose to all others; how many of these checks tell depends on luck.
ASTRAY = frozenset(
    {
        "gradient-reaches-input",
        "gradient-faithful",
        "gradient-present",
        "white-box-beats-black-box",
        "unbounded-reaches-zero",
        "gradients-beat-random",
        "many-steps-beat-one",
        "monotone-in-epsilon",
        "converged-in-restarts",
        "binarization",
    }
)


class Row(NamedTuple):
    """What must fail, what may (nothing else does), and what the evaluation may be called."""

    must: frozenset[str]
    may: frozenset[str] = frozenset()
    evaluations: frozenset[str] = MASKED


def row(*must: str, may: frozenset[str] = frozenset(), evaluations: frozenset[str] = MASKED) -> Row:
    return Row(frozenset(must), may, evaluations)


# Noise that the tool sees through by itself: nothing is wrong with such a network but that it is no defense.
SEEN_THROUGH = row(evaluations=frozenset({"VALID"}))

LIES: dict[str, Row] = {
    "argmax": row("gradient-reaches-input", "gradient-present", may=ASTRAY),
    "loud": row("logits", "gradient-present"),
    "quantised": row("gradient-reaches-input", "gradient-present", may=ASTRAY),
    "thermometer": row("gradient-reaches-input"),
    "random gradient": row("gradient-faithful", "white-box-beats-black-box", may=ASTRAY),
    "shared noise": SEEN_THROUGH,
    "hash seeded": row("fresh-draws", may=ASTRAY | {"input-scaling"}),
    "grid hash seeded": row(
        "fresh-draws",
        evaluations=frozenset({"RANDOMNESS-INFLATED"}),
        may=frozenset({"input-scaling"}),
    ),
    "fixed seed": row("fresh-draws", "batch-size", may=ASTRAY | {"input-scaling"}),
    "no_grad": row("no-grad", "white-box-beats-black-box", may=ASTRAY),
    "alone": row("batch-size"),
    "counting": row("number-of-calls"),
    "off grid": row("eight-bit-grid", "white-box-beats-black-box", may=ASTRAY),
    "resize and pad": SEEN_THROUGH,
    "dropout": SEEN_THROUGH,
    "logit noise": SEEN_THROUGH,
    "decoy slope": row("white-box-beats-black-box", may=ASTRAY),
    "ripples": row("white-box-beats-black-box", may=ASTRAY),
    "random ripples": row(
        "white-box-beats-black-box",
        may=ASTRAY | {"fresh-draws", "eot-saturated", "frozen-is-no-harder"},
    ),
    "sawtooth": row("white-box-beats-black-box", may=ASTRAY),
    "squashed": SEEN_THROUGH,
    # Frozen it is attacked as it is, random as it is spread out: the first may well win less.
    "squashed noise": row(
        may=frozenset({"frozen-is-no-harder", "eot-saturated"}),
        evaluations=frozenset({"VALID", "RANDOMNESS-INFLATED"}),
    ),
    "NaN gradient": row("gradient-reaches-input", "answers-all", may=ASTRAY),
    "abstaining": row("answers-all", may=ASTRAY),
    "remembering": row("many-steps-beat-one", may=ASTRAY | {"converged-in-steps"}),
}

HONEST: dict[str, Row] = {
    name: row(evaluations=frozenset({"VALID", "UNDER-POWERED"})) for name in fakes.HONEST
}
HONEST["adversarially trained"] = row(evaluations=frozenset({"VALID"}))


@lru_cache
def plain_headline(count: int) -> float:
    """Of the network on which all liars are built, under the same audit."""
    return _audit(fakes.plain(), None, count).headline.value


def _audit(module: torch.nn.Module, base: torch.nn.Module | None, count: int) -> Judged:
    with TemporaryDirectory(dir=MEMORY) as folder:
        torch.set_flush_denormal(True)
        a = audited(request(module, base, data=fakes.digits(count=count)), Path(folder))
        assert a.findings, a.headline  # judged while its rows are there
        assert a.gain, a.settings
        return a


def is_unmasked(liar: str, count: int) -> Judged:
    """Audit a liar whose base is known, and hold what was found against its row."""
    expected, a = LIES[liar], _audit(fakes.LIARS[liar](fakes.plain()), fakes.plain(), count)
    fails = statuses(a, "fail") - {"enough-images"}
    assert expected.must <= fails <= expected.must | expected.may, fails
    assert a.evaluation in expected.evaluations
    assert a.headline.value <= plain_headline(count) + NEAR
    assert a.gain != "REAL"
    return a


def is_not_slandered(honest: str, count: int) -> Judged:
    a = _audit(fakes.HONEST[honest](), _base(honest), count)
    assert statuses(a, "fail") <= {"enough-images"}
    assert a.evaluation in HONEST[honest].evaluations
    return a


def _base(honest: str) -> torch.nn.Module | None:
    """The network without its defense; none for those that are undefended themselves."""
    if honest == "RobustNet":
        return fakes.plain("pool")
    return None if honest in ("plain", "smooth", "max-pooling", "batch norm") else fakes.plain()


def test_the_tables_are_whole() -> None:
    assert set(LIES) == set(fakes.LIARS)
    assert sum(r.evaluations == frozenset({"VALID"}) for r in LIES.values()) <= 5
    assert len(HONEST) >= 10


# ---------------------------------------------------------------- some, in every run
@pytest.mark.parametrize(
    "liar", ["argmax", "no_grad", "off grid", "hash seeded", "random gradient"]
)
def test_a_liar_adds_nothing_and_is_named(liar: str) -> None:
    is_unmasked(liar, 50)


def test_an_honest_random_network_is_not_slandered() -> None:
    is_not_slandered("input noise", 50)


def test_adversarial_training_is_valid_and_its_gain_real() -> None:
    a = is_not_slandered("adversarially trained", 120)
    assert (a.evaluation, a.gain) == ("VALID", "REAL")


# ---------------------------------------------------------------- all
@pytest.mark.slow
@pytest.mark.parametrize("liar", fakes.LIARS)
def test_every_liar_adds_nothing_and_is_named(liar: str) -> None:
    is_unmasked(liar, 200)


@pytest.mark.slow
@pytest.mark.parametrize("liar", fakes.LIARS)
def test_a_liar_whose_base_nobody_knows_is_doubted_or_falls(liar: str) -> None:
    a = _audit(fakes.LIARS[liar](fakes.plain()), None, 200)
    assert a.evaluation != "VALID" or a.headline.value <= plain_headline(200) + NEAR


@pytest.mark.slow
@pytest.mark.parametrize("honest", fakes.HONEST)
def test_no_honest_network_is_slandered(honest: str) -> None:
    is_not_slandered(honest, 200)
