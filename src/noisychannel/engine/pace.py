"""How fast tasks are made here: from those that were, or from a second's trial."""

import time
from typing import NamedTuple

import torch

from noisychannel.arithmetic import settled
from noisychannel.engine.analysis import Analyse
from noisychannel.engine.run import Plan
from noisychannel.engine.store import Store
from noisychannel.engine.task import Task, key_of
from noisychannel.engine.tasks import Craft, Measure
from noisychannel.engine.training import Trained
from noisychannel.networks import prepare
from noisychannel.types import Network

__all__ = ["Pace", "pace"]

_ENOUGH = 20.0
"""Seconds of finished tasks that are believed; fewer are start-up more than work."""
_ROWS = 64


class Pace(NamedTuple):
    """Passes per second, and where that is known from."""

    rate: float
    source: str


def pace(whole: Plan, store: Store) -> Pace:
    """Passes through networks per second: of the plan's finished tasks, else of a trial on the plan's first network."""
    work = seconds = 0.0
    done = [t for t in whole.tasks if store.has(key_of(t))]
    for task in done:
        took = float(str(store.run(key_of(task)).get("seconds", 0.0)))
        work, seconds = work + task.work, seconds + took
    if seconds > _ENOUGH and work > 0:
        return Pace(work / seconds, f"measured on {len(done)} finished tasks")
    network = next((n for t in whole.tasks if (n := _network(t)) is not None), None)
    if network is None:
        return Pace(1000.0, "a guess: nothing was measured")
    return _trial(network, whole.tasks[0])


def _network(task: Task) -> Network | None:
    match task:
        case Craft():
            found = task.threat.assumed.network
        case Measure() | Analyse():
            found = task.defense.network
        case _:
            return None
    return found.train.network if isinstance(found, Trained) else found


def _trial(network: Network, task: Task) -> Pace:
    """A second of gradients, each three passes."""
    how = task.execution
    module = prepare(network.build().to(how.device))
    x = torch.rand(_ROWS, *network.shape, device=how.device).requires_grad_()
    passes, began = 0.0, time.perf_counter()
    with settled(how.threads):
        while (took := time.perf_counter() - began) < 1.0:
            (gradient,) = torch.autograd.grad(module(x).sum(), x)
            float(gradient.sum())  # waits for the device
            passes += 3 * _ROWS
    return Pace(passes / took, "measured for a second; attacks that end early take less")
