"""What an audit says first: both verdicts, the number they are about, and what it is worth."""

from noisychannel.audit.conduct import Judged
from noisychannel.audit.explained import MEANINGS
from noisychannel.audit.side import CLEAN
from noisychannel.audit.tries import patience
from noisychannel.audit.verdict import EVALUATIONS, MARGIN, Evaluation, Gain, exit_code
from noisychannel.audit.words import budget_words, points
from noisychannel.report.figure import Badge, Cell, Grid, Tone
from noisychannel.report.stats import Estimate

__all__ = ["badge", "badges", "known", "lead", "tone"]

_TONES: dict[Evaluation | Gain, Tone] = {
    "VALID": "good",
    "UNDER-POWERED": "open",
    "INCOMPLETE": "open",
    "REAL": "good",
    "NONE": "bad",
    "UNDECIDED": "open",
}

_GRAVEST: tuple[Tone, ...] = ("bad", "open", "good")


def tone(verdict: Evaluation | Gain) -> Tone:
    """The colour of a verdict."""
    return _TONES.get(verdict, "bad")


def badges(judged: Judged) -> tuple[Badge, ...]:
    """Both verdicts."""
    asked = "Evaluation: can the headline be believed?"
    worth = "Gain: is it worth anything beside its base?"
    return (
        Badge(asked, judged.evaluation, tone(judged.evaluation), _why(judged)),
        Badge(worth, judged.gain, tone(judged.gain), _worth(judged)),
    )


def badge(judged: Judged) -> Badge:
    """Both verdicts in one, where several defenses stand beside each other."""
    verdicts = (judged.evaluation, judged.gain)
    tones: list[Tone] = [tone(v) for v in verdicts]
    worst = min(tones, key=_GRAVEST.index)
    word = f"{judged.evaluation}, gain {judged.gain}"
    return Badge(
        judged.evidence.request.name, word, worst, f"{judged.headline.percent} under attack."
    )


def _why(judged: Judged) -> str:
    """The verdict's meaning, and what it came from."""
    verdict = judged.evaluation
    names = EVALUATIONS.get(verdict, ())
    causes = [f.name for f in judged.findings if f.status == "fail" and f.name in names]
    if causes:
        return f"{MEANINGS[verdict]} Failed: {', '.join(causes)}."
    if verdict == "INCOMPLETE":
        absent = [f.name for f in judged.findings if f.status == "not run"]
        skipped = [f"{step} (for time)" for step in judged.evidence.skipped]
        return f"{MEANINGS[verdict]} Not run: {', '.join([*absent, *skipped])}."
    if judged.evidence.decided:
        return "The headline can be believed: next to nothing is left to win, and what broke it proves that."
    return MEANINGS[verdict]


def _worth(judged: Judged) -> str:
    gap = judged.difference
    if gap is None:
        return "There is nothing to compare with: give the undefended network, or the defense at strength 0, as base."
    classes = judged.evidence.request.data.classes
    guess = f"one in {classes}"
    said = f"Under the same attacks and rule its accuracy is {points(gap)} beside its base"
    match judged.gain:
        case "REAL":
            return f"{said}: surely more."
        case "NONE" if gap.high < MARGIN:
            return f"{said}: surely less than {100 * MARGIN:.0f} points more."
        case "NONE":
            return f"{said}, but what is left is what guessing wins, {guess}."
        case "UNDECIDED" if gap.low > 0 and judged.headline.low <= 1 / classes + MARGIN:
            return f"{said}, but what is left is not surely three points more than guessing wins, {guess}."
        case "UNDECIDED" if gap.low > 0:
            return f"{said}, but where the attacks did not do their work that proves no gain."
        case "UNDECIDED":
            return f"{said}: too few images to tell whether that is a gain."


def lead(judged: Judged) -> str:
    """The result in a few sentences; a number that cannot be believed is never said without that."""
    e, found, clean = judged.evidence, judged.headline, judged.settings["clean"]
    said = [
        f"{found.percent} of the labels are right under the worst that any attacker tested can do",
        f"({budget_words(e.request)}), and {clean.percent} without an attack; {found.n} examples.",
    ]
    if judged.evaluation not in ("VALID", "UNDER-POWERED"):
        said.append(f"Take it for an upper bound, no more: the evaluation is {judged.evaluation}.")
    elif found.value < clean.value:
        said.append("What fell is proven broken; a better attack can only lower the number.")
    return " ".join(said)


def known(judged: Judged) -> Grid:
    """The numbers that the verdicts are about."""
    e = judged.evidence
    rows: list[tuple[Cell, ...]] = [
        ("without an attack", judged.settings["clean"]),
        ("under the worst of all attacks, image by image", judged.headline),
    ]
    if e.request.tries > 1:
        rows.append(
            (f"under those, {e.request.tries} tries of which one is enough", _tried(judged))
        )
    if e.theirs is not None:
        rows.append(("its base, without an attack", e.theirs.accuracy(CLEAN)))
        names = [n for n in e.theirs.attempts if n != CLEAN]
        if names:
            rows.append(("its base, under the same attacks", e.theirs.worst(names).estimate))
    if judged.difference is not None:
        rows.append(("the defense less its base, paired image by image", points(judged.difference)))
    rows.append(("exit code of the command", str(exit_code(judged.evaluation, judged.gain))))
    title = f"Headline, {budget_words(e.request)}"
    caption = "A low number is a proof; a high one says that these attacks failed, no more. Intervals: 95 %."
    return Grid(title, ("of the defense", "accuracy"), tuple(rows), caption)


def _tried(judged: Judged) -> Cell:
    found = patience(judged)
    left = judged.headline if found is None else found.left
    if isinstance(left, Estimate):
        return left
    return f"between {100 * left[0]:.1f} % and {100 * left[1]:.1f} %: only bounds are known"
