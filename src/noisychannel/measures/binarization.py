"""The binarization test: a two-class problem around each example that has an adversarial point by construction."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.admission import check_fields
from noisychannel.defenses import Defense, answers
from noisychannel.errors import expected
from noisychannel.norms import L2, Linf
from noisychannel.types import Batch, Images, Network, Sharing

__all__ = ["Binarized", "Planted", "Planting", "Readouts"]

INNER = 0.95
"""Radius of the inner points, in units of ε: between them and the planted one there is a gap."""

# Relative to the spread of the inner points: directions in which they hardly differ are not trusted, for rounding
# differs there as well.
_RIDGE = 1e-4
# Of the largest logit: a gap below it is rounding.
_ROUNDING = 1e-5
_QUESTION = 2  # the view's own trials are 0 and 1


class Readouts(NamedTuple):
    """A linear readout u(z) = w·(z − c) − t of the logits z for each of m examples; class 1 where u > 0.

    `example` names them by their index, in rising order.
    """

    example: Int[Tensor, "m"]
    centre: Float[Tensor, "m k"]
    weight: Float[Tensor, "m k"]
    offset: Float[Tensor, "m"]

    @classmethod
    def joined(cls, parts: "list[Readouts]") -> "Readouts":
        """Those of several parts together."""
        order = torch.cat([part.example for part in parts]).argsort()
        return cls(*(torch.cat(numbers)[order] for numbers in zip(*parts, strict=True)))


class Planted(NamedTuple):
    """The problems of n examples: their readouts, the planted points, and which of them could be told apart."""

    readouts: Readouts
    x: Images
    apart: Bool[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class Binarized:
    """A network whose logits are read by each example's own readout: two classes, (−u, u).

    Args:
        network: f; its noise stays, and so does all that hides its gradient.
        readouts: of every example that it will be asked about.
    """

    version: ClassVar[int] = 1
    network: Network
    readouts: Readouts

    @property
    def stochastic(self) -> bool:
        """As f."""
        return self.network.stochastic

    @property
    def keyed(self) -> bool:
        """As f."""
        return self.network.keyed

    @property
    def weights(self) -> Sharing:
        """As f."""
        return self.network.weights

    @property
    def shape(self) -> tuple[int, ...]:
        """As f."""
        return self.network.shape

    def build(self) -> nn.Module:
        """The network, in eval mode."""
        return _Read(self.network.build(), self.readouts).eval()


class _Read(nn.Module):
    """A network and the readouts of its logits; whose readout a row meets is said by the open bracket (`rng.asked`)."""

    example: Tensor
    centre: Tensor
    weight: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, readouts: Readouts) -> None:
        super().__init__()
        self.network = network
        for name, numbers in readouts._asdict().items():
            self.register_buffer(name, numbers.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        who = rng.asked()
        if who is None:
            raise ValueError("a binarized network was asked about examples that nobody named")
        place = torch.searchsorted(self.example, who).clamp_max(len(self.example) - 1)
        if not torch.equal(self.example[place], who):
            raise ValueError("a binarized network was asked about an example without a readout")
        logits = self.network(x)
        u = ((logits - self.centre[place]) * self.weight[place]).sum(dim=1) - self.offset[place]
        return torch.stack((-u, u), dim=1)


@dataclass(frozen=True)
class Planting:
    """Readouts that tell each example and random points around it from one point planted at the ball's edge.

    Inner points: x, and x + 0.95 ε·u with u uniform in the unit ball. The planted point is that of `candidates`
    random ones at the edge (L∞: corners; L2: the sphere) whose logits lie farthest from those of the inner points,
    in units of their covariance Σ; w ∝ Σ⁻¹(z₁ − z̄) (Fisher's discriminant), t halfway between the planted point's
    score and the highest of the others. All points are cut to [0, 1]. u is scaled so that its range over the points
    is that of the logits themselves: what saturates still does.

    On a random defense z is the mean over draws, the same for all points of an example; Σ has the covariance of
    its noise as well, over the draws that one decision takes.

    Args:
        norm: of the ball.
        epsilon: its radius, pixels in [0, 1], > 0.
        inner: random inner points per example.
        candidates: points at the edge, of which one is planted.
        draws: over which a random defense's logits are averaged.

    Raises:
        UserError: a number out of range.

    Source: Zimmermann et al. 2022, section 4, algorithm 1.
    Differs: 1. logits are read, not the features before the last layer, so that what hides the gradient behind them
    is tested as well, and any module can be; they are few, so the planted point is chosen among candidates, else a
    random search would find one as good. 2. Fisher's discriminant in closed form, for a logistic regression. 3. one
    planted point. 4. points are clipped, not rescaled to the budget after.
    """

    version: ClassVar[int] = 1
    norm: L2 | Linf
    epsilon: float
    inner: int = 999
    candidates: int = 100
    draws: int = 16

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.epsilon > 0:
            raise expected("epsilon", "a number > 0 (pixels in [0, 1], e.g. 8/255)", self.epsilon)
        for name in ("inner", "candidates", "draws"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))

    @property
    def points(self) -> int:
        """Per example: the inner ones, itself, and the candidates."""
        return self.inner + 1 + self.candidates

    def __call__(
        self, defense: Defense, network: nn.Module, batch: Batch, max_rows: int = 512
    ) -> Planted:
        """Pose a problem around every example.

        Args:
            defense: whose logits are read.
            network: its built module.
            batch: the examples.
            max_rows: points in one pass.
        """
        xs: list[Tensor] = []
        readouts: list[Readouts] = []
        apart: list[bool] = []
        for i in range(len(batch)):
            one = batch.rows(slice(i, i + 1))
            inside, edge = self._around(one)
            logits = self._logits(defense, network, torch.cat([inside, edge]), one, max_rows)
            averaged = defense.rule.draws if defense.stochastic else 0
            fit = _fisher(logits, len(inside), averaged)
            numbers = (fit.centre[None], fit.weight[None], fit.offset[None])
            readouts.append(Readouts(one.index, *(n.float() for n in numbers)))
            xs.append(edge[fit.best : fit.best + 1])
            apart.append(fit.apart)
        where = torch.tensor(apart, device=batch.x.device)
        return Planted(Readouts.joined(readouts), torch.cat(xs), where)

    def _around(self, one: Batch) -> tuple[Tensor, Tensor]:
        """Inner points, the example first, and candidates at the edge, each a draw of the example's own."""

        def copies(count: int, part: str) -> tuple[Tensor, rng.Stream]:
            stream = rng.Stream("attack", one.index, draws=range(count), part=f"planting {part}")
            return one.x.repeat(count, *([1] * (one.x.ndim - 1))), stream

        x, stream = copies(self.inner, "inner")
        inside = (x + self.norm.sample(x, INNER * self.epsilon, stream)).clamp(0, 1)
        x, stream = copies(self.candidates, "edge")
        edge = (x + self.epsilon * self.norm.steepest(rng.normal(x, stream))).clamp(0, 1)
        return torch.cat([one.x, inside]), edge

    def _logits(
        self, defense: Defense, network: nn.Module, points: Tensor, one: Batch, max_rows: int
    ) -> Tensor:
        """Logits (d, p, k) of all points on the example's same draws."""
        draws = self.draws if defense.stochastic else 1
        found: list[Tensor] = []
        for part in points.split(max_rows):
            who = one.rows(torch.zeros(len(part), dtype=torch.long, device=part.device))
            said = answers(
                defense, network, part, who, "selection", draws, max_rows, step=_QUESTION
            )
            found.append(said.logits.double())
        return torch.cat(found, dim=1)


class _Fit(NamedTuple):
    centre: Tensor
    weight: Tensor
    offset: Tensor
    best: int
    apart: bool


def _fisher(logits: Tensor, inside: int, averaged: int) -> _Fit:
    """Of logits (d, p, k) the first `inside` points against one of the others; noise counts where `averaged` > 0."""
    mean = logits.mean(dim=0)
    centre = mean[:inside].mean(dim=0)
    off = mean - centre
    spread = off[:inside].T @ off[:inside] / inside
    if averaged and len(logits) > 1:
        noise = (logits - mean)[:, :inside].flatten(0, 1)
        spread = spread + noise.T @ noise / (inside * (len(logits) - 1) * averaged)
    outside = off[inside:]
    # Logits that do not move at all leave nothing to divide by.
    level = (spread.trace() / len(spread) + outside.square().mean()).clamp_min(1e-12)
    spread = spread + _RIDGE * level * torch.eye(len(spread)).to(spread)
    directions = torch.linalg.solve(spread, outside.T).T
    best = int((directions * outside).sum(dim=1).argmax())
    weight = directions[best]
    score = off @ weight
    top, reach = score[:inside].max(), score[inside + best]
    gap = reach - top
    offset = top + gap / 2
    largest = (score - offset).abs().max()
    scale = (
        (logits.max() - logits.min()) / (2 * largest) if largest > 0 else torch.zeros_like(largest)
    )
    apart = bool(gap > _ROUNDING * logits.abs().max() * weight.norm())
    return _Fit(centre, scale * weight, scale * offset, best, apart)
