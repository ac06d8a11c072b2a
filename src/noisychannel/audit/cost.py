"""What an audit took, and what it will take at most."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from noisychannel.audit.conduct import Judged, foresee
from noisychannel.audit.side import Side
from noisychannel.audit.steps import Step
from noisychannel.engine import Craft, Task, key_of

__all__ = ["Cost", "Foretold", "cost", "foretold", "sides", "spent"]


class Cost(NamedTuple):
    """Over all examples and draws: gradients, other questions of attackers, answers scored, and seconds."""

    gradients: int
    queries: int
    answers: int
    seconds: float


def sides(judged: Judged) -> dict[str, Side]:
    """The defense, what it is compared with, and the defense with its randomness frozen, where there are such."""
    e = judged.evidence
    known = {"defense": e.mine, "base": e.theirs, "frozen": e.frozen}
    return {name: side for name, side in known.items() if side is not None}


def spent(side: Side, name: str) -> tuple[int, int]:
    """Gradients and other questions that one attempt asked, over all examples and draws."""
    if not side.attempts[name].crafts:
        return 0, 0
    rows = side.examples(name)
    gradients = int(rows["backwards"].to_numpy().sum())
    return gradients, int(rows["forwards"].to_numpy().sum()) - gradients


def cost(judged: Judged) -> Cost:
    """Of all attempts on all sides; what two of them share counts once. Seconds are those of the run that made it."""
    crafted: dict[str, tuple[int, int]] = {}
    answers = 0
    for side in sides(judged).values():
        for name, attempt in side.attempts.items():
            answers += side.answers(name).num_rows
            if attempt.crafts:
                crafted["".join(key_of(c) for c in attempt.crafts)] = spent(side, name)
    store = judged.evidence.mine.store
    keys = {key_of(task) for task in _tasks(judged)}
    return Cost(
        sum(gradients for gradients, _ in crafted.values()),
        sum(queries for _, queries in crafted.values()),
        answers,
        sum(store.seconds(key) for key in sorted(keys)),
    )


def _tasks(judged: Judged) -> Iterator[Task]:
    e = judged.evidence
    for side in sides(judged).values():
        for attempt in side.attempts.values():
            yield from attempt.measures
            yield from attempt.crafts
    for step in foresee(e.request, e.mine.store):
        yield from (task for name, task in step.other.items() if name in e.other)


class Foretold(NamedTuple):
    """What the steps of one name take at most: attacks, gradients and other questions over all examples and draws."""

    name: str
    attacks: int
    gradients: int
    queries: int
    tasks: tuple[Task, ...]


def foretold(steps: Iterable[Step]) -> Iterator[Foretold]:
    """Of each name among them, in their order; an attack that two share counts for the first."""
    steps, told = tuple(steps), set[str]()
    for name in dict.fromkeys(s.name for s in steps):
        alike = [s for s in steps if s.name == name]
        attempts = [a for s in alike for a in s.attempts]
        crafts = {key_of(c): c for a in attempts for c in a.crafts}
        dearest = [_dearest(c) for key, c in crafts.items() if key not in told]
        told |= crafts.keys()
        yield Foretold(
            name,
            len([a for a in attempts if a.crafts]),
            sum(gradients for gradients, _ in dearest),
            sum(queries for _, queries in dearest),
            tuple(t for s in alike for t in s.tasks),
        )


def _dearest(craft: Craft) -> tuple[int, int]:
    rows = craft.data.size * (craft.threat.draws if craft.threat.assumed.stochastic else 1)
    return rows * craft.attack.gradients, rows * craft.attack.queries
