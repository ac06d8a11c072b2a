"""Several audits beside each other: on a page, and in the terminal."""

from itertools import combinations

import torch
from rich.markup import escape
from rich.table import Table

from noisychannel.audit.attempts import SETTINGS
from noisychannel.audit.conduct import Judged
from noisychannel.audit.cost import cost
from noisychannel.audit.headline import badge, tone
from noisychannel.audit.verdict import Evaluation, Gain
from noisychannel.audit.words import budget_words, points, short
from noisychannel.data import Dataset
from noisychannel.decision import Decision, Single
from noisychannel.errors import UserError
from noisychannel.report.figure import Cell, Figure, Grid, Panel, Series, Tone
from noisychannel.report.gains import worst_case_gain
from noisychannel.report.html import Provenance, Section, page
from noisychannel.report.stats import Estimate

__all__ = ["side_by_side", "terminal_table"]


def side_by_side(
    audits: tuple[Judged, ...], provenance: Provenance
) -> tuple[str, tuple[Section, ...]]:
    """The page of `noisychannel compare`, and what it shows.

    Raises:
        UserError: audits of other data, norms or budgets: their numbers do not compare.
    """
    check_alike(audits)
    shown = (
        Section("Side by side", (_WHERE, _grid(audits), _figure(audits))),
        Section("Paired differences", (_paired(audits),)),
    )
    names = ", ".join(a.evidence.request.name for a in audits)
    marks = tuple(badge(a) for a in audits)
    return page(f"noisychannel compare: {names}", _lead(audits), shown, provenance, marks), shown


_WHERE = (
    "Each defense has a page of its own, with its findings, its attempts and what was not tested; a number here is "
    "worth as much as the evaluation above it says."
)


def check_alike(audits: tuple[Judged, ...]) -> None:
    """Refuse what does not compare.

    Raises:
        UserError: other data, norms or budgets.
    """
    first, *rest = (a.evidence.request for a in audits)
    for r in rest:
        if (r.norm, r.epsilon) != (first.norm, first.epsilon):
            raise UserError(
                f"audits: expected one budget for all, got {budget_words(first)} for {first.name} and "
                f"{budget_words(r)} for {r.name}; audit them again with the same norm and epsilon"
            )
        if not _same(r.data, first.data):
            raise UserError(
                f"audits: expected the same examples for all, got others for {first.name} and {r.name}; audit them "
                "again on the same data"
            )


def _same(one: Dataset, two: Dataset) -> bool:
    a, b = one.load(), two.load()
    return all(torch.equal(v, w) for v, w in ((a.x, b.x), (a.y, b.y), (a.index, b.index)))


def _lead(audits: tuple[Judged, ...]) -> str:
    """The most and the least that is left; where an evaluation is not valid, the number is an upper bound."""
    budget, n = budget_words(audits[0].evidence.request), audits[0].headline.n
    said = f"Accuracy of {n} examples under the worst of all attacks, {budget}."
    weak = [
        a.evidence.request.name for a in audits if a.evaluation not in ("VALID", "UNDER-POWERED")
    ]
    return f"{said} Upper bounds, no more, of {', '.join(weak)}." if weak else said


def _grid(audits: tuple[Judged, ...]) -> Grid:
    names = tuple(a.evidence.request.name for a in audits)
    spent = [cost(a) for a in audits]
    rows: list[tuple[Cell, ...]] = [
        ("evaluation", *(a.evaluation for a in audits)),
        ("gain", *(a.gain for a in audits)),
        ("headline: the worst of all attacks", *(a.headline for a in audits)),
        ("gain beside its base", *(_gap(a) for a in audits)),
        *((_TITLES[s], *(a.ladder.get(s, "–") for a in audits)) for s in _LADDER),
        ("failed findings", *(_failed(a) for a in audits)),
        ("left out for time", *(", ".join(a.evidence.skipped) or "nothing" for a in audits)),
        ("gradients", *(f"{c.gradients:,}" for c in spent)),
        ("other questions", *(f"{c.queries:,}" for c in spent)),
        ("seconds of computing", *(f"{c.seconds:,.1f}" for c in spent)),
    ]
    title = f"Audits at {budget_words(audits[0].evidence.request)}"
    return Grid(title, ("measured", *names), tuple(rows), "Intervals: 95 %.")


_LADDER = ("clean", "smallest change", *(s for s in SETTINGS if s != "clean"))

_TITLES = {s: "accuracy, no attack" if s == "clean" else f"accuracy, {s}" for s in _LADDER}


