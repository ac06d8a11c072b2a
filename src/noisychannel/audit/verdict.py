"""From findings to two verdicts: whether the evaluation can be believed, and whether the defense gains anything."""

from collections.abc import Sequence
from typing import Literal

from noisychannel.audit.finding import Finding
from noisychannel.report.stats import ENOUGH, Estimate

__all__ = [
    "CODES",
    "EVALUATIONS",
    "MARGIN",
    "Evaluation",
    "Gain",
    "evaluation",
    "exit_code",
    "gain",
]

Evaluation = Literal[
    "VALID",
    "GRADIENT MASKING",
    "WEAK ATTACK",
    "RANDOMNESS-INFLATED",
    "UNDER-POWERED",
    "INCOMPLETE",
]
Gain = Literal["REAL", "NONE", "UNDECIDED"]

MARGIN = 0.03
"""A gain that surely is smaller than so much is none."""

EVALUATIONS: dict[Evaluation, tuple[str, ...]] = {
    "GRADIENT MASKING": (
        "gradient-reaches-input",
        "gradient-faithful",
        "gradient-present",
        "logits",
        "no-grad",
        "batch-mates",
        "batch-size",
        "number-of-calls",
        "eight-bit-grid",
        "white-box-beats-black-box",
        "unbounded-reaches-zero",
    ),
    "WEAK ATTACK": (
        "gradients-beat-random",
        "many-steps-beat-one",
        "monotone-in-epsilon",
        "converged-in-steps",
        "converged-in-restarts",
        "binarization",
        "your-attacks-win-nothing-more",
    ),
    "RANDOMNESS-INFLATED": ("fresh-draws", "eot-saturated", "frozen-is-no-harder"),
    "UNDER-POWERED": ("enough-images",),
    "INCOMPLETE": (
        "answers-all",
        "input-scaling",
        "eval-mode",
        "randomness",
        "certificate-consistency",
    ),
}
"""The first class with a failed check is the verdict; in this order."""

CODES: dict[str, int] = {
    "VALID": 0,
    "NO GAIN": 10,
    "GRADIENT MASKING": 11,
    "WEAK ATTACK": 12,
    "RANDOMNESS-INFLATED": 13,
    "UNDER-POWERED": 14,
    "INCOMPLETE": 15,
}
"""What the command ends with; 1 and 2 are errors."""


def evaluation(findings: Sequence[Finding], *, decided: bool, skipped: bool) -> Evaluation:
    """The first failure in the order above; `INCOMPLETE` where a check was not run that was needed, else `VALID`.

    Args:
        findings: of all checks.
        decided: nothing is left to win, so that controls of the attack were not needed.
        skipped: something was left out for time.
    """
    failed = {f.name for f in findings if f.status == "fail"}
    for verdict, names in EVALUATIONS.items():
        if failed.intersection(names):
            return verdict
    absent = any(f.status == "not run" and f.name in _NEEDED for f in findings)
    return "INCOMPLETE" if not decided and (absent or skipped) else "VALID"


_NEEDED = {
    "white-box-beats-black-box",
    "unbounded-reaches-zero",
    *EVALUATIONS["WEAK ATTACK"],
    *EVALUATIONS["RANDOMNESS-INFLATED"],
} - {"binarization"}
"""Without these nobody knows whether the attack did its work; the binarization test may find nothing to plant."""


def gain(difference: Estimate | None, headline: Estimate, classes: int) -> Gain:
    """Of robust accuracy over the base or strength-0 twin, under the same attacks; None: nothing to compare.

    Noise that drowns the image makes any network guess, and a guess is right once in K, whatever the attacker does:
    what is not three points above 1/K is no gain, however little is left of the base: attacks come near a guess from
    above, and the cheap ones stop a point or two before it.

    Args:
        difference: paired, of robust accuracies.
        headline: robust accuracy of the defense.
        classes: K.
    """
    if difference is None or difference.n < ENOUGH:
        return "UNDECIDED"
    guessed = 1 / classes + MARGIN
    if difference.low > 0 and headline.low > guessed:
        return "REAL"
    useless = difference.high < MARGIN or headline.high < guessed
    return "NONE" if useless else "UNDECIDED"


def exit_code(evaluation: Evaluation, gain: Gain) -> int:
    """What the command ends with: 0 for an evaluation that is valid, of a defense not known to be useless."""
    return CODES["NO GAIN"] if evaluation == "VALID" and gain == "NONE" else CODES[evaluation]
