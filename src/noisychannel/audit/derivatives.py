"""Whether a network's gradients are there, are one, and are the derivative: numbers, which `diagnosis` judges."""

from typing import NamedTuple

import torch
from torch import Tensor

from noisychannel.audit.points import between, signs
from noisychannel.audit.subject import Subject
from noisychannel.objectives import label_margin

__all__ = ["STEPS", "Fidelity", "Slopes", "fidelity", "slopes"]

STEPS = (2**-10, 2**-7, 2**-5)
"""Steps of finite differences in each pixel: a quarter of a grey level, 2 and 8 grey levels, as attacks step."""

EXAMPLES = 16
"""Examples whose gradients are asked for."""

_DIRECTIONS = 4
_DRAWS = 4
_ROUNDING = 32 * 2**-23  # of a margin, relative to the largest logit: a few units in the last place


class Slopes(NamedTuple):
    """What gradients say of themselves.

    Args:
        broken: why there is none; empty: there is.
        blind: share of examples and draws at which the margin's is zero or no number.
        draws: largest distance of the gradients of the label's logit on two draws; 0 where nothing is random. (The
            margin's change with its runner-up.)
        passes: typical distance of two backward passes of one forward pass.
    """

    broken: str
    blind: float
    draws: float
    passes: float


def slopes(s: Subject, *, random: bool) -> Slopes:
    """Gradients of the margin near the examples, off the 8-bit grid, where an attack's steps lead."""
    x, y = between(s.x[:EXAMPLES], max(STEPS)), s.y[:EXAMPLES]
    try:
        first = [s.slopes(x, y, draw, times=2) for draw in range(_DRAWS if random else 1)]
        own = [s.slopes(x, y, draw, value=_own)[0] for draw in range(2 if random else 1)]
    except Exception as error:  # noqa: BLE001  # whatever a stranger's code raises
        return Slopes(" ".join(f"{error}".split()), 1.0, 0.0, 0.0)
    every = torch.stack([found[0].flatten(1) for found in first])
    typical = float(_apart(*first[0]).median())
    blind = ~every.isfinite().all(dim=2) | (every == 0).all(dim=2)
    return Slopes("", float(blind.float().mean()), float(_apart(own[0], own[-1]).max()), typical)


class Fidelity(NamedTuple):
    """How far gradients lie from finite differences: the median over examples of ‖difference‖ / ‖the larger‖.

    Args:
        error: at the step where it is least; 0 where the gradient is the derivative, 1 where it is unrelated.
        step: that step, in pixels of [0, 1].
        n: examples whose margin moves by more than rounding.
    """

    error: float
    step: float
    n: int


def fidelity(s: Subject, *, random: bool) -> Fidelity | None:
    """Directional derivatives along random signs and the gradient's, over common draws; None: all too flat."""
    x, y = between(s.x[:EXAMPLES], max(STEPS)), s.y[:EXAMPLES]
    draws = range(_DRAWS if random else 1)
    slope = torch.stack([s.slopes(x, y, draw)[0] for draw in draws]).mean(dim=0)
    ways = [signs(x, f"direction {i}") for i in range(_DIRECTIONS)] + [slope.sign()]
    said = torch.stack([(slope * way).flatten(1).sum(dim=1) for way in ways]).double()
    found: list[Fidelity] = []
    for step in STEPS:
        true, size = _differences(s, x, y, ways, step, draws)
        larger = torch.maximum(true.norm(dim=0), said.norm(dim=0))
        seen = larger > 4 * _ROUNDING * size / step
        if int(seen.sum()) >= len(x) / 4:
            error = ((true - said).norm(dim=0) / larger)[seen].median()
            found.append(Fidelity(float(error), step, int(seen.sum())))
    return min(found, key=lambda f: f.error, default=None)


def _differences(
    s: Subject, x: Tensor, y: Tensor, ways: list[Tensor], step: float, draws: range
) -> tuple[Tensor, Tensor]:
    """Central differences (directions, n) of the margin, and the largest logit (n,)."""
    true = torch.zeros(len(ways), len(x), dtype=torch.float64)
    size = torch.zeros(len(x), dtype=torch.float64)
    for draw in draws:
        for row, way in enumerate(ways):
            up, down = (s.ask(x + sign * step * way, draw).double() for sign in (1, -1))
            size = torch.maximum(size, up.abs().amax(dim=1))
            true[row] += (label_margin(up, y) - label_margin(down, y)) / (2 * step * len(draws))
    return true, size


def _own(logits: Tensor, label: Tensor) -> Tensor:
    return logits.gather(1, label[:, None])[:, 0]


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """‖a − b‖ / ‖the larger‖ (n,); 0 where both are zero."""
    one, other = a.flatten(1).double(), b.flatten(1).double()
    larger = torch.maximum(one.norm(dim=1), other.norm(dim=1)).clamp_min(1e-300)
    return (one - other).norm(dim=1) / larger
