"""The attacks that an audit makes on one defense, as tasks: the same attacks under each threat setting."""

from dataclasses import dataclass, field

from noisychannel.attacks import DDN, PGD, Minimise
from noisychannel.channels import Laplace
from noisychannel.data import Dataset
from noisychannel.defenses import Defense
from noisychannel.engine import Craft, Execution, Measure
from noisychannel.errors import expected
from noisychannel.norms import L2, Linf
from noisychannel.threats import Threat, adaptive, assumes, non_adaptive
from noisychannel.types import Attack, Channel

__all__ = ["SETTINGS", "Cell", "Request", "attacks_of", "cells"]

SETTINGS = {
    "clean": "no attack",
    "non-adaptive": "the network, not the channel before it",
    "partially adaptive": "that inputs are perturbed, not how: assumes Laplace noise",
    "adaptive": "the defense as it is, and attacks through it",
}
"""Threat settings from the weakest to the strongest, each with what the attacker knows."""

SHARED_DRAWS = 20
"""Decisions on draws of shared weights that a score needs: their errors are correlated, and fewer tell too little."""


@dataclass(frozen=True)
class Request:
    """What is to be audited, and how hard.

    Args:
        name: what reports call the defense.
        defense: the defense as it is deployed.
        data: examples it is audited on.
        norm: of the attacker's budget.
        epsilon: the budget, pixels in [0, 1], > 0.
        assumed: the channel that the partially adaptive attacker assumes.
        eot: draws per gradient of the adaptive attacker of a random defense.
        steps: gradients per image of PGD; DDN takes twice as many, smallest PGD as many per radius.
        scoring: draws on which a random defense is scored.
        part: examples per task, the grain of resuming.
        seed: root of all draws.

    Raises:
        UserError: a number out of range, or a norm that no attack searches.
    """

    name: str
    defense: Defense
    data: Dataset
    norm: L2 | Linf
    epsilon: float
    assumed: Channel = Laplace(0.05)
    eot: int = 8
    steps: int = 40
    scoring: int = 32
    part: int = 100
    seed: int = 0
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < float("inf"):
            raise expected("epsilon", "a number > 0 (pixels in [0, 1], e.g. 8/255)", self.epsilon)
        if self.norm == Linf() and self.epsilon > 1:
            raise expected(
                "epsilon",
                "at most 1 in L∞ (pixels in [0, 1]); 8 grey levels are 8/255",
                self.epsilon,
            )
        for name in ("eot", "steps", "scoring", "part"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))


@dataclass(frozen=True)
class Cell:
    """One number of an audit: a setting, an attack (empty for the clean images), and the tasks behind it."""

    setting: str
    attack: str
    measures: tuple[Measure, ...]


def attacks_of(request: Request) -> dict[str, Attack]:
    """A budget attack and a smallest-distortion attack; the second is what the paper's defenders recover from."""
    if request.norm == Linf():
        pgd = PGD(Linf(), epsilon=request.epsilon, steps=request.steps)
        searched = PGD(Linf(), epsilon=request.epsilon, steps=request.steps)
        # 6 + 8 trials fix the smallest radius to a percent of ε; the paper's 20 + 20 are not needed here.
        return {"PGD": pgd, "smallest PGD": Minimise(searched, expansions=6, bisections=8)}
    pgd = PGD(L2(), epsilon=request.epsilon, steps=request.steps)
    return {"PGD": pgd, "DDN": DDN(steps=2 * request.steps, initial=request.epsilon)}


def threats_of(request: Request) -> dict[str, Threat]:
    """What the attacker believes in each setting."""
    random = request.defense.stochastic
    return {
        "non-adaptive": non_adaptive(request.defense),
        "partially adaptive": assumes(request.defense, request.assumed, draws=request.eot),
        "adaptive": adaptive(request.defense, draws=request.eot if random else 1),
    }


def cells(request: Request) -> tuple[Cell, ...]:
    """Everything that is to be measured, in parts of `request.part` examples."""
    # Twice what one decision takes: worst cases are chosen on one half of the draws, scored on the other.
    random, shared = request.defense.stochastic, request.defense.network.weights == "shared"
    least = 2 * request.defense.rule.draws * (SHARED_DRAWS if shared else 1)
    draws = max(request.scoring, least) if random else 1

    def measured(threat: Threat | None, attack: Attack | None) -> tuple[Measure, ...]:
        out: list[Measure] = []
        for start in range(0, request.data.size, request.part):
            data = request.data.slice(start, min(start + request.part, request.data.size))
            craft = None
            if threat is not None and attack is not None:
                craft = Craft(data, threat, attack, seed=request.seed, execution=request.execution)
            out.append(
                Measure(
                    data,
                    request.defense,
                    craft,
                    draws=draws,
                    seed=request.seed,
                    execution=request.execution,
                )
            )
        return tuple(out)

    attacked = [
        Cell(setting, name, measured(threat, attack))
        for setting, threat in threats_of(request).items()
        for name, attack in attacks_of(request).items()
    ]
    return (Cell("clean", "", measured(None, None)), *attacked)
