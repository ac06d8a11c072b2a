"""How a stranger's network is asked while it is examined: on named draws, about whom, among whom, in which mode."""

import copy
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.objectives import label_margin

__all__ = ["Answers", "Change", "Comparison", "Law", "Subject", "change", "compared"]

SAME = 1e-4
"""Answers of one network to equal questions may differ by so much: rounding alone (AutoAttack's `check_randomized`)."""

ALIKE = 1e-3
"""Likewise in other company, where sums are made in another order: `Foreign` tolerates as much."""

FLIPS = 1
"""Examples that may jump by more than that: at a threshold inside a network rounding decides."""

LAW_DRAWS = 12
"""Draws by which two laws of answers are compared, on each of 8 examples."""

LAW_RATIO = 4.0
"""Squared distance of two means, or ratio of two variances, beyond chance: of 8 examples of one degree of freedom
each, the mean of squares passes 4 times its expectation with probability 2e-4."""

_TINY = torch.finfo(torch.float32).tiny
_BACKWARD = 1 << 20  # draws of backward passes, which no forward pass has

Answers = Callable[[int, range], Tensor]
"""(draw, examples) → their logits (m, k): one way to ask about the same examples."""

Value = Callable[[Tensor, Tensor], Tensor]
"""(logits (n, k), labels (n,)) → a number for each example."""


class Change(NamedTuple):
    """How far answers to the same n examples lie apart: relative distances of centred logits, and classes."""

    n: int
    typical: float
    largest: float
    moved: int
    classes: int

    @property
    def words(self) -> str:
        """As a part of a sentence."""
        return (
            f"{self.moved} of {self.n} answers move, by up to {self.largest:.2g} of their size, "
            f"{self.classes} to another class"
        )


class Law(NamedTuple):
    """How far two laws of answers lie apart: both 1 on average if they are the same."""

    means: float
    spread: float

    @property
    def differs(self) -> bool:
        """Beyond chance; where only one of them is random, surely."""
        return not (self.means <= LAW_RATIO and 1 / LAW_RATIO <= self.spread <= LAW_RATIO)


class Comparison(NamedTuple):
    """Two ways to ask about the same examples: on equal draws, and where those differ and are random, by their laws."""

    change: Change
    law: Law | None = None

    @property
    def differs(self) -> bool:
        """Whether the network tells the two ways apart."""
        return self.change.moved > FLIPS if self.law is None else self.law.differs

    @property
    def words(self) -> str:
        """As a part of a sentence."""
        if self.law is None:
            return self.change.words
        return (
            f"over {LAW_DRAWS} draws the means lie {self.law.means:.2g} times as far apart as chance puts them, and "
            f"variances are as 1 to {self.law.spread:.2g}"
        )


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, and the examples that it is asked about.

    Args:
        module: in eval mode, on the CPU.
        x: examples (n, …) in [0, 1].
        y: labels (n,).
    """

    module: nn.Module
    x: Tensor
    y: Tensor

    def fresh(self) -> "Subject":
        """The same before it was asked anything, so that no probe sees what another did to the network."""
        return replace(self, module=copy.deepcopy(self.module))

    def ask(self, x: Tensor, draw: int = 0, index: Tensor | None = None) -> Tensor:
        """Logits (n, k), as a defender asks: without gradients.

        Args:
            x: points (n, …).
            draw: name of the draws; the same name, the same draws.
            index: identities of the rows; None: 0 … n − 1.
        """
        with torch.no_grad(), self._drawn(x, draw, index):
            return self.module(x.clone())

    def wear(self, calls: int) -> None:
        """Ask about the first example, so many times, and forget the answers."""
        one = self.x[:1]
        with torch.no_grad(), self._drawn(one, 0):
            for _ in range(calls):
                self.module(one.clone())

    def ask_with_gradient(self, x: Tensor, draw: int = 0) -> Tensor:
        """Logits as an attacker's gradient sees them."""
        with torch.enable_grad(), self._drawn(x, draw):
            return self.module(x.clone().requires_grad_()).detach()

    def slopes(
        self, x: Tensor, y: Tensor, draw: int = 0, times: int = 1, value: Value = label_margin
    ) -> list[Tensor]:
        """∂ value/∂x (n, …), by default of the margin z_y − max_{j≠y} z_j, by several backward passes of one forward.

        Each backward pass has draws of its own.

        Raises:
            RuntimeError: no path from the output to the input; or whatever the network raises.
        """
        with torch.enable_grad(), self._drawn(x, draw):
            leaf = x.clone().requires_grad_()
            total = value(self.module(leaf), y).sum()
        out: list[Tensor] = []
        for time in range(times):
            with self._drawn(x, _BACKWARD + time):
                more = time + 1 < times
                (found,) = torch.autograd.grad(total, leaf, retain_graph=more, allow_unused=True)
            if found is None:  # pyright: ignore[reportUnnecessaryComparison]  # where the input is unused
                raise RuntimeError(
                    "its output does not depend on its input, as far as autograd sees"
                )
            out.append(found)
        return out

    def left_behind(self, draw: int) -> dict[str, bytes]:
        """The states in which a pass leaves the global generators."""
        with torch.no_grad(), self._drawn(self.x, draw):
            self.module(self.x.clone())
            kind, words, *rest = np.random.get_state()  # noqa: NPY002  # what a stranger draws from
            return {
                "torch": torch.get_rng_state().numpy().tobytes(),
                "NumPy": repr((kind, np.asarray(words).tobytes(), rest)).encode(),
                "Python": repr(random.getstate()).encode(),
            }

    @contextmanager
    def _drawn(self, x: Tensor, draw: int, index: Tensor | None = None) -> Generator[None]:
        """All noise inside is named by the draw: ours from `rng`, a stranger's from the global generators."""
        rows = torch.arange(len(x)) if index is None else index
        stream = rng.Stream("selection", rows, draw, part="examination")
        with rng.root("examination"), rng.bracket(stream), rng.stranger_seeded(stream):
            yield


