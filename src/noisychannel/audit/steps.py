"""The steps of an audit, from the cheapest to the dearest: which attempts each makes, given what is known."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from noisychannel.attacks import (
    APGD,
    DDN,
    FMN,
    PGD,
    SPSA,
    HopSkipJump,
    Square,
    TargetedAPGD,
)
from noisychannel.audit.attempts import Attempt, Setting, attempt, clean, rung
from noisychannel.audit.evened import evened
from noisychannel.audit.evidence import Evidence
from noisychannel.audit.levels import rounded
from noisychannel.audit.request import FEWEST, Request, follows
from noisychannel.audit.side import CLEAN
from noisychannel.channels import Identity
from noisychannel.defenses import Defense
from noisychannel.engine import Task
from noisychannel.norms import Linf
from noisychannel.objectives import DLR, CrossEntropy, Loss, Margin
from noisychannel.threats import Threat, adaptive, assumes, non_adaptive
from noisychannel.types import Attack

__all__ = ["Step", "attacks_on", "pgd"]

_ALL = ", all"
_PAIRS = 16  # of questions in a step of SPSA, at most


@dataclass(frozen=True)
class Step:
    """A part of an audit that is run at once.

    Args:
        name: as progress and reports call it.
        attempts: what it makes.
        needed: even where nothing is left to win.
        other: tasks that are no attempts, by name.
    """

    name: str
    attempts: tuple[Attempt, ...]
    needed: bool = False
    other: dict[str, Task] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """All that it makes, but for what these need."""
        return (*(m for a in self.attempts for m in a.measures), *self.other.values())


def pgd(r: Request, steps: int | None = None, epsilon: float | None = None) -> PGD:
    """The attack that ladders and controls have in common.

    On a random defense it spends its budget: one that is adversarial on half of the draws is not yet lost.
    """
    radius = r.epsilon if epsilon is None else epsilon
    early = not r.defense.stochastic
    return PGD(
        r.norm,
        epsilon=radius,
        steps=steps or r.budget.steps,
        loss=Margin(),
        stop_early=early,
    )


def attacks_on(e: Evidence) -> Iterator[Step]:
    """All steps that can lower the headline, and the same attacks on what the defense is compared with."""
    r = e.request
    first = [clean(r, CLEAN, r.defense)]
    if r.twin is not None:
        first.append(clean(r, CLEAN, r.twin))
    yield Step("clean images", tuple(first), needed=True)
    yield from _weaker(e)
    if e.differentiable:
        yield from _ladder(e)
        yield from _losses(e)
        yield from _evened(e)
        yield from _gradients(e)
        yield from _more_draws(e)
    yield from _black_box(e)
    yield from _own(e)
    yield from _twin(e)
    again = rounded(e)
    if again or e.foreseen:  # of images that nobody knows yet
        yield Step("the worst again, and as 8-bit images", again)


def _weaker(e: Evidence) -> Iterator[Step]:
    """Attackers who know less; where nothing perturbs apart from the network itself there are none."""
    r, twin = e.request, e.request.twin
    if twin is None or not follows(twin.network):
        return
    name = "attackers who do not know the defense"
    settings: dict[Setting, Threat] = {
        "non-adaptive": non_adaptive(twin),
        "partially adaptive": assumes(twin, r.assumed, draws=r.budget.draws_of_questions),
    }
    for setting, threat in settings.items():
        places = e.everything if setting == "non-adaptive" else e.standing()
        if not places:
            return
        made: list[Attempt] = []
        for attack in _pair(r):
            title = f"{type(attack).__name__}, {setting}"
            made.append(attempt(r, title, setting, "transfer", threat, attack, places))
            if setting == "non-adaptive" and not twin.stochastic:
                # To the twin the same images are its own white-box attack.
                made.append(attempt(r, title, "adaptive", "gradient", threat, attack, places, twin))
        yield Step(name, tuple(made), needed=setting == "non-adaptive")


def _pair(r: Request) -> tuple[Attack, ...]:
    """One that spends the budget, and one that seeks the smallest distortion, as the paper's attackers do."""
    steps = r.budget.steps
    spends = PGD(r.norm, epsilon=r.epsilon, steps=steps, loss=Margin())
    if r.norm == Linf():
        return spends, FMN(r.norm, steps=2 * steps)
    return spends, DDN(steps=2 * steps, initial=r.epsilon)


