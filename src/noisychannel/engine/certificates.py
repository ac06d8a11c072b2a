"""The task that certifies a network under Gaussian noise: votes of many draws, and what follows from them."""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.channels import Chain, Gauss, Identity
from noisychannel.data import Dataset
from noisychannel.defenses import Defense, chunks_of, global_noise
from noisychannel.engine.store import Store
from noisychannel.engine.task import Execution, Files, Task, Tick, key_of
from noisychannel.engine.tasks import examples_of, parquet
from noisychannel.engine.training import named, ready, trainings
from noisychannel.errors import expected
from noisychannel.measures import certified, check_smoothing
from noisychannel.networks import prepare
from noisychannel.spec import key
from noisychannel.types import Batch, Channel

__all__ = ["Certify", "base_of", "certificates"]

_GRAIN = 200_000
"""Passes of one task of many: a killed run loses less, and building the network costs little beside them."""


@dataclass(frozen=True)
class Certify:
    """Certify the smoothed classifier at clean examples; artifact: `certificates.parquet`.

    g(x) = argmax_k P(f(C(x + ε)) = k), ε ~ N(0, σ²I): noise on pixels of [0, 1], not clipped after. The class is
    chosen on draws of role `selection`, its radius bounded on draws of role `scoring`.

    Args:
        data: which examples.
        defense: the base network f behind its channel C, without the noise of `sigma`. Either may be random: the
            certificate is then of the majority over their noise too. The decision rule is not asked.
        sigma: standard deviation of the noise, > 0.
        n0: selection draws, ≥ 1.
        n: scoring draws, ≥ 1.
        alpha: chance that one certificate is wrong, in (0, ½).
        seed: root of all draws.

    Raises:
        UserError: a number out of range, or a channel that begins with Gaussian noise (see `base_of`).

    Source: Cohen, Rosenfeld & Kolter 2019, Algorithm 1 (CERTIFY).
    """

    version: ClassVar[int] = 1
    data: Dataset
    defense: Defense
    sigma: float
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001
    seed: int = 0
    execution: Execution = Execution()

    def __post_init__(self) -> None:
        check_smoothing(self.sigma, self.alpha)
        for name in ("n0", "n"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))
        if isinstance(next(_parts(self.defense.channel)), Gauss):
            raise expected(
                "defense",
                "the base network without the Gaussian noise that sigma stands for",
                f"one behind {self.defense.channel}; base_of(defense) takes them apart",
            )

    def needs(self) -> tuple[Task, ...]:
        """The training of the network."""
        return trainings(self.defense)

    @property
    def work(self) -> float:
        """One pass per draw."""
        return float(self.data.size * (self.n0 + self.n))

    def parts(self) -> "tuple[Certify, ...]":
        """The same certificates as several tasks, so that a killed run goes on among them.

        Where one draw of the weights answers a whole pass, a part fills a pass.
        """
        few = max(1, _GRAIN // (self.n0 + self.n))
        size = few if self.defense.keyed else max(few, self.execution.micro_batch)
        slices = chunks_of(self.data.size, size)
        return tuple(replace(self, data=self.data.slice(s.start, s.stop)) for s in slices)

    def run(self, store: Store, tick: Tick) -> Files:
        """Count votes micro-batch by micro-batch; draws are no function of it, and no more is kept of them."""
        device, size = self.execution.device, self.execution.micro_batch
        whole = examples_of(self.data)
        base = ready(self.defense, store)
        network = prepare(base.network.build().to(device))
        smoothed = base.through(Chain(Gauss(self.sigma), base.channel))

        def votes(batch: Batch, role: rng.Role, draws: int) -> np.ndarray:
            rows = self.execution.max_rows
            found = _votes(smoothed, network, batch, role, draws, rows, tick).cpu().numpy()
            if found.shape[1] < self.data.classes:
                raise expected(
                    "classes of the network",
                    f"at least the {self.data.classes} of the data set",
                    found.shape[1],
                )
            return found

        rows: list[pa.Table] = []
        with rng.root(f"{self.seed}|{key(named(self.defense))}|certify"):
            for start in range(0, len(whole), size):
                batch = whole.rows(slice(start, start + size)).to(device)
                chosen = votes(batch, "selection", self.n0)
                rows.append(self._rows(batch, chosen, votes(batch, "scoring", self.n)))
        return {"certificates.parquet": parquet(pa.concat_tables(rows))}

    def _rows(self, batch: Batch, selection: np.ndarray, scoring: np.ndarray) -> pa.Table:
        """One row per example; the votes are kept, for another α or another question asks for no new draws."""
        found = certified(selection, scoring, self.n, self.sigma, self.alpha)
        one = np.ones(len(batch), dtype=np.int64)
        return pa.table(
            {
                "index": batch.index.cpu().numpy(),
                "label": batch.y.cpu().numpy(),
                "predicted": found.predicted,
                "radius": found.radius,
                "top": found.top,
                "top_count": found.count,
                "bound": found.bound,
                "n": self.n * one,
                "n0": self.n0 * one,
                "sigma": float(self.sigma) * one,
                "alpha": float(self.alpha) * one,
                "selection_votes": _lists(selection),
                "votes": _lists(scoring),
            }
        )


def certificates(store: Store, task: Certify) -> pa.Table:
    """A task's rows, one per example.

    Columns: index, label, predicted (−1: it abstains), radius (L2, pixels in [0, 1]), top (the class chosen),
    top_count (its votes of n), bound (of its probability), n, n0, sigma, alpha, selection_votes (K), votes (K).
    """
    return pq.read_table(io.BytesIO(store.read(key_of(task), "certificates.parquet")))


def base_of(defense: Defense, sigma: float | None = None) -> tuple[Defense, float]:
    """A smoothed defense taken apart: the base network behind what follows the noise, and the noise's σ.

    Gaussian noise that a channel begins with is what is certified; what comes after it belongs to the base.

    Args:
        defense: as deployed.
        sigma: of the noise before a defense that has none of its own; None: its own.

    Raises:
        UserError: two different σ, or none.
    """
    parts = list(_parts(defense.channel))
    own: list[float] = []
    while parts and isinstance(parts[0], Gauss):
        own.append(parts[0].sigma)
        parts = parts[1:]
    if own and sigma is not None and sigma != math.hypot(*own):
        raise expected(
            "sigma",
            f"{math.hypot(*own):g}, the noise that the target begins with (leave --sigma out, or name the network "
            "without its noise: identity --network NAME)",
            sigma,
        )
    if not own and sigma is None:
        raise expected("sigma", "a target gauss:SIGMA, or --sigma with any other", "neither")
    rest = Chain(*parts) if len(parts) > 1 else parts[0] if parts else Identity()
    return Defense(defense.network, rest), math.hypot(*own) if sigma is None else sigma


def _parts(channel: Channel) -> Iterator[Channel]:
    if isinstance(channel, Chain):
        for part in channel.parts:
            yield from _parts(part)
    else:
        yield channel


def _votes(
    defense: Defense,
    network: Callable[[Tensor], Tensor],
    batch: Batch,
    role: rng.Role,
    draws: int,
    max_rows: int,
    tick: Tick,
) -> Tensor:
    """How many draws answer each class (n, k); only the counts outlive a pass."""
    n = len(batch)
    # Weights that all of a pass share, and strangers' noise, are one draw a pass.
    at_once = max(1, max_rows // n) if defense.keyed else 1
    rows = batch.x.repeat(min(at_once, draws), *([1] * (batch.x.ndim - 1)))
    counts = torch.zeros(n, 0, dtype=torch.long)
    for chunk in chunks_of(draws, at_once):
        stream = rng.Stream(role, batch.index, 0, chunk)
        with torch.no_grad(), rng.bracket(stream), global_noise(stream, keyed=defense.keyed):
            logits = network(defense.channel(rows[: len(chunk) * n]))
        if not counts.shape[1]:
            counts = torch.zeros(n, logits.shape[1], dtype=torch.long, device=logits.device)
        answered = logits.isfinite().all(dim=1).long().view(len(chunk), n).T
        counts.scatter_add_(1, logits.argmax(dim=1).view(len(chunk), n).T, answered)
        tick(float(len(chunk) * n))
    return counts


def _lists(votes: np.ndarray) -> pa.FixedSizeListArray:
    flat = pa.array(np.ascontiguousarray(votes).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, votes.shape[1])