def _gap(a: Judged) -> str:
    return "nothing to compare" if a.difference is None else points(a.difference)


def _failed(a: Judged) -> str:
    return ", ".join(f.name for f in a.findings if f.status == "fail") or "none"


def _figure(audits: tuple[Judged, ...]) -> Figure:
    names = [s for s in _LADDER if any(s in a.ladder for a in audits)]
    curves: list[Series] = []
    for number, a in enumerate(audits):
        apart = 0.06 * (number - (len(audits) - 1) / 2)
        known = [(i, a.ladder[s]) for i, s in enumerate(names) if s in a.ladder]
        curves.append(
            Series(
                a.evidence.request.name,
                tuple(i + apart for i, _ in known),
                tuple(100 * e.value for _, e in known),
                tuple(100 * e.low for _, e in known),
                tuple(100 * e.high for _, e in known),
            )
        )
    panel = Panel(
        "All defenses",
        "threat setting",
        "accuracy (%)",
        tuple(curves),
        y_range=(-2.0, 102.0),
        categories=tuple(names),
    )
    caption = "Each attacker has all that the weaker ones have, and each image meets the worst of its attacks."
    return Figure("settings", "What the attacker knows decides", caption, (panel,))


def _paired(audits: tuple[Judged, ...]) -> Grid:
    rows = [
        (f"{a.evidence.request.name} less {b.evidence.request.name}", *_difference(a, b))
        for a, b in combinations(audits, 2)
    ]
    caption = "Of the headlines, image by image, each defense under its own worst attacks. Intervals: 95 %."
    return Grid(
        "Differences of worst accuracy",
        ("defenses", "difference", "what it says"),
        tuple(rows),
        caption,
    )


def _difference(a: Judged, b: Judged) -> tuple[str, str]:
    rules: dict[Decision, None] = {
        x.evidence.mine.rule: None for x in (a, b) if x.evidence.request.defense.stochastic
    }
    if len(rules) > 1:
        return "–", f"they decide by different rules, {' and '.join(map(str, rules))}"
    one, two = (x.evidence.mine.tables(x.evidence.attacked) for x in (a, b))
    gap = worst_case_gain(one, two, next(iter(rules), Single()))
    if gap.low > 0 or gap.high < 0:
        better, worse = (a, b) if gap.low > 0 else (b, a)
        return (
            points(gap),
            f"{better.evidence.request.name} is the more accurate, {worse.evidence.request.name} the less",
        )
    return points(gap), "not told apart"


_COLOURS: dict[Tone, str] = {"good": "green", "bad": "red", "open": "yellow"}


def terminal_table(audits: tuple[Judged, ...]) -> Table:
    """Verdicts and accuracy by setting; 80 columns for two defenses."""
    budget = budget_words(audits[0].evidence.request)
    shown = Table(title="Accuracy in % [95 % interval]")
    shown.add_column(budget, no_wrap=True, min_width=18)
    for a in audits:
        # A zoo network's long name is folded, since a narrow column would end it with an ellipsis.
        shown.add_column(escape(a.evidence.request.name), overflow="fold", min_width=18)
    shown.add_row("examples", *(str(a.headline.n) for a in audits))
    shown.add_row("evaluation", *(_coloured(a.evaluation) for a in audits))
    shown.add_row("gain", *(_coloured(a.gain) for a in audits), end_section=True)
    for setting in _LADDER:
        if any(setting in a.ladder for a in audits):
            shown.add_row(setting, *(_short(a.ladder.get(setting)) for a in audits))
    shown.add_row("[bold]worst attack[/]", *(f"[bold]{_short(a.headline)}[/]" for a in audits))
    gaps = (a.difference for a in audits)
    shown.add_row("less the base", *(_signed(g) for g in gaps), end_section=True)
    shown.add_row("failed findings", *(_failed(a) for a in audits))
    skipped = [", ".join(a.evidence.skipped) for a in audits]
    if any(skipped):
        shown.add_row("left out for time", *(s or "nothing" for s in skipped))
    return shown


def _coloured(word: Evaluation | Gain) -> str:
    return f"[bold {_COLOURS[tone(word)]}]{word}[/]"


def _short(e: Estimate | None) -> str:
    # Escaped, or Rich reads the interval as markup.
    return "–" if e is None else short(e).replace("[", "\\[")


def _signed(e: Estimate | None) -> str:
    if e is None:
        return "–"
    value, low, high = (100 * v + 0.0 for v in e[:3])
    return f"{value:+.1f} \\[{low:+.1f}, {high:+.1f}]"
