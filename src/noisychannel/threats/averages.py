"""What is said of a point from its logits over several draws."""

from torch import Tensor

from noisychannel.objectives import margin
from noisychannel.threats.settings import Averaged, log_mean_prob
from noisychannel.types import Goal, Objective

__all__ = ["averaged", "classes", "mean_margin"]


def classes(logits: Tensor) -> Tensor:
    """The class of each row (…, k) → (…), −1 where the network gave no number."""
    return logits.argmax(dim=-1).masked_fill(logits.isnan().any(dim=-1), -1)


def averaged(logits: Tensor, goal: Goal, objective: Objective, where: Averaged) -> Tensor:
    """The objective (n,) of logits (d, n, k), averaged `where` the threat says."""
    draws, rows, _ = logits.shape
    if draws == 1:
        return objective(logits[0], goal)
    if where == "mean_logit":
        return objective(logits.mean(dim=0), goal)
    if where == "mean_prob":
        return objective(log_mean_prob(logits), goal)
    return objective(logits.flatten(0, 1), goal.repeat(draws)).view(draws, rows).mean(dim=0)


def mean_margin(logits: Tensor, goal: Goal) -> Tensor:
    """Mean over draws of the margin: (d, n, k) → (n,)."""
    draws, rows, _ = logits.shape
    return margin(logits.flatten(0, 1), goal.repeat(draws)).view(draws, rows).mean(dim=0)
