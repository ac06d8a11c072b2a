"""What choosing among attacks or restarts wins honestly, and what it would seem to win by luck."""

from collections.abc import Mapping

import pyarrow as pa

from noisychannel.decision import Decision
from noisychannel.report.stats import RESAMPLES, Estimate, mean_gap, mean_outcome
from noisychannel.report.worst import worst

__all__ = ["luck", "restart_gain"]


def luck(
    tables: Mapping[str, pa.Table], rule: Decision, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """How much lower accuracy would seem if an example counted as broken whenever any attack had one wrong decision.

    E[right under the chosen attack] − E[right under every attack], both of the same decisions: the attack is
    chosen on other draws on the left, and by the decision itself on the right, as attacks do that are scored once
    each. Best of restarts is the same, with the restarts of one attack in place of attacks.

    Args:
        tables: attack or restart → its draws, all for the same indices.
        rule: decides the scoring draws.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: one draw per example, which can only choose and score itself; or what `worst_case` refuses.
    """
    found = worst(tables, rule)
    if not found.apart:
        raise ValueError(
            "draws: expected at least 2 per example, since one cannot show its own luck, got 1"
        )
    lost = found.outcomes.double() - found.every.all(dim=0).double()
    return mean_outcome(lost, seed, resamples, shared=found.shared)


def restart_gain(
    tables: Mapping[str, pa.Table], rule: Decision, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """How much lower accuracy is under the best of several restarts than under one of them, luck not counted.

    The mean over restarts less the worst case over them, on the same decisions, none of which chose.

    Args:
        tables: restart → its draws, all for the same indices.
        rule: decides the scoring draws.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ValueError: what `worst_case` refuses.
    """
    found = worst(tables, rule)
    each, best = found.every.double().mean(dim=0), found.outcomes.double()
    return mean_gap(each, best, seed, resamples, shared=(found.shared, found.shared))
