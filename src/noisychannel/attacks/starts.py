"""Where decision-based attacks begin: noise blended into each example until it is adversarial."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.admission import check_fields, check_role
from noisychannel.attacks.oracle import Doubt, Oracle
from noisychannel.attacks.shortlist import BEYOND, Shortlist, conclude
from noisychannel.errors import expected
from noisychannel.norms import L2, Norm, per_example
from noisychannel.types import Adversarials, Batch, Status, View

__all__ = [
    "Began",
    "BlendedNoise",
    "beyond",
    "grainy",
    "listed",
    "nearest_starts",
    "noise_image",
    "outcome",
]

_COARSE = (1, 2, 4, 8)
_ROUNDS = 3
# A search among noisy answers ends where about half of them err, and may have been lucky: shares of the way from there
# to the noise image at which it is confirmed.
_OUTWARDS = (0.0, 0.05, 0.15, 0.4, 1.0)


class Began(NamedTuple):
    """Starting points (n, …), and whether each was found, and is where the example itself stands (n,)."""

    x: Tensor
    found: Tensor
    here: Tensor


def noise_image(x: Tensor, index: Tensor, number: int, *, coarse: bool) -> Tensor:
    """Uniform noise in [0, 1] for each example; every second, fourth and eighth pixel repeated in turn if `coarse`.

    Networks tend to take all white noise for one class: blotches of noise are taken for others.
    """
    block = _COARSE[number % len(_COARSE)] if coarse else 1
    return grainy(rng.uniform, x, block, rng.Stream("attack", index, number, part="noise image"))


def grainy(
    draw: Callable[[Tensor, rng.Stream], Tensor], x: Tensor, block: int, stream: rng.Stream
) -> Tensor:
    """Noise of the shape of x (n, c, …), each value repeated over `block` pixels in every direction but that of c."""
    if block == 1 or x.ndim < 3:  # (n, features) has no neighbours
        return draw(x, stream)
    small = tuple(-(-size // block) for size in x.shape[2:])
    noise = draw(x.new_empty(*x.shape[:2], *small), stream)
    for axis, size in enumerate(x.shape[2:], start=2):
        noise = noise.repeat_interleave(block, dim=axis).narrow(axis, 0, size)
    return noise


@dataclass(frozen=True)
class BlendedNoise:
    """The smallest blend with a noise image that is adversarial: x′ = (1 − t)·x + t·u, u ~ U[0, 1].

    Noise images are tried until one is adversarial itself; then t is searched. What was found on a random network
    is confirmed on fresh draws, or a larger t is, up to u itself; if nothing is, another u is looked for.

    Args:
        norm: in which the distance counts.
        directions: noise images tried per example at most; as many again for each of two further rounds.
        steps: questions of the search for t, ≥ 1.
        search: `binary`, which halves; or `linear`: t = 0, 1/steps, 2/steps, … until adversarial.
        coarse: also try noise of 2, 4 and 8 pixels' grain.
        doubt: the sequential test of a random network; None believes single draws.

    Raises:
        UserError: a number out of range.

    Source: Rauber et al. 2017 (foolbox), LinearSearchBlendedUniformNoiseAttack. The paper's authors:
    `BlendedNoise(directions=1000, steps=1000, search="linear", coarse=False, doubt=None)`, directions unbounded.
    Differs: 1. each example has its own noise and stops its own search. 2. a failed start is a status.
    """

    version: ClassVar[int] = 2
    kind: ClassVar[Literal["budget", "minimal"]] = "minimal"
    norm: Norm = L2()
    directions: int = 100
    steps: int = 12
    search: Literal["binary", "linear"] = "binary"
    coarse: bool = True
    doubt: Doubt | None = Doubt()

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("directions", "steps"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))
        if self.search not in ("binary", "linear"):
            raise expected("search", "binary or linear", repr(self.search))

    @property
    def gradients(self) -> int:
        """None: it sees labels or scores only."""
        return 0

    @property
    def queries(self) -> int:
        """Label draws per example at most."""
        each = self.doubt.draws if self.doubt else 1
        return each * (4 + _ROUNDS * (self.directions + self.steps + 2 * len(_OUTWARDS)))

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        check_role("view", view, View)
        oracle = Oracle(view, batch, self.doubt, self.queries)
        began = self.begin(oracle)
        kept = listed(oracle)
        rows = began.found.nonzero()[:, 0]
        beyond(kept, rows, batch.x[rows], began.x[rows], self.norm)
        return outcome(oracle, began.x, began.found, kept, self.norm)

    def begin(self, oracle: Oracle, start: Tensor | None = None) -> Began:
        """A starting point for every example of the oracle: itself, the given `start`, or blended noise."""
        batch = oracle.batch
        none = torch.zeros_like(batch.y, dtype=torch.bool)
        began = Began(batch.x.clone(), none.clone(), none)
        rows = oracle.solvent(torch.arange(len(batch), device=batch.x.device), 2 * oracle.most)
        here = self._sure(oracle, batch.x[rows], rows)
        began.here[rows] = here
        began.found[rows] = here
        rows = rows[
            ~(here | oracle.silent[rows])
        ]  # who gives no number for the example is not asked on
        if start is not None:
            rows = oracle.solvent(rows, 2 * oracle.most)
            good = self._sure(oracle, start[rows], rows)
            began.x[rows[good]] = start[rows[good]]
            began.found[rows[good]] = True
            rows = rows[~good]
        for attempt in range(_ROUNDS):
            self._noise(oracle, began, rows, attempt)
            rows = self._search(oracle, began, rows[began.found[rows]])
            began.found[rows] = False
        return began

    def _sure(self, oracle: Oracle, x: Tensor, rows: Tensor) -> Tensor:
        """Whether x is adversarial, asked twice where the oracle doubts: of 20 lucky ones, one is left."""
        yes = oracle.if_paid(x, rows)
        if oracle.doubt is not None:
            again = yes.nonzero()[:, 0]
            yes[again] = oracle.if_paid(x[again], rows[again])
        return yes

    def _noise(self, oracle: Oracle, began: Began, rows: Tensor, attempt: int) -> None:
        """Put an adversarial noise image into `began` for each of `rows`, where one of the directions is."""
        for number in range(attempt * self.directions, (attempt + 1) * self.directions):
            rows = oracle.solvent(rows, oracle.most)
            if len(rows) == 0:
                return
            index = oracle.batch.index[rows]
            noise = noise_image(began.x[rows], index, number, coarse=self.coarse)
            began.x[rows] = noise
            yes = oracle(noise, rows)
            began.found[rows] = yes
            rows = rows[~yes]

    def _search(self, oracle: Oracle, began: Began, rows: Tensor) -> Tensor:
        """Blend the images of `rows` into their examples; returns those for which nothing was confirmed.

        Whose budget ends on the way keeps his noise image.
        """
        x, noise = oracle.batch.x[rows], began.x[rows]
        search = self._halve if self.search == "binary" else self._walk
        good = search(oracle, x, noise, rows)
        if oracle.doubt is None:
            began.x[rows] = torch.lerp(x, noise, per_example(good, x))
            return rows[:0]
        for share in _OUTWARDS:
            if len(rows) == 0:
                break
            point = torch.lerp(x, noise, per_example(good + share * (1 - good), x))
            sure = self._sure(oracle, point, rows)
            began.x[rows[sure]] = point[sure]
            left = ~(sure | oracle.exhausted[rows])
            rows, x, noise, good = rows[left], x[left], noise[left], good[left]
        return rows

    def _halve(self, oracle: Oracle, x: Tensor, noise: Tensor, rows: Tensor) -> Tensor:
        good, bad = x.new_ones(len(x)), x.new_zeros(len(x))
        for _ in range(self.steps):
            middle = (good + bad) / 2
            yes = oracle.if_paid(torch.lerp(x, noise, per_example(middle, x)), rows)
            good, bad = torch.where(yes, middle, good), torch.where(yes, bad, middle)
        return good

    def _walk(self, oracle: Oracle, x: Tensor, noise: Tensor, rows: Tensor) -> Tensor:
        good = x.new_ones(len(x))
        left = torch.arange(len(x), device=x.device)
        for step in range(1, self.steps):  # 0 was asked first of all, 1 when the noise was drawn
            if len(left) == 0:
                break
            yes = oracle.if_paid(torch.lerp(x[left], noise[left], step / self.steps), rows[left])
            good[left[yes]] = step / self.steps
            left = left[~yes]
        return good


def nearest_starts(batch: Batch, pool: Batch) -> Tensor:
    """For each example the nearest image (L2) of the class it shall be taken for, or, untargeted, of any but its own.

    Points to begin at, as `start` of `Boundary` and `HopSkipJump`: a targeted attack seldom begins at noise.

    Args:
        batch: the examples to be attacked (n, …).
        pool: images of the same shape with their labels; the batch itself, or more of its data set.

    Raises:
        UserError: an example for which the pool has no image.

    Source: Brendel, Rauber & Bethge 2018, section 2.1 (targeted: a sample classified as the target class).
    """
    goal = batch.goal
    fits = pool.y != goal.y[:, None] if goal.target is None else pool.y == goal.target[:, None]
    if not bool(fits.any(dim=1).all()):
        which = int(batch.index[~fits.any(dim=1)][0])
        raise expected("pool", f"an image that example {which} can begin at", "none")
    # Without matrix products, whose rounding depends on how many examples stand beside.
    how = "donot_use_mm_for_euclid_dist"
    apart = torch.cdist(batch.x.flatten(1), pool.x.flatten(1), compute_mode=how)
    return pool.x[apart.where(fits, torch.inf).argmin(dim=1)]


def listed(oracle: Oracle) -> Shortlist:
    """Places for a last point and for points beyond it.

    Under doubt all of BEYOND; one where nothing is random, in case that rounding undoes the last point, which
    stands on the boundary; none for who believes single draws.
    """
    certain = 1 if oracle.view.stochastic else 2
    return Shortlist(oracle.batch.x, len(BEYOND) if oracle.doubt else certain)


def beyond(kept: Shortlist, rows: Tensor, x: Tensor, at: Tensor, norm: Norm) -> None:
    """Keep the last points `at` of the examples `rows`, whose x are given; in further slots, points beyond them."""
    sure = torch.ones_like(rows, dtype=torch.bool)
    for slot, factor in enumerate(BEYOND[: len(kept.score)]):
        point = at if slot == 0 else torch.lerp(x, at, factor).clamp(0, 1)
        kept.offer(rows, point, norm.distance(point, x), sure, torch.full_like(rows, slot))


def outcome(
    oracle: Oracle,
    start: Tensor,
    found: Tensor,
    kept: Shortlist,
    norm: Norm,
    missing: Status = Status.INIT_FAILED,
) -> Adversarials:
    """What was kept, judged; where nothing was, the `start` stands in, `missing` if none was `found`."""
    batch, fallback = oracle.batch, Shortlist(oracle.batch.x, 1)
    # A start that passed its tests is a candidate too; who believes single draws hands over his last point.
    blind = oracle.view.stochastic and oracle.doubt is None
    rows = (~kept.filled.any(dim=0) | (not blind)).nonzero()[:, 0]
    fallback.offer(rows, start[rows], start.new_zeros(len(rows)), found[rows])
    status = torch.where(found, int(Status.NOT_FOUND), int(missing))
    status = torch.where(oracle.exhausted, int(Status.BUDGET_EXHAUSTED), status)
    said = conclude(oracle.view, batch, kept, fallback, norm, otherwise=status)
    return said._replace(cost=said.cost._replace(truncated=oracle.truncated))
