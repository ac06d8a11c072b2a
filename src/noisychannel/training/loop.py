"""The training loop: the same seed and threads give the same bytes, also after a kill, also on several devices."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from noisychannel import rng
from noisychannel.defenses import learnt_scales
from noisychannel.errors import UserError
from noisychannel.training import checkpoint
from noisychannel.training.adversarial import Adversarial, craft
from noisychannel.training.checkpoint import Epoch, Made, State
from noisychannel.training.door import BATCH_NORMS
from noisychannel.training.logs import ignore, logger
from noisychannel.training.recipe import Recipe, seen
from noisychannel.training.schedules import Moment
from noisychannel.types import Batch

__all__ = ["Fitted", "Tick", "Watch", "train_on"]

Tick = Callable[[int], None]
"""Told how many training examples have been seen since it was told last."""

_SAVE_SECONDS = 60.0
_VALIDATION_DRAWS = 4


class Fitted(NamedTuple):
    """A trained network in eval mode, and its epochs."""

    network: nn.Module
    history: tuple[Epoch, ...]


@dataclass(frozen=True)
class Watch:
    """What a training tells, and where it keeps what a kill must not lose.

    Args:
        tick: told of progress.
        epoch: told after each epoch.
        scratch: folder of the state to go on from, of this very training: another recipe, other initial
            weights (seed them) or other examples are refused. One that is finished has nothing to do,
            and gives its result again. None: a killed training starts anew.
        logs: folder of TensorBoard event files; None: none.
    """

    tick: Tick = ignore
    epoch: Callable[[Epoch], None] = ignore
    scratch: Path | None = None
    logs: Path | None = None


def train_on(
    fabric: Any, module: nn.Module, batch: Batch, recipe: Recipe, watch: Watch, made: Made
) -> Fitted:
    """Train within a launched Fabric what `door.check` let in; each process sees its share of every batch.

    All randomness (order, crops, noise layers, dropout) is named by the caller's `rng.root` and the
    step, so a training that goes on from `watch.scratch` gives the bytes of one that was never stopped.
    """
    training = _Training(fabric, module, batch, recipe)
    state = training.resume(watch.scratch)
    watch.tick(state.step * training.size)
    saved = time.monotonic()
    with logger(watch.logs if fabric.is_global_zero else None) as log:
        while not training.over(state):
            state, finished = training.step(state)
            watch.tick(training.size)
            if finished:
                watch.epoch(state.history[-1])
                log(state.history[-1])
            late = finished or time.monotonic() - saved > _SAVE_SECONDS
            if watch.scratch is not None and late and fabric.is_global_zero:
                checkpoint.save(watch.scratch, training.model, training.optimizer, state, made)
                saved = time.monotonic()
    return training.result(state)


class _Training:
    """Model, optimiser and data of one training; `step` is the whole of its behaviour."""

    def __init__(self, fabric: Any, module: nn.Module, batch: Batch, recipe: Recipe) -> None:
        self.recipe = recipe
        self.batch, self.held_out = _held_out(batch, recipe.validation)
        self.size = min(recipe.batch_size, len(self.batch))
        self.share = slice(fabric.global_rank, None, fabric.world_size)
        self.steps = len(self.batch) // self.size
        self.model = copy.deepcopy(module)
        if batch.x.ndim == 4:
            self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.fabric = fabric
        optimizer = _optimizer(self.model, recipe)
        self.parallel, self.optimizer = fabric.setup(self.model, optimizer)
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))

    def resume(self, scratch: Path | None) -> State:
        """What was saved, or the beginning."""
        state = State()
        if scratch is not None:
            state = checkpoint.load(scratch, self.model, self.optimizer.optimizer)
        self._train_mode()
        return state

    def over(self, state: State) -> bool:
        """Whether all epochs are done, or the accuracy asked for is reached."""
        stop = self.recipe.stop_at
        last = state.history[-1].validation if state.history else None
        reached = stop is not None and last is not None and last >= stop
        return reached or state.step >= self.steps * self.recipe.epochs

    def step(self, state: State) -> tuple[State, bool]:
        """One batch; with the last of an epoch, its summary."""
        epoch = state.step // self.steps
        rate = self._rate(state)
        part = self.batch.rows(self._rows(epoch, state.step % self.steps))
        stream = rng.Stream("train", part.index, step=state.step)
        x = seen(self.recipe, part.x, stream, epoch / self.recipe.epochs)
        with rng.torch_seeded(stream.named("torch")):
            loss = self._loss(x, part.y, stream, epoch)
            self.optimizer.zero_grad()
            self.fabric.backward(loss)
        self.optimizer.step()
        # Over all devices, so that each knows the whole, and one saved state serves them all.
        shared = float(self.fabric.all_reduce(loss.detach()))
        state = state._replace(step=state.step + 1, total=state.total + shared)
        if state.step % self.steps:
            return state, False
        return self._epoch_over(state, epoch + 1, rate), True

    def result(self, state: State) -> Fitted:
        """The network whose weights the recipe keeps."""
        if self.recipe.keep == "best" and state.best is not None:
            self.model.load_state_dict(state.best)
        if self.fabric.is_global_zero:  # the one whose network is handed over
            _check_finite(self.model)
        network = self.model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        return Fitted(network.eval(), state.history)

    def _rate(self, state: State) -> float:
        losses = tuple(e.loss for e in state.history)
        at = Moment(state.step, self.steps, self.recipe.epochs, losses)
        rate = self.recipe.learning_rate * self.recipe.schedule.factor(at)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _rows(self, epoch: int, number: int) -> Tensor:
        if self._order[0] != epoch:
            named = rng.generator("train", f"order of epoch {epoch}")
            order = torch.randperm(len(self.batch), generator=named)
            self._order = (epoch, order.to(self.batch.x.device))
        return self._order[1][number * self.size : (number + 1) * self.size][self.share]

    def _loss(self, x: Tensor, y: Tensor, stream: rng.Stream, epoch: int) -> Tensor:
        how = self.recipe.adversarial
        if how is None or epoch < how.start_epoch:
            with rng.bracket(stream):
                return self._cross_entropy(self.parallel(x), y)
        return self._mixed_loss(x, y, stream, how)

    def _mixed_loss(self, x: Tensor, y: Tensor, stream: rng.Stream, how: Adversarial) -> Tensor:
        (clean, plainly), (attacked, hard) = self._halves(len(x), how)
        named = rng.Stream("train", stream.index[attacked], stream.step, part="adversarial")
        found = craft(self.model, x[attacked], y[attacked], how, named)
        with rng.bracket(named):
            loss = (how.mix * hard) * self._cross_entropy(self.parallel(found), y[attacked])
        if how.mix < 1:
            with rng.bracket(rng.Stream("train", stream.index[clean], stream.step)):
                plain = self._cross_entropy(self.parallel(x[clean]), y[clean])
            loss = loss + ((1 - how.mix) * plainly) * plain
        return loss

    def _halves(self, count: int, how: Adversarial) -> tuple[tuple[slice, float], ...]:
        """Which of the examples here are learnt clean, which attacked, and how much the mean loss of each counts.

        The halves are those of the whole batch, of which one device may have more than another: with
        these weights the mean over the devices is the mean over each half, as on one device.
        """
        if how.paired:
            return (slice(None), 1.0), (slice(None), 1.0)
        half, devices = self.size // 2, self.fabric.world_size
        clean = len(range(self.fabric.global_rank, half, devices))
        return (
            (slice(0, clean), clean * devices / half),
            (slice(clean, None), (count - clean) * devices / (self.size - half)),
        )

    def _cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(logits, y, label_smoothing=self.recipe.label_smoothing)

    def _epoch_over(self, state: State, epoch: int, rate: float) -> State:
        loss = state.total / self.steps
        if not loss < float("inf"):
            raise UserError(
                f"training: expected a finite loss, got {loss} in epoch {epoch}; "
                "lower the learning rate"
            )
        # Batch norm's statistics may differ between devices; all must stop where the first one does.
        accuracy = None if self.held_out is None else self.fabric.broadcast(self._accuracy())
        known = [e.validation for e in state.history if e.validation is not None]
        best = state.best
        if (
            self.recipe.keep == "best"
            and accuracy is not None
            and accuracy > max(known, default=-1)
        ):
            best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        done = Epoch(epoch, loss, rate, accuracy)
        return state._replace(total=0.0, history=(*state.history, done), best=best)

    def _accuracy(self) -> float:
        """On the held-out examples; over several draws, so that no epoch is kept for one lucky draw of the weights."""
        assert self.held_out is not None
        self.model.eval()
        right = [self._right(self.held_out, draw) for draw in range(_VALIDATION_DRAWS)]
        self._train_mode()
        return sum(right) / len(right) / len(self.held_out)

    def _right(self, batch: Batch, draw: int) -> int:
        right = 0
        for start in range(0, len(batch), 512):
            part = batch.rows(slice(start, start + 512))
            stream = rng.Stream("train", part.index, draws=range(draw, draw + 1), part="validation")
            with torch.no_grad(), rng.bracket(stream), rng.torch_seeded(stream.named("torch")):
                logits = self.model(self.recipe.channel(part.x))
            right += int((logits.argmax(dim=1) == part.y).sum())
        return right

    def _train_mode(self) -> None:
        self.model.train()
        if self.recipe.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()


def _held_out(batch: Batch, count: int) -> tuple[Batch, Batch | None]:
    """Training examples without, and with, the `count` that a named shuffle holds out."""
    if not count:
        return batch, None
    order = torch.randperm(len(batch), generator=rng.generator("train", "held out"))
    chosen, rest = order[:count].sort().values, order[count:].sort().values
    device = batch.x.device
    return batch.rows(rest.to(device)), batch.rows(chosen.to(device))


def _check_finite(model: nn.Module) -> None:
    """The loss of an epoch says nothing of its last step."""
    learnt = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for place, layer in model.named_modules():
        if isinstance(layer, BATCH_NORMS):
            learnt |= {f"{place}.{name}": b for name, b in layer.named_buffers(recurse=False)}
    for name, tensor in learnt.items():
        if not bool(tensor.isfinite().all()):
            raise UserError(
                f"training: expected finite weights, got others in {name} at the end; lower the learning rate"
            )


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Weight decay on all but learnt noise scales: it would shrink the noise, whatever the loss says."""
    scales = learnt_scales(model)
    groups = [
        {"params": [p for n, p in model.named_parameters()
                    if (n in scales) == learnt and p.requires_grad],
         "weight_decay": 0.0 if learnt else recipe.weight_decay}
        for learnt in (False, True)
    ]  # fmt: skip
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        momentum = recipe.momentum
        return torch.optim.SGD(groups, recipe.learning_rate, momentum, nesterov=momentum > 0)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, recipe.learning_rate)
