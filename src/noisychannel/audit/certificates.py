"""Whether certificates of randomized smoothing hold at the images that the controls attacked."""

from collections.abc import Iterator

import numpy as np

from noisychannel.audit.consistency import ENOUGH, NAME, Attacked, attacked, consistency
from noisychannel.audit.controls import swept
from noisychannel.audit.evidence import Evidence
from noisychannel.audit.finding import Finding
from noisychannel.audit.steps import Step
from noisychannel.defenses import Defense
from noisychannel.engine import Certify, Measure, Task, base_of
from noisychannel.errors import UserError
from noisychannel.norms import L2

__all__ = ["certificate", "certificates"]

_FACTORS = (0.5, 1.0)
"""Of ε: the nearer images lie within more radii."""


def certificates(e: Evidence) -> Iterator[Step]:
    """Certify the controls' images, and vote at what the attacks made of them, on as many draws."""
    r = e.request
    if r.norm != L2() or any(swept(f) not in e for f in _FACTORS):
        return
    try:
        base, sigma = base_of(Defense(r.defense.network, r.defense.channel))
    except UserError:  # no Gaussian noise that the channel begins with
        return
    made: dict[str, Task] = {}
    for i, craft in enumerate(e.mine.attempts[swept(_FACTORS[0])].crafts):
        made[f"{NAME}, {i}"] = Certify(
            craft.data, base, sigma, n=ENOUGH, seed=r.seed, execution=r.execution
        )
    for f in _FACTORS:
        for i, craft in enumerate(e.mine.attempts[swept(f)].crafts):
            made[_votes(f, i)] = Measure(
                craft.data,
                Defense(r.defense.network, r.defense.channel),
                craft,
                ENOUGH,
                seed=r.seed,
                execution=r.execution,
            )
    yield Step("certificates", (), other=made)


def certificate(e: Evidence) -> Finding:
    """Images keep their certified class within their radius."""
    rows = e.joined(NAME)
    if rows is None:
        return Finding(NAME, "not run", "No Gaussian noise on the input, attacked in L2.")
    asked = {f: e.joined(_votes(f)) for f in _FACTORS}
    found = [attacked(e.mine.examples(swept(f)), v) for f, v in asked.items() if v is not None]
    points = Attacked(
        np.concatenate([a.index for a in found]),
        np.concatenate([a.l2 for a in found]),
        np.concatenate([a.votes for a in found]),
        ENOUGH,
    )
    return consistency(rows, points)


def _votes(factor: float, part: int | None = None) -> str:
    return f"votes at {factor:g} ε" + ("" if part is None else f", {part}")
