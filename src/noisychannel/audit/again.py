"""The worst images again, on as many draws as an attacker who tries a hundred times meets."""

from collections.abc import Iterator

from noisychannel.audit.attempts import stretches
from noisychannel.audit.evidence import Evidence
from noisychannel.audit.levels import worst_images
from noisychannel.audit.steps import Step
from noisychannel.data import from_arrays
from noisychannel.engine import Measure, Task

__all__ = ["TRIED", "again"]

TRIED = "tries"

_DRAWS, _DECISIONS = 100, 10


def again(e: Evidence) -> Iterator[Step]:
    """Fresh draws at what was chosen for each example: none of them chose, so all of them count."""
    r = e.request
    if not e.attacked or not r.defense.stochastic:
        return
    clean = e.mine.batch
    images = clean.x if e.foreseen else worst_images(e.mine).x
    data = from_arrays(images, clean.y, name="attacked", classes=r.data.classes)
    draws = max(_DRAWS, _DECISIONS * r.defense.rule.draws, r.tries * r.defense.rule.draws)
    asked: dict[str, Task] = {
        f"{TRIED}, {i}": Measure(
            data.slice(s.start, s.stop), r.defense, draws=draws, seed=r.seed, execution=r.execution
        )
        for i, s in enumerate(stretches(r, data.size))
    }
    yield Step("an attacker who tries again", (), needed=True, other=asked)
