"""The worst images found so far, on the 8-bit grid: what a camera or a file would hand over."""

from contextlib import suppress

from torch import Tensor

from noisychannel.audit.attempts import Attempt, rung, stretches
from noisychannel.audit.evidence import Evidence
from noisychannel.audit.proof import Strongest, in_bytes, strongest
from noisychannel.audit.side import Side
from noisychannel.data import from_arrays
from noisychannel.engine import Measure
from noisychannel.errors import UserError

__all__ = ["BYTES", "LEVELS", "rounded", "worst_images"]

LEVELS = "the worst so far"
FROM_TWIN = "the undefended network's worst"
BYTES = ", as 8-bit images"


def worst_images(side: Side) -> Strongest:
    """Each example under the attempt that was chosen for it."""
    r = side.request
    names = [n for n, a in side.attempts.items() if a.setting not in ("clean", "control")]
    found = side.worst(names)
    candidates = {n: side.candidates(n) for n in sorted(set(found.winner))}
    return strongest(side.batch, candidates, found, r.norm, r.epsilon)


def rounded(e: Evidence) -> tuple[Attempt, ...]:
    """What broke the undefended network, and what broke the defense as 8-bit images, as more attempts.

    Beside the worst also what the first attempt made of all examples: a defense that knows floats from bytes answers
    no float wrongly, and then the worst of them are clean images. No bytes where clean images are off the grid. The
    worst are asked about whole, for the proof; all else where something still stands.
    """
    r, x = e.request, e.mine.batch
    if e.foreseen or not e.attacked:
        return ()
    floats = {LEVELS: worst_images(e.mine).x}
    if e.theirs is not None and len(e.theirs.attempts) > 1:
        floats[FROM_TWIN] = worst_images(e.theirs).x
    if rung(1) in e:
        floats[rung(1)] = e.mine.candidates(rung(1))
    found = {FROM_TWIN: floats[FROM_TWIN]} if FROM_TWIN in floats else {}
    with suppress(UserError):
        found |= {n + BYTES: in_bytes(z, x.x, r.norm, r.epsilon) for n, z in floats.items()}
    left = e.standing()
    places = {n: e.everything if n.startswith(LEVELS) else left for n in found}
    return tuple(_asked(e, n, images, places[n]) for n, images in found.items() if places[n])


def _asked(e: Evidence, name: str, images: Tensor, places: tuple[int, ...]) -> Attempt:
    r, some = e.request, list(places)
    labels = e.mine.batch.y[some]
    data = from_arrays(images[some], labels, name="attacked", classes=r.data.classes)
    measures = tuple(
        Measure(
            data.slice(s.start, s.stop),
            r.defense,
            draws=r.scoring(r.defense),
            seed=r.seed,
            execution=r.execution,
        )
        for s in stretches(r, data.size)
    )
    return Attempt(name, "adaptive", "transfer", places, measures)
