"""Small audits that tests of reports read, each made once."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fakes_networks as fakes
from auditing import audited, request
from linear import LinearNetwork
from noisychannel.audit.budget import BUDGETS
from noisychannel.audit.conduct import Judged
from noisychannel.channels import CD, Gauss
from noisychannel.data import from_arrays
from noisychannel.decision import Vote
from noisychannel.defenses import Defense
from noisychannel.networks import Foreign
from noisychannel.report.html import Provenance

PROVENANCE = Provenance("noisychannel audit <it>", "2026-01-31", "24 examples", (("seed", "0"),))

TINY = replace(
    BUDGETS[0],
    name="tiny",
    half_width=0.25,
    steps=3,
    most_draws=4,
    draws=2,
    restarts=2,
    targets=2,
    queries=16,
    directions=4,
    inner=4,
    controls=10,
    scoring=8,
)
"""Seconds: what a report says of a number does not depend on how good the number is."""

IMAGES = 20

_folders: list[TemporaryDirectory[str]] = []
# In memory where there is such a folder: a store waits for its disk at every artifact.
_WHERE = "/dev/shm" if Path("/dev/shm").is_dir() else None


def small(what: Any, base: Any = None, **fields: Any) -> Judged:
    """An audit within the tiny budget, kept until the tests end."""
    _folders.append(TemporaryDirectory(dir=_WHERE))
    given = {"data": fakes.digits(count=IMAGES), "budget": TINY, **fields}
    return audited(request(what, base, **given), Path(_folders[-1].name))


@lru_cache
def noisy() -> Judged:
    """Input noise that protects nothing, asked once, against an attacker with three tries."""
    return small(
        fakes.InputNoise(fakes.plain()), fakes.plain(), name="<b>noise</b> [bold]", tries=3
    )


@lru_cache
def voted() -> Judged:
    """Gaussian noise before a network, by a vote of two; its base is told from its parts."""
    plain = Foreign(fakes.plain(), fakes.SHAPE, "plain")
    return small(Defense(plain, Gauss(0.2), Vote(2)), name="gauss:0.2", tries=5)


@lru_cache
def rounding() -> Judged:
    """Colour depth: a channel without randomness."""
    plain = Foreign(fakes.plain(), fakes.SHAPE, "plain")
    return small(Defense(plain, CD(2)), name="cd:2")


@lru_cache
def robust() -> Judged:
    """Adversarially trained: nothing is random."""
    return small(fakes.plain("adversarial"), fakes.plain(), name="robust")


@lru_cache
def masked() -> Judged:
    """Answers with its class alone: its gradient is zero, and its accuracy means nothing."""
    return small(fakes.LIARS["argmax"](fakes.plain()), fakes.plain(), name="masked")


@lru_cache
def alone() -> Judged:
    """A network that nothing perturbs, and that has no base, broken by the first attack."""
    return small(fakes.plain(), name="alone", epsilon=0.9)


@lru_cache
def untouched() -> Judged:
    """An attacker who may not move a pixel by a millionth wins nothing."""
    return small(fakes.plain(), name="untouched", epsilon=1e-7)


@lru_cache
def series() -> Judged:
    """(c, l) examples."""
    network = LinearNetwork(shape=(1, 32), classes=3)
    batch = network.batch(8)
    data = from_arrays(batch.x, batch.y, classes=3)
    return small(Defense(network, Gauss(0.1)), name="series", data=data)


@lru_cache
def hurried() -> Judged:
    """As if a step had been left out for time."""
    found = small(fakes.plain(), name="hurried", epsilon=0.9)
    found.evidence.skip("other losses")
    return found


def again(judged: Judged, **changes: Any) -> Judged:
    """The same rows, read for another request of the same tasks (another number of tries, say)."""
    folder = judged.evidence.mine.store.root
    return audited(replace(judged.evidence.request, **changes), folder)
