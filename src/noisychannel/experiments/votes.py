"""What a random defense answers under a decision rule, and what one rule gains over another on the same draws."""

import numpy as np
import pyarrow as pa

from noisychannel.decision import Decision, Single
from noisychannel.report.draws import arrange
from noisychannel.report.stats import Estimate, paired_difference

__all__ = ["decisions", "draws_each", "gain", "less_than"]


def draws_each(draws: pa.Table) -> int:
    """How many draws each image has."""
    return len(np.unique(draws["draw"].to_numpy()))


def decisions(draws: pa.Table, rule: Decision) -> pa.Table:
    """A rule's decisions as a table of single answers: one for every disjoint group of draws that it can decide.

    Raises:
        ValueError: fewer draws per image than the rule takes, or weights shared by images.
    """
    d = arrange(draws)
    n, m, classes = d.probabilities.shape
    groups = m // rule.draws
    if groups == 0:
        raise ValueError(f"draws: expected at least {rule.draws} per image for {rule}, got {m}")
    if d.shared:
        raise ValueError("draws: expected fixed weights, got draws of weights that images share")
    d = d.take(slice(0, groups * rule.draws))
    probabilities = d.probabilities.reshape(n * groups, rule.draws, classes)
    answers = rule.decide(d.predicted.reshape(n * groups, rule.draws), probabilities)
    means = np.ascontiguousarray(probabilities.mean(dim=1).numpy().reshape(-1))
    return pa.table(
        {
            "index": np.repeat(d.index.numpy(), groups),
            "label": np.repeat(d.label.numpy(), groups),
            "candidate": np.zeros(n * groups, dtype=np.int32),
            "draw": np.tile(np.arange(groups, dtype=np.int32), n),
            "predicted": answers.numpy(),
            "margin": d.margin.reshape(n * groups, rule.draws).mean(dim=1).numpy(),
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(means), classes),
        }
    )


def gain(draws: pa.Table, rule: Decision, other: Decision) -> Estimate:
    """Accuracy under the one rule less that under the other, on the same draws of the same images."""
    return less_than(draws, rule, draws, other)


def less_than(one: pa.Table, rule: Decision, two: pa.Table, other: Decision) -> Estimate:
    """Accuracy of the one table under its rule less that of the other under its own, image by image."""
    return paired_difference(decisions(one, rule), decisions(two, other), Single())