def _ladder(e: Evidence) -> Iterator[Step]:
    """Draws per gradient 1, 2, 4 … until another doubling would surely win less than a point, or as other attacks take.

    The first rung is tried on all examples: whether the defense's own gradient leads anywhere is to be known even
    where other attackers have won already.
    """
    r = e.request
    for draws in r.budget.ladder if r.defense.stochastic else (1,):
        places = e.everything if draws == 1 else e.standing(white_box=True)
        if draws > r.budget.draws or not places or (not e.foreseen and e.saturated):
            return
        yield _climbed(r, draws, places)


def _more_draws(e: Evidence) -> Iterator[Step]:
    """The ladder's other rungs, on what all attacks have left: do more draws lower the headline still?"""
    r = e.request
    for draws in r.budget.ladder:
        if draws > r.budget.draws and r.defense.stochastic:
            places = e.standing(white_box=True)
            if not places or (not e.foreseen and e.saturated):
                return
            yield _climbed(r, draws, places)


def _climbed(r: Request, draws: int, places: tuple[int, ...]) -> Step:
    threat = adaptive(r.defense, draws=draws)
    made = attempt(r, rung(draws), "adaptive", "gradient", threat, pgd(r), places)
    return Step("draws per gradient", (made,), needed=draws == 1)


def _losses(e: Evidence) -> Iterator[Step]:
    """Other losses, aimed and not, and another rule for the step size; then the ladder's gradients spent on steps."""
    yield from _through(e, e.request.defense, "")


def _evened(e: Evidence) -> Iterator[Step]:
    """The ladder's attack and the same losses, of logits that were squashed, spread out again."""
    spread, said = evened(e.request), ", logits evened"
    if spread is None:
        return
    first: dict[str, Attack] = {f"PGD margin{said}": pgd(e.request)}
    yield from _each(e, "squashed logits", first, adaptive(spread, e.draws_of_attacks))
    yield from _through(e, spread, said)


