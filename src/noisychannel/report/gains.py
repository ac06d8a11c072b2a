"""Two defenses under their own worst attacks, paired image by image."""

from collections.abc import Mapping

import pyarrow as pa
from scipy.stats import binomtest

from noisychannel.decision import Decision
from noisychannel.report.draws import arrange, same_examples
from noisychannel.report.resampling import LEVEL
from noisychannel.report.stats import RESAMPLES, Estimate, mean_gap
from noisychannel.report.worst import fitting, worst

__all__ = ["mcnemar", "worst_case_gain"]


def worst_case_gain(
    defense: Mapping[str, pa.Table],
    base: Mapping[str, pa.Table],
    rule: Decision,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """Worst-case accuracy of a defense less that of its base, on the same examples.

    Each meets, example by example, the attack that does best on it, chosen on draws that do not score it, as in
    `worst_case`; the difference's interval is that of `paired_difference`. The two may have other attacks, and
    other numbers of draws; the one of a deterministic network answers like all of its votes.

    Args:
        defense: attack name → its draws.
        base: the same of what it is compared with.
        rule: decides the scoring draws of both.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        level: coverage of the interval in (0, 1).

    Raises:
        ValueError: different examples, or what `worst_case` refuses.
    """
    mine, theirs = worst(defense, fitting(defense, rule)), worst(base, fitting(base, rule))
    same_examples(
        {
            "the defense": arrange(next(iter(defense.values()))),
            "its base": arrange(next(iter(base.values()))),
        }
    )
    return mean_gap(
        mine.outcomes.double(),
        theirs.outcomes.double(),
        seed,
        resamples,
        shared=(mine.shared, theirs.shared),
        level=level,
    )


def mcnemar(one: pa.Table, two: pa.Table) -> float:
    """Two-sided p-value that two deterministic answers to the same examples are equally often right.

    Of the b + c examples that only one answers rightly, each is b's with probability ½: the exact binomial test.

    Args:
        one: draws of the one defense or attack, all alike for an example.
        two: draws of the other, for the same indices.

    Raises:
        ValueError: different examples, or draws of one example that differ.

    Source: McNemar 1947.
    """
    found = {"one": arrange(one), "two": arrange(two)}
    same_examples(found)
    right = [d.predicted == d.label[:, None] for d in found.values()]
    for name, outcomes in zip(found, right, strict=True):
        if (outcomes != outcomes[:, :1]).any():
            raise ValueError(
                f"{name}: expected one answer per example, got draws that differ; take worst_case_gain"
            )
    first, second = (outcomes[:, 0] for outcomes in right)
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    return float(binomtest(b, b + c).pvalue) if b + c else 1.0
