"""What a question is asked about, and what it is: rows about a defense at given points, draw by draw."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.defenses import Defense, global_noise
from noisychannel.types import Batch, Images

__all__ = ["Asked", "Look", "Question", "class_of", "column", "vectors"]


class Look(NamedTuple):
    """One draw of a defense: what the network saw, a leaf (n, …) that asks for a gradient, and its logits (n, k)."""

    draw: int
    seen: Tensor
    logits: Tensor


@dataclass(frozen=True, eq=False)
class Asked:
    """A defense and the points that a question is about.

    Args:
        defense: its channel and randomness.
        network: its module, prepared for gradients (`networks.prepare`).
        x: points (n, …) in the order of `batch`: its clean examples, or what an attack made of them.
        batch: the clean examples.
    """

    defense: Defense
    network: nn.Module
    x: Images
    batch: Batch

    def looks(self, draws: int) -> Iterator[Look]:
        """What the network sees and says on each draw, with a graph from what it saw to what it said."""
        for draw in range(draws if self.defense.stochastic else 1):
            with self._drawn(self._stream(draw)):
                with torch.no_grad():
                    seen = self.defense.channel(self.x.clone())
                leaf = seen.detach().clone().requires_grad_()
                with torch.enable_grad():
                    logits = self.network(leaf)
            yield Look(draw, leaf, logits)

    def beside(self, seen: Tensor, draw: int) -> Tensor:
        """Logits at another point than it saw on that draw, with the same noise inside the network."""
        with self._drawn(self._stream(draw)), torch.no_grad():
            self.defense.channel(self.x.clone())  # its draws come first
            return self.network(seen)

    def bare(self, x: Images) -> Tensor:
        """Logits without the channel, on a draw of their own."""
        with self._drawn(self._stream(0).named("bare")), torch.no_grad():
            return self.network(x)

    def first(self, count: int) -> "Asked":
        """The first so many points."""
        few = self.batch.rows(slice(0, count))
        return replace(self, x=self.x[:count], batch=few)

    def _stream(self, draw: int) -> rng.Stream:
        return rng.Stream("scoring", self.batch.index, 0, range(draw, draw + 1))

    @contextmanager
    def _drawn(self, stream: rng.Stream) -> Generator[None]:
        with rng.bracket(stream), global_noise(stream, keyed=self.defense.keyed):
            yield


@runtime_checkable
class Question(Protocol):
    """Rows about a defense at some points; a pure function of them and of named draws."""

    version: ClassVar[int]

    @property
    def work(self) -> float:
        """Expected passes through the network per example."""
        ...

    def __call__(self, asked: Asked) -> pa.Table: ...


def class_of(logits: Tensor) -> Tensor:
    """The class of each row (…, k) → (…), −1 where a logit is no number: that is an answer to nothing."""
    return logits.argmax(dim=-1).where(logits.isfinite().all(dim=-1), -1)


def column(values: Tensor) -> np.ndarray:
    """A tensor (n,) as a column: whole numbers as int64, others as float64."""
    flat = values.detach().cpu().numpy()
    return flat.astype(np.float64 if values.is_floating_point() else np.int64)


def vectors(values: Tensor) -> pa.FixedSizeListArray:
    """A tensor (n, m) as a column of m float64 each."""
    flat = np.ascontiguousarray(values.detach().cpu().numpy().astype(np.float64).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), values.shape[1])
