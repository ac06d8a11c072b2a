"""The task that asks a question of a defense: gradients, Hessians, distances, pictures."""

import io
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from noisychannel import rng
from noisychannel.data import Dataset
from noisychannel.defenses import Defense
from noisychannel.engine.store import Store
from noisychannel.engine.task import Execution, Files, Task, Tick, key_of
from noisychannel.engine.tasks import (
    Craft,
    adversarials,
    check_craft,
    examples_of,
    parquet,
    sources,
)
from noisychannel.engine.training import named, ready
from noisychannel.measures import Asked, Question
from noisychannel.networks import prepare
from noisychannel.spec import key

__all__ = ["Analyse", "answer"]


@dataclass(frozen=True)
class Analyse:
    """Ask a question of a defense at clean examples, or at those of a Craft; artifact: `rows.parquet`.

    Args:
        data: which examples; those of the craft.
        defense: whose network and channel.
        question: what is asked.
        craft: whose candidates; None: the clean examples.
        seed: root of all draws.

    Raises:
        UserError: the craft attacked other examples.
    """

    version: ClassVar[int] = 1
    data: Dataset
    defense: Defense
    question: Question
    craft: Craft | None = None
    seed: int = 0
    execution: Execution = Execution()

    def __post_init__(self) -> None:
        check_craft(self.craft, self.data)

    def needs(self) -> tuple[Task, ...]:
        """The craft, and the training of the network."""
        return sources(self.craft, self.defense)

    @property
    def work(self) -> float:
        """As the question says."""
        return self.data.size * self.question.work

    def run(self, store: Store, tick: Tick) -> Files:
        """Ask micro-batch by micro-batch, of the prepared network."""
        device, size = self.execution.device, self.execution.micro_batch
        whole = examples_of(self.data)
        x = whole.x if self.craft is None else adversarials(store, self.craft)
        defense = ready(self.defense, store)
        network = prepare(defense.network.build().to(device))
        source = "clean" if self.craft is None else self.craft.stream_name
        rows: list[pa.Table] = []
        with rng.root(f"{self.seed}|{key(named(self.defense))}|{source}|{key(self.question)}"):
            for start in range(0, len(whole), size):
                batch = whole.rows(slice(start, start + size)).to(device)
                part = x[start : start + size].to(device)
                rows.append(self.question(Asked(defense, network, part, batch)))
                tick(self.question.work * len(batch))
        return {"rows.parquet": parquet(pa.concat_tables(rows))}


def answer(store: Store, task: Analyse) -> pa.Table:
    """A task's rows."""
    return pq.read_table(io.BytesIO(store.read(key_of(task), "rows.parquet")))
