"""What an examination asks a network: each probe answers numbers, which `diagnosis` judges."""

from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from noisychannel.audit.points import inside, rounded, signs, uniform
from noisychannel.audit.subject import SAME, Answers, Change, Comparison, Subject, change, compared
from noisychannel.audit.watch import Watch

__all__ = [
    "AS_GIVEN",
    "CALLS",
    "PASSES",
    "Company",
    "Draws",
    "Grid",
    "Roughness",
    "accuracies",
    "active",
    "company",
    "draws_of",
    "grid",
    "patience",
    "roughness",
]

PASSES = 6
"""Equal questions by which randomness is found (AutoAttack asks five)."""

CALLS = 300
"""Questions after which the first is asked again: more than one attack of 100 steps asks, EOT aside."""

AS_GIVEN = "as given"
"""The scale of pixels that everything else is in: [0, 1]."""

FEW = 8
"""Examples that are asked about alone and in company."""

_COPIES = 8
_OFF = 1 / 600  # less than half of half a grey level, 1/512
_CONSTANTS = {"ImageNet's mean and std": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}


class Draws(NamedTuple):
    """Whether answers vary, and with what.

    Args:
        passes: equal questions on other draws, the one that differs most from the first.
        repeated: the same question on the same draws.
        copies: copies of one example within a pass.
        weights: whether two passes use other weights.
        reseeded: generators that a pass leaves in one state, whatever state it found them in.
    """

    passes: Change
    repeated: Change
    copies: Change
    weights: bool
    reseeded: tuple[str, ...]

    @property
    def random(self) -> bool:
        """Whether equal questions have different answers."""
        return self.passes.largest > SAME or self.passes.classes > 0

    @property
    def reproducible(self) -> bool:
        """Whether naming its draws decides its answers."""
        return not self.repeated.largest > SAME


