"""The task of the binarization test: an attack must find what was planted for it to find."""

import io
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.attacks.noise import random_directions
from noisychannel.data import Dataset
from noisychannel.defenses import Defense, chunks_of
from noisychannel.engine.crafting import Told, attacked
from noisychannel.engine.store import Store
from noisychannel.engine.task import Execution, Files, Task, Tick, key_of
from noisychannel.engine.tasks import Craft, examples_of, parquet
from noisychannel.engine.training import named, ready, trainings
from noisychannel.interop import Borrowed
from noisychannel.measures.binarization import Binarized, Planted, Planting, Readouts
from noisychannel.norms import per_example
from noisychannel.spec import key
from noisychannel.threats import DefenseView, Threat, adaptive
from noisychannel.threats.judgement import judged
from noisychannel.types import Attack, Batch

__all__ = ["Binarize", "binarization_rows"]

_SLACK = 1e-4  # projection and clipping round in float32: a candidate may stand a hair outside
_QUESTION = 3  # readouts were fitted on another one


@dataclass(frozen=True)
class Binarize:
    """Attack a two-class problem around each example that has an adversarial by construction; artifact: `rows.parquet`.

    The attack is told of the problem what the threat says: its assumed defense with the same readouts. Random
    points of the ball are tried as well: what they find needs no attack.

    Args:
        data: which examples; their labels play no part.
        defense: whose logits are read.
        threat: what the attacker assumes; its network has the same classes.
        attack: the one that is tested.
        planting: how the problems are posed; a random defense is judged on as many draws (more where one decision
            takes more), and the random search tries as many points as there are inner ones.
        seed: root of all draws.

    Source: Zimmermann et al. 2022.
    """

    version: ClassVar[int] = 1
    data: Dataset
    defense: Defense
    threat: Threat
    attack: Attack
    planting: Planting
    seed: int = 0
    execution: Execution = Execution()

    def needs(self) -> tuple[Task, ...]:
        """The trainings of both networks."""
        return (*trainings(self.defense), *trainings(self.threat.assumed))

    @property
    def work(self) -> float:
        """Passes for the readouts, the random search, the attack and the verdict."""
        searching, attacking = (craft.work for craft in self._crafts)
        return self._planting + searching + attacking + self._judging

    @property
    def _crafts(self) -> tuple[Craft, Craft]:
        """The random search by one who knows the defense, and the attack: what they cost and how they draw."""
        ball = self.planting
        search = random_directions(ball.norm, ball.epsilon, ball.inner)
        return (
            Craft(self.data, adaptive(self.defense), search, seed=self.seed),
            Craft(self.data, self.threat, self.attack, seed=self.seed),
        )

    @property
    def _planting(self) -> float:
        draws = self.planting.draws if self.defense.stochastic else 1
        return float(self.data.size * self.planting.points * draws)

    @property
    def _judging(self) -> float:
        return float(4 * self.data.size * self._scoring)

    @property
    def _scoring(self) -> int:
        """Draws of whole decisions."""
        rule = self.defense.rule.draws
        return math.ceil(self.planting.draws / rule) * rule if self.defense.stochastic else 1

    def run(self, store: Store, tick: Tick) -> Files:
        """Plant, search, attack, judge. What is planted is the same for every attack and threat."""
        whole = examples_of(self.data)
        defense = ready(self.defense, store)
        with rng.root(f"{self.seed}|{key(named(self.defense))}|{key(self.planting)}"):
            made = self._planted(defense, whole, tick)
            posed = made.apart.nonzero()[:, 0]
            two = replace(whole, y=torch.zeros_like(whole.y)).rows(posed)
            problem = _with(defense, made.readouts)
            points = [two.x, made.x[posed]]
            for craft in self._crafts:
                assumed = _with(ready(craft.threat.assumed, store), made.readouts)
                with rng.root(f"{rng.root_name()}|{craft.stream_name}"):
                    told = replace(craft.threat, assumed=assumed)
                    points.append(self._reached(craft, told, two, tick))
            won = self._won(problem, torch.stack(points), two)
        tick(self._judging)
        return {"rows.parquet": parquet(self._rows(whole, two, points[3], won))}

    def _planted(self, defense: Defense, whole: Batch, tick: Tick) -> Planted:
        how, parts = self.execution, list[Planted]()
        network = defense.network.build().to(how.device)
        for chunk in chunks_of(len(whole), how.micro_batch):
            few = whole.rows(slice(chunk.start, chunk.stop)).to(how.device)
            made = self.planting(defense, network, few, how.max_rows)
            parts.append(Planted(made.readouts, made.x.cpu(), made.apart.cpu()))
            tick(self._planting * len(few) / len(whole))
        return Planted(
            Readouts.joined([part.readouts for part in parts]),
            torch.cat([part.x for part in parts]),
            torch.cat([part.apart for part in parts]),
        )

    def _reached(self, craft: Craft, threat: Threat, two: Batch, tick: Tick) -> Tensor:
        """The attack's candidates (n, …), or the example itself where they lie beyond the budget."""
        ball, device, told = self.planting, self.execution.device, Told(tick)
        view = DefenseView(threat, device, self.execution.max_rows, told.heard)
        # Strangers do not say whose rows they ask about, and each example has a readout of its own.
        size = 1 if isinstance(craft.attack, Borrowed) else self.execution.micro_batch
        found = [two.x[:0]]
        for chunk in chunks_of(len(two), size):
            few = two.rows(slice(chunk.start, chunk.stop)).to(device)
            told.promised(craft.work * len(few) / len(two))
            x = attacked(craft.attack, view, few).x
            told.finished()
            near = ball.norm.distance(x, few.x) <= ball.epsilon * (1 + _SLACK)
            found.append(torch.where(per_example(near, x).bool(), x, few.x).cpu())
        return torch.cat(found)

    def _won(self, problem: Defense, points: Tensor, two: Batch) -> Tensor:
        """Whether the defender takes each of (r, n, …) points for the planted class, on draws that nobody has seen."""
        how = self.execution
        network = problem.network.build().to(how.device)
        won = [torch.zeros(len(points), 0, dtype=torch.bool)]
        for chunk in chunks_of(len(two), how.micro_batch):
            rows = slice(chunk.start, chunk.stop)
            few, at = two.rows(rows).to(how.device), points[:, rows].to(how.device)
            said = judged(problem, network, at, few, self._scoring, how.max_rows, step=_QUESTION)
            won.append(said.won.cpu())
        return torch.cat(won, dim=1)

    def _rows(self, whole: Batch, two: Batch, best: Tensor, won: Tensor) -> pa.Table:
        """One row per example; where no problem could be posed nothing was won."""
        posed = np.isin(whole.index.numpy(), two.index.numpy())
        clean, sure, random, found = (_spread(row, posed) for row in won)
        constructed = posed & sure & ~clean
        distance = np.full(len(whole), np.nan)
        distance[posed] = self.planting.norm.distance(best, two.x).numpy()
        return pa.table(
            {
                "index": whole.index.numpy(),
                "label": whole.y.numpy(),
                "constructed": constructed,
                "attacked": constructed & found,
                "random": constructed & random,
                "distance": distance,
            }
        )


def binarization_rows(store: Store, task: Binarize) -> pa.Table:
    """A task's rows, one per example.

    Columns: index, label, constructed (the planted point is taken for its class, the example is not), attacked and
    random (of these, what the attack and the random search won), distance (of the attack's candidate; NaN where no
    problem could be posed).
    """
    return pq.read_table(io.BytesIO(store.read(key_of(task), "rows.parquet")))


def _with(defense: Defense, readouts: Readouts) -> Defense:
    return replace(defense, network=Binarized(defense.network, readouts))


def _spread(row: Tensor, posed: np.ndarray) -> np.ndarray:
    out = np.zeros(len(posed), dtype=bool)
    out[posed] = row.numpy()
    return out
