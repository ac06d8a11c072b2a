"""Logits that were squashed, spread out again: a remedy of attackers for slopes that differ by orders of magnitude."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.audit.request import Request
from noisychannel.defenses import Defense
from noisychannel.networks import Foreign

__all__ = ["Evened", "evened"]

EXAMPLES = 64
"""Of the data, whose logits tell how they are squashed."""

MOST, FEWEST = 200, 20
"""Knots: as many as a third of the logits, since a distance of two neighbours alone is chance."""

BENT = 30.0
"""How many times steeper the spread may be at its 95th percentile than at its 5th.

Measured on digits: honest networks 6 to 12, tanh of one 900,000.
"""


class Evened(nn.Module):
    """A network whose logits are mapped to the normal law, all by one increasing function, so that classes stay.

    g(z) = Φ⁻¹(F(z)), F the share of clean logits below z; between knots it is linear.

    A loss of tanh(z) sees z_y and z_j by tanh′(z_y) and tanh′(z_j), which for two sure classes differ by orders of
    magnitude; that of g(tanh(z)) sees both, whatever the increasing function in place of tanh.

    Args:
        inner: the network.
        values: knots (m,) in units of its logits, ascending.
        normal: what they are mapped to (m,).
    """

    def __init__(self, inner: nn.Module, values: Tensor, normal: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("values", values)
        self.register_buffer("normal", normal)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, k)."""
        z, values = self.inner(x), self.get_buffer("values")
        normal = self.get_buffer("normal")
        at = torch.searchsorted(values, z.detach().contiguous()).clamp(1, len(values) - 1)
        slope = (normal[at] - normal[at - 1]) / (values[at] - values[at - 1])
        return normal[at - 1] + (z - values[at - 1]) * slope


def evened(r: Request) -> Defense | None:
    """The audited defense with its logits spread out; None where they are spread well, or are not a stranger's.

    Args:
        r: the audit, whose network answers once to its first examples.
    """
    network = r.defense.network
    if not isinstance(network, Foreign) or not network.differentiable:
        return None
    inner, x = network.build(), r.data.slice(0, min(EXAMPLES, r.data.size)).load().x
    stream = rng.Stream("selection", torch.arange(len(x)), part="evened")
    with torch.no_grad(), rng.root("audit"), rng.bracket(stream), rng.torch_seeded(stream):
        z = inner(x)
    knots = _knots(z.float())
    if knots is None:
        return None
    module = Evened(inner, *knots).eval()
    spread = Foreign(module, network.shape, f"{network.name}, logits evened")
    return Defense(spread, r.defense.channel, r.defense.decision)


def _knots(z: Float[Tensor, "n k"]) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"]] | None:
    """Quantiles and the normal ones beside them; None where they are alike but for a factor, or too few."""
    values = z.flatten().unique()
    knots = min(MOST, len(values) // 3)
    if not values.isfinite().all() or knots < FEWEST:
        return None
    values = values[torch.linspace(0, len(values) - 1, knots).long()]
    normal = torch.special.ndtri(torch.arange(1, knots + 1) / (knots + 1))
    slopes = (normal.diff() / values.diff()).sort().values
    if slopes[int(0.95 * knots)] < BENT * slopes[int(0.05 * knots)]:
        return None
    return values, normal