def draws_of(s: Subject) -> Draws:
    """Equal questions on other draws, on equal ones, and within one pass."""
    first = s.ask(s.x)
    passes = [change(first, s.ask(s.x, draw), SAME) for draw in range(1, PASSES)]
    alike = s.x[: len(s.x) // 4 or 1].repeat_interleave(_COPIES, dim=0)
    answers = s.ask(alike)
    used: list[list[tuple[float, float]]] = []
    most = max(passes, key=lambda c: (c.largest, c.classes))
    copies = change(answers, answers[::_COPIES].repeat_interleave(_COPIES, dim=0), SAME)
    if most.moved and not copies.moved:
        for draw in (0, 1):
            with Watch(weights=True) as watch:
                s.ask(s.x, draw)
            used.append(watch.used)
    left = [s.left_behind(draw) for draw in (0, 1)]
    reseeded = tuple(name for name in left[0] if left[0][name] == left[1][name])
    repeated = change(first, s.ask(s.x), SAME)
    return Draws(most, repeated, copies, bool(used) and used[0] != used[1], reseeded)


def active(s: Subject) -> tuple[tuple[str, ...], int]:
    """Dropouts that are active in a pass, and batch norms that use the batch's statistics."""
    with Watch() as watch:
        s.ask(s.x)
    return tuple(dict.fromkeys(watch.dropouts)), len(watch.statistics)


class Roughness(NamedTuple):
    """How far answers move when all pixels move by a hair, one of them by a grey level, and all of them by one."""

    hair: Change
    one: Change
    all: Change


def roughness(s: Subject) -> Roughness:
    """Neighbours of points on the 8-bit grid, and a hair from points off it."""
    on = rounded(s.x)
    way = signs(on, "roughness")
    chosen = uniform(on, "pixel").flatten(1)
    one = (chosen == chosen.amax(dim=1, keepdim=True)).view(on.shape)
    off = inside(on + _OFF * (2 * uniform(on, "off") - 1))
    here = s.ask(on)
    return Roughness(
        hair=change(s.ask(off), s.ask(inside(off + 2**-21 * way))),
        one=change(here, s.ask(inside(on + way * one / 255))),
        all=change(here, s.ask(inside(on + way / 255))),
    )


class Grid(NamedTuple):
    """How far answers move from a point on the 8-bit grid to one beside it, and between two beside it."""

    on: Change
    off: Change


def grid(s: Subject) -> tuple[Grid, ...]:
    """Around the examples, around them under noise, and halfway to each other: liars know the examples."""
    noise = 16 / 255 * signs(s.x, "grid")
    places = (s.x, (s.x + noise).clamp(0, 1), 0.5 * (s.x + s.x.roll(1, dims=0)))
    found: list[Grid] = []
    for place in places:
        on = rounded(place)
        beside = [inside(on + _OFF * (2 * uniform(on, f"beside {i}") - 1)) for i in (0, 1)]
        here, there, elsewhere = (s.ask(x) for x in (on, *beside))
        found.append(Grid(change(here, there), change(there, elsewhere)))
    return tuple(found)


def accuracies(s: Subject) -> dict[str, Tensor]:
    """Scaling → whether each example is right, as given first, then as networks without their normalisation want it."""
    axes = [0, *range(2, s.x.ndim)]
    mean, std = s.x.mean(dim=axes, keepdim=True), s.x.std(dim=axes, keepdim=True).clamp_min(1e-3)
    scaled = {
        AS_GIVEN: s.x,
        "times 255": 255 * s.x,
        "in [-1, 1]": 2 * s.x - 1,
        "less their mean, by their std": (s.x - mean) / std,
    }
    if s.x.ndim == 4 and s.x.shape[1] == 3:
        for name, (middle, width) in _CONSTANTS.items():
            centred = s.x - torch.tensor(middle).view(1, 3, 1, 1)
            scaled[f"normalised by {name}"] = centred / torch.tensor(width).view(1, 3, 1, 1)
    right: dict[str, Tensor] = {}
    for name, x in scaled.items():
        with suppress(Exception):  # a network that guards its range is right to raise at the others
            right[name] = s.ask(x).argmax(dim=1) == s.y
    return right


class Company(NamedTuple):
    """Whether an answer depends on the other examples of its batch, on their number, on gradients being asked for.

    The last is None where the network raises when they are.
    """

    mates: Comparison
    size: Comparison
    mode: Comparison | None


def company(s: Subject, *, random: bool) -> Company:
    """The same examples among others, alone, and with gradients."""
    few = range(min(FEW, len(s.x)))
    others = torch.cat([s.x[FEW:], 1 - s.x])[:FEW]
    whole = torch.cat([s.x[:FEW], others])

    def among(x: Tensor) -> Answers:
        return lambda draw, rows: s.ask(x, draw)[rows.start : rows.stop]

    def alone(draw: int, rows: range) -> Tensor:
        return torch.cat([s.ask(s.x[i : i + 1], draw, torch.tensor([i])) for i in rows])

    def graded(draw: int, rows: range) -> Tensor:
        return s.ask_with_gradient(whole, draw)[rows.start : rows.stop]

    usual, strangers = among(whole), among(torch.cat([s.x[:FEW], 1 - others]))
    mode = None
    with suppress(Exception):  # what it raises is said where its gradients are
        mode = compared(usual, graded, few, random=random)
    return Company(
        compared(usual, strangers, few, random=random),
        compared(usual, alone, few, random=random),
        mode,
    )


def patience(s: Subject, *, random: bool) -> tuple[Comparison, tuple[str, ...]]:
    """Whether it answers differently after many calls, and which of its numbers change as it is called."""
    few, young = range(min(FEW, len(s.x))), s.fresh()
    first = s.ask(s.x[:FEW])
    before = _numbers(s)
    s.wear(CALLS)
    after = _numbers(s)

    def early(draw: int, rows: range) -> Tensor:
        # A function's counter cannot be taken back: what it said first is kept.
        return (
            first[rows.start : rows.stop]
            if draw == 0
            else young.ask(s.x[:FEW], draw)[rows.start : rows.stop]
        )

    def late(draw: int, rows: range) -> Tensor:
        return s.ask(s.x[:FEW], draw)[rows.start : rows.stop]

    moved = tuple(name for name in before if not torch.equal(before[name], after[name]))
    return compared(early, late, few, random=random), moved


def _numbers(s: Subject) -> dict[str, Tensor]:
    """Everything numeric that a network keeps: parameters, buffers, and plain attributes."""
    kept = {name: t.clone() for name, t in s.module.state_dict().items() if isinstance(t, Tensor)}
    for where, part in s.module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, int | float):
                kept[f"{where}.{name}".lstrip(".")] = torch.tensor(value)
    return kept
