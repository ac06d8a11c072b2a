"""Local search: perturb the pixels that matter most, and look on beside them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from noisychannel import rng
from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.shortlist import KEEP, Shortlist, conclude, ranked
from noisychannel.attacks.variants import chunks, planes, sheet
from noisychannel.errors import expected
from noisychannel.objectives import CrossEntropy, Loss
from noisychannel.types import Adversarials, Batch, View

__all__ = ["LocalSearch"]

_MIDDLE = 0.5


@dataclass(frozen=True)
class LocalSearch:
    """Rounds: probe some pixels one by one, move the t that help most, go on among their neighbours.

    With v = x − ½ a probe sets a pixel, all its channels, to p·sign(v); a move sets it to r·v, which leaves
    by one side of the range and comes in by the other: r·v ± 1 where |r·v| > ½.

    Args:
        pixels: t, moved per round.
        rounds: at most; an example leaves once it is adversarial, where the view's verdict is certain.
        move: r ≥ 0; 1 moves nothing, and the larger, the more pixels go to the nearer end of the range.
        probe: p > 0; above ½ a probe leaves [0, 1], as theirs do; the candidates never do.
        neighbours: d, half the side of the square of places around each moved pixel that are probed next.
        share: of all pixels that the first round probes, drawn at random.
        most: pixels probed per round.
        loss: by which a probe is judged.

    Raises:
        UserError: a number out of range.

    Source: Narodytska & Kasiviswanathan 2017, algorithm LocSearchAdv; foolbox 1, whose defaults these are.
    Differs: 1. by cross-entropy, which orders as their probability does and can be aimed at a target. 2. each
    channel comes in by itself, as published (foolbox: all or none). 3. on a random view all probes of a round
    are shown to the same draws, so that pixels are not chosen by luck.
    """

    version: ClassVar[int] = 1
    kind: ClassVar[Literal["budget", "minimal"]] = "budget"
    pixels: int = 5
    rounds: int = 150
    move: float = 1.5
    probe: float = 10.0
    neighbours: int = 5
    share: float = 0.1
    most: int = 128
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("pixels", "rounds", "most"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))
        for name in ("move", "neighbours"):
            if not getattr(self, name) >= 0:
                raise expected(name, "a number ≥ 0", getattr(self, name))
        if not self.probe > 0:
            raise expected("probe", "a number > 0", self.probe)
        if not 0 < self.share <= 1:
            raise expected("share", "a number > 0, at most 1", self.share)

    @property
    def gradients(self) -> int:
        """None: it sees labels or scores only."""
        return 0

    @property
    def queries(self) -> int:
        """Questions per example at most."""
        return self.rounds * (self.most + 1) + 1

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        kept = Shortlist(batch.x, KEEP if view.stochastic else 1)
        rows, active, at = torch.arange(len(batch), device=batch.x.device), batch, batch.x
        near = torch.ones_like(planes(at)[:, 0], dtype=torch.bool)
        wanted = min(self.most, max(1, int(self.share * near.shape[1])))
        for turn in range(self.rounds + 1):
            if len(rows) == 0:
                break
            query = view.query(at, active, self.loss, 2 * turn, gradient=False)
            slot = torch.full_like(rows, turn * kept.slots // (self.rounds + 1))
            kept.offer(rows, at, ranked(view, query), query.fooled, slot)
            if turn == self.rounds:
                break
            if view.certain and view.compact:
                stay = ~query.fooled
                rows, active, at, near = rows[stay], active.rows(stay), at[stay], near[stay]
            places = self._candidates(active.index, near, turn, wanted)
            gain = self._gains(view, at, active, places, 2 * turn + 1)
            best = gain.topk(min(self.pixels, gain.shape[1]), dim=1)
            places = places.gather(1, best.indices).where(best.values > -torch.inf, -1)
            at = self._moved(at, places)
            near = self._beside(at.shape[1:], places)
            wanted = min(self.most, near.shape[1])
        return conclude(view, batch, kept)

    def _candidates(self, index: Tensor, near: Tensor, turn: int, wanted: int) -> Tensor:
        """Up to `wanted` of the places that are `near` (n, places), at random: (n, m), −1 where there are fewer."""
        chance = rng.uniform(near.float(), rng.Stream("attack", index, turn, part="candidates"))
        best = chance.where(near, 0.0).topk(wanted, dim=1)
        return best.indices.where(best.values > 0, -1)

    def _gains(self, view: View, at: Tensor, batch: Batch, places: Tensor, clock: int) -> Tensor:
        """The loss after each probe (n, m); −∞ where there is none, or no number."""
        flat = planes(at)
        gain = torch.full(places.shape, -torch.inf, device=at.device)
        who, which = (places >= 0).nonzero(as_tuple=True)
        for chunk in chunks(range(len(who)), 1):
            row, column = who[chunk.start : chunk.stop], which[chunk.start : chunk.stop]
            place, every = places[row, column], torch.arange(len(row), device=at.device)
            probes = flat[row]
            centred = probes[every, :, place] - _MIDDLE
            probes[every, :, place] = _MIDDLE + self.probe * centred.sign()
            probes = probes.view(-1, *at.shape[1:])
            query = view.query(
                probes, batch.rows(row), self.loss, clock, gradient=False, verdict=False
            )
            gain[row, column] = query.value
        return gain.nan_to_num(-torch.inf, torch.inf, -torch.inf)

    def _moved(self, at: Tensor, places: Tensor) -> Tensor:
        """The examples with their pixels at `places` (n, t) moved; −1 is none."""
        flat = planes(at)
        where = places.clamp_min(0)[:, None].expand(-1, flat.shape[1], -1)
        old = flat.gather(2, where)
        grown = self.move * (old - _MIDDLE)
        grown = grown - (grown > _MIDDLE).to(grown.dtype) + (grown < -_MIDDLE).to(grown.dtype)
        new = grown.clamp(-_MIDDLE, _MIDDLE) + _MIDDLE
        shift = torch.where(places[:, None] >= 0, new - old, 0.0)
        return flat.scatter_add(2, where, shift).clamp_(0, 1).view_as(at)

    def _beside(self, shape: torch.Size, places: Tensor) -> Tensor:
        """The places within d of those given (n, t), along each side: (n, places)."""
        _, height, width = sheet(shape)
        marked = torch.zeros(len(places), 1 + height * width, device=places.device)
        marked = marked.scatter_(1, places + 1, 1.0)[:, 1:]
        reach = (min(self.neighbours, height - 1), min(self.neighbours, width - 1))
        side = (2 * reach[0] + 1, 2 * reach[1] + 1)
        wide = functional.max_pool2d(
            marked.view(-1, 1, height, width), side, stride=1, padding=reach
        )
        return wide.flatten(1) > 0
