"""One training by several processes on this machine: started, listened to, and never left behind."""

import logging
import multiprocessing
import os
import random
import socket
import threading
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import nn

from noisychannel import rng
from noisychannel.arithmetic import settled
from noisychannel.children import deaf, end_with
from noisychannel.errors import UserError
from noisychannel.training.checkpoint import Epoch, Made
from noisychannel.training.loop import Watch, train_on
from noisychannel.training.recipe import Recipe
from noisychannel.types import Batch

__all__ = ["Job", "train_in_processes"]

_PATIENCE = 5.0
"""Seconds for the last words of processes that failed: one killed in mid-sentence never ends it."""

Result = tuple[bytes, tuple[Epoch, ...]]
"""The network's tensors and its epochs."""


class Job(NamedTuple):
    """What is trained, and how; `module` and `batch` are on the CPU."""

    module: nn.Module
    batch: Batch
    recipe: Recipe
    made: Made
    accelerator: str
    devices: int


class _Crash(NamedTuple):
    """What a process says of an error that is no sentence for the user."""

    told: str


def train_in_processes(job: Job, watch: Watch) -> Result:
    """Start the processes, pass on what they say, and end them with this call, however it ends.

    Raises:
        UserError: of a process; or one was killed.
        RuntimeError: a process failed; with its traceback.
    """
    with _listening(watch) as line:
        fallen = _run(job, watch, line)
        line.patience = _PATIENCE if fallen else None
    if line.error is not None:
        raise line.error
    if line.result is None:
        mend = (
            "it was ended from outside, perhaps short of memory: start it again"
            if fallen < 0
            else 'see what it said above, and start trainings below `if __name__ == "__main__":`'
        )
        raise UserError(
            f"training: expected {job.devices} processes to finish, got exit code {fallen} of one; {mend}"
        )
    return line.result


def _run(job: Job, watch: Watch, line: "_Line") -> int:
    """Wait for all processes, or for the first that fails; its exit code."""
    spawn = multiprocessing.get_context("spawn")
    port = os.environ.get("MASTER_PORT") or str(_free_port())
    started: list[Any] = []
    try:
        # Ctrl-C is this process's to hear: it ends the others, whose own words on it nobody needs.
        with deaf():
            for rank in range(job.devices):
                process = spawn.Process(target=_Process(job, watch, line, rank, port))
                process.start()
                started.append(process)
        running = {process.sentinel: process for process in started}
        while running:
            for over in connection.wait(list(running)):
                process = running.pop(over)  # pyright: ignore[reportArgumentType, reportCallIssue]
                process.join()
                if process.exitcode:
                    return process.exitcode
        return 0
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.join()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class _Line:
    """From the processes to this one: progress for the listeners, and at last the result or what is wrong."""

    def __init__(self) -> None:
        self.queue: Any = multiprocessing.get_context("spawn").SimpleQueue()
        self.over = threading.Event()
        self.result: Result | None = None
        self.error: Exception | None = None
        self.patience: float | None = _PATIENCE

    def listen(self, watch: Watch) -> None:
        """Pass on what is said, until the processes are gone and have nothing left to say."""
        while not (self.over.is_set() and self.queue.empty()):
            if self.queue.empty():
                self.over.wait(0.05)
                continue
            said = self.queue.get()
            try:
                self._pass_on(said, watch)
            except Exception as error:  # noqa: BLE001  # raised by the caller, who waits in another thread
                self.error = self.error or error

    def _pass_on(self, said: Any, watch: Watch) -> None:
        if isinstance(said, UserError):
            raise said
        if isinstance(said, _Crash):
            raise RuntimeError(f"training: a process failed:\n{said.told}")  # noqa: TRY004
        if isinstance(said, int):
            watch.tick(said)
        elif isinstance(said, Epoch):
            watch.epoch(said)
        else:
            self.result = said


@contextmanager
def _listening(watch: Watch) -> Generator[_Line]:
    """A line with somebody at its end."""
    line = _Line()
    listener = threading.Thread(target=line.listen, args=(watch,), daemon=True)
    listener.start()
    try:
        yield line
    finally:
        line.over.set()
        listener.join(line.patience)


class _Process:
    """What one of several processes does; it is told all, since it shares no memory with its parent."""

    def __init__(self, job: Job, watch: Watch, line: _Line, rank: int, port: str) -> None:
        self.job, self.rank, self.port, self.parent = job, rank, port, os.getpid()
        self.root, self.threads = rng.root_name(), torch.get_num_threads()
        self.scratch, self.logs, self.queue = watch.scratch, watch.logs, line.queue
        # A stranger's layers may draw from these, and rely on their parent's settings.
        self.states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        self.strict = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin as a process does, by being unpickled: at once, before anything that takes long."""
        self.__dict__.update(state)
        end_with(self.parent)

    def __call__(self) -> None:
        try:
            with settled(self.threads), rng.root(self.root):
                self._work()
        except UserError as error:
            self.queue.put(error)
        except Exception:  # noqa: BLE001  # whatever it is, the parent says it
            self.queue.put(_Crash(traceback.format_exc()))
        else:
            return
        raise SystemExit(1)

    def _work(self) -> None:
        job, first, told = self.job, self.rank == 0, self.queue.put
        fabric = self._fabric()
        watch = Watch(told, told, self.scratch, self.logs) if first else Watch(scratch=self.scratch)
        fitted = train_on(
            fabric, job.module, job.batch.to(fabric.device), job.recipe, watch, job.made
        )
        if first:
            state = {n: t.contiguous().cpu() for n, t in fitted.network.state_dict().items()}
            told((safetensors.torch.save(state), fitted.history))

    def _fabric(self) -> Any:
        """This process's place among the others."""
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment

        for name in ("distributed", "rank_zero"):  # which say at length that they are there
            logging.getLogger(f"lightning_fabric.utilities.{name}").setLevel(logging.WARNING)
        torch.use_deterministic_algorithms(self.strict[0], warn_only=self.strict[1])
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self.port, "LOCAL_RANK": str(self.rank)}
        os.environ.update(place, NODE_RANK="0")
        fabric = Fabric(
            accelerator=self.job.accelerator,
            devices=self.job.devices,
            strategy="ddp",
            plugins=[LightningEnvironment()],
        )
        fabric.launch()
        torch.set_rng_state(self.states[0])
        np.random.set_state(self.states[1])  # noqa: NPY002
        random.setstate(self.states[2])
        return fabric
