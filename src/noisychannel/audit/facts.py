"""What an examination of a network found, in numbers and in the words that plans are made by."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from noisychannel.audit.derivatives import Fidelity, Slopes
from noisychannel.audit.probes import Company, Draws, Grid, Roughness
from noisychannel.audit.subject import ALIKE, Comparison

__all__ = ["Differentiable", "Facts", "Outputs", "Scaling", "SharedBy"]

Differentiable = Literal["present", "zero", "none"]
"""Whether a gradient reaches the input: it does; it does, and is zero on most examples; autograd finds no way."""

SharedBy = Literal["example", "batch", "weights"]
"""Whose a draw is: each example's own, one for all of a pass, one of the weights for all of a pass."""

MOST = 0.5
"""A gradient that is zero on more than half of the examples shows no attack the way."""

HAIR, PIXEL = 0.25, 0.5
"""Moves of a hair or of one pixel that answers take for as much of one of all pixels by a grey level, which a smooth
network takes for 1/8000 and about 1/√d of it."""

CLIFF = 4.0
"""How many times further apart two neighbours may lie if one is on the 8-bit grid than if none is; smooth: about 1."""


class Scaling(NamedTuple):
    """Pixels in another scale than [0, 1], and what the network makes of them.

    Args:
        name: of the scale.
        right: examples that are right in it.
        better: examples right in it and wrong as given.
        worse: examples right as given and wrong in it.
    """

    name: str
    right: int
    better: int
    worse: int


class Outputs(NamedTuple):
    """What it answers with.

    Args:
        classes: how many numbers.
        probabilities: they are ≥ 0 and sum to 1.
        largest: the typical largest of an example, in absolute value.
        underflow: examples on which the slope of the cross-entropy underflows.
    """

    classes: int
    probabilities: bool
    largest: float
    underflow: int


@dataclass(frozen=True)
class Facts:
    """What was measured, on `examples` of the data (gradients and company on fewer).

    Args:
        name: of the network.
        examples: how many were asked about; `scaled`: how many in every scale.
        declared: whether it is taken for random.
        training: its parts that were left in training mode.
        dropouts: dropout that is active in eval mode.
        statistics: batch norms that use the batch's statistics in eval mode.
        right: of the scaled examples as given.
    """

    name: str
    examples: int
    scaled: int
    declared: bool
    training: tuple[str, ...]
    dropouts: tuple[str, ...]
    statistics: int
    outputs: Outputs
    right: int
    scalings: tuple[Scaling, ...]
    draws: Draws
    roughness: Roughness
    grid: tuple[Grid, ...]
    slopes: Slopes
    fidelity: Fidelity | None
    company: Company
    calls: Comparison
    counters: tuple[str, ...]

    @property
    def random(self) -> bool:
        """Whether equal questions have different answers."""
        return self.draws.random

    @property
    def reproducible(self) -> bool:
        """Whether seeding torch, NumPy and Python (or `rng`'s streams) decides its answers."""
        return self.draws.reproducible

    @property
    def shared_by(self) -> SharedBy:
        """Whose a draw is; each example's own where nothing is random."""
        if not self.random or self.draws.copies.moved:
            return "example"
        return "weights" if self.draws.weights else "batch"

    @property
    def seeded_by_input(self) -> bool:
        """Whether it has noise that is a function of its input: neighbours are as far apart as strangers."""
        hair, one, whole = self.roughness
        if not self.reproducible:  # its noise hides how neighbours are answered
            return False
        return (hair.typical > ALIKE and hair.typical > HAIR * whole.typical) or (
            one.typical > ALIKE and one.typical > PIXEL * whole.typical
        )

    @property
    def seeded_fixed(self) -> bool:
        """Whether every pass repeats its noise: rows of one example differ, and passes do not."""
        return not self.random and self.draws.copies.moved > 0

    @property
    def clobbers_generator(self) -> bool:
        """Whether a pass sets a global generator to a state of its own."""
        return bool(self.draws.reseeded)

    @property
    def differentiable(self) -> Differentiable:
        """Whether a gradient reaches the input."""
        if self.slopes.broken:
            return "none"
        return "zero" if self.slopes.blind > MOST else "present"

    @property
    def zero_gradients(self) -> float:
        """Share of examples (and draws) whose gradient is zero or no number."""
        return self.slopes.blind

    @property
    def probabilities(self) -> bool:
        """Whether it answers with probabilities instead of logits."""
        return self.outputs.probabilities

    @property
    def batch_dependent(self) -> bool:
        """Whether an answer depends on the other examples of the batch."""
        return self.company.mates.differs

    @property
    def batch_size_dependent(self) -> bool:
        """Whether an example alone is answered otherwise than among others."""
        return self.company.size.differs

    @property
    def mode_dependent(self) -> bool:
        """Whether it answers otherwise when gradients are asked for."""
        return self.company.mode is not None and self.company.mode.differs

    @property
    def call_dependent(self) -> bool:
        """Whether it answers otherwise after many calls."""
        return self.calls.differs

    @property
    def off_grid(self) -> bool:
        """Whether it answers otherwise beside the 8-bit grid than on it."""
        return any(g.on.typical > ALIKE and g.on.typical > CLIFF * g.off.typical for g in self.grid)
