"""A training that can go on after a kill: one safetensors file with model, optimiser and where it stood."""

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from noisychannel.errors import UserError

__all__ = ["Epoch", "Made", "State", "check_own", "digest", "load", "plain", "save"]

_NAME = "training.safetensors"


class Epoch(NamedTuple):
    """One finished epoch: its number from 1, mean training loss, learning rate, accuracy on held-out examples."""

    epoch: int
    loss: float
    rate: float
    validation: float | None


class State(NamedTuple):
    """Where a training stands; all of its randomness is named by the step, so there is no generator to save."""

    step: int = 0
    total: float = 0.0
    history: tuple[Epoch, ...] = ()
    best: dict[str, Tensor] | None = None


Made = dict[str, str]
"""What makes a training, in words, each with its hash."""


def check_own(folder: Path, made: Made) -> None:
    """Refuse a folder with the state of another training: nobody gets weights of something else.

    Raises:
        UserError: it has one.
    """
    read = _read(folder)
    if read is None:
        return
    theirs: Any = json.loads(read[0]).get("made")
    if theirs is None:
        what = "of an older version, which does not say what made it"
    else:
        what = " and ".join(f"another {n}" for n in made if theirs.get(n) != made[n])
        what = what and f"of a training with {what}"
    if what:
        raise UserError(
            f"scratch: expected an empty folder or this training's own state, got {folder}, which has "
            f"the state {what}; choose another folder or delete it"
        )


def save(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: State, made: Made
) -> None:
    """Write the whole state aside, flush it to disk, rename it into place."""
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": t for name, t in moments.items()}
    tensors |= {f"best.{name}": t for name, t in (state.best or {}).items()}
    total = state.total.hex()
    where = {"step": state.step, "total": total, "history": state.history, "made": made}
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{_NAME}.partial"
    held = plain(tensors)
    told = json.dumps(where)
    safetensors.torch.save_file(held, partial, {"state": told, "sum": digest(told, held)})
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.rename(folder / _NAME)


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Fill model and optimiser from what was saved last; nothing saved, or damaged (a warning): a fresh start."""
    if not (folder / _NAME).exists():
        return State()
    read = _read(folder)
    if read is None:
        warnings.warn(
            f"training: the state saved in {folder} is damaged; it begins anew", stacklevel=2
        )
        return State()
    told, tensors = read
    where: Any = json.loads(told)
    model.load_state_dict(_below("model.", tensors))
    _load_optimizer(optimizer, _below("optimizer.", tensors))
    history = tuple(Epoch(*epoch) for epoch in where["history"])
    best = _below("best.", tensors)
    return State(where["step"], float.fromhex(where["total"]), history, best or None)


def _read(folder: Path) -> tuple[str, dict[str, Tensor]] | None:
    """What was saved; None where nothing was, or where it is damaged."""
    try:
        with safetensors.safe_open(folder / _NAME, "pt") as file:
            told = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        return None
    if not told or "state" not in told or told.get("sum") != digest(told["state"], tensors):
        return None
    return told["state"], tensors


def plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same on the CPU, each in one piece: what is written, and what is hashed."""
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, moment = name.partition(".")
        like = parameters[int(number)]
        # In the parameter's own memory layout, as the optimiser would have made it.
        fitted = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
        state.setdefault(int(number), {})[moment] = fitted
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def digest(told: str, tensors: dict[str, Tensor]) -> str:
    """A digest of all that is saved: a disk may give back a file of the right form with other numbers."""
    running = hashlib.sha256(told.encode())
    for name, tensor in sorted(tensors.items()):
        running.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        running.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return running.hexdigest()


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
