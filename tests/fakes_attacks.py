"""Attacks that lie; each must fail the oracle or a law."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from noisychannel.attacks import DDN, PGD
from noisychannel.norms import L2
from noisychannel.objectives import CrossEntropy
from noisychannel.types import Adversarials, Batch, Status, View


@dataclass(frozen=True)
class NoOp:
    """Returns the clean images and says that it found them (torchattacks' VANILA passes its suite)."""

    version: ClassVar[int] = 1
    kind: ClassVar[str] = "minimal"
    gradients: ClassVar[int] = 0
    queries: ClassVar[int] = 0

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        return Adversarials(batch.x, torch.zeros_like(batch.y), view.cost(batch))


@dataclass(frozen=True)
class Halfway(NoOp):
    """Goes half of the way of a real attack."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = DDN()(view, batch)
        return found._replace(x=(found.x + batch.x) / 2)


@dataclass(frozen=True)
class TooFar(NoOp):
    """Adversarial, at twice the distance."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = DDN()(view, batch)
        return found._replace(x=batch.x + 2 * (found.x - batch.x))


@dataclass(frozen=True)
class OneStep(NoOp):
    """A single step of a long attack."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = PGD(L2(), epsilon=0.01, steps=1)(view, batch)
        return found._replace(status=torch.full_like(found.status, int(Status.FOUND)))


FAKE_ATTACKS = (NoOp(), Halfway(), TooFar(), OneStep())


# ---------------------------------------------------------------- liars of tests/laws/test_attacks.py


@dataclass(frozen=True)
class _Law(NoOp):
    """An honest attack of one step, for liars to depart from."""

    gradients: ClassVar[int] = 1

    def honest(self, view: View, batch: Batch) -> Adversarials:
        return PGD(L2(), epsilon=0.2, steps=1, random_start=False)(view, batch)


@dataclass(frozen=True)
class BatchCoupled(_Law):
    """Goes in the mean direction of the batch, as a loss summed before a clamp does."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = self.honest(view, batch)
        mean = (found.x - batch.x).mean(dim=0, keepdim=True)
        return found._replace(x=(batch.x + mean).clamp(0, 1))


@dataclass(frozen=True)
class OrderDependent(_Law):
    """Treats the first example of the batch better than the others."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = self.honest(view, batch)
        x = found.x.clone()
        x[1:] = batch.x[1:]
        return found._replace(x=x)


@dataclass(frozen=True)
class InPlace(_Law):
    """Writes its perturbation into the caller's images."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = self.honest(view, batch)
        batch.x.copy_(found.x)
        return found


@dataclass(frozen=True)
class CountsLuck(_Law):
    """Found as soon as one draw of many errs (foolbox, AutoAttack, torchattacks on a random model)."""

    gradients: ClassVar[int] = 40

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        ever = torch.zeros_like(batch.y, dtype=torch.bool)
        for step in range(40):
            ever |= view.query(batch.x, batch, CrossEntropy(), step, gradient=False).fooled
        status = torch.where(ever, int(Status.FOUND), int(Status.NOT_FOUND))
        return Adversarials(batch.x.clone(), status, view.cost(batch))


@dataclass(frozen=True)
class GlobalRandomness(_Law):
    """Starts where torch's global generator says."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = self.honest(view, batch)
        return found._replace(x=(found.x + 0.01 * torch.rand_like(found.x)).clamp(0, 1))


@dataclass(frozen=True)
class LeavesTheBox(_Law):
    """Forgets that pixels end at 0 and 1."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = self.honest(view, batch)
        return found._replace(x=batch.x + 100 * (found.x - batch.x))


class OverBudget(PGD):
    """Goes twice as far as its epsilon."""

    def __call__(self, view: View, batch: Batch, start: Tensor | None = None) -> Adversarials:
        found = super().__call__(view, batch, start)
        return found._replace(x=batch.x + 2 * (found.x - batch.x))


@dataclass(frozen=True)
class Spendthrift(_Law):
    """Asks for more gradients than it says."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        for step in range(5):
            view.query(batch.x, batch, CrossEntropy(), step)
        return self.honest(view, batch)


@dataclass(frozen=True)
class TrainsTheNetwork(_Law):
    """Leaves the network in training mode."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = self.honest(view, batch)
        view.plain.train()  # type: ignore[attr-defined]
        return found


# ---------------------------------------------------------------- liars of tests/laws/test_attacks_at_the_edge.py


@dataclass(frozen=True)
class NeedsSomebody(_Law):
    """Hands over somebody where nobody was given."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = self.honest(view, batch)
        return found if len(batch) else found._replace(x=torch.zeros(1, *batch.x.shape[1:]))


@dataclass(frozen=True)
class ForgetsTheBatch(_Law):
    """Squeezes a batch of one."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = self.honest(view, batch)
        return found._replace(x=found.x.squeeze(0))


@dataclass(frozen=True)
class StartsFromBatchMates(_Law):
    """Mixes in the first example of another class."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = self.honest(view, batch)
        other = (batch.y[:, None] != batch.y[None]).int()
        mixed = torch.where(
            other.any(dim=1).view(-1, 1, 1, 1), batch.x[other.argmax(dim=1)], batch.x
        )
        return found._replace(x=0.9 * found.x + 0.1 * mixed)


class BlindRandomness(PGD):
    """Adds its noise whatever its epsilon."""

    def __call__(self, view: View, batch: Batch, start: Tensor | None = None) -> Adversarials:
        found = super().__call__(view, batch, start)
        return found._replace(x=(found.x + 0.01).clamp(0, 1))


@dataclass(frozen=True)
class StandsStill(_Law):
    """Takes a gradient that is not a number for a gradient of zero."""

    def __call__(self, view: View, batch: Batch) -> Adversarials:
        found = self.honest(view, batch)
        failed = found.status == int(Status.FAILED)
        return found._replace(status=torch.where(failed, int(Status.NOT_FOUND), found.status))
