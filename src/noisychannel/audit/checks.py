"""Checks of an attack's work: each turns rows into a finding, with the numbers that decided."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from noisychannel.audit.binarization import binarization
from noisychannel.audit.certificates import certificate
from noisychannel.audit.controls import (
    BINARIZED,
    DOUBLED,
    FACTORS,
    FROZEN,
    RANDOM,
    RESTARTED,
    SINGLE,
    UNBOUNDED,
    swept,
)
from noisychannel.audit.evidence import Evidence
from noisychannel.audit.finding import Finding
from noisychannel.audit.words import points
from noisychannel.report.gains import worst_case_gain
from noisychannel.report.stats import ENOUGH, Estimate
from noisychannel.report.sufficiency import POINT, powered, saturated

__all__ = ["CHECKS", "Check"]

Check = Callable[[Evidence], Finding]

# Beyond this many points an attack that should be the stronger one is broken; within, the difference is a remark.
_BROKEN = 0.02
_REMARK = 0.002  # AutoAttack's own: more than so many images that only black-box attacks win
_NOTHING = 0.05  # what may be left without a bound


def _not_run(name: str, why: str) -> Finding:
    return Finding(name, "not run", why)


def _judged(e: Evidence, name: str, gap: Estimate, evidence: str, mend: str) -> Finding:
    """A weaker attack that does better by `gap`: broken if surely so, and by more than points of it.

    One image is worth a remark where nothing is random; else small gaps have the noise of the draws.
    """
    if gap.value > _BROKEN and gap.low > 0:
        return Finding(name, "fail", evidence, mend)
    if gap.value > _REMARK and (gap.low > 0 or not e.request.defense.stochastic):
        return Finding(name, "warn", evidence)
    return Finding(name, "pass", evidence)


def white_box_wins(e: Evidence) -> Finding:
    """Attacks that follow its gradient win what others do."""
    name = "white-box-beats-black-box"
    others = e.mine.named(
        "non-adaptive", "partially adaptive", "adaptive", families=("transfer", "no gradient")
    )
    if not e.white_box or not others:
        return _not_run(name, e.why_not)
    gap = e.gain(e.white_box, [*e.white_box, *others], e.pool)
    evidence = (
        f"Attacks without its gradient ({', '.join(others)}) win {points(gap)} of {gap.n} images beyond those that "
        "attacks with it win."
    )
    mend = (
        "The gradient does not show the way: look for rounding, saturation, detached parts or noise in the "
        "backward pass, and give the audit a differentiable stand-in or the base network."
    )
    return _judged(e, name, gap, evidence, mend)


def unbounded(e: Evidence) -> Finding:
    """Without a bound nothing may be left."""
    name = "unbounded-reaches-zero"
    if UNBOUNDED not in e:
        return _not_run(name, e.why_not)
    left = e.mine.accuracy(UNBOUNDED, np.inf, e.pool)
    evidence = f"Without a bound {left.percent} of the labels are left; {left.n} images."
    if left.low > _NOTHING:
        mend = "An attack that may change everything and yet fails is broken: its numbers are no evidence."
        return Finding(name, "fail", evidence, mend)
    return Finding(name, "warn" if left.value > _NOTHING else "pass", evidence)


def random_loses(e: Evidence) -> Finding:
    """Random points of the ball win nothing that gradients do not."""
    return _beaten(e, "gradients-beat-random", RANDOM, "Random points of the ball win")


def single_loses(e: Evidence) -> Finding:
    """One step wins nothing that many do not."""
    return _beaten(e, "many-steps-beat-one", SINGLE, "A single step wins")


def _beaten(e: Evidence, name: str, control: str, words: str) -> Finding:
    absent = _absent(e, name, control)
    if absent is not None:
        return absent
    gap = e.gain(e.white_box, [*e.white_box, control], e.pool)
    evidence = f"{words} {points(gap)} of {gap.n} images beyond those that gradient attacks win."
    return _judged(
        e, name, gap, evidence, "The gradient attacks are broken or its gradient misleads."
    )


def _absent(e: Evidence, name: str, control: str) -> Finding | None:
    """What is said of a control on what gradient attacks left, where it was not made."""
    if not e.white_box or UNBOUNDED not in e:
        return _not_run(name, e.why_not)
    if control not in e:
        left = "Of the controls' images the gradient attacks left none to win."
        return Finding(name, "pass", left)
    return None


def monotone(e: Evidence) -> Finding:
    """Accuracy does not rise with the attacker's budget."""
    name = "monotone-in-epsilon"
    if UNBOUNDED not in e:
        return _not_run(name, e.why_not)
    radii = {f: f * e.request.epsilon for f in FACTORS}
    left = [e.mine.accuracy(swept(f), radii[f], e.pool) for f in FACTORS]
    rises = [e.rise(swept(b), swept(a), (radii[b], radii[a])) for a, b in pairwise(FACTORS)]
    worst = max(rises, key=lambda r: r.value)
    shown = ", ".join(f"{f:g} ε {100 * v.value:.0f} %" for f, v in zip(FACTORS, left, strict=True))
    evidence = f"{shown}; the largest rise {points(worst)}; {worst.n} images."
    return _judged(
        e, name, worst, evidence, "More budget cannot help the defender: the attack loses its way."
    )


