"""A defense is a network seen through a noisy channel, with a rule that turns its draws into one class."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.admission import check_fields
from noisychannel.channels import Chain, Identity
from noisychannel.decision import Decision, Single
from noisychannel.types import Batch, Channel, Images, Network

__all__ = ["Answers", "Defense", "answers", "chunks_of", "global_noise", "named_by_rng"]


@dataclass(frozen=True)
class Defense:
    """argmax_k f(C(x))_k, decided over draws where C or f is random.

    Args:
        network: spec of f, logits from inputs in [0, 1].
        channel: C, drawn anew at every forward pass.
        decision: what the defender answers with (default: the class of a single draw).

    Raises:
        UserError: a network that is a bare module, or another part that does not play its role.

    Source: paper 3.2 (every perturbation defense is a noisy channel).
    """

    version: ClassVar[int] = 1
    network: Network
    channel: Channel = Identity()
    decision: Decision = Single()

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def stochastic(self) -> bool:
        """Whether two equal questions may have different answers."""
        return self.channel.stochastic or self.network.stochastic

    @property
    def keyed(self) -> bool:
        """Whether all of its noise is named by `rng`, so that each example's draws are its own."""
        return self.network.keyed and named_by_rng(self.channel)

    @property
    def rule(self) -> Decision:
        """The decision rule that matters: all draws of a deterministic defense agree, so one decides."""
        return self.decision if self.stochastic else Single()

    def through(self, channel: Channel) -> "Defense":
        """The same network and rule behind another channel."""
        return replace(self, channel=channel)

    def undefended(self) -> "Defense":
        """The bare network, asked once."""
        return Defense(self.network)


def named_by_rng(channel: Channel) -> bool:
    """Whether a channel's noise comes from `rng`; a stranger's may come from torch's generator."""
    if isinstance(channel, Chain):
        return all(named_by_rng(part) for part in channel.parts)
    return not channel.stochastic or type(channel).__module__.startswith("noisychannel.")


class Answers(NamedTuple):
    """Logits (d, n, k) of d independent draws, and ‖C(x) − reference‖₂ (d, n) of what the network was shown."""

    logits: Tensor
    moved: Tensor


def answers(
    defense: Defense,
    network: Callable[[Tensor], Tensor],
    x: Images,
    batch: Batch,
    role: rng.Role,
    draws: int,
    max_rows: int = 512,
    *,
    step: int = 0,
) -> Answers:
    """Ask a defense about points x of the examples of `batch`: how candidates are selected and scored.

    Args:
        defense: its channel and randomness.
        network: its built module.
        x: points (n, …), the clean examples or candidates made from them.
        batch: who they are; distances are from its clean examples.
        role: `selection` or `scoring`.
        draws: independent draws; draw d of an example is the same however many are asked for.
        max_rows: examples × draws in one pass.
        step: number of the question; no two share a draw.
    """
    at_once = max(1, max_rows // max(1, len(x))) if defense.keyed or not defense.stochastic else 1
    logits: list[Tensor] = []
    moved: list[Tensor] = []
    for chunk in chunks_of(draws, at_once):
        stream = rng.Stream(role, batch.index, step, chunk)
        rows = x.repeat(len(chunk), *([1] * (x.ndim - 1)))
        with torch.no_grad(), rng.bracket(stream), global_noise(stream, keyed=defense.keyed):
            seen = defense.channel(rows)
            logits.append(network(seen).view(len(chunk), len(x), -1))
        shift = seen.view(len(chunk), *x.shape) - batch.x
        moved.append(shift.flatten(2).norm(dim=2))
    return Answers(torch.cat(logits), torch.cat(moved))


def global_noise(stream: rng.Stream, *, keyed: bool) -> AbstractContextManager[None]:
    """A stranger's module draws from torch's global generator: name its seed, and restore it after."""
    return nullcontext() if keyed else rng.torch_seeded(stream)


def chunks_of(total: int, size: int) -> Iterator[range]:
    """0 … total−1 in ranges of at most `size`."""
    for start in range(0, total, size):
        yield range(start, min(start + size, total))
