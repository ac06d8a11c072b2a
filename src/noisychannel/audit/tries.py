"""An attacker who tries again: what his tries win, whether the defender answers, votes or must be wrong each time."""

import numpy as np
import pyarrow as pa

from noisychannel.audit.again import TRIED
from noisychannel.audit.assumptions import decision_words
from noisychannel.audit.conduct import Judged
from noisychannel.audit.words import counted
from noisychannel.decision import Decision
from noisychannel.report.draws import arrange, decided
from noisychannel.report.figure import Figure, Grid, Panel, Series
from noisychannel.report.html import Part
from noisychannel.report.persistence import Persistence, persistence, reductions
from noisychannel.report.stats import Estimate
from noisychannel.report.worst import worst_draws

__all__ = ["Patience", "decisions", "patience", "tries"]

MOST = 100


class Patience:
    """What is left after several tries.

    Args:
        judged: the audit, of a random defense.
    """

    def __init__(self, judged: Judged) -> None:
        e = judged.evidence
        self.rule, self.wanted = e.mine.rule, e.request.tries
        # A hundred fresh draws of each; an audit that was stopped short has those that scored.
        asked = e.joined(TRIED)
        self.draws = worst_draws(e.mine.tables(e.attacked), self.rule) if asked is None else asked
        most = max(MOST, self.wanted)
        self.single = persistence(self.draws, most)
        self.decided = self.single
        if self.rule.draws > 1:
            self.decided = persistence(decisions(self.draws, self.rule), most)

    @property
    def left(self) -> Estimate | tuple[float, float]:
        """Accuracy at the tries that were asked for, a decision each; only bounds where the draws do not reach."""
        curve = self.decided
        if self.wanted <= curve.reach:
            return curve.estimates[self.wanted - 1]
        return curve.beyond(self.wanted)


def patience(judged: Judged) -> Patience | None:
    """None where no try differs from the last."""
    return Patience(judged) if judged.evidence.request.defense.stochastic else None


def decisions(draws: pa.Table, rule: Decision) -> pa.Table:
    """One row per decision in place of one per draw: what reduces draws then reduces decisions."""
    if rule.draws == 1:
        return draws
    d = arrange(draws)
    right = decided(d, rule).numpy()
    n, groups = right.shape
    label = np.repeat(d.label.numpy(), groups)
    number = np.tile(np.arange(groups), n)
    flat = np.zeros(n * groups, dtype=np.float32)
    return pa.table(
        {
            "index": np.repeat(d.index.numpy(), groups),
            "label": label,
            "candidate": np.zeros(n * groups, dtype=np.int32),
            "draw": number,
            # Draws of the weights that answered all examples make decisions that are correlated, too.
            "weight_draw": number if d.shared else np.full(n * groups, -1),
            "predicted": np.where(right.reshape(-1), label, -1),
            "margin": flat,
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(flat), 1),
        }
    )


def tries(judged: Judged) -> tuple[Part, ...]:
    """The section of the page."""
    found = patience(judged)
    if found is None:
        return ("Nothing is random: a second try gets the same answer.",)
    return (_sentence(found), _figure(found), _grid(found))


def _sentence(p: Patience) -> str:
    draws = counted(p.single.draws, "draw")
    said = f"The images under the worst attack of each, {draws} an image that did not choose it. "
    left, times = p.left, counted(p.wanted, "try").replace("trys", "tries")
    each = "" if p.rule.draws == 1 else f", each answered by {_rule(p)}"
    if isinstance(left, Estimate):
        return f"{said}With {times}{each}, {left.percent} of the labels are left."
    low, high = (100 * v for v in left)
    return (
        f"{said}With {times}{each}, between {low:.1f} % and {high:.1f} % of the labels are left: the draws reach to "
        f"{p.decided.reach}, and beyond there are only bounds."
    )


def _rule(p: Patience) -> str:
    return decision_words(p.rule).partition(":")[2].partition(":")[2].strip()


def _ks(p: Patience) -> tuple[int, ...]:
    """1, 2, 4 … as far as the draws reach, and the numbers that were asked for."""
    reach = p.single.reach
    powers = {2**i for i in range(reach.bit_length())}
    return tuple(sorted(k for k in powers | {reach, p.rule.draws, p.wanted} if 1 <= k <= reach))


def _figure(p: Patience) -> Figure:
    ks = _ks(p)
    reduced = [reductions(p.draws, k) for k in ks]
    curves = [
        _any("any of k: one wrong is enough", p.single),
        _curve("all of k must be wrong", ks, [r.all_of for r in reduced]),
        _curve("vote of k", ks, [r.vote for r in reduced]),
        _curve("one answer, expected", (ks[0], ks[-1]), [reduced[0].expected] * 2),
    ]
    panels = [_panel("Each try is one draw", tuple(curves))]
    if p.rule.draws > 1 and p.decided.reach > 1:
        panels.append(
            _panel(
                f"Each try is a decision: {_rule(p)}",
                (_any("any of k: one wrong is enough", p.decided),),
            )
        )
    caption = (
        f"k = 1 … {p.single.reach}, as far as the draws reach. Band of “any of k”: the whole curve lies "
        "within it in 95 % of cases; other bands: 95 % for each k alone."
    )
    return Figure("tries", "Accuracy against the number of tries", caption, tuple(panels))


def _panel(title: str, curves: tuple[Series, ...]) -> Panel:
    return Panel(
        title, "k, tries or votes", "accuracy (%)", curves, log_x=True, y_range=(-2.0, 102.0)
    )


def _any(name: str, p: Persistence) -> Series:
    return Series(
        name,
        tuple(float(k) for k in range(1, p.reach + 1)),
        tuple(100 * e.value for e in p.estimates),
        tuple(100 * low for low, _ in p.band),
        tuple(100 * high for _, high in p.band),
    )


def _curve(name: str, ks: tuple[int, ...], found: list[Estimate]) -> Series:
    return Series(
        name,
        tuple(float(k) for k in ks),
        tuple(100 * e.value for e in found),
        tuple(100 * e.low for e in found),
        tuple(100 * e.high for e in found),
    )


def _grid(p: Patience) -> Grid:
    rows = [(str(k), *reductions(p.draws, k)) for k in _ks(p)]
    return Grid(
        "Four readings of the same draws",
        (
            "k",
            "one answer, expected",
            "vote of k",
            "any of k: one wrong is enough",
            "all of k must be wrong",
        ),
        tuple(rows),
        "The attacker may be answered once, or by a vote; he may need one wrong answer of k, or all k.",
    )
