"""The figures of an audit's page, each with what it leaves open in words."""

from collections.abc import Iterable, Sequence

import numpy as np

from noisychannel.audit.attempts import SETTINGS, rung
from noisychannel.audit.conduct import Judged
from noisychannel.audit.controls import DOUBLED, FACTORS, RESTARTED, recovery, swept
from noisychannel.audit.evidence import Evidence
from noisychannel.audit.side import CLEAN
from noisychannel.audit.words import counted, norm_words, points
from noisychannel.channels import Identity
from noisychannel.norms import Linf
from noisychannel.report.figure import Cell, Figure, Grid, Panel, Series
from noisychannel.report.html import Part
from noisychannel.report.stats import Estimate, accuracy
from noisychannel.report.sufficiency import POINT

__all__ = ["convergence", "settings", "sweep", "window"]


def settings(judged: Judged) -> tuple[Part, ...]:
    """The accuracy ladder: what each attacker leaves, who has all that the weaker ones have."""
    found = judged.settings
    names = tuple(judged.ladder)
    curves = [_curve("the defense", range(len(names)), tuple(judged.ladder.values()))]
    theirs = judged.evidence.theirs
    if theirs is not None:
        known = {"clean": theirs.accuracy(CLEAN)}
        attacked = [n for n in theirs.attempts if n != CLEAN]
        if attacked:
            known["adaptive"] = theirs.worst(attacked).estimate
        # No line between what was measured, over what was not.
        curves.append(
            _curve(
                "its base",
                [i + _BESIDE for i in range(len(names))],
                [known.get(n, _NONE) for n in names],
                dashed=True,
            )
        )
    name = judged.evidence.request.name
    panel = Panel(
        name, "threat setting", "accuracy (%)", tuple(curves), y_range=_PERCENT, categories=names
    )
    caption = "Each attacker has all that the weaker ones have, and each image meets the worst of its attacks."
    if judged.smallest is not None:
        caption += (
            " Smallest change: who does not know the defense, and stops just across the boundary."
        )
    if judged.evidence.request.defense.stochastic:
        caption += " That is chosen on other draws than it is scored on, so that chance may lift a number a little."
    rows: list[tuple[Cell, ...]] = []
    before: Estimate | None = None
    for setting, words in SETTINGS.items():
        if setting in found:
            lost = "–" if before is None else f"{100 * (found[setting].value - before.value):+.1f}"
            rows.append((setting, words, _attempts(judged, setting), found[setting], lost))
            before = found[setting]
    if judged.smallest is not None:
        known = "as above, and seeks the smallest distortion: the attacker of the paper's Figure 1"
        place = next(i for i, row in enumerate(rows) if row[0] == "non-adaptive") + 1
        rows.insert(place, ("  of these alone", known, "1", judged.smallest, "–"))
    header = ("setting", "the attacker knows", "attacks", "accuracy", "change, points")
    return (
        Figure("settings", "What the attacker knows decides", caption, (panel,)),
        Grid("Accuracy by threat setting", header, tuple(rows), f"{caption} Intervals: 95 %."),
    )


_PERCENT = (-2.0, 102.0)
"""A hair beyond, or markers at the ends are cut."""
_BESIDE = 0.06
"""By which points of one place stand apart."""
_NONE = Estimate(float("nan"), float("nan"), float("nan"), 0, "wilson")


def _attempts(judged: Judged, setting: str) -> str:
    count = sum(a.setting == setting for a in judged.evidence.mine.attempts.values())
    return "–" if setting == "clean" else str(count)


def sweep(judged: Judged) -> tuple[Part, ...]:
    """Accuracy against ε, from the controls."""
    e, r = judged.evidence, judged.evidence.request
    made = {min(f * r.epsilon, _largest(e)): f for f in FACTORS if swept(f) in e}
    if not made:
        return (f"Not run. {e.why_not}",)
    radii = sorted(made)
    found = [e.mine.accuracy(swept(made[x]), x, e.pool) for x in radii]
    plain = e.mine.accuracy(CLEAN, at=e.pool)
    worst = e.mine.worst(e.attacked, e.pool).estimate
    curves = (
        _curve("PGD on the margin, one run for each ε", [0.0, *radii], [plain, *found]),
        _curve("the worst of all attacks, at ε", [r.epsilon], [worst]),
    )
    label = f"attacker's budget ({norm_words(r.norm)}, pixels in [0, 1])"
    panel = Panel(r.name, label, "accuracy (%)", curves, y_range=_PERCENT)
    caption = (
        f"The first {counted(len(e.pool), 'image')} only: these numbers need not be the headline's. The curve "
        "may not rise, and must reach 0 % in the end. Bands and bar: 95 % intervals."
    )
    return (Figure("epsilon", "One attack at growing budgets", caption, (panel,)),)


def _largest(e: Evidence) -> float:
    return 1.0 if e.request.norm == Linf() else float("inf")


def convergence(judged: Judged) -> tuple[Part, ...]:
    """Whether draws, steps and restarts were enough."""
    parts: list[Part] = []
    e = judged.evidence
    if not e.request.defense.stochastic:
        parts.append("Nothing is random, so that one draw per gradient is all there is.")
    elif e.doublings:
        parts += _draws(e)
    else:
        parts.append(f"Draws per gradient were not doubled. {e.why_not}")
    rows = _spent(e)
    if rows:
        caption = "Where the interval holds 0, more of it is not known to win anything."
        header = ("more of", "beside", "accuracy falls by", "images")
        parts.append(Grid("More steps, more starts", header, tuple(rows), caption))
    else:
        parts.append(f"Twice the steps and more restarts were not tried. {e.why_not}")
    return tuple(parts)


