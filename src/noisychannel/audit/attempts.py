"""One attack under one threat setting, on some of the examples: the tasks behind one number of an audit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from noisychannel.audit.request import Request
from noisychannel.data import Dataset
from noisychannel.defenses import Defense
from noisychannel.engine import Craft, Measure
from noisychannel.threats import Threat
from noisychannel.types import Attack

__all__ = ["SETTINGS", "Attempt", "Family", "Setting", "attempt", "clean", "rung", "stretches"]

_SIDE_BY_SIDE = 4
"""Parts of an attempt at least, for as many cores. No machine's own number: parts are in the keys of tasks."""

_FEWEST = 8
"""Examples of a part that is made for the sake of cores: fewer take as long as these."""

Setting = Literal["clean", "non-adaptive", "partially adaptive", "adaptive", "control"]

SETTINGS: dict[Setting, str] = {
    "clean": "no attack",
    "non-adaptive": "the network, not what perturbs it",
    "partially adaptive": "that inputs are perturbed, not how: assumes Laplace noise",
    "adaptive": "the defense as it is, and attacks through it",
}
"""Threat settings from the weakest to the strongest, each with what the attacker knows."""

Family = Literal["none", "gradient", "transfer", "no gradient", "yours", "control"]
"""By what the attacker finds his way: the defense's own gradient, another network's, its answers alone, the user's."""


@dataclass(frozen=True)
class Attempt:
    """One attack, and what the defense answers to it.

    Args:
        name: of its own in the audit.
        setting: what the attacker knew; a `control` is no attack that the headline counts.
        family: by what he finds his way.
        positions: the examples it was made on, ascending, as places in the audit's data.
        measures: the tasks, in the order of these examples.
    """

    name: str
    setting: Setting
    family: Family
    positions: tuple[int, ...]
    measures: tuple[Measure, ...]

    @property
    def crafts(self) -> tuple[Craft, ...]:
        """The attacks among its tasks; none where nothing was crafted."""
        return tuple(m.craft for m in self.measures if m.craft is not None)


def rung(draws: int) -> str:
    """Name of the ladder's attempt with so many draws per gradient."""
    return f"PGD margin, {draws} draw{'s' if draws > 1 else ''} a gradient"


def attempt(
    request: Request,
    name: str,
    setting: Setting,
    family: Family,
    threat: Threat,
    attack: Attack,
    positions: Sequence[int],
    defense: Defense | None = None,
) -> Attempt:
    """An attack as tasks.

    Args:
        request: the audit.
        name: of the attempt.
        setting: what the attacker knows.
        family: by what he finds his way.
        threat: what he assumes, in full.
        attack: what he does.
        positions: on which examples.
        defense: what answers; None: the defense that is audited.
    """
    victim = request.defense if defense is None else defense
    how = request.execution
    if threat.assumed.stochastic:
        # Controls tell a broken attack from a good one, not a percentage.
        share = 2 if setting == "control" else 1
        threat = replace(threat, selection_draws=max(1, request.budget.selection // share))
    measures = (
        Measure(
            part,
            victim,
            Craft(part, threat, attack, seed=request.seed, execution=how),
            draws=request.scoring(victim),
            seed=request.seed,
            execution=how,
        )
        for part in _parts(request, positions)
    )
    return Attempt(name, setting, family, tuple(positions), tuple(measures))


def clean(request: Request, name: str, defense: Defense) -> Attempt:
    """What a defense answers to the examples as they are."""
    everything = tuple(range(request.data.size))
    measures = (
        Measure(
            part,
            defense,
            draws=request.scoring(defense),
            seed=request.seed,
            execution=request.execution,
        )
        for part in _parts(request, everything)
    )
    return Attempt(name, "clean", "none", everything, tuple(measures))


def stretches(request: Request, size: int) -> Iterator[range]:
    """So many examples as tasks: some on the CPU for the sake of its cores, and none too large to be lost."""
    count = ceil(size / request.part)
    if request.execution.device == "cpu":
        count = max(count, min(_SIDE_BY_SIDE, size // _FEWEST))
    for i in range(count):
        yield range(i * size // count, (i + 1) * size // count)


def _parts(request: Request, positions: Sequence[int]) -> Iterator[Dataset]:
    """Chosen examples in the order of the data; whole stretches of it go by their ends, as other commands name them."""
    for some in (positions[s.start : s.stop] for s in stretches(request, len(positions))):
        if some[-1] - some[0] == len(some) - 1:
            yield request.data.slice(some[0], some[-1] + 1)
        else:
            yield request.data.take(some)
