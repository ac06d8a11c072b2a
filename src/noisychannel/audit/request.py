"""What is to be audited, against whom, and how hard; and what is left of a defense without its perturbation."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from noisychannel.admission import check_fields
from noisychannel.audit.budget import BUDGETS, Budget
from noisychannel.channels import Identity, Laplace
from noisychannel.data import Dataset
from noisychannel.defenses import Defense, FixedNetwork, Operated
from noisychannel.engine import Execution
from noisychannel.errors import expected
from noisychannel.networks import Foreign
from noisychannel.norms import L2, Linf
from noisychannel.spec import key
from noisychannel.types import Attack, Channel, Network

__all__ = ["Request", "follows", "twin_of"]

FEWEST = 4
"""Questions of SPSA's shortest run: the image, two of a direction, and where they led."""

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
        budget: what may be spent on an image.
        base: the undefended network or the strength-0 twin, as a defense; None: what `twin_of` finds.
        substitutes: differentiable stand-ins for the channel (BPDA), each tried.
        attacks: of the user's, made under the adaptive threat beside ours.
        assumed: the channel that the partially adaptive attacker assumes.
        queries: that a black-box attacker may ask about an image at most, ≥ 4, every draw counted; None: what the
            budget allows.
        tries: of an attacker who may hand in so many times and needs one success.
        part: examples per task, the grain of resuming.
        seed: root of all draws.

    Raises:
        UserError: a number out of range, or a part that does not play its role.
    """

    version: ClassVar[int] = 1
    name: str
    defense: Defense
    data: Dataset
    norm: L2 | Linf
    epsilon: float
    budget: Budget = BUDGETS[0]
    base: Defense | None = None
    substitutes: tuple[Channel, ...] = ()
    attacks: tuple[Attack, ...] = ()
    assumed: Channel = Laplace(0.05)
    queries: int | None = None
    tries: int = 1
    part: int = 100
    seed: int = 0
    execution: Execution = field(default_factory=Execution)

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.epsilon < float("inf"):
            raise expected("epsilon", "a number > 0 (pixels in [0, 1], e.g. 8/255)", self.epsilon)
        if self.norm == Linf() and self.epsilon > 1:
            raise expected(
                "epsilon",
                "at most 1 in L∞ (pixels in [0, 1]); 8 grey levels are 8/255",
                self.epsilon,
            )
        if self.base is not None and key(self.base) == key(self.defense):
            raise expected("base", "another defense than the one that is audited", self.base)
        for name, number in (("part", self.part), ("tries", self.tries)):
            if number < 1:
                raise expected(name, "a whole number ≥ 1", number)
        if self.queries is not None and self.queries < FEWEST:
            why = f"a whole number ≥ {FEWEST}: with fewer no attack without gradients takes a step"
            raise expected("queries", why, self.queries)

    @property
    def twin(self) -> Defense | None:
        """What the defense is compared with: its base, or itself at strength 0; None: neither is known."""
        return self.base if self.base is not None else twin_of(self.defense)

    @property
    def opaque(self) -> bool:
        """Whether a stranger's part is no torch module: what else it holds may not survive in another process."""
        sides = (self.defense, self.twin)
        return any(s is not None and _opaque(s.network) for s in sides)

    def scoring(self, defense: Defense) -> int:
        """Draws on which a defense is scored: at least twice a decision's, since one half chooses the attack."""
        if not defense.stochastic:
            return 1
        least = 2 * defense.rule.draws
        if defense.network.weights == "shared":
            least *= SHARED_DRAWS
        return max(self.budget.scoring, least)


def twin_of(defense: Defense) -> Defense | None:
    """The same network without what perturbs: no channel, and surgery at strength 0; None where nothing is left out."""
    network = _calm(defense.network)
    if network is None or (network is defense.network and defense.channel == Identity()):
        return None
    return Defense(network)


def _calm(network: Network) -> Network | None:
    """A network with its surgery at strength 0; None where a surgery has no such setting."""
    if not isinstance(network, Operated):
        return network
    identity = network.surgery.identity()
    inner = _calm(network.network)
    if identity is None or inner is None:
        return None
    return replace(network, network=inner, surgery=identity)


def _opaque(network: Network) -> bool:
    inner = _innermost(network)
    return isinstance(inner, Foreign) and inner.opaque


def _innermost(network: Network) -> Network:
    while isinstance(network, Operated | FixedNetwork):
        network = network.network
    return network


def follows(network: Network) -> bool:
    """Whether autograd finds a way from a network's logits to its input; only a stranger's may have none."""
    network = _innermost(network)
    return not isinstance(network, Foreign) or network.differentiable
