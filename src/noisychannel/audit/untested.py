"""What an audit did not test: left out for time, not needed, not to be had here, or out of its scope."""

import re

from noisychannel.audit.conduct import Judged, foresee
from noisychannel.audit.evidence import Evidence
from noisychannel.channels import Identity

__all__ = ["untested"]

_SCOPE = (
    "Out of scope",
    "larger budgets, other norms, other images; rotations, patches and other large changes; attacks on the training",
)

_UNFIT = "Does not apply"
_UNGIVEN = "Not given"


def untested(judged: Judged) -> tuple[tuple[str, str], ...]:
    """(why, what) of everything that the headline does not count."""
    e = judged.evidence
    missing = _missing(e)
    late = [f"{step} ({names})" if (names := missing.get(step)) else step for step in e.skipped]
    idle = [names for step, names in missing.items() if step not in e.skipped]
    found: list[tuple[str, str]] = []
    if late:
        found.append(("Left out for time", "; ".join(late)))
    if idle:
        found.append(
            ("Not needed, since no image was left that they are tried on", ", ".join(idle))
        )
    return (*found, *_absent(e), _SCOPE)


def _missing(e: Evidence) -> dict[str, str]:
    """Step → attacks on the defense that were planned and not made."""
    made = {_kind(name) for name in e.mine.attempts}
    found: dict[str, dict[str, None]] = {}
    for step in foresee(e.request, e.mine.store):
        for a in step.attempts:
            mine = a.measures[0].defense == e.request.defense
            if mine and a.setting not in ("clean", "control") and _kind(a.name) not in made:
                found.setdefault(step.name, {})[_kind(a.name)] = None
    return {step: ", ".join(names) for step, names in found.items()}


def _kind(name: str) -> str:
    """A name without its number of draws: how far a ladder was climbed is told elsewhere."""
    if name.endswith((" draw a gradient", " draws a gradient")):
        return "PGD margin"
    return re.sub(r", \d+ times the steps", ", more steps", name)


def _absent(e: Evidence) -> tuple[tuple[str, str], ...]:
    r, found = e.request, list[tuple[str, str]]()
    if not e.differentiable:
        found.append(
            (_UNFIT, "attacks that follow the defense's gradient, and controls: it has none")
        )
    if not r.defense.stochastic:
        found.append((_UNFIT, "several draws per gradient (EOT): nothing is random"))
    if r.data.classes <= 3:
        found.append((_UNFIT, "DLR and targeted attacks: there are too few classes"))
    if r.twin is None:
        found.append(
            (
                _UNGIVEN,
                "a base: so no transfer from it, no attacker who knows it alone, and no gain",
            )
        )
    if not r.substitutes:
        tried = e.differentiable and r.defense.channel != Identity()
        rest = "; the channel's own gradients were tried" if tried else ""
        found.append((_UNGIVEN, f"a differentiable stand-in (BPDA){rest}"))
    if not r.attacks:
        found.append((_UNGIVEN, "attacks of your own"))
    return tuple(found)
