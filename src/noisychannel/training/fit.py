"""From a network and examples to a trained copy, on one device or several (Lightning Fabric)."""

import copy
import logging
import multiprocessing
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessException

from noisychannel import rng
from noisychannel.arithmetic import settled
from noisychannel.errors import UserError
from noisychannel.training.checkpoint import Epoch
from noisychannel.training.loop import Fitted, Watch, train_on
from noisychannel.training.recipe import Recipe
from noisychannel.types import Batch

__all__ = ["fit"]


def fit(
    module: nn.Module,
    batch: Batch,
    recipe: Recipe,
    watch: Watch | None = None,
    devices: int = 1,
) -> Fitted:
    """A trained copy of a network; the network itself is untouched.

    Args:
        module: takes pixels in [0, 1], gives logits.
        batch: the training examples, on the device to train on.
        recipe: how.
        watch: listeners and folders.
        devices: processes that share each batch: GPUs, or several on the CPU. With batch norm in
            training mode each has the statistics of its own share.

    Raises:
        UserError: too few examples, or a loss that is no number.
    """
    from lightning_fabric import Fabric

    watch = watch or Watch()
    accelerator = "cuda" if batch.x.is_cuda else "cpu"
    if devices == 1:
        one = [batch.x.device.index or 0] if batch.x.is_cuda else 1
        return train_on(Fabric(accelerator=accelerator, devices=one), module, batch, recipe, watch)
    fabric = Fabric(accelerator=accelerator, devices=devices, strategy="ddp_spawn")
    own = copy.deepcopy(module)
    with _listening(watch) as line:
        fabric.launch(_Process(own.cpu(), batch.to("cpu"), recipe, watch, line))
    assert line.result is not None
    state, history = line.result
    own.load_state_dict(safetensors.torch.load(state))
    return Fitted(own.to(batch.x.device).eval(), history)


class _Line:
    """From the processes to this one: progress for the listeners, and at last the result or what is wrong.

    Fabric's own way for results stops for ever where they are larger than a pipe's buffer.
    """

    def __init__(self) -> None:
        self.queue: Any = multiprocessing.get_context("spawn").SimpleQueue()
        self.over = threading.Event()
        self.result: tuple[bytes, tuple[Epoch, ...]] | None = None
        self.error: Exception | None = None

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
        if isinstance(said, int):
            watch.tick(said)
        elif isinstance(said, Epoch):
            watch.epoch(said)
        else:
            self.result = said


@contextmanager
def _listening(watch: Watch) -> Generator[_Line]:
    """A line with somebody at its end; an error of a process or of a listener is raised here."""
    line = _Line()
    listener = threading.Thread(target=line.listen, args=(watch,), daemon=True)
    listener.start()
    port = os.environ.get("MASTER_PORT")
    patience: float | None = None
    try:
        yield line
    except ProcessException:
        patience = 5.0  # one killed in mid-sentence leaves half a message, which nobody will finish
        line.over.set()
        listener.join(patience)
        if line.error is None:
            raise
    finally:
        line.over.set()
        listener.join(patience)
        if port is None:  # Fabric leaves its port behind, and two later trainings would share it
            os.environ.pop("MASTER_PORT", None)
    if line.error is not None:
        raise line.error


class _Process:
    """What one of several processes does; it is told all, since it shares no memory with its parent.

    No dataclass, and no arguments of `launch`: Fabric walks through those and refuses frozen ones.
    """

    def __init__(
        self, module: nn.Module, batch: Batch, recipe: Recipe, watch: Watch, line: _Line
    ) -> None:
        self.module, self.batch, self.recipe = module, batch, recipe
        self.root, self.threads = rng.root_name(), torch.get_num_threads()
        self.scratch, self.logs, self.queue = watch.scratch, watch.logs, line.queue

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin as a process does, by being unpickled: before Fabric says at length that it is there."""
        self.__dict__.update(state)
        for name in ("distributed", "rank_zero"):
            logging.getLogger(f"lightning_fabric.utilities.{name}").setLevel(logging.WARNING)

    def __call__(self, fabric: Any) -> None:
        with settled(self.threads):
            self._work(fabric)

    def _work(self, fabric: Any) -> None:
        first, told = fabric.is_global_zero, self.queue.put
        watch = Watch(told, told, self.scratch, self.logs) if first else Watch(scratch=self.scratch)
        batch = self.batch.to(fabric.device)
        try:
            with rng.root(self.root):
                fitted = train_on(fabric, self.module, batch, self.recipe, watch)
        except UserError as error:
            told(error)
            raise
        if first:
            state = {n: t.contiguous().cpu() for n, t in fitted.network.state_dict().items()}
            told((safetensors.torch.save(state), fitted.history))