def _through(e: Evidence, assumed: Defense, said: str) -> Iterator[Step]:
    r, b, draws = e.request, e.request.budget, e.draws_of_attacks
    early, several = not r.defense.stochastic, r.data.classes > 3
    loss: dict[str, Loss] = {"cross-entropy": CrossEntropy(), **({"DLR": DLR()} if several else {})}
    made: dict[str, Attack] = {
        f"APGD {name}{said}": APGD(r.norm, r.epsilon, b.steps, loss=one, stop_early=early)
        for name, one in loss.items()
    }
    yield from _each(e, "other losses", made, adaptive(assumed, draws))
    if several:
        targets = min(b.targets, r.data.classes - 1)
        aimed = TargetedAPGD(r.norm, r.epsilon, b.steps, targets, early)
        half = adaptive(assumed, max(1, draws // 2))  # each target is a run of its own
        yield from _each(e, "other losses", {f"APGD targeted{said}": aimed}, half)
    if draws > 1:
        long: dict[str, Attack] = {
            f"PGD margin, {draws} times the steps of one draw{said}": pgd(r, b.steps * draws)
        }
        yield from _each(e, "steps in place of draws", long, adaptive(assumed, draws=1))


def _gradients(e: Evidence) -> Iterator[Step]:
    """Other ways through the channel: past it, through it, through the user's stand-ins."""
    r, draws = e.request, e.draws_of_attacks
    ways = () if r.defense.channel == Identity() else r.defense.channel.gradients[1:]
    threats = {
        f"PGD margin, gradient {way.replace('_', ' ')}": adaptive(r.defense, draws, backward=way)
        for way in ways
    }
    threats |= {
        f"PGD margin, BPDA {part}": adaptive(r.defense, draws, substitute=part)
        for part in r.substitutes
    }
    for name, threat in threats.items():
        yield from _each(e, "other gradients", {name: pgd(r)}, threat)


def _black_box(e: Evidence) -> Iterator[Step]:
    """Attacks that see scores or labels only, on some examples; on all, if they win there or nothing else can."""
    r, b = e.request, e.request.budget
    draws = min(e.draws_of_attacks, b.draws_of_questions)
    if r.queries is not None:
        draws = min(draws, r.queries // FEWEST)
    most = b.queries if r.queries is None else min(b.queries, r.queries // draws)
    pairs = min(_PAIRS, most // 2 - 1)
    made: dict[str, Attack] = {
        "Square": Square(r.norm, epsilon=r.epsilon, queries=most),
        "SPSA": SPSA(r.norm, r.epsilon, steps=(most - 1) // (2 * pairs + 1), samples=pairs),
        "HopSkipJump": HopSkipJump(r.norm, queries=most),
    }
    threat, title = adaptive(r.defense, draws=draws), "without gradients"

    def tried(name: str, at: tuple[int, ...]) -> Attempt:
        whom = name.removesuffix(_ALL)
        return attempt(r, name, "adaptive", "no gradient", threat, made[whom], at)

    if not e.differentiable or e.foreseen:  # at its dearest
        for name in made:
            if places := e.standing():
                yield Step(title, (tried(name, places),))
        return
    some = tuple(i for i in e.standing() if i in e.pool)
    if some:  # so few that one is no reason to spare the next
        yield Step(title, tuple(tried(name, some) for name in made))
    for name in (n for n in made if n in e):
        # One image in fifty is more than the share by which such attacks may be the better ones.
        won = set(some) - set(e.mine.standing((*e.before(name), name)))
        rest = tuple(i for i in e.standing() if i not in e.pool)
        if won and rest:
            yield Step(title, (tried(f"{name}{_ALL}", rest),))


def _own(e: Evidence) -> Iterator[Step]:
    """The user's attacks."""
    r = e.request
    threat = adaptive(r.defense, draws=e.draws_of_attacks)
    for i, attack in enumerate(r.attacks, 1):
        name = f"yours {i}: {type(attack).__name__}"
        places = e.standing()
        if places:
            yield Step(
                "your attacks",
                (attempt(r, name, "adaptive", "yours", threat, attack, places),),
            )


def _twin(e: Evidence) -> Iterator[Step]:
    """The same attacks on what the defense is compared with, on what is left of it."""
    r, theirs = e.request, e.theirs
    if theirs is None:
        return
    twin = theirs.defense
    for name in e.mine.named("adaptive", families=("gradient", "no gradient", "yours")):
        mine = e.mine.attempts[name]
        craft = mine.crafts[0]
        if craft.threat.substitute is not None or craft.threat.backward != "default":
            continue
        if craft.threat.assumed != r.defense:  # a way round what only the defense does
            continue
        if mine.family == "gradient" and not follows(twin.network):
            continue
        places = e.everything
        if not e.foreseen:
            places = theirs.standing([n for n in theirs.attempts if n != CLEAN])
        if mine.family == "no gradient":
            places = tuple(sorted({*places} & {*mine.positions}))
        if not places:
            continue
        threat = adaptive(twin, draws=craft.threat.draws if twin.stochastic else 1)
        same = attempt(r, name, "adaptive", mine.family, threat, craft.attack, places, twin)
        yield Step("what it is compared with", (same,), needed=True)


def _each(e: Evidence, step: str, made: dict[str, Attack], threat: Threat) -> Iterator[Step]:
    """Attacks that follow the defense's gradient, one after the other, each on what the last left."""
    for name, attack in made.items():
        places = e.standing(white_box=True)
        if places:
            one = attempt(e.request, name, "adaptive", "gradient", threat, attack, places)
            yield Step(step, (one,))
