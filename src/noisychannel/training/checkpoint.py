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

__all__ = ["Epoch", "State", "load", "save"]

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


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    """Write the whole state aside, flush it to disk, rename it into place."""
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": t for name, t in moments.items()}
    tensors |= {f"best.{name}": t for name, t in (state.best or {}).items()}
    where = {"step": state.step, "total": state.total.hex(), "history": state.history}
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{_NAME}.partial"
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    told = json.dumps(where)
    safetensors.torch.save_file(plain, partial, {"state": told, "sum": _sum(told, plain)})
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.rename(folder / _NAME)


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Fill model and optimiser from what was saved last; nothing saved, or damaged (a warning): a fresh start."""
    if not (folder / _NAME).exists():
        return State()
    try:
        with safetensors.safe_open(folder / _NAME, "pt") as file:
            told = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        told, tensors = None, {}
    if not told or "state" not in told or told.get("sum") != _sum(told["state"], tensors):
        warnings.warn(
            f"training: the state saved in {folder} is damaged; it begins anew", stacklevel=2
        )
        return State()
    where: Any = json.loads(told["state"])
    model.load_state_dict(_below("model.", tensors))
    _load_optimizer(optimizer, _below("optimizer.", tensors))
    history = tuple(Epoch(*epoch) for epoch in where["history"])
    best = _below("best.", tensors)
    return State(where["step"], float.fromhex(where["total"]), history, best or None)


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


def _sum(told: str, tensors: dict[str, Tensor]) -> str:
    """A digest of all that is saved: a disk may give back a file of the right form with other numbers."""
    digest = hashlib.sha256(told.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
