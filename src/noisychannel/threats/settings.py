"""Threat settings as values: craft against an assumed defense, measure on the true one."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from noisychannel.admission import check_fields
from noisychannel.channels import straight_through, substituted
from noisychannel.decision import MeanProb, Single
from noisychannel.defenses import Defense, FixedNetwork, Operated
from noisychannel.errors import UserError, expected
from noisychannel.networks import Foreign
from noisychannel.types import Backward, Channel, Images

__all__ = ["Averaged", "Success", "Threat", "adaptive", "assumes", "log_mean_prob", "non_adaptive"]

Averaged = Literal["mean_loss", "mean_prob", "mean_logit"]
"""What is averaged over EOT draws before the gradient is taken; three different objectives."""

Success = Literal["draws", "rule"]
"""What the attacker takes for a success while he crafts: half of his own EOT draws, or a decision of
the defender's rule on fresh draws (then he votes as often as the defender)."""


@dataclass(frozen=True)
class Threat:
    """What an attacker believes about the defense, and how he differentiates it.

    g(x) = ∇ₓ L̄(x), L̄ the objective over `draws` draws of the assumed channel and network.

    Args:
        assumed: the defense he crafts against.
        draws: EOT draws per gradient, ≥ 1.
        averaged: `mean_loss` E[L(z)], `mean_prob` L(ln E[softmax z]), `mean_logit` L(E[z]).
        backward: through the channel (`exact`), past it (`straight_through`: gradient at C(x)), or
            `at_input`: loss from C(x), network differentiated at x; `default` is what the channel declares.
        substitute: a differentiable stand-in for the channel (BPDA): forward C(x), backward ∂g/∂x.
        success: what he takes for a success while he crafts; see `Success`.
        selection_draws: fresh draws (of whole decisions) on which a random view's candidates are compared; the one
            chosen is judged again on as many fresh decisions. 0 believes the attack's own draws (so did the
            paper's authors).

    Raises:
        UserError: a number out of range, or a gradient that the channel does not have.

    Source: paper 4.3 to 4.5; `success="rule"`: L; `substitute`: Athalye et al. 2018; `at_input` is what
    the authors' code does (one draw, gradient at x).
    """

    version: ClassVar[int] = 4
    assumed: Defense
    draws: int = 1
    averaged: Averaged = "mean_loss"
    backward: Backward = "default"
    selection_draws: int = 16
    substitute: Channel | None = None
    success: Success = "draws"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.draws < 1:
            raise expected("draws", "a whole number ≥ 1", self.draws)
        if self.selection_draws < 0:
            raise expected("selection_draws", "a whole number ≥ 0", self.selection_draws)
        for name, words in (
            ("averaged", get_args(Averaged)),
            ("backward", get_args(Backward)),
            ("success", get_args(Success)),
        ):
            if getattr(self, name) not in words:
                raise expected(name, f"one of {', '.join(words)}", repr(getattr(self, name)))
        if self.substitute is not None and self.backward != "default":
            raise expected("backward", "default where a substitute is given", self.backward)
        offered = self.assumed.channel.gradients
        if self.backward in ("exact", "straight_through") and self.backward not in offered:
            raise expected(
                "backward", f"one of {', '.join(offered)} for {self.assumed.channel}", self.backward
            )

    def check_gradient(self) -> None:
        """Refuse to differentiate a stranger's network that has no gradient.

        Raises:
            UserError: if the assumed network is one, or made of one.
        """
        network = self.assumed.network
        while isinstance(network, Operated | FixedNetwork):
            network = network.network
        if isinstance(network, Foreign) and not network.differentiable:
            raise UserError(
                f"network {network.name!r}: expected gradients with respect to the input, got none; remove "
                "no_grad or detach, or give it a straight-through gradient"
            )

    def seen(self, x: Images) -> Images:
        """C(x) of the assumed channel, differentiated as `backward` and `substitute` say (but for `at_input`)."""
        channel, how = self.assumed.channel, self.backward
        if self.substitute is not None:
            return substituted(channel, self.substitute, x)
        how = channel.gradients[0] if how == "default" else how
        return straight_through(channel, x) if how == "straight_through" else channel(x)


def log_mean_prob(logits: Tensor) -> Tensor:
    """ln of the mean over draws of the probabilities: (d, n, k) → (n, k)."""
    least = torch.finfo(logits.dtype).tiny  # less is flushed to 0, whose logarithm has no slope
    return logits.softmax(dim=2).mean(dim=0).clamp_min(least).log()


def non_adaptive(defense: Defense) -> Threat:
    """The attacker knows only the network: he crafts against it undefended."""
    return Threat(defense.undefended())


def assumes(
    defense: Defense, channel: Channel, draws: int = 1, backward: Backward = "default"
) -> Threat:
    """The attacker guesses a channel (partially adaptive; the paper recommends Laplace noise)."""
    return Threat(Defense(defense.network, channel, Single()), draws, backward=backward)


def adaptive(
    defense: Defense,
    draws: int = 1,
    averaged: Averaged | None = None,
    backward: Backward = "default",
    *,
    substitute: Channel | None = None,
    success: Success = "draws",
) -> Threat:
    """The attacker knows the defense whole; by default he averages what its decision rule averages."""
    if averaged is None:
        averaged = "mean_prob" if isinstance(defense.decision, MeanProb) else "mean_loss"
    return Threat(defense, draws, averaged, backward, substitute=substitute, success=success)
