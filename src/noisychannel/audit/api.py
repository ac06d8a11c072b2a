"""`audit(defense, data, …)`: the main job as one call."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, Literal, TypedDict, Unpack

import pyarrow as pa
from torch import Tensor, nn

from noisychannel import zoo
from noisychannel.audit.budget import budget_of
from noisychannel.audit.conduct import Judged, Run, conduct
from noisychannel.audit.examine import examine
from noisychannel.audit.record import rows
from noisychannel.audit.request import Request
from noisychannel.audit.saved import save
from noisychannel.channels import Laplace, parse_channel
from noisychannel.data import Dataset, DataSpec, from_arrays
from noisychannel.decision import Decision, parse_decision
from noisychannel.defenses import Defense, FixedNetwork, fixed_draws
from noisychannel.engine import Execution, Store, Task, Workers, cores, ready, run, trainings
from noisychannel.errors import UserError, expected
from noisychannel.networks import Foreign
from noisychannel.norms import L2, Linf
from noisychannel.report.html import Provenance
from noisychannel.types import Attack, Channel, Network

__all__ = ["CPU_ROWS", "Audit", "Knobs", "as_data", "as_defense", "audit", "conducted"]

CPU_ROWS = 128
"""Examples × draws of one pass on the CPU: with 512 a random ResNet-20 scores two thirds as many a second."""

Draws = Literal["fresh", "fixed"]
"""Whether the defender draws anew for every question, or once for each input."""

Audited = Defense | Network | nn.Module | Callable[[Tensor], Tensor] | str
"""Anybody's classifier: images (n, …) in [0, 1] → logits (n, k); or `zoo:NAME`."""

Examples = Dataset | str | tuple[Any, Any]
"""A data set, its name, or images (n, …) with labels (n,)."""


class Audit(Judged):
    """What an audit found: `evaluation`, `gain`, `headline`, `settings`, `findings`, the rows, and the report."""

    def rows(self) -> pa.Table:
        """All draws of all attempts, those on the base too: one row an answer."""
        return rows(self)

    def save(self, folder: str | Path) -> None:
        """Write report.html, audit.json, rows.parquet, and proof/ where attacks lower accuracy.

        Raises:
            UserError: the folder cannot be made or written.
        """
        r = self.evidence.request
        how = f"{r.execution.device}, {r.execution.threads} threads, micro-batch {r.execution.micro_batch}"
        date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        facts = (("seed", str(r.seed)), ("device", how))
        save(self, Path(folder), Provenance("from Python", date, f"{r.data.size} examples", facts))


class Knobs(TypedDict, total=False):
    """What else may be said of the attacker.

    `substitutes`: differentiable stand-ins for the defense's channel (BPDA); `attacks`: yours, made beside ours;
    `assumed`: channel that the partially adaptive attacker assumes; `draws`: the defender's, `fresh` at every question
    or `fixed` for each input; `queries`: that an attacker without gradients may ask at most; `tries`: of one who may
    hand in so many times and needs one success.
    """

    substitutes: Sequence[Channel]
    attacks: Sequence[Attack]
    assumed: str | Channel
    draws: Draws
    queries: int | None
    tries: int