def converged(e: Evidence) -> Finding:
    """Twice the steps change nothing."""
    return _same(e, "converged-in-steps", DOUBLED, "Twice the steps")


def restarted(e: Evidence) -> Finding:
    """More starts change nothing."""
    return _same(e, "converged-in-restarts", RESTARTED, "More random starts")


def _same(e: Evidence, name: str, control: str, words: str) -> Finding:
    absent = _absent(e, name, control)
    if absent is not None:
        return absent
    gap = e.gain(e.attacked, [*e.attacked, control], e.pool)
    evidence = f"{words} lower accuracy by {points(gap)}, "
    evidence += f"below all attacks together; {gap.n} images."
    if gap.value > POINT and gap.low > 0:
        return Finding(name, "fail", evidence, "The attack had not ended: take a larger budget.")
    return Finding(name, "warn" if gap.value > POINT else "pass", evidence)


def gradients(e: Evidence) -> Finding:
    """There is a gradient to follow."""
    name = "gradient-present"
    blind = e.blind
    if blind is None:
        return _not_run(name, e.why_not)
    evidence = f"The gradient of the cross-entropy vanishes on {blind.percent} of the images."
    if blind.value <= _NOTHING:
        return Finding(name, "pass", evidence)
    mend = "Losses that saturate see nothing there: hand out logits, of their natural scale."
    return Finding(name, "fail" if blind.low > 0.5 else "warn", evidence, mend)


def eot(e: Evidence) -> Finding:
    """More draws per gradient would win nothing."""
    name = "eot-saturated"
    if not e.request.defense.stochastic:
        return Finding(name, "pass", "Nothing is random: one draw is all.")
    if e.decided:
        return Finding(name, "pass", "Few draws were enough: nothing is left to win.")
    if not e.doublings:
        return _not_run(name, e.why_not)
    last = e.doublings[-1]
    beside = ", below all attacks before" if last.draws > e.draws_of_attacks else ""
    evidence = (
        f"From {last.draws // 2} to {last.draws} draws per gradient accuracy falls by {points(last.drop)}{beside}: a "
        f"further doubling wins at most {100 * last.upper:.1f} points (95 %); {last.drop.n} images."
    )
    if saturated(last):
        return Finding(name, "pass", evidence)
    mend = "EOT not saturated: take a larger budget, for more draws."
    # Surely more than a point; what may be either is a remark, unless it may be more than the budget leaves open.
    if last.drop.low > POINT or last.upper > e.request.budget.half_width:
        return Finding(name, "fail", evidence, mend)
    return Finding(name, "warn", f"{evidence} Not shown to be saturated.", mend)


