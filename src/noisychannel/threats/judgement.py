"""The defender's own verdict on an attack's candidates, before one of them is handed over."""

from collections.abc import Callable

import torch
from torch import Tensor

from noisychannel.admission import check_classes
from noisychannel.defenses import Defense, answers
from noisychannel.objectives import fooled
from noisychannel.threats.averages import classes, mean_margin
from noisychannel.types import Batch, Trial

__all__ = ["judged"]


def judged(
    defense: Defense,
    network: Callable[[Tensor], Tensor],
    candidates: Tensor,
    batch: Batch,
    draws: int,
    max_rows: int,
    *,
    step: int,
) -> Trial:
    """Whether each of (r, n, …) candidates wins more than half of the decisions that `draws` selection draws make.

    Args:
        defense: its channel and its decision rule.
        network: its built module.
        candidates: points made from the examples.
        batch: the examples.
        draws: a multiple of the rule's; all candidates of an example see the same ones.
        max_rows: examples × draws in one pass.
        step: number of the question; no two share a draw.
    """
    rule = defense.rule
    won, rate, margins = [], [], []
    for candidate in candidates:
        logits = answers(
            defense, network, candidate, batch, "selection", draws, max_rows, step=step
        ).logits
        check_classes(batch.goal, logits.shape[2])  # some attacks ask nothing before
        labels = classes(logits)
        decided = rule.decide(
            labels.T.reshape(-1, rule.draws),
            logits.softmax(dim=2).transpose(0, 1).reshape(-1, rule.draws, logits.shape[2]),
        ).view(len(batch), -1)
        won.append(fooled(decided.T, batch.goal).float().mean(dim=0) > 0.5)
        rate.append(fooled(labels, batch.goal).float().mean(dim=0))
        margins.append(mean_margin(logits, batch.goal))
    return Trial(torch.stack(won), torch.stack(rate), torch.stack(margins))
