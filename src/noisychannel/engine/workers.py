"""The executor of several processes: tasks side by side, one thread each, and the same bytes as one after the other."""

import gc
import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import torch

from noisychannel.children import deaf, end_with
from noisychannel.engine.run import Plan, execute
from noisychannel.engine.serial import serial
from noisychannel.engine.store import Store
from noisychannel.engine.task import Tick, key_of
from noisychannel.errors import UserError, no_exit

__all__ = ["Workers", "cores"]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@dataclass(frozen=True)
class Workers:
    """Runs a plan's tasks in several processes of this machine, each after those it needs.

    Two processes of one thread each do more passes a second than one of two threads: small batches of small networks
    do not fill two. The processes are forked, so that a network that only this process knows (a stranger's, from a
    notebook) need not be sent; where that cannot be done (other systems than Linux, a GPU, tasks of several threads)
    the tasks are run one after the other in this process.

    Args:
        count: processes at most, ≥ 1.

    Raises:
        UserError: of a task; or a process was killed.
        RuntimeError: a task failed; with its traceback.
    """

    count: int

    def __call__(self, todo: Plan, store: Store, tick: Tick) -> None:
        count = min(self.count, len(todo.tasks))
        if count < 2 or not _forks(todo):
            serial(todo, store, tick)
            return
        line = _Line(todo)
        with _started(count, todo, store) as idle:
            busy: dict[Connection, _Worker] = {}
            while line.left:
                while idle and line.ready:
                    worker = idle.pop()
                    busy[worker.line] = worker
                    worker.line.send(line.ready.pop(0))
                for heard in connection.wait(list(busy)):
                    assert isinstance(heard, Connection)
                    said = busy[heard].said()
                    if isinstance(said, float):
                        tick(said)
                    else:
                        line.done(said)
                        idle.append(busy.pop(heard))


def _forks(todo: Plan) -> bool:
    """Whether processes can be forked here, and compute what this one would."""
    # autograd's threads for devices do not survive a fork; nor do those of OpenMP, which one thread does not need.
    alone = all(t.execution.device == "cpu" and t.execution.threads == 1 for t in todo.tasks)
    return alone and sys.platform == "linux" and torch.accelerator.device_count() == 0


class _Line:
    """Which tasks are ready, by their places in the plan."""

    def __init__(self, todo: Plan) -> None:
        places = {key_of(t): i for i, t in enumerate(todo.tasks)}
        self.waits = [
            {places[k] for k in map(key_of, t.needs()) if k in places} for t in todo.tasks
        ]
        self.left = set(places.values())
        self.ready = [i for i, needs in enumerate(self.waits) if not needs]

    def done(self, place: int) -> None:
        """A task was published; those that waited for it alone come first, in the plan's order."""
        self.left.discard(place)
        freed: list[int] = []
        for i, needs in enumerate(self.waits):
            if place in needs:
                needs.discard(place)
                if not needs:
                    freed.append(i)
        self.ready = [*freed, *self.ready]


class _Failed(NamedTuple):
    """A task's end that is no artifact: a sentence for the user, or a traceback."""

    told: bytes | str


class _Worker(NamedTuple):
    """A process and the line to it."""

    process: BaseProcess
    line: Connection

    def said(self) -> float | int:
        """Units of work that were done, or the place of a task that is published."""
        try:
            heard = self.line.recv()
        except EOFError:
            self.process.join()
            raise UserError(
                f"a process of this run ended from outside (exit code {self.process.exitcode}), perhaps short of "
                "memory: give the same command again, with a smaller --workers"
            ) from None
        if not isinstance(heard, _Failed):
            return heard
        if isinstance(heard.told, bytes):
            raise pickle.loads(heard.told)  # noqa: S301  # of our own child
        raise RuntimeError(f"a task failed in another process:\n{heard.told}")


@contextmanager
def _started(count: int, todo: Plan, store: Store) -> Generator[list[_Worker]]:
    """Processes that wait for a task's place, ended however this ends."""
    forked, started = get_context("fork"), list[_Worker]()
    _first_gradient()
    gc.freeze()  # else each process copies what its collector looks at
    try:
        with deaf(), warnings.catch_warnings():
            # Of threads, which a fork leaves behind: those of the bar draw, and nothing here waits for them.
            warnings.simplefilter("ignore", DeprecationWarning)
            for _ in range(count):
                here, there = forked.Pipe()
                process = forked.Process(target=_work, args=(there, todo, store, os.getpid()))
                process.start()
                there.close()
                started.append(_Worker(process, here))
        gc.unfreeze()
        yield [*started]
    finally:
        for worker in started:
            worker.process.kill()
        for worker in started:
            worker.process.join()
            worker.line.close()


def _first_gradient() -> None:
    """What torch imports at its first gradient takes a second, and is inherited by processes that are forked after."""
    x = torch.zeros(1, requires_grad=True)
    torch.autograd.grad(2 * x, x, torch.ones(1))


def _work(line: Connection, todo: Plan, store: Store, parent: int) -> None:
    """What a process does: the tasks it is told, until it is ended."""
    end_with(parent)
    # The parent's may be held by a thread of its bar, which was not forked along.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    for place in _told(line):
        try:
            with no_exit():
                execute(todo.tasks[place], store, lambda amount: line.send(float(amount)))
        except UserError as error:
            line.send(_Failed(pickle.dumps(error)))
        except Exception:  # noqa: BLE001  # whatever it is, the parent says it
            line.send(_Failed(traceback.format_exc()))
        else:
            line.send(place)


def _told(line: Connection) -> Iterator[int]:
    while True:
        yield line.recv()
