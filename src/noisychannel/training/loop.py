"""Plain training: same seed, same threads, same bytes."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from noisychannel import rng
from noisychannel.errors import expected
from noisychannel.types import Batch

__all__ = ["Progress", "Recipe", "fit"]

Progress = Callable[[int, float], None]
"""Told after each epoch: its number, from 1, and the mean training loss."""


@dataclass(frozen=True)
class Recipe:
    """How to train: cross-entropy, one-cycle learning rate, shuffled batches of one size.

    Args:
        epochs: passes over the examples, ≥ 1.
        batch_size: examples per step, ≥ 2 (batch norm needs two); a smaller rest is left out of an epoch.
        learning_rate: its peak, > 0.
        weight_decay: ≥ 0.
        optimizer: `sgd` (Nesterov) or `adam` (AdamW).
        momentum: of SGD, 0 … 1.

    Raises:
        UserError: a number out of range.
    """

    version: ClassVar[int] = 1
    epochs: int = 15
    batch_size: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9

    def __post_init__(self) -> None:
        checks = (
            ("epochs", "a whole number ≥ 1", self.epochs, self.epochs >= 1),
            ("batch_size", "a whole number ≥ 2", self.batch_size, self.batch_size >= 2),
            ("learning_rate", "a number > 0", self.learning_rate, self.learning_rate > 0),
            ("weight_decay", "a number ≥ 0", self.weight_decay, self.weight_decay >= 0),
            ("momentum", "a number in 0 … 1", self.momentum, 0 <= self.momentum < 1),
            ("optimizer", "sgd or adam", self.optimizer, self.optimizer in ("sgd", "adam")),
        )
        for name, wanted, got, fine in checks:
            if not fine:
                raise expected(name, wanted, got)


def fit(
    module: nn.Module, batch: Batch, recipe: Recipe, *, progress: Progress | None = None
) -> nn.Module:
    """A trained copy of a network, in eval mode; the network itself is untouched.

    All randomness (order of examples, noise layers, dropout) is named by the caller's `rng.root`.

    Args:
        module: takes pixels in [0, 1], gives logits.
        batch: the training examples.
        recipe: how.
        progress: told after each epoch.

    Raises:
        UserError: fewer examples than two.
    """
    if len(batch) < 2:
        raise expected("training examples", "at least 2", len(batch))
    model = copy.deepcopy(module).train().requires_grad_(requires_grad=True)
    size = min(recipe.batch_size, len(batch))
    steps = len(batch) // size
    optimizer, schedule = _optimizer(model, recipe, steps)
    order = rng.generator("train", "order")
    for epoch in range(recipe.epochs):
        shuffled = torch.randperm(len(batch), generator=order).to(batch.x.device)
        total = torch.zeros((), device=batch.x.device)
        for step, rows in enumerate(shuffled[: steps * size].split(size)):
            part = batch.rows(rows)
            stream = rng.Stream("train", part.index, step=epoch * steps + step)
            with rng.bracket(stream), rng.torch_seeded(stream.named("torch")):
                loss = functional.cross_entropy(model(part.x), part.y)
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        if progress is not None:
            progress(epoch + 1, float(total) / steps)
    return model.eval()


def _optimizer(
    model: nn.Module, recipe: Recipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            model.parameters(), rate, recipe.momentum, weight_decay=decay,
            nesterov=recipe.momentum > 0,
        )  # fmt: skip
    else:
        optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=decay)
    total = recipe.epochs * steps
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=total + 1, cycle_momentum=False
    )
    return optimizer, cycle
