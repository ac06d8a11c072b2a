"""A network after surgery, as a network spec."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import nn

from noisychannel.networks import Checkpoint
from noisychannel.types import Network, Sharing

__all__ = ["Operated", "Surgery"]


@runtime_checkable
class Surgery(Protocol):
    """What is done to a network: a frozen dataclass of numbers, called with a module and the shape of one example."""

    version: ClassVar[int]

    @property
    def stochastic(self) -> bool:
        """Whether the network is random afterwards, in eval mode."""
        ...

    @property
    def weights(self) -> Sharing:
        """Whose draw of the weights an answer comes from: nobody's, one for all of a pass, each example's."""
        ...

    def identity(self) -> "Surgery | None":
        """The same surgery at the setting where it changes nothing, or None if it has no such setting."""
        ...

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module: ...


@dataclass(frozen=True)
class Operated:
    """A network after surgery: f' = S(f).

    Args:
        network: f, with its own weights.
        surgery: S.
        checkpoint: weights of f', learnt noise scales included; None: those of f.
    """

    version: ClassVar[int] = 1
    network: Network
    surgery: Surgery
    checkpoint: Checkpoint | None = None

    @property
    def stochastic(self) -> bool:
        """Whether f or S is random."""
        return self.network.stochastic or self.surgery.stochastic

    @property
    def keyed(self) -> bool:
        """Whether each example's draws are its own and named by `rng`; those of shared weights are not."""
        return self.network.keyed and self.surgery.weights != "shared"

    @property
    def weights(self) -> Sharing:
        """Whose draw of the weights an answer comes from."""
        both = (self.network.weights, self.surgery.weights)
        return "shared" if "shared" in both else "own" if "own" in both else "fixed"

    @property
    def shape(self) -> tuple[int, ...]:
        """As f."""
        return self.network.shape

    def build(self) -> nn.Module:
        """The network, in eval mode."""
        module = self.surgery(self.network.build(), self.network.shape)
        if self.checkpoint is not None:
            self.checkpoint.fill(module)
        return module.eval()
