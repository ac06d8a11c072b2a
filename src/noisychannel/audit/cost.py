"""What an audit took."""

from collections.abc import Iterator
from typing import NamedTuple

from noisychannel.audit.conduct import Judged, foresee
from noisychannel.audit.side import Side
from noisychannel.engine import Task, key_of

__all__ = ["Cost", "cost", "sides", "spent"]


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