def luck(e: Evidence) -> Finding:
    """How much luck would have been counted."""
    name = "luck-not-counted"
    if not e.request.defense.stochastic or not e.attacked:
        return Finding(name, "pass", "Nothing is random: no answer is lucky.")
    evidence = (
        f"Counting an image as broken wherever one of the attacks was answered wrongly once would have said "
        f"{points(e.luck)} less; here attacks are chosen on one half of the draws and scored on the other."
    )
    return Finding(name, "pass", evidence)


def frozen(e: Evidence) -> Finding:
    """With its randomness frozen the defense is no harder to attack."""
    name = "frozen-is-no-harder"
    if not e.request.defense.stochastic:
        return Finding(name, "pass", "Nothing is random.")
    if e.frozen is None or FROZEN not in e.frozen.attempts:
        return _not_run(name, e.why_not)
    fresh = e.mine.tables(e.white_box, e.pool)
    gap = worst_case_gain(e.frozen.tables((FROZEN,), e.pool), fresh, e.mine.rule)
    left = e.frozen.accuracy(FROZEN, at=e.pool)
    evidence = (
        f"With its randomness frozen and known, {left.percent} is left: {points(gap)} beside fresh "
        f"draws; {gap.n} images."
    )
    mend = (
        "The attack does worse where it should do better: it is broken, and its numbers are no evidence. Look at "
        "the gradient without the noise first."
    )
    return _judged(e, name, gap, evidence, mend)


def planted(e: Evidence) -> Finding:
    """The attack finds adversarials that were planted for it."""
    planted = e.joined(BINARIZED)
    return _not_run("binarization", e.why_not) if planted is None else binarization(planted)


def enough(e: Evidence) -> Finding:
    """The headline's interval is as narrow as the budget promises."""
    name = "enough-images"
    headline, budget = e.headline, e.request.budget
    evidence = (
        f"The headline's half-width is {100 * headline.half_width:.1f} points with {headline.n} images; the "
        f"{budget.name} budget promises {100 * budget.half_width:.1f}."
    )
    if powered(headline, budget.half_width):
        return Finding(name, "pass", evidence)
    few = f", {ENOUGH} at least" if headline.n < ENOUGH else ""
    return Finding(name, "fail", evidence, f"Audit more images{few}.")


def answered(e: Evidence) -> Finding:
    """The network answers, and was attacked, on all images."""
    name = "answers-all"
    silent = e.silent
    evidence = f"No answer (NaN) to {silent[0].percent} of clean questions; {silent[1].percent} of attacks failed."
    if silent[0].value == silent[1].value == 0:
        return Finding(name, "pass", evidence)
    return Finding(
        name, "fail", evidence, "Images that raise or give NaN are not attacked: mend the network."
    )


def yours(e: Evidence) -> Finding:
    """The user's attacks win nothing that ours do not."""
    name = "your-attacks-win-nothing-more"
    own = e.mine.named("adaptive", families=("yours",))
    if not own:
        return Finding(name, "pass", "None were given, or nothing was left for them.")
    if (raised := e.failed(own)).value > 0:
        said = f"They ended by an error on {raised.percent} of {raised.n} images: mend them."
        return _not_run(name, said)
    ours = [n for n in e.attacked if n not in own]
    gap = e.gain(ours, e.attacked, e.everything)
    evidence = f"Your attacks win {points(gap)} of {gap.n} images beyond ours."
    return _judged(e, name, gap, evidence, "Ours are weak here; the headline counts yours.")


CHECKS: tuple[Check, ...] = (
    white_box_wins,
    unbounded,
    random_loses,
    single_loses,
    monotone,
    converged,
    restarted,
    gradients,
    planted,
    eot,
    frozen,
    luck,
    enough,
    answered,
    yours,
    certificate,
)
"""All checks on rows, in the order of the page."""