def _draws(e: Evidence) -> list[Part]:
    names = list(e.ladder.items())
    levels = [e.mine.worst([n for _, n in names[: i + 1]]).estimate for i in range(len(names))]
    drops, at = e.doublings, [float(d.draws) for d in e.doublings]
    left = _curve("attacks with up to so many draws", [float(n) for n, _ in names], levels)
    won = Series(
        "won by this doubling",
        tuple(at),
        tuple(100 * d.drop.value for d in drops),
        tuple(100 * d.drop.low for d in drops),
        tuple(100 * d.drop.high for d in drops),
    )
    bound = Series("one-sided 95 % bound", tuple(at), tuple(100 * d.upper for d in drops))
    stop = Series("1 point: enough", (at[0], at[-1]), (100 * POINT,) * 2, dashed=True)
    x = "draws per gradient (EOT)"
    panels = (
        Panel("What is left", x, "accuracy (%)", (left,), log_x=True, y_range=_PERCENT),
        Panel("What a doubling wins", x, "points of accuracy", (won, bound, stop), log_x=True),
    )
    last = drops[-1]
    words = "so the draws are enough" if e.saturated else "so more draws may win more"
    caption = (
        f"Draws are doubled until the bound of the further drop is below 1 point; beyond {e.draws_of_attacks} draws a "
        f"doubling is made last and counts what it won over all attacks before it. It ended at {last.draws}, where "
        f"the bound is {100 * last.upper:.1f} points: {words}."
    )
    return [Figure("draws", "Convergence in draws per gradient", caption, panels)]


def _spent(e: Evidence) -> list[tuple[Cell, ...]]:
    """Each against the attack or attacks without it, on the images on which both were tried."""
    rows: list[tuple[Cell, ...]] = []
    top = e.draws_of_attacks
    for name in e.white_box:
        if name.endswith(" times the steps of one draw"):
            both = sorted(
                {*e.mine.attempts[name].positions} & {*e.mine.attempts[rung(top)].positions}
            )
            gap = e.gain([rung(top)], [rung(top), name], both)
            rows.append(
                (
                    f"steps in place of draws ({top} × the steps, 1 draw)",
                    f"{top} draws, as many gradients",
                    points(gap),
                    str(gap.n),
                )
            )
    for control, words in ((DOUBLED, "twice the steps"), (RESTARTED, "random restarts")):
        if control in e:
            gap = e.gain(e.attacked, [*e.attacked, control], e.pool)
            rows.append((words, "all attacks together", points(gap), str(gap.n)))
    return rows


def window(judged: Judged) -> tuple[Part, ...]:
    """The recovery window: how far from a clean image the defense undoes what breaks the undefended network."""
    e, r = judged.evidence, judged.evidence.request
    start = recovery(0).removesuffix("0")
    lengths = {float(n.removeprefix(start)): n for n in e.mine.attempts if n.startswith(start)}
    if not lengths:
        return (f"Not run. {_no_window(e)}",)
    craft = e.mine.attempts[next(iter(lengths.values()))].crafts[0]
    source = next(
        n for n, a in e.mine.attempts.items() if a.setting == "non-adaptive" and craft in a.crafts
    )
    rows = e.mine.examples(source)
    # What the network errs on unattacked has no direction to be moved along.
    moved = (rows["l2"].to_numpy() > 0) & (np.array(rows["status"].to_pylist()) == "found")
    erring = set(rows["index"].to_numpy()[moved].tolist())
    known = e.mine.index.tolist()
    at = [i for i in e.mine.attempts[lengths[min(lengths)]].positions if known[i] in erring]
    if not at:
        return ("Not run. The undefended network errs on none of these images.",)
    order = sorted(lengths)
    found = [accuracy(e.mine.only(e.mine.answers(lengths[x]), at), e.mine.rule) for x in order]
    smallest = float(np.median(rows["l2"].to_numpy()[moved]))
    curve = _curve("the defense", order, found)
    panel = Panel(
        r.name,
        "L2 distance from the clean image",
        "accuracy (%)",
        (curve,),
        log_x=True,
        y_range=_PERCENT,
    )
    own = r.defense.channel.expected_l2(r.data.shape)
    noise = "" if not own else f" The defense's own channel moves an image by {own:.3g} on average."
    caption = (
        f"{type(craft.attack).__name__}'s smallest adversarials of the undefended network, {len(at)} images on which "
        f"it errs (at a median distance of {smallest:.3g}), moved along their own directions. High is recovered: such "
        "an attacker does not know the defense, so that this is no robustness. Band: 95 % intervals."
        f"{noise}"
    )
    return (Figure("window", "What the defense undoes", caption, (panel,)),)


def _no_window(e: Evidence) -> str:
    if e.theirs is None:
        return "There is no undefended network to take adversarials from."
    if "recovery window" in e.skipped:
        return "Left out for time."
    if e.decided:
        return "Nothing is left to win."
    if not e.request.defense.stochastic and e.request.defense.channel == Identity():
        return "Nothing perturbs the images beside the network itself."
    return "The undefended network has no smallest adversarials."


def _curve(
    name: str, x: Iterable[float], found: Sequence[Estimate], *, dashed: bool = False
) -> Series:
    return Series(
        name,
        tuple(float(v) for v in x),
        tuple(100 * e.value for e in found),
        tuple(100 * e.low for e in found),
        tuple(100 * e.high for e in found),
        dashed,
    )