def change(a: Tensor, b: Tensor, tolerance: float = ALIKE) -> Change:
    """How far two answers (n, k) to the same examples lie apart: ‖a − b‖₂ / max(‖a‖₂, ‖b‖₂), each less its mean.

    Neither a factor nor a constant added to all logits matters.
    """
    one, other = (z.double() - z.double().mean(dim=1, keepdim=True) for z in (a, b))
    size = torch.maximum(one.norm(dim=1), other.norm(dim=1)).clamp_min(_TINY)
    far = (one - other).norm(dim=1) / size
    return Change(
        n=len(a),
        typical=float(far.median()),
        largest=float(far.max()),
        moved=int((~(far <= tolerance)).sum()),  # NaN has moved
        classes=int((a.argmax(dim=1) != b.argmax(dim=1)).sum()),
    )


def compared(one: Answers, other: Answers, examples: range, *, random: bool) -> Comparison:
    """Whether a network answers alike in two ways of asking.

    Args:
        one: a way to ask.
        other: another.
        examples: who is asked about.
        random: whether answers vary from draw to draw: equal names may then mean other draws in other company.
    """
    found = change(one(0, examples), other(0, examples))
    if not random or found.moved <= FLIPS:
        return Comparison(found)
    return Comparison(found, _laws(one, other, examples))


def _laws(one: Answers, other: Answers, examples: range) -> Law:
    """Means and variances of answers, on draws that no two examples share: those of one pass may be correlated."""
    apart = chance = first = second = 0.0
    for place, i in enumerate(examples):
        draws = range(place * LAW_DRAWS, (place + 1) * LAW_DRAWS)
        a, b = (
            torch.cat([way(d, range(i, i + 1)) for d in draws]).double() for way in (one, other)
        )
        spread = [float(z.var(dim=0).sum()) for z in (a, b)]
        apart += float((a.mean(dim=0) - b.mean(dim=0)).square().sum())
        chance += sum(spread) / LAW_DRAWS
        first, second = first + spread[0], second + spread[1]
    return Law(apart / max(chance, _TINY), max(second, _TINY) / max(first, _TINY))
