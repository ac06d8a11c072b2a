"""Two verdicts: which failure gives the evaluation its name, what a gain is, and what the command ends with."""

from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import get_args

import pytest

import fakes_networks as fakes
from auditing import audited, request
from noisychannel.audit import checks, diagnosis, verdict
from noisychannel.audit.finding import Finding, Status
from noisychannel.audit.verdict import CODES, EVALUATIONS, MARGIN, Evaluation, Gain
from noisychannel.report.stats import ENOUGH, Estimate

CHANCE = 0.1
"""What guessing among ten classes is worth."""

REMARKS = {
    "independent-draws": "the noise of a pass may belong to it, as on weights; intervals count it",
    "luck-not-counted": "says what is not counted, and cannot fail",
}
"""Checks that never decide the evaluation, and why."""

ABOUT = {n: v for v, names in EVALUATIONS.items() for n in names}
"""Finding → the verdict that it gives when it fails."""


def found(*failed: str, status: Status = "fail") -> list[Finding]:
    """All findings that decide, passed but for some."""
    return [Finding(n, status if n in failed else "pass", "") for n in ABOUT]


def evaluated(
    findings: Sequence[Finding], *, decided: bool = False, skipped: bool = False
) -> Evaluation:
    return verdict.evaluation(findings, decided=decided, skipped=skipped)


def difference(value: float, low: float, high: float, n: int = 200) -> Estimate:
    return Estimate(value, low, high, n, "bootstrap")


# ---------------------------------------------------------------- evaluation
def test_an_audit_without_a_failure_is_valid() -> None:
    assert evaluated(found()) == "VALID"
    assert evaluated(found(*ABOUT, status="warn")) == "VALID"


@pytest.mark.parametrize("name", ABOUT)
@pytest.mark.parametrize("decided", [False, True])
def test_each_failure_has_its_verdict_even_where_nothing_is_left(name: str, decided: bool) -> None:
    assert evaluated(found(name), decided=decided) == ABOUT[name]


def test_the_first_of_two_failures_in_the_stated_order_is_the_verdict() -> None:
    order = [e for e in get_args(Evaluation) if e != "VALID"]
    assert list(EVALUATIONS) == order
    for first, second in combinations(order, 2):
        for pair in product(EVALUATIONS[first], EVALUATIONS[second]):
            assert evaluated(found(*pair)) == evaluated(found(*pair)[::-1]) == first


def test_no_failure_gives_two_verdicts() -> None:
    assert len(ABOUT) == sum(len(names) for names in EVALUATIONS.values())


@pytest.mark.parametrize(
    "name",
    [
        "white-box-beats-black-box",
        "unbounded-reaches-zero",
        "gradients-beat-random",
        "many-steps-beat-one",
        "monotone-in-epsilon",
        "converged-in-steps",
        "converged-in-restarts",
        "your-attacks-win-nothing-more",
        "fresh-draws",
        "eot-saturated",
        "frozen-is-no-harder",
    ],
)
def test_without_a_check_of_the_attack_nothing_is_valid(name: str) -> None:
    unknown = found(name, status="not run")
    assert evaluated(unknown) == "INCOMPLETE"
    assert evaluated(unknown, decided=True) == "VALID"
    broken = [Finding("logits", "fail", "") if f.name == "logits" else f for f in unknown]
    assert evaluated(broken) == "GRADIENT MASKING"


@pytest.mark.parametrize("name", ["binarization", "no-grad"])
def test_what_may_find_nothing_to_look_at_is_not_missed(name: str) -> None:
    assert evaluated(found(name, status="not run")) == "VALID"


def test_what_was_left_out_for_time_is_missed_unless_nothing_was_left() -> None:
    assert evaluated(found(), skipped=True) == "INCOMPLETE"
    assert evaluated(found("enough-images"), skipped=True) == "UNDER-POWERED"
    assert evaluated(found(), skipped=True, decided=True) == "VALID"


def test_every_finding_decides_or_is_a_remark_for_a_reason(tmp_path: Path) -> None:
    names = [
        f.name for f in audited(request(fakes.plain(), fakes.plain("softplus")), tmp_path).findings
    ]
    assert len(names) == len(set(names)) == len(diagnosis.CHECKS) + len(checks.CHECKS)
    assert set(names) == set(ABOUT) | set(REMARKS)
    assert not set(ABOUT) & set(REMARKS)


# ---------------------------------------------------------------- gain
@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.05, 1e-9, 0.10), "REAL"),
        ((0.05, 0.0, 0.10), "UNDECIDED"),
        ((0.01, 0.001, 0.02), "REAL"),  # small, and surely there
        ((0.00, -0.02, MARGIN - 1e-9), "NONE"),
        ((0.00, -0.02, MARGIN), "UNDECIDED"),
        ((-0.20, -0.30, -0.10), "NONE"),  # worse than nothing
    ],
)
def test_a_gain_at_its_bounds(interval: tuple[float, float, float], expected: Gain) -> None:
    assert verdict.gain(difference(*interval), difference(0.5, 0.4, 0.6), 10) == expected


@pytest.mark.parametrize(
    ("headline", "expected"),
    [
        ((0.16, CHANCE + MARGIN + 1e-9, 0.19), "REAL"),
        ((0.16, CHANCE + MARGIN, 0.19), "UNDECIDED"),
        ((0.10, 0.07, CHANCE + MARGIN - 1e-9), "NONE"),
        ((0.10, 0.07, CHANCE + MARGIN), "UNDECIDED"),
    ],
)
def test_what_a_guess_is_worth_is_no_gain_over_a_base_of_which_nothing_is_left(
    headline: tuple[float, float, float], expected: Gain
) -> None:
    assert verdict.gain(difference(0.1, 0.05, 0.15), difference(*headline), 10) == expected


def test_without_a_base_or_with_few_images_no_gain_is_known() -> None:
    headline = difference(0.5, 0.4, 0.6)
    assert verdict.gain(None, headline, 10) == "UNDECIDED"
    for sign in (1, -1):
        low, high = sorted((0.4 * sign, 0.6 * sign))
        few, enough = (difference(0.5 * sign, low, high, n) for n in (ENOUGH - 1, ENOUGH))
        assert verdict.gain(few, headline, 10) == "UNDECIDED"
        assert verdict.gain(enough, headline, 10) == ("REAL" if sign > 0 else "NONE")


# ---------------------------------------------------------------- exit code
def test_exit_codes_tell_the_classes_apart_and_are_no_errors() -> None:
    assert set(CODES) == {*get_args(Evaluation), "NO GAIN"}
    assert len(set(CODES.values())) == len(CODES)
    assert not {1, 2} & set(CODES.values())


@pytest.mark.parametrize("evaluation", get_args(Evaluation))
@pytest.mark.parametrize("gain", get_args(Gain))
def test_only_a_valid_evaluation_of_a_defense_not_known_to_be_useless_ends_with_0(
    evaluation: Evaluation, gain: Gain
) -> None:
    code = verdict.exit_code(evaluation, gain)
    assert (code == 0) == (evaluation == "VALID" and gain != "NONE")
    if evaluation != "VALID":
        assert code == CODES[evaluation]
