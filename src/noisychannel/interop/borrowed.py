"""A stranger's attack as one of ours: run against a view, held to its budget, judged on draws that it never saw."""

import copy
import inspect
import re
import secrets
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.attacks.shortlist import Shortlist, conclude
from noisychannel.errors import UserError, expected, reason
from noisychannel.interop.fingerprint import fingerprint
from noisychannel.interop.shown import Shown
from noisychannel.norms import Linf, Norm, per_example
from noisychannel.objectives import fooled
from noisychannel.threats import DefenseView
from noisychannel.types import Adversarials, Batch, Cost, Status, View

__all__ = ["Borrowed"]

_START = re.compile(r"\binit|starting.?point", re.IGNORECASE)
"""How strangers say that they found no point to start from."""


_SLACK = 1e-3
"""How far from [0, 1] nobody is told of: rounding, and less than half a grey level."""


class _Answer(NamedTuple):
    """Candidates (n, …); of each: whether there is one, is called adversarial, and how far it was from [0, 1]."""

    x: Tensor
    given: Tensor
    claimed: Tensor
    outside: Tensor


@dataclass(frozen=True)
class Borrowed:
    """Anybody's attack: a function `(model, x, y) → x_adv`, or `→ (x_adv, success)`.

    `model` is a module from [0, 1] to logits (`Shown`), `x` and `y` are tensors; a targeted attack is called
    with `targets=…, targeted=True` as well (AttackBench's signature). What it returns is clipped to [0, 1], put
    back into its ball, and judged on the view's selection draws: FOUND is our verdict, never the stranger's;
    what he took for adversarial and the judge did not is LOST_ON_RESCORING.

    Args:
        call: the attack; copied before each call where it can be, so that it remembers nothing.
        norm: of its ball, or of what it makes small.
        epsilon: radius of its ball, pixels in [0, 1]; None for one that looks for the smallest perturbation.
        name: what reports call it.
        gradients: per example, a guess for the progress bar; nothing holds a stranger to it.
        queries: without gradient, per example; likewise.

    Raises:
        UserError: a number out of range, a call with other arguments, or an answer that is no examples.

    Warns:
        UserWarning: it raised for some examples, or returned NaN or pixels outside [0, 1].

    Differs: 1. from the attack alone: its generators (torch, NumPy, Python) are seeded by name and restored.
        2. if it raises, each example is tried alone, and only those that raise again are INIT_FAILED (where it
        speaks of a start) or FAILED. 3. cost is what the module was asked, an equal share for each example: who
        a stranger's rows are, nobody can know. 4. its examples may depend on one another, as it likes.
    """

    version: ClassVar[int] = 1
    call: Callable[..., Any] = field(repr=False, compare=False)
    norm: Norm = Linf()
    epsilon: float | None = None
    name: str = "borrowed"
    gradients: int = 100
    queries: int = 0
    nonce: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def __post_init__(self) -> None:
        if self.epsilon is not None and not self.epsilon >= 0:
            raise expected("epsilon", "a number ≥ 0, or None", self.epsilon)
        for name in ("gradients", "queries"):
            if getattr(self, name) < 0:
                raise expected(name, "a whole number ≥ 0", getattr(self, name))
        self._check_call(("model", "x", "y"), {})

    @property
    def kind(self) -> Literal["budget", "minimal"]:
        """Whether it has a ball, or looks for the smallest perturbation."""
        return "minimal" if self.epsilon is None else "budget"

    def fingerprint(self) -> str:
        """Hash of all that decides what it does, or a nonce."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.call, self.name, self.nonce)

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        """Attack every example of the batch."""
        if not isinstance(view, DefenseView):
            raise expected("view", "a DefenseView, for its network", f"a {type(view).__name__}")
        if batch.target is not None:
            self._check_call(("model", "x", "y"), {"targets": None, "targeted": True})
        nothing = torch.zeros_like(batch.y)
        if len(batch) == 0:
            return Adversarials(batch.x.clone(), nothing, Cost.passes(nothing, nothing.clone()))
        shown = Shown(view, batch.index)
        failed = torch.full_like(batch.y, int(Status.FOUND))
        singles = nothing, nothing.clone()
        try:
            answer = self._asked(shown, batch)
        except (UserError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception:  # noqa: BLE001  # whatever a stranger raises; said below
            answer, failed, singles = self._one_by_one(view, batch)
        outside = float(answer.outside.max())
        if outside > _SLACK:
            self._warn(f"returned pixels up to {outside:.3g} outside of [0, 1], which are clipped")
        found = self._judged(view, batch, answer)
        spent = shown.cost(len(batch))
        cost = Cost.passes(
            found.cost.forwards + spent.forwards + singles[0],
            found.cost.backwards + spent.backwards + singles[1],
        )
        status = torch.where(failed != int(Status.FOUND), failed, found.status)
        return Adversarials(found.x, status, cost)

    def _asked(self, shown: Shown, batch: Batch) -> _Answer:
        """The stranger's answer, on draws and generators of these examples' name."""
        stream = rng.Stream("attack", batch.index, part="borrowed")
        goal = {} if batch.target is None else {"targets": batch.target.clone(), "targeted": True}
        with rng.stranger_seeded(stream), torch.enable_grad():
            # Decoded images may be channels_last, which strangers' `.view` refuses.
            images = batch.x.clone(memory_format=torch.contiguous_format)
            said = _fresh(self.call)(shown, images, batch.y.clone(), **goal)
        x, claimed = said if isinstance(said, tuple) and len(said) == 2 else (said, None)
        x = self._examples(x, batch)
        given = x.isfinite().flatten(1).all(dim=1)
        x = torch.where(per_example(given, x) != 0, x, batch.x)
        outside = Linf().distance(x, x.clamp(0, 1))
        x = self._allowed(x, batch)
        if claimed is None:
            with torch.no_grad():
                claimed = fooled(shown(x).argmax(dim=1), batch.goal)
        claimed = torch.as_tensor(claimed, device=batch.x.device).reshape(-1).bool()
        if len(claimed) != len(batch):
            raise UserError(
                f"attack {self.name!r}: expected a verdict for each of {len(batch)} examples, "
                f"got {len(claimed)}"
            )
        return _Answer(x, given, claimed, outside)

    def _one_by_one(
        self, view: DefenseView, batch: Batch
    ) -> tuple[_Answer, Tensor, tuple[Tensor, Tensor]]:
        """Each example alone: what raises again is told from the rest, and said."""
        failed = torch.full_like(batch.y, int(Status.FOUND))
        forwards, backwards = torch.zeros_like(batch.y), torch.zeros_like(batch.y)
        nobody = torch.zeros(1, dtype=torch.bool, device=batch.x.device)
        nowhere = torch.zeros(1, device=batch.x.device)
        answers: list[_Answer] = []
        sentences: list[str] = []
        for i in range(len(batch)):
            one = batch.rows(slice(i, i + 1))
            shown = Shown(view, one.index)
            try:
                answers.append(self._asked(shown, one))
            except (UserError, torch.OutOfMemoryError, MemoryError):
                raise
            except Exception as error:  # noqa: BLE001
                sentences.append(reason(error))
                start = _START.search(str(error)) is not None
                failed[i] = int(Status.INIT_FAILED if start else Status.FAILED)
                answers.append(_Answer(one.x.clone(), nobody, nobody, nowhere))
            spent = shown.cost(1)
            forwards[i], backwards[i] = spent.forwards[0], spent.backwards[0]
        if sentences:
            self._warn(f"raised for {len(sentences)} of {len(batch)} examples ({sentences[0]})")
        merged = [torch.cat(parts) for parts in zip(*answers, strict=True)]
        return _Answer(*merged), failed, (forwards, backwards)

    def _judged(self, view: DefenseView, batch: Batch, answer: _Answer) -> Adversarials:
        """On selection draws. What is not given is not offered, and so FAILED."""
        kept = Shortlist(batch.x, 1)
        rows = answer.given.nonzero()[:, 0]
        score = torch.zeros(len(rows), device=batch.x.device)
        kept.offer(rows, answer.x[rows], score, answer.claimed[rows])
        found = conclude(view, batch, kept)
        lost = answer.claimed & (found.status == int(Status.NOT_FOUND))
        return found._replace(status=found.status.masked_fill(lost, int(Status.LOST_ON_RESCORING)))

    def _examples(self, x: Any, batch: Batch) -> Tensor:
        """What was returned, as tensors like ours."""
        if isinstance(x, np.ndarray):
            x = torch.from_numpy(x)
        whole = isinstance(x, Tensor) and x.shape == batch.x.shape and x.is_floating_point()
        if not whole or not isinstance(x, Tensor):
            got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise UserError(
                f"attack {self.name!r}: expected examples of shape {tuple(batch.x.shape)}, floating-point "
                f"pixels in [0, 1], got {got}; return one for each example, the clean one if it fails"
            )
        return x.detach().to(batch.x)

    def _allowed(self, x: Tensor, batch: Batch) -> Tensor:
        """Inside the box and, but for rounding, inside the ball."""
        x = x.clamp(0, 1)
        if self.epsilon is None:
            return x
        outside = self.norm.distance(x, batch.x) > self.epsilon * (1 + 1e-5) + 1e-7
        inside = (batch.x + self.norm.project(x - batch.x, self.epsilon)).clamp(0, 1)
        return torch.where(outside.view(-1, *([1] * (x.ndim - 1))), inside, x)

    def _check_call(self, names: tuple[str, ...], keywords: dict[str, Any]) -> None:
        try:
            signature = inspect.signature(self.call)
        except (TypeError, ValueError):  # compiled code says nothing of its arguments
            return
        try:
            signature.bind(*names, **keywords)
        except TypeError as error:
            wanted = ", ".join((*names, *(f"{name}=" for name in keywords)))
            raise UserError(
                f"attack {self.name!r}: expected a function of ({wanted}), got {signature} ({error}); "
                "wrap it in a function that takes these"
            ) from error

    def _warn(self, what: str) -> None:
        warnings.warn(f"attack {self.name!r}: {what}", UserWarning, stacklevel=4)


def _fresh(call: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return copy.deepcopy(call)
    except Exception:  # noqa: BLE001  # whatever a stranger's object raises: then it is used as it is
        return call
