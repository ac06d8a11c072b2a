"""From a spec to a network ready to use: initial weights by name, or a checkpoint through a mapping of names."""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.errors import CheckpointError, expected
from noisychannel.networks import hub
from noisychannel.types import Sharing

__all__ = ["Checkpoint", "Deterministic", "Names", "Pictures", "build", "check_sizes"]

Names = tuple[tuple[str, str], ...]
"""Pairs (pattern, replacement) of regular expressions that turn their tensor names into ours; the
first pattern that matches a name from its start is used, other names stay."""


@dataclass(frozen=True)
class Checkpoint:
    """Stored weights: a file of tensors, whose names a mapping turns into those of our network.

    Args:
        name: a path, or the name of a file in `$NOISYCHANNEL_WEIGHTS` (with or without
            `.safetensors`). Other files (`.pt`, `.pth`) are read by `torch.load(weights_only=True)`.
            Or `hub:owner/repo[@revision][/file.safetensors]` on the Hugging Face hub, by default
            its `model.safetensors`.
        names: their tensor names → ours.
        ignore: patterns of their tensor names to leave out (from the start of the name).
    """

    version: ClassVar[int] = 1
    name: str = field(repr=False)  # may be a path; the fingerprint speaks for the content
    names: Names = ()
    ignore: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Checkpoint({self.name!r})"

    def path(self) -> Path:
        """The file, downloaded if it is on the hub.

        Raises:
            CheckpointError: there is none.
        """
        if self.name.startswith(hub.PREFIX):
            return hub.fetch(self.name)
        root = os.environ.get("NOISYCHANNEL_WEIGHTS")
        places = [Path(self.name).expanduser()]
        if root:
            inside = Path(root).expanduser() / self.name
            places += [inside, inside.with_name(inside.name + ".safetensors")]
        for place in places:
            if place.is_file():
                return place
        raise CheckpointError(
            f"checkpoint: expected a file, or a name in $NOISYCHANNEL_WEIGHTS ({root or 'not set'}), "
            f"got {self.name!r}; mend the path, or write hub:owner/repo for one on the hub"
        )

    def tensors(self) -> dict[str, Tensor]:
        """The tensors, by our names.

        Raises:
            CheckpointError: the file is missing or unreadable, or two names become one.
        """
        theirs = _read(self.path())
        kept = [name for name in theirs if not any(re.match(p, name) for p in self.ignore)]
        ours = {rename(name, self.names): theirs[name] for name in kept}
        if len(ours) != len(kept):
            raise CheckpointError(f"checkpoint: the mapping of {self.name!r} makes two names one")
        return ours

    def fill(self, module: nn.Module) -> nn.Module:
        """Give a network these weights, in place.

        Counters of batch norm (`num_batches_tracked`) may be missing: no prediction uses them.

        Raises:
            CheckpointError: tensors that are missing, left over, or of another shape, by name.
        """
        wanted = module.state_dict()
        given = {n: t.view(()) if t.numel() == 1 and n.endswith(_COUNTER) else t
                 for n, t in self.tensors().items()}  # fmt: skip
        missing = sorted(n for n in wanted.keys() - given.keys() if not n.endswith(_COUNTER))
        surplus = sorted(given.keys() - wanted.keys())
        wrong = [
            f"{n} {tuple(given[n].shape)} instead of {tuple(wanted[n].shape)}"
            for n in sorted(wanted.keys() & given.keys())
            if given[n].shape != wanted[n].shape
        ]
        faults = {"missing": missing, "left over": surplus, "of another shape": wrong}
        found = [f"{len(items)} {what} ({_some(items)})" for what, items in faults.items() if items]
        if found:
            raise CheckpointError(
                f"checkpoint {self.name!r}: expected the {len(wanted)} tensors of "
                f"{type(module).__name__}, got {'; '.join(found)}; map the names or choose its network"
            )
        module.load_state_dict({**wanted, **given})
        return module

    def fingerprint(self) -> str:
        """Hash of the file's bytes."""
        path = self.path()
        state = path.stat()  # a changed file is hashed again
        return _file_hash(path, (state.st_size, state.st_mtime_ns))


class Deterministic:
    """What every network without draws answers to the questions of `types.Network`."""

    @property
    def stochastic(self) -> bool:
        """No."""
        return False

    @property
    def keyed(self) -> bool:
        """Yes: it draws nothing."""
        return True

    @property
    def weights(self) -> Sharing:
        """They are not random."""
        return "fixed"


@dataclass(frozen=True)
class Pictures(Deterministic):
    """The numbers of a classifier of 32 × 32 pictures.

    Args:
        classes: number of classes.
        channels: colours of the input.
        mean: normalisation, one number per colour; empty: none.
        std: normalisation, one number per colour; empty: none.
        checkpoint: stored weights; None: initial weights.
        seed: name of the initial weights.

    Raises:
        UserError: a size below 1.
    """

    classes: int = 10
    channels: int = 3
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    checkpoint: Checkpoint | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(classes=self.classes, channels=self.channels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, for a probe."""
        return (self.channels, 32, 32)


_COUNTER = "num_batches_tracked"


def rename(name: str, names: Names) -> str:
    """One tensor's name by the first pair that matches it."""
    for pattern, replacement in names:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    return name


def build(make: Callable[[], nn.Module], checkpoint: Checkpoint | None, seed: int) -> nn.Module:
    """A network in eval mode: with the checkpoint's weights, else initial ones named by the seed."""
    stream = rng.Stream("train", torch.zeros(1, dtype=torch.long), part="initial weights")
    with rng.root(f"network {seed}"), rng.torch_seeded(stream):
        module = make()
    if checkpoint is not None:
        checkpoint.fill(module)
    return module.eval()


def check_sizes(**sizes: int) -> None:
    """Refuse numbers of classes, channels or filters below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise expected(name, "a whole number ≥ 1", size)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"checkpoint: cannot read {path}: {error}") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise CheckpointError(
            f"checkpoint: {path} holds more than tensors; store module.state_dict() alone"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(t, Tensor) for t in found.values()):
        raise CheckpointError(f"checkpoint: expected a state dict of tensors in {path}")
    return found


@lru_cache(maxsize=256)
def _file_hash(path: Path, _state: tuple[int, int]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
