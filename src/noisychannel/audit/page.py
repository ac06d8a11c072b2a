"""An audit as a page and as a table in the terminal."""

import math

import numpy as np
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from noisychannel.audit.outcome import Ladder, Outcome
from noisychannel.audit.plan import SETTINGS, Request, attacks_of, cells
from noisychannel.channels import Identity
from noisychannel.data import to_uint8
from noisychannel.engine import Store, adversarials
from noisychannel.norms import Linf
from noisychannel.report.figure import Figure, Grid, Panel, Picture, Series
from noisychannel.report.html import Part, Provenance, Section, page
from noisychannel.report.stats import Estimate

__all__ = ["render", "terminal_table"]


def render(
    outcomes: tuple[Outcome, ...], store: Store, provenance: Provenance
) -> tuple[str, tuple[Section, ...]]:
    """The page's text, and what it shows."""
    shown = _sections(outcomes, store)
    names = ", ".join(o.request.name for o in outcomes)
    return page(f"noisychannel audit: {names}", _lead(outcomes), shown, provenance), shown


def _lead(outcomes: tuple[Outcome, ...]) -> str:
    """The result in a sentence per defense."""
    said: list[str] = []
    for o in outcomes:
        said += [f"DOUBT, {o.request.name}: {doubt}" for doubt in o.doubts]
        by = {rung.setting: rung for rung in o.rungs}
        searched = list(attacks_of(o.request))[-1]
        said.append(
            f"{o.request.name}: {_percent(by['clean'].worst)} of the labels are right without an attack, "
            f"{_percent(by['non-adaptive'].attacks[searched])} against {_outsider(o)} who seeks the smallest "
            "distortion, as in the paper, and "
            f"{_percent(o.headline)} in the worst setting tested ({_budget(o)})."
        )
    return " ".join(said)


def _outsider(outcome: Outcome) -> str:
    """Without a channel there is nothing that the non-adaptive attacker does not know."""
    bare = outcome.request.defense.channel == Identity()
    return "an attacker" if bare else "an attacker who does not know the channel"


def _sections(outcomes: tuple[Outcome, ...], store: Store) -> tuple[Section, ...]:
    """The whole page: the ladder of settings, accuracy against the budget, images, what was not tested."""
    first = outcomes[0].request
    parts: list[Part] = [
        _HOW,
        _ladder_grid(outcomes),
        _figure(outcomes),
    ]
    shown = [Section("What the attacker knows decides", tuple(parts))]
    if len(first.data.shape) == 3:  # series have no pictures
        shown += [Section(f"Images: {o.request.name}", (_strip(o, store),)) for o in outcomes]
    shown.append(Section("What was done, and what was not", (_done(first), _NOT_DONE)))
    return tuple(shown)


_HOW = (
    "Every attack is crafted against what the attacker assumes, and scored on the true defense with fresh "
    "random draws. Each row gives the attacker more knowledge; only the last says what the defense is worth."
)
_NOT_DONE = (
    "Not tested: restarts, other losses, black-box and transfer attacks, more gradient draws, signs of "
    "gradient masking. A low number is a proof that the defense is broken at this budget; a high one is not "
    "a proof that it holds."
)


def _done(request: Request) -> str:
    attacks = " and ".join(f"{name}: {attack}" for name, attack in attacks_of(request).items())
    return (
        f"Attacks, the same in every setting: {attacks}. The partially adaptive attacker assumes "
        f"{request.assumed}; gradients through random channels average {request.eot} draws. A random defense "
        f"is scored on {request.scoring} fresh draws per image; where several attacks are combined, each "
        "image's attack is chosen on one half of the draws and scored on the other."
    )


def terminal_table(outcomes: tuple[Outcome, ...]) -> Table:
    """The ladder for the terminal, 80 columns for two defenses: a row per setting and attack."""
    shown = Table(title=f"Accuracy in percent [95 % interval], {_budget(outcomes[0])}")
    shown.add_column("the attacker knows", no_wrap=True, min_width=18)
    shown.add_column("attack", no_wrap=True, min_width=17)
    for o in outcomes:
        # A zoo network's long name is folded, since a narrow column would end it with an ellipsis.
        shown.add_column(escape(o.request.name), justify="right", overflow="fold", min_width=16)
    clean = (_short(o.rungs[0].worst) for o in outcomes)
    shown.add_row("(no attack)", "", *clean, end_section=True)
    for i, setting in list(enumerate(SETTINGS))[1:]:
        for j, (name, words) in enumerate(_attack_words(outcomes[0]).items()):
            each = (_short(o.rungs[i].attacks[name]) for o in outcomes)
            shown.add_row("" if j else setting, words, *each)
        worst = (f"[bold]{_short(o.rungs[i].worst)}[/]" for o in outcomes)
        shown.add_row("", "[bold]worse per image[/]", *worst, end_section=True)
    return shown