def audit(
    defense: Audited,
    data: Examples,
    *,
    norm: str | L2 | Linf,
    epsilon: float,
    decision: str | Decision | None = None,
    budget: str = "quick",
    base: Audited | None = None,
    minutes: float | None = None,
    name: str | None = None,
    seed: int = 0,
    store: str | Path = "runs",
    execution: Execution | None = None,
    workers: int | None = None,
    **knobs: Unpack[Knobs],
) -> Audit:
    """Attack a defense as one who knows it would, and say what is left, with evidence.

    Args:
        defense: what is audited, in eval mode.
        data: examples, pixels in [0, 1].
        norm: of the attacker's budget: "linf" or "l2".
        epsilon: the budget, pixels in [0, 1], > 0 (8/255, not 8).
        decision: by which a random defense answers: "single", "vote:16", "mean_prob:10"; None: its own.
        budget: "quick", "standard" or "deep".
        base: the undefended network, or the defense at strength 0, with which it is compared; None: what can be told.
        minutes: for all of it; steps that would not end in time are left out, and the verdict says so.
        name: what the report calls it.
        seed: root of all draws.
        store: folder of results; an audit that was killed goes on from it.
        execution: device, threads, micro-batch; None: the CPU, one thread a task.
        workers: processes at most that make tasks side by side; None: one for each core.
        **knobs: what else may be said of the attacker; see `Knobs`.

    Raises:
        UserError: an argument that does not fit, said in one sentence.
    """
    examples = as_data(data)
    assumed = knobs.get("assumed", Laplace(0.05))
    victim = as_defense(defense, examples, decision, name or "defense")
    request = Request(
        name or _name(defense),
        fixed_draws(victim, seed) if _fixed(knobs.get("draws", "fresh")) else victim,
        examples,
        _norm(norm),
        float(epsilon),
        budget_of(budget),
        None if base is None else as_defense(base, examples, decision, "base"),
        tuple(knobs.get("substitutes", ())),
        tuple(knobs.get("attacks", ())),
        parse_channel(assumed) if isinstance(assumed, str) else assumed,
        knobs.get("queries"),
        knobs.get("tries", 1),
        seed=seed,
        execution=execution or Execution(threads=1, max_rows=CPU_ROWS),
    )
    able = processes(request, cores() if workers is None else workers)
    return conducted(request, Store(Path(store)), able, minutes=minutes)


def processes(request: Request, count: int) -> Workers:
    """Processes that may make an audit's tasks: one, where nobody knows what a stranger's function holds.

    Raises:
        UserError: fewer than one.
    """
    if count < 1:
        raise expected("workers", "a whole number ≥ 1", count)
    return Workers(1 if request.opaque else count)


def conducted(
    request: Request,
    store: Store,
    executor: Workers,
    progress: Run | None = None,
    minutes: float | None = None,
) -> Audit:
    """Train the network if it is ours, examine it, run what is needed, and judge."""

    def silently(_name: str, wanted: Sequence[Task]) -> None:
        run(wanted, store, executor, lambda _whole, _todo: lambda _amount: None)

    made = progress or silently
    first = trainings(request.defense)
    if first:
        made("training", first)
    network = ready(request.defense, store).network
    if isinstance(network, FixedNetwork):
        network = (
            network.network
        )  # draws that are fixed for each input, because the user said so, are no sign of lying
    examined = examine(network, request.data, request.name).findings
    return Audit(conduct(request, store, made, minutes=minutes, workers=executor.count), examined)


def as_data(data: Examples) -> Dataset:
    """Examples as a data set."""
    if isinstance(data, str):
        return DataSpec(data)
    if isinstance(data, tuple):
        if len(data) != 2:
            raise expected("data", "a data set, its name, or (images, labels)", data)
        return from_arrays(*data)
    return data


def as_defense(what: Audited, data: Dataset, decision: str | Decision | None, name: str) -> Defense:
    """Anybody's classifier as a defense.

    Raises:
        UserError: a word that names nothing, or what is no classifier of such examples.
    """
    rule = parse_decision(decision) if isinstance(decision, str) else decision
    if isinstance(what, str):
        if not what.startswith("zoo:"):
            raise expected("defense", "a classifier, or zoo:NAME of a preset", repr(what))
        what = zoo.defense(what.removeprefix("zoo:"))
    if isinstance(what, Defense):
        return what if rule is None else Defense(what.network, what.channel, rule)
    if isinstance(what, nn.Module) or not isinstance(what, Network):
        if not callable(what):
            raise expected("defense", "a classifier: images (n, …) in [0, 1] → logits", what)
        what = Foreign(what, data.shape, name)
    return Defense(what) if rule is None else Defense(what, decision=rule)


def _norm(norm: str | L2 | Linf) -> L2 | Linf:
    if not isinstance(norm, str):
        return norm
    known = {"l2": L2(), "linf": Linf()}
    if norm.lower() not in known:
        raise UserError(f"norm: expected l2 or linf, got {norm!r}")
    return known[norm.lower()]


def _fixed(draws: str) -> bool:
    if draws not in ("fresh", "fixed"):
        raise UserError(f"draws: expected fresh or fixed, got {draws!r}")
    return draws == "fixed"


def _name(defense: Audited) -> str:
    if isinstance(defense, str):
        return defense
    return defense.__name__ if isinstance(defense, FunctionType) else type(defense).__name__
