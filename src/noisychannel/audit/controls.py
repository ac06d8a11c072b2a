"""Controls: attacks that tell a broken attack from a strong defense, on some of the examples."""

import math
from collections.abc import Iterator

import numpy as np

from noisychannel.attacks import APGD, FGSM
from noisychannel.attacks.noise import random_directions
from noisychannel.audit.attempts import Attempt, attempt, clean, stretches
from noisychannel.audit.evidence import Evidence
from noisychannel.audit.request import Request
from noisychannel.audit.side import CLEAN
from noisychannel.audit.steps import Step, pgd
from noisychannel.channels import Identity
from noisychannel.defenses import Defense, fixed_draws
from noisychannel.engine import Binarize, Craft, Measure, Task
from noisychannel.measures import Planting
from noisychannel.norms import Linf
from noisychannel.threats import adaptive
from noisychannel.types import Attack

__all__ = [
    "BINARIZED",
    "DOUBLED",
    "FACTORS",
    "FROZEN",
    "RANDOM",
    "RESTARTED",
    "SINGLE",
    "TIMES",
    "UNBOUNDED",
    "controls",
    "recovery",
    "swept",
]

UNBOUNDED = "control: no bound"
RANDOM = "control: random directions"
SINGLE = "control: a single step"
DOUBLED = "control: twice the steps"
RESTARTED = "control: restarts"
FROZEN = "control: randomness frozen"
BINARIZED = "control: planted adversarials"

FACTORS = (0.5, 1.0, 2.0, 4.0)
"""Of ε, where accuracy is looked at: it may not rise with the attacker's budget."""

TIMES = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0, 8.0)
"""Of the smallest distortion's median, where the recovery window is looked at."""


def recovery(length: float) -> str:
    """Name of the control that moves every smallest adversarial to this L2 distance."""
    return f"control: recovery at L2 {length:g}"


def swept(factor: float) -> str:
    """Name of the control at a multiple of ε."""
    return f"control: {factor:g} ε"


def controls(e: Evidence) -> Iterator[Step]:
    """All of them, under the adaptive threat at the draws of the attacks beside the ladder."""
    if not e.differentiable:
        return
    r, b = e.request, e.request.budget
    threat = adaptive(r.defense, draws=e.draws_of_attacks)

    def made(name: str, attack: Attack, *, whole: bool) -> Attempt | None:
        # What is looked for is what the attack did not win, so only what withstood it is worth a try.
        left = set(e.pool) if whole or e.foreseen else set(e.mine.standing(e.white_box))
        places = tuple(i for i in e.pool if i in left)
        if not places:
            return None
        return attempt(r, name, "control", "control", threat, attack, places)

    def apgd(steps: int, restarts: int = 1) -> Attack:
        early = not r.defense.stochastic
        return APGD(r.norm, r.epsilon, steps, restarts=restarts, stop_early=early)

    whole: dict[str, Attack] = {
        UNBOUNDED: pgd(r, epsilon=_everything(r)),
        **{swept(f): pgd(r, epsilon=min(f * r.epsilon, _everything(r))) for f in FACTORS},
    }
    rest: dict[str, Attack] = {
        RANDOM: random_directions(r.norm, r.epsilon, b.directions),
        SINGLE: FGSM(r.norm, epsilon=r.epsilon),
        DOUBLED: apgd(2 * b.steps),
        RESTARTED: apgd(b.steps, b.restarts),
    }
    found = [made(n, a, whole=True) for n, a in whole.items()]
    found += [made(n, a, whole=False) for n, a in rest.items()]
    yield Step("controls of the attack", tuple(a for a in found if a is not None))
    yield from _frozen(e)
    yield from _window(e)


def _window(e: Evidence) -> Iterator[Step]:
    """The smallest adversarials of the undefended network, moved along their own directions: where are they undone?"""
    r = e.request
    smallest = [n for n in e.mine.named("non-adaptive") if not n.startswith("PGD")]
    perturbs = r.defense.stochastic or r.defense.channel != Identity()
    if e.theirs is None or not smallest or not perturbs:
        return
    if e.foreseen:  # how far they are moved is told by attacks that were not made
        yield Step("recovery window", ())
        return
    some: list[Craft] = []
    for craft in e.mine.attempts[smallest[0]].crafts:  # of all examples, in their order
        if sum(c.data.size for c in some) < len(e.pool):
            some.append(craft)
    places = tuple(range(sum(c.data.size for c in some)))
    moved = e.mine.examples(smallest[0])["l2"].to_numpy()[: len(places)]
    if not (moved > 0).any():
        return
    found: list[Attempt] = []
    for factor in TIMES:
        length = float(f"{factor * np.median(moved[moved > 0]):.3g}")
        asked = tuple(
            Measure(c.data, r.defense, c, r.scoring(r.defense), length, r.seed, r.execution)
            for c in some
        )
        found.append(Attempt(recovery(length), "control", "control", places, asked))
    yield Step("recovery window", tuple(found))


def _frozen(e: Evidence) -> Iterator[Step]:
    """The same attack where nothing is random any more, and where adversarials were planted."""
    r = e.request
    still = fixed_draws(r.defense, r.seed) if r.defense.stochastic else r.defense
    if r.defense.stochastic:
        e.freeze(still)
        known = adaptive(still)
        attacked = attempt(r, FROZEN, "control", "control", known, pgd(r), e.pool, still)
        yield Step("randomness frozen", (clean(r, CLEAN, still), attacked))
    planted: dict[str, Task] = {
        f"{BINARIZED}, {i}": _planted(e, still, s) for i, s in enumerate(stretches(r, len(e.pool)))
    }
    yield Step("planted adversarials", (), other=planted)


def _planted(e: Evidence, still: Defense, some: range) -> Binarize:
    r = e.request
    return Binarize(
        r.data.slice(some.start, some.stop),
        still,
        adaptive(still),
        pgd(r),
        Planting(r.norm, r.epsilon, inner=r.budget.inner),
        r.seed,
        r.execution,
    )


def _everything(r: Request) -> float:
    """A radius within which every image lies."""
    return 1.0 if r.norm == Linf() else math.sqrt(math.prod(r.data.shape))
