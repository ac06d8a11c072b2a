"""What a stranger's network may answer."""

import warnings

import torch
from torch import Tensor, nn

from noisychannel.errors import UserError

__all__ = ["SinglePrecision", "are_probabilities", "check_logits"]


def are_probabilities(logits: Tensor) -> bool:
    """Whether all rows (n, k) of several classes are ≥ 0 and sum to 1."""
    sums = logits.sum(dim=1)
    return (
        logits.shape[1] > 1
        and bool((logits >= 0).all())
        and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)
    )


def check_logits(name: str, logits: object, examples: int) -> None:
    """Refuse what cannot be logits (n, k) of n examples, and warn of probabilities.

    Raises:
        UserError: another type or shape, or numbers that are not finite.
    """
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != examples:
        raise UserError(
            f"network {name!r}: expected logits ({examples}, k) for {examples} examples, got {shape}"
        )
    if not logits.isfinite().all():
        raise UserError(
            f"network {name!r}: expected finite logits, got NaN or infinity on inputs in [0, 1]; "
            "check its weights and its normalisation"
        )
    if are_probabilities(logits):
        warnings.warn(
            f"network {name!r}: expected logits, got what looks like probabilities (rows ≥ 0 that "
            "sum to 1); remove its last softmax, or gradients will vanish and attacks look weak",
            UserWarning,
            stacklevel=4,
        )


class SinglePrecision(nn.Module):
    """A network whose logits are handed out in single precision, in which everything else reckons."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, k)."""
        logits: Tensor = self.inner(x)
        return logits.float()