def _short(estimate: Estimate) -> str:
    # Escaped, or Rich reads the interval as markup.
    return f"{100 * estimate.value:.1f} \\[{100 * estimate.low:.1f}–{100 * estimate.high:.1f}]"


def _attack_words(outcome: Outcome) -> dict[str, str]:
    """Attack → what it seeks, the paper's kind first."""
    budget, searched = attacks_of(outcome.request)
    smallest = searched if searched.startswith("smallest") else f"{searched}, smallest"
    return {searched: smallest, budget: f"{budget}, whole budget"}


def _ladder_grid(outcomes: tuple[Outcome, ...]) -> Grid:
    attacks = list(_attack_words(outcomes[0]))
    words = _attack_words(outcomes[0])
    header = [
        "defense",
        "setting",
        *(words[a] for a in attacks),
        "the worse, per image",
        "the attacker knows",
    ]
    rows: list[tuple[str | Estimate, ...]] = []
    for o in outcomes:
        for rung in o.rungs:
            each = [rung.attacks.get(name, "–") for name in attacks]
            rows.append((o.request.name, rung.setting, *each, rung.worst, SETTINGS[rung.setting]))
    return Grid(
        f"Accuracy at {_budget(outcomes[0])}",
        tuple(header),
        tuple(rows),
        "Smallest: the attack of smallest distortion, as in the paper; whole budget: the attack that spends it all. "
        "The worse: every image under the attack that does best on it. Intervals: 95 %.",
    )


def _figure(outcomes: tuple[Outcome, ...]) -> Figure:
    panels = tuple(
        Panel(
            o.request.name,
            f"attacker's budget ({_norm(o)}, pixels in [0, 1])",
            "accuracy (%)",
            tuple(_curve(ladder) for ladder in o.ladders),
            y_range=(0.0, 100.0),
        )
        for o in outcomes
    )
    smallest = list(attacks_of(outcomes[0].request))[-1]
    caption = (
        f"{smallest}, the attack of smallest distortion: an image counts as attacked once its perturbation "
        "fits the budget. Bands: 95 % intervals. The smallest distortion of a random defense is where half of "
        "its draws err, so there this curve alone says too much: see the whole-budget column."
    )
    return Figure("budget", "Accuracy against the attacker's budget", caption, panels)


def _curve(ladder: Ladder) -> Series:
    return Series(
        ladder.setting,
        ladder.budgets,
        tuple(100 * e.value for e in ladder.estimates),
        tuple(100 * e.low for e in ladder.estimates),
        tuple(100 * e.high for e in ladder.estimates),
    )


def _strip(outcome: Outcome, store: Store) -> Picture:
    """Rows: clean, adaptive adversarial, their difference amplified; one image per column."""
    request = outcome.request
    name = next(iter(attacks_of(request)))
    cell = next(c for c in cells(request) if c.setting == "adaptive" and c.attack == name)
    craft = cell.measures[0].craft
    assert craft is not None
    count = min(8, craft.data.size)
    clean = craft.data.load().x[:count]
    moved = adversarials(store, craft)[:count]
    gain = 0.5 / max(float((moved - clean).abs().max()), 1e-6)
    rows = [clean, moved, ((moved - clean) * gain + 0.5).clamp(0, 1)]
    picture = np.concatenate([_tiled(row) for row in rows], axis=0)
    return Picture(
        f"Adaptive {name}: clean images, adversarial images, and the difference × {gain:.0f} around grey.",
        picture,
    )


def _tiled(x: Tensor) -> np.ndarray:
    """Images (n, c, h, w) in a row, enlarged to at least 64 pixels."""
    pixels = to_uint8(x).permute(0, 2, 3, 1).numpy()
    if pixels.shape[3] not in (1, 3):
        pixels = pixels[..., :1]
    zoom = max(1, math.ceil(64 / pixels.shape[1]))
    big = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    big = np.pad(big, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=255)
    row = np.concatenate(list(big), axis=1)
    return row[..., 0] if row.shape[2] == 1 else row


def _norm(outcome: Outcome) -> str:
    return "L∞" if outcome.request.norm == Linf() else "L2"


def _budget(outcome: Outcome) -> str:
    return f"{_norm(outcome)} ≤ {outcome.request.epsilon:g}"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f} %"
