"""Plan − store = todo: what was asked for, what it needs, and what of that is not there yet."""

import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from noisychannel.arithmetic import settled
from noisychannel.engine.store import Store
from noisychannel.engine.task import Task, Tick, key_of
from noisychannel.spec import canonical

__all__ = ["Executor", "Plan", "execute", "plan", "run"]


@dataclass(frozen=True)
class Plan:
    """Tasks in an order in which each comes after those it needs, every key once."""

    tasks: tuple[Task, ...]

    def todo(self, store: Store) -> "Plan":
        """The tasks whose artifacts are not published."""
        return Plan(tuple(t for t in self.tasks if not store.has(key_of(t))))

    @property
    def work(self) -> float:
        """Expected passes through networks."""
        return sum(t.work for t in self.tasks)


@runtime_checkable
class Executor(Protocol):
    """Runs a plan's tasks, in this process or in others."""

    def __call__(self, todo: Plan, store: Store, tick: Tick) -> None: ...


def plan(wanted: Iterable[Task]) -> Plan:
    """The wanted tasks and all that they need, deduplicated by key, needs first."""
    ordered: dict[str, Task] = {}

    def visit(task: Task) -> None:
        if key_of(task) not in ordered:
            for need in task.needs():
                visit(need)
            ordered[key_of(task)] = task

    for task in wanted:
        visit(task)
    return Plan(tuple(ordered.values()))


def execute(task: Task, store: Store, tick: Tick) -> None:
    """Run one task with its fixed number of threads and publish what it made."""
    start = time.time()
    with settled(task.execution.threads):
        files = task.run(store, tick)
    store.put(
        key_of(task),
        files,
        canonical(task),
        {
            "seconds": time.time() - start,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "host": platform.node(),
            "processor": _processor(task.execution.device),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
    )


def _processor(device: str) -> str:
    """What computed, as its maker calls it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.machine()


def run(
    wanted: Iterable[Task],
    store: Store,
    executor: Executor,
    watch: Callable[[Plan, Plan], Tick],
) -> None:
    """Make everything that is wanted and not there; killed at any moment, the same call goes on.

    Args:
        wanted: tasks whose artifacts shall exist.
        store: where they are published.
        executor: runs what is missing.
        watch: given the whole plan and what is left of it, returns the listener of progress.

    Raises:
        StoreError: the results folder cannot be written.
    """
    store.check_writable()
    whole = plan(wanted)
    todo = whole.todo(store)
    executor(todo, store, watch(whole, todo))
