"""What a task is, how it is computed, and its key."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from noisychannel.engine.store import Store
from noisychannel.errors import expected
from noisychannel.spec import key

__all__ = ["Execution", "Files", "Task", "Tick", "key_of"]

Files = dict[str, bytes]
Tick = Callable[[float], None]
"""Told how many units of `Task.work` were done."""


@dataclass(frozen=True)
class Execution:
    """How a task is computed; part of its key, since it decides the last bits of floating point.

    Args:
        device: `cpu` or `cuda`.
        threads: of a CPU task, serial or distributed.
        micro_batch: examples attacked or asked together.
        max_rows: examples × draws in one forward pass.
    """

    version: ClassVar[int] = 1
    device: str = "cpu"
    threads: int = 2
    micro_batch: int = 128
    max_rows: int = 512

    def __post_init__(self) -> None:
        if self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise expected("device", "cpu, cuda or cuda:N", repr(self.device))
        for name in ("threads", "micro_batch", "max_rows"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))


@runtime_checkable
class Task(Protocol):
    """One artifact to be made."""

    @property
    def execution(self) -> Execution:
        """How it is computed."""
        ...

    def needs(self) -> tuple["Task", ...]:
        """Tasks whose artifacts it reads."""
        ...

    @property
    def work(self) -> float:
        """Expected passes through the network, for progress and time left."""
        ...

    def run(self, store: Store, tick: Tick) -> Files:
        """Compute the artifact's files; everything they hold is a function of the task's key."""
        ...


def key_of(task: Task) -> str:
    """The task's key: hash of its canonical spec, data and checkpoint fingerprints included.

    Kept on the task itself, not by equality: two strangers' networks may be equal as parts and yet
    have other weights.
    """
    known = vars(task).get("_key")
    if known is None:
        known = key(task)
        object.__setattr__(task, "_key", known)
    return known
