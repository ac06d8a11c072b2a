"""How fast tasks are made here, network by network: from those that were, or from a second's trial."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch

from noisychannel.arithmetic import settled
from noisychannel.defenses import Defense
from noisychannel.engine.analysis import Analyse
from noisychannel.engine.certificates import Certify
from noisychannel.engine.run import Plan
from noisychannel.engine.store import Store
from noisychannel.engine.task import Execution, Task, key_of
from noisychannel.engine.tasks import Craft, Measure
from noisychannel.engine.training import Train, untrained
from noisychannel.measures import Asked
from noisychannel.networks import prepare
from noisychannel.spec import key
from noisychannel.types import Batch, Network

__all__ = ["Pace", "pace"]

_ENOUGH = 20.0
"""Seconds of a network's finished tasks that are believed; fewer are start-up more than work."""
_ROWS = 64  # of a trial
_GUESS = 1000.0


class _Kind(NamedTuple):
    """What equally fast tasks share. Training is apart: batch norm's own passes, backward to all weights, crops."""

    network: str
    trains: bool
    execution: Execution


_UNKNOWN = _Kind("", trains=False, execution=Execution())


class Pace(NamedTuple):
    """Passes per second over all that is left, where that is known from, and the rate of each kind of task."""

    rate: float
    source: str
    rates: Mapping[_Kind, float] = MappingProxyType({})

    def seconds(self, tasks: Sequence[Task], workers: int = 1) -> float:
        """What tasks take, each at its own network's rate, so many side by side as do not need each other."""
        ours = {key_of(t) for t in tasks}
        chains = sum(not any(key_of(n) in ours for n in t.needs()) for t in tasks)
        alone = sum(t.work / self.rates.get(_kind(t), self.rate) for t in tasks)
        return alone / max(1, min(workers, chains))


def pace(whole: Plan, store: Store) -> Pace:
    """Passes through networks per second: of each network's finished tasks in the plan, else of a trial of it."""
    left = whole.todo(store).tasks
    missing = {key_of(t) for t in left}
    done = [(t, _seconds(t, store)) for t in whole.tasks if key_of(t) not in missing]
    finished = _measured(done)
    if not left:
        seconds = sum(took for _, took in done)
        rate = whole.work / seconds if seconds > 0 and whole.work > 0 else _GUESS
        return Pace(rate, f"measured on {len(done)} finished tasks", finished)
    rates: dict[_Kind, float] = {}
    tried: dict[_Kind, float] = {}
    for task in left:
        kind, network = _kind(task), _network(task)
        if kind in rates:
            continue
        if kind in finished or network is None:
            rates[kind] = finished.get(kind, _GUESS)
            continue
        same = kind._replace(trains=False)
        if same not in tried:
            tried[same] = _trial(network, kind.execution)
        rates[kind] = tried[same]
    found = Pace(_GUESS, _source(rates.keys() & finished.keys(), tried), rates)
    return found._replace(rate=sum(t.work for t in left) / found.seconds(left))


def _source(finished: Collection[_Kind], tried: Collection[_Kind]) -> str:
    """In words."""
    said = [f"{len(finished)} on finished tasks"] if finished else []
    if tried:
        said += [f"{len(tried)} for a second; attacks that end early take less"]
    if not said:
        return "a guess: nothing was measured"
    return f"measured network by network: {', '.join(said)}"


def _seconds(task: Task, store: Store) -> float:
    return float(str(store.run(key_of(task)).get("seconds", 0.0)))


def _measured(done: Iterable[tuple[Task, float]]) -> dict[_Kind, float]:
    """The rates of kinds of which enough was done."""
    work: dict[_Kind, float] = {}
    seconds: dict[_Kind, float] = {}
    for task, took in done:
        kind = _kind(task)
        work[kind] = work.get(kind, 0.0) + task.work
        seconds[kind] = seconds.get(kind, 0.0) + took
    return {k: w / seconds[k] for k, w in work.items() if seconds[k] > _ENOUGH and w > 0}


def _kind(task: Task) -> _Kind:
    network = _network(task)
    if network is None:
        return _UNKNOWN
    return _Kind(key(network), isinstance(task, Train), task.execution)


def _network(task: Task) -> Network | None:
    match task:
        case Craft():
            found = task.threat.assumed.network
        case Measure() | Analyse() | Certify():
            found = task.defense.network
        case Train():
            found = task.network
        case _:
            return None
    return untrained(found)


def _trial(network: Network, how: Execution) -> float:
    """A second of gradients, each three passes and of a draw of its own, as attacks ask for them."""
    module = prepare(network.build().to(how.device))
    x = torch.full((_ROWS, *network.shape), 0.5, device=how.device)
    batch = Batch(x, *(torch.arange(_ROWS, device=how.device) for _ in range(2)))
    asked = Asked(Defense(network), module, x, batch)
    with settled(how.threads):
        _pass(asked.first(1))  # what is set up once
        passes, began = 0.0, time.perf_counter()
        while (took := time.perf_counter() - began) < 1.0:
            passes += _ROWS * _pass(asked)
    return passes / took


def _pass(asked: Asked) -> float:
    """Three passes, or one through a network without a gradient."""
    (look,) = asked.looks(1)
    if not look.logits.requires_grad:
        float(look.logits.sum())  # waits for the device
        return 1.0
    (gradient,) = torch.autograd.grad(look.logits.sum(), look.seen, materialize_grads=True)
    float(gradient.sum())
    return 3.0
