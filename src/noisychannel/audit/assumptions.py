"""The threat model of an audit in full: without it a number means nothing."""

from typing import Literal

from noisychannel.audit.request import Request
from noisychannel.audit.words import budget_words, counted, data_words
from noisychannel.decision import Decision, MeanProb, Single, Vote
from noisychannel.defenses import Defense, FixedChannel, FixedNetwork, Operated
from noisychannel.engine import Trained
from noisychannel.types import Network

__all__ = ["Randomness", "assumptions", "decision_words", "question_limit", "randomness"]

Randomness = Literal["none", "fresh", "fixed"]
"""Of a defender: none; drawn at every question; drawn once for each input."""


def randomness(defense: Defense) -> Randomness:
    """When a defense draws."""
    if isinstance(defense.channel, FixedChannel) or isinstance(defense.network, FixedNetwork):
        return "fixed"
    return "fresh" if defense.stochastic else "none"


def question_limit(request: Request) -> int:
    """Questions of an image that an attack without gradients may ask."""
    most = request.budget.queries
    return most if request.queries is None else min(most, request.queries)


def decision_words(rule: Decision) -> str:
    """A rule in words."""
    match rule:
        case Single():
            return "single: the class of one answer"
        case Vote():
            return f"vote:{rule.k}: the most frequent class of {counted(rule.draws, 'draw')}"
        case MeanProb():
            return (
                f"mean_prob:{rule.k}: the largest mean probability of {counted(rule.draws, 'draw')}"
            )
        case _:
            return str(rule)


_DRAWS: dict[Randomness, str] = {
    "none": "nothing is random: equal questions get equal answers",
    "fresh": "fresh at every question; the attacker knows their law, never the draws on which he is scored",
    "fixed": "fixed for each input; the attacker sees them",
}

_KNOWN: dict[Randomness, str] = {
    "none": "",
    "fresh": ", the law of its randomness and its decision rule",
    "fixed": " and its draws",
}


def assumptions(request: Request) -> tuple[tuple[str, str], ...]:
    """(what, in words) of everything that the attacker may do and knows."""
    drawn, twin = randomness(request.defense), request.twin
    known = f"adaptive: the whole defense, its weights{_KNOWN[drawn]} included"
    if twin is not None:
        known += f"; non-adaptive: {defense_words(twin)} alone; partially adaptive: that behind {request.assumed}"
    why = "the budget's" if question_limit(request) == request.budget.queries else "yours"
    averaged = request.budget.draws_of_questions if request.defense.stochastic else 1
    most = counted(question_limit(request), "question")
    mean = f", each the mean of {averaged} draws" if averaged > 1 else ""
    asked = f"{most} about an image for each attack without gradients{mean} ({why})"
    tries = (
        "1: each image is handed in once"
        if request.tries == 1
        else f"{request.tries}, of which one success is enough"
    )
    scoring = request.scoring(request.defense)
    scored = (
        "one answer an image: it is always the same"
        if scoring == 1
        else f"{scoring} draws an image that no attack saw: the worst attack of each image is chosen on one half "
        "and scored on the other"
    )
    pairs = [
        ("Norm and budget", f"{budget_words(request)}, pixels in [0, 1]"),
        ("What the attacker assumes", known),
        ("Draws", _DRAWS[drawn]),
        ("Decision rule", decision_words(request.defense.rule)),
        (
            "Query limit",
            asked,
        ),
        ("Tries", tries),
        ("Scored on", scored),
        ("Base", _base(request)),
    ]
    if request.substitutes:
        pairs.append(("Stand-ins for the channel (BPDA)", ", ".join(map(str, request.substitutes))))
    if request.attacks:
        pairs.append(("Your attacks", ", ".join(map(str, request.attacks))))
    return tuple(pairs)


def _base(request: Request) -> str:
    if request.twin is None:
        return "none was given, and none can be told: nothing to compare with"
    if request.base is not None:
        return defense_words(request.twin)
    return f"{defense_words(request.twin)}: the same without its perturbation"


def defense_words(defense: Defense) -> str:
    """A defense by its parts."""
    return f"{_network(defense.network)} behind {defense.channel}".replace(" behind Identity()", "")


def _network(network: Network) -> str:
    """A network of ours with its recipe fills half a page: what it is will do, its card has the rest."""
    if isinstance(network, Trained):
        return f"{_network(network.train.network)}, trained on {data_words(network.train.data)}"
    if isinstance(network, Operated):
        return f"{_network(network.network)} with {network.surgery}"
    return str(network)
