"""Specs that make artifacts from attacks: Craft and Measure. Each is pure: the same key gives the same bytes."""

import io
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from torch import Tensor

from noisychannel import measures, rng
from noisychannel.data import Dataset
from noisychannel.defenses import Defense
from noisychannel.engine.crafting import Told, attacked, merge, to_cpu
from noisychannel.engine.store import Store
from noisychannel.engine.task import Execution, Files, Task, Tick, key_of
from noisychannel.engine.training import named, ready, trainings
from noisychannel.errors import UserError, expected
from noisychannel.norms import L2, per_example
from noisychannel.objectives import CrossEntropy
from noisychannel.spec import key
from noisychannel.threats import DefenseView, Threat
from noisychannel.types import Adversarials, Attack, Batch

__all__ = [
    "Craft",
    "Measure",
    "adversarials",
    "check_craft",
    "examples_of",
    "parquet",
    "sources",
    "table",
]


@lru_cache(maxsize=8)
def _decoded(data: Dataset, _fingerprint: str) -> Batch:
    return data.load()


def examples_of(data: Dataset) -> Batch:
    """A data set's examples, a copy: a figure asks for the same slices hundreds of times, and decoding is slow."""
    kept = _decoded(data, data.fingerprint())
    return replace(kept, x=kept.x.clone(), y=kept.y.clone(), index=kept.index.clone())


@dataclass(frozen=True)
class Craft:
    """Attack every example of a data set; artifacts: `adversarials.safetensors`, `examples.parquet`.

    Args:
        data: which examples.
        threat: what the attacker assumes.
        attack: how he attacks.
        target_offset: 0 untargeted; k: towards class (y + k) mod K.
        seed: root of all draws.
    """

    version: ClassVar[int] = 2
    data: Dataset
    threat: Threat
    attack: Attack
    target_offset: int = 0
    seed: int = 0
    execution: Execution = Execution()

    def __post_init__(self) -> None:
        if self.target_offset and self.target_offset % self.data.classes == 0:
            raise expected(
                "target_offset",
                f"no multiple of the {self.data.classes} classes",
                self.target_offset,
            )

    def needs(self) -> tuple[Task, ...]:
        """The training of the assumed network, if it is ours."""
        return trainings(self.threat.assumed)

    @property
    def work(self) -> float:
        """Three passes (one forward, one backward of twice its cost) per gradient, one per other question: at most."""
        gradients, queries = self.attack.gradients, self.attack.queries
        random, threat = self.threat.assumed.stochastic, self.threat
        passes = (3.0 * gradients + queries) * (threat.draws if random else 1)
        if random and threat.success == "rule":
            passes += (gradients + queries) * threat.assumed.rule.draws
        return self.data.size * max(1.0, passes)

    @property
    def stream_name(self) -> str:
        """Root of the draws: no word of slices or devices, so that they change nobody's draws."""
        threat = replace(self.threat, assumed=named(self.threat.assumed))
        return f"{self.seed}|{key(threat)}|{key(self.attack)}|{self.target_offset}"

    def run(self, store: Store, tick: Tick) -> Files:
        """Attack micro-batch by micro-batch."""
        device, size = self.execution.device, self.execution.micro_batch
        work = self.work
        whole = examples_of(self.data)
        threat = replace(self.threat, assumed=ready(self.threat.assumed, store))
        told = Told(tick)
        view = DefenseView(threat, device, self.execution.max_rows, told.heard)
        _check_classes(view.plain, whole, self.data.classes, device)
        if self.target_offset:
            whole = replace(whole, target=(whole.y + self.target_offset) % self.data.classes)
        done: list[Adversarials] = []
        slopes: list[Tensor] = []
        with rng.root(self.stream_name):
            for start in range(0, len(whole), size):
                batch = whole.rows(slice(start, start + size)).to(device)
                slopes.append(_slope(view, batch))
                told.promised(work * len(batch) / len(whole))
                done.append(to_cpu(attacked(self.attack, view, batch)))
                told.finished()
        merged = merge(done)
        return {
            "adversarials.safetensors": safetensors.torch.save({"x": merged.x.contiguous()}),
            "examples.parquet": parquet(measures.examples(whole, merged, torch.cat(slopes))),
        }


def check_craft(craft: Craft | None, data: Dataset) -> None:
    """Refuse a craft of other examples than those asked about."""
    if craft is not None and craft.data != data:
        raise expected("data", f"the craft's own examples ({craft.data})", data)


