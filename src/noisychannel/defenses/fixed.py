"""Randomness frozen: a defense whose noise is fixed per input, so that attacker and defender see the same."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.admission import check_fields
from noisychannel.defenses.defense import Defense, named_by_rng
from noisychannel.types import Channel, Gradient, Images, Network, Sharing

__all__ = ["FixedChannel", "FixedNetwork", "fixed_draws"]


@dataclass(frozen=True)
class FixedChannel:
    """A random channel whose draw belongs to the example: C(x) = C(x; ω_i), whoever asks about example i.

    Args:
        channel: C.
        seed: name of the draws ω.

    Raises:
        UserError: a part that does not play its role.
    """

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    # For other channels this belongs to the class; here it is the inner one's, as in `Chain`.
    gradients: ClassVar[tuple[Gradient, ...]]
    channel: Channel
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "gradients", self.channel.gradients)

    def __call__(self, x: Images) -> Images:
        keyed = named_by_rng(self.channel)
        return _on_fixed_draws(self.channel, x, f"fixed channel {self.seed}", keyed=keyed)

    def identity(self) -> "Channel | None":
        """As C."""
        return self.channel.identity()

    def expected_l2(self, shape: tuple[int, ...]) -> float | None:
        """As C: over examples, since each has its own draw."""
        return self.channel.expected_l2(shape)


@dataclass(frozen=True)
class FixedNetwork:
    """A random network whose draw belongs to the example: f(x) = f(x; ω_i), whoever asks about example i.

    Args:
        network: f; of noise on weights too each example has its own draw.
        seed: name of the draws ω.

    Raises:
        UserError: a part that does not play its role.
    """

    version: ClassVar[int] = 1
    network: Network
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def stochastic(self) -> bool:
        """No."""
        return False

    @property
    def keyed(self) -> bool:
        """Yes: nothing is left to the batch or to torch's generator."""
        return True

    @property
    def weights(self) -> Sharing:
        """Those of an example are the same in every pass."""
        return "fixed"

    @property
    def shape(self) -> tuple[int, ...]:
        """As f."""
        return self.network.shape

    def build(self) -> nn.Module:
        """The network, in eval mode."""
        name = f"fixed network {self.seed}"
        return _Fixed(self.network.build(), name, keyed=self.network.keyed).eval()


class _Fixed(nn.Module):
    """A network called on fixed draws."""

    def __init__(self, network: nn.Module, name: str, *, keyed: bool) -> None:
        super().__init__()
        self.network, self.name, self.keyed = network, name, keyed

    def forward(self, x: Tensor) -> Tensor:
        return _on_fixed_draws(self.network, x, self.name, keyed=self.keyed)


def fixed_draws(defense: Defense, seed: int = 0) -> Defense:
    """The same defense with its randomness frozen: deterministic, so one answer decides.

    argmax_k f(C(x; ω_i); ω_i)_k with one draw ω_i for each example i (common random numbers): the same at every
    step, in every role and task, whatever else is in the batch. An attack that wins on a deterministic network
    must win here as well; where it does not, it is broken, and says nothing of the defense.

    Outside of any bracket, where nobody says which example a row is, noise is fresh as ever.

    Args:
        defense: as deployed; its decision rule is left out, for it would decide among equal draws.
        seed: name of the draws; other seeds are other frozen defenses.

    Source: Carlini et al. 2019, section 4.3 (randomness is taken out, then put back).
    Differs: 1. noise that no example's name can reach (a stranger's, from torch's generator; weights drawn once for
    a pass) is drawn example by example, one in a pass, which is slower by about the size of a batch. 2. what torch
    draws during a backward pass stays fresh. 3. strangers' attacks (`interop.Borrowed`) must be given one example
    at a time, since they do not tell whose rows they ask about.
    """
    network = FixedNetwork(defense.network, seed) if defense.network.stochastic else defense.network
    channel = FixedChannel(defense.channel, seed) if defense.channel.stochastic else defense.channel
    return Defense(network, channel)


def _on_fixed_draws(
    run: Callable[[Tensor], Tensor], x: Tensor, name: str, *, keyed: bool
) -> Tensor:
    """What a channel or network makes of x (rows, …) on draws named by the examples behind the rows alone."""
    index = rng.asked()
    if index is None or len(index) == 0:
        return run(x)
    assert len(index) == len(x)
    if keyed:
        with rng.root(name), rng.bracket(rng.Stream("fixed", index)):
            return run(x)
    rows: list[Tensor] = []
    for row, who in enumerate(index.tolist()):
        one = rng.Stream("fixed", index[row : row + 1])
        # The root names the example, for weights shared by a pass are named by no example.
        with rng.root(f"{name}|{who}"), rng.bracket(one), rng.torch_seeded(one):
            rows.append(run(x[row : row + 1]))
    return torch.cat(rows)
