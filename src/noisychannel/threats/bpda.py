"""Backward-pass substitution (BPDA) for a stage inside somebody's own network."""

from collections.abc import Callable

from torch import Tensor, nn

from noisychannel.channels import substituted

__all__ = ["Bpda"]


class Bpda(nn.Module):
    """A stage of a network, run as it is and differentiated as its substitute: s(x), ∂g/∂x.

    The attacker assumes the network with this in the stage's place and is measured on the true one.

    Args:
        stage: what the defender runs.
        substitute: a differentiable stand-in of the same output shape; default: the identity.

    Raises:
        UserError: (when called) the two give different shapes.

    Source: Athalye et al. 2018, §4.1.2.
    """

    def __init__(
        self, stage: nn.Module, substitute: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.stage = stage
        self.substitute = nn.Identity() if substitute is None else substitute

    def forward(self, x: Tensor) -> Tensor:
        """The stage's output, with the substitute's derivative."""
        return substituted(self.stage, self.substitute, x)
