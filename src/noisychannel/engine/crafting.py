"""One micro-batch of a craft: attacked, told of, merged."""

import torch

from noisychannel.engine.task import Tick
from noisychannel.errors import UserError
from noisychannel.threats import DefenseView
from noisychannel.types import Adversarials, Attack, Batch, Cost, Status

__all__ = ["Told", "attacked", "merge", "to_cpu"]


class Told:
    """Passes on what a view says of its passes, and at each micro-batch's end what was promised but not needed."""

    def __init__(self, tick: Tick) -> None:
        self.tick, self.left = tick, 0.0

    def promised(self, work: float) -> None:
        """What the next micro-batch may cost at most."""
        self.left = work

    def heard(self, passes: float) -> None:
        """A question was answered."""
        said = min(passes, self.left)
        self.left -= said
        self.tick(said)

    def finished(self) -> None:
        """The micro-batch is done, earlier than promised."""
        self.tick(self.left)
        self.left = 0.0


def attacked(attack: Attack, view: DefenseView, batch: Batch) -> Adversarials:
    """Attack a micro-batch; if the network raises, example by example, so that one cannot stop the rest."""
    try:
        return attack(view, batch)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"memory: {len(batch)} examples at once do not fit; lower --micro-batch"
        ) from error
    except RuntimeError:
        if len(batch) == 1:
            raise
        view.cost(batch)
    singles: list[Adversarials] = []
    errors: list[RuntimeError] = []
    for i in range(len(batch)):
        one = batch.rows(slice(i, i + 1))
        try:
            singles.append(attack(view, one))
        except RuntimeError as error:
            errors.append(error)
            status = torch.full_like(one.y, int(Status.FAILED))
            singles.append(Adversarials(one.x, status, view.cost(one)))
    if len(errors) == len(batch):
        raise errors[0]
    return merge(singles)


def merge(parts: list[Adversarials]) -> Adversarials:
    """Parts one after the other."""
    return Adversarials(
        torch.cat([p.x for p in parts]),
        torch.cat([p.status for p in parts]),
        Cost(*(torch.cat(counts) for counts in zip(*(p.cost for p in parts), strict=True))),
    )


def to_cpu(a: Adversarials) -> Adversarials:
    """The same, in the machine's own memory."""
    return Adversarials(a.x.cpu(), a.status.cpu(), Cost(*(counts.cpu() for counts in a.cost)))
