"""What the binarization test says of an attack."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from noisychannel.audit.finding import Finding
from noisychannel.report.stats import ENOUGH, Estimate, wilson

__all__ = ["Unit", "binarization", "unit_test"]

WANTED = 0.95
"""Share of the planted points that an attack must find."""

INFORMATIVE = 0.5
"""Share of the images where something was planted that random points do not find; with fewer the test says little."""


class Unit(NamedTuple):
    """Shares of the images, with their intervals.

    `constructed`: where an adversarial was planted, `random`: where as many random points as were looked at found
    one as well, `informative`: constructed and not random; `attacked`: what the attack won of the informative ones,
    None where there are none.
    """

    constructed: Estimate
    random: Estimate
    informative: Estimate
    attacked: Estimate | None


def unit_test(rows: pa.Table) -> Unit:
    """Reduce the rows of `Binarize`; an attack is judged on images where random points do not find what was planted.

    Source: Zimmermann et al. 2022, section 4.
    Differs: 1. their two rates, of the attack and of random search, are over all images.
    """
    constructed, random, attacked = (
        rows[name].to_numpy().astype(bool) for name in ("constructed", "random", "attacked")
    )
    told = constructed & ~random
    hits, n = int((attacked & told).sum()), int(told.sum())
    return Unit(_share(constructed), _share(random), _share(told), wilson(hits, n) if n else None)


def binarization(rows: pa.Table) -> Finding:
    """The attack finds what was planted for it to find, on 95 % of the images that tell."""
    name, found = "binarization", unit_test(rows)
    evidence = (
        f"An adversarial was planted on {found.constructed.percent} of {len(rows)} images, random points found "
        f"{found.random.percent}"
    )
    enough = found.informative.n * found.informative.value >= ENOUGH
    if found.attacked is None or not enough or found.informative.value < INFORMATIVE:
        why = f"{evidence}: on too few does it tell one attack from another."
        return Finding(name, "not run", why)
    evidence = (
        f"{evidence}; of the {found.attacked.n} that tell, the attack won {found.attacked.percent}."
    )
    if found.attacked.high < WANTED:
        mend = (
            "The attack misses adversarials that are there by construction: its robust accuracy is no evidence. "
            "Mend its gradient (BPDA, more draws) or its step size."
        )
        return Finding(name, "fail", evidence, mend)
    return Finding(name, "pass" if found.attacked.value >= WANTED else "warn", evidence)


def _share(which: np.ndarray) -> Estimate:
    return wilson(int(which.sum()), len(which))