def sources(craft: Craft | None, defense: Defense) -> tuple[Task, ...]:
    """What a task about a craft's examples and a defense needs: the training of its network, and the craft."""
    return (*trainings(defense), *(() if craft is None else (craft,)))


@dataclass(frozen=True)
class Measure:
    """Ask a defense about clean examples, or about those of a Craft; artifact: `draws.parquet`.

    Args:
        data: which examples; those of the craft.
        defense: the true defense.
        craft: whose candidates; None: the clean examples.
        draws: independent draws per example (a deterministic defense needs one).
        rescale_l2: move every candidate along its own direction to this L2 first (clipped to [0, 1]),
            to compare transfer at equal distortion; None leaves them.
        seed: root of all draws.
    """

    version: ClassVar[int] = 2
    data: Dataset
    defense: Defense
    craft: Craft | None = None
    draws: int = 1
    rescale_l2: float | None = None
    seed: int = 0
    execution: Execution = Execution()

    def __post_init__(self) -> None:
        if self.draws < self.defense.rule.draws:
            raise expected(
                "draws",
                f"at least the {self.defense.rule.draws} of {self.defense.rule}",
                self.draws,
            )
        check_craft(self.craft, self.data)

    def needs(self) -> tuple[Task, ...]:
        """The craft, and the training of the network."""
        return sources(self.craft, self.defense)

    @property
    def work(self) -> float:
        """One pass per draw."""
        return float(self.data.size * self.draws)

    def run(self, store: Store, tick: Tick) -> Files:
        """Score micro-batch by micro-batch on draws of their own."""
        device, size = self.execution.device, self.execution.micro_batch
        work = self.work
        whole = examples_of(self.data)
        x = whole.x
        if self.craft is not None:
            x = adversarials(store, self.craft)
        if self.rescale_l2 is not None:
            x = _rescaled(x, whole.x, self.rescale_l2)
        defense = ready(self.defense, store)
        network = defense.network.build().to(device)
        _check_classes(network, whole, self.data.classes, device)
        length = None if self.rescale_l2 is None else float(self.rescale_l2)
        source = "clean" if self.craft is None else self.craft.stream_name
        rows: list[pa.Table] = []
        with rng.root(f"{self.seed}|{key(named(self.defense))}|{source}|{length}"):
            for start in range(0, len(whole), size):
                batch = whole.rows(slice(start, start + size)).to(device)
                part = x[start : start + size].to(device)
                rows.append(
                    measures.draws(
                        defense, network, part, batch, self.draws, self.execution.max_rows
                    )
                )
                tick(work * len(batch) / len(whole))
        return {"draws.parquet": parquet(pa.concat_tables(rows))}


def table(store: Store, task: Craft | Measure) -> pa.Table:
    """A task's rows: `examples` of a Craft, `draws` of a Measure."""
    name = "examples.parquet" if isinstance(task, Craft) else "draws.parquet"
    return pq.read_table(io.BytesIO(store.read(key_of(task), name)))


def parquet(rows: pa.Table) -> bytes:
    """A table as Parquet bytes, the same bytes for the same rows."""
    out = io.BytesIO()
    pq.write_table(rows, out, compression="zstd")
    return out.getvalue()


def _slope(view: DefenseView, batch: Batch) -> Tensor:
    """‖∇ₓ CE‖₂ at the clean examples, outside of the attack's bill; NaN where the network raises or has none."""
    try:
        found = L2().size(view.query(batch.x, batch, CrossEntropy()).gradient)
    except (RuntimeError, UserError):
        found = torch.full_like(batch.y, torch.nan, dtype=torch.float32)
    view.cost(batch)
    return found.cpu()


def _check_classes(network: torch.nn.Module, batch: Batch, classes: int, device: str) -> None:
    stream = rng.Stream("selection", batch.index[:1])
    with torch.no_grad(), rng.torch_seeded(stream), rng.bracket(stream):
        outputs = network(batch.x[:1].to(device)).shape[1]
    if outputs < classes:
        raise expected("classes of the network", f"at least the {classes} of the data set", outputs)


def adversarials(store: Store, craft: Craft) -> Tensor:
    """A craft's candidates (n, …), in the order of its data."""
    return safetensors.torch.load(store.read(key_of(craft), "adversarials.safetensors"))["x"]


def _rescaled(x: Tensor, clean: Tensor, size: float) -> Tensor:
    delta = x - clean
    factor = size / L2().size(delta).clamp_min(1e-12)
    return (clean + delta * per_example(factor, delta)).clamp(0, 1)
