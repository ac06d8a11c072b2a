"""Model cards: what a trained network is, how it was made, and how well it does, for people and for programs."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from noisychannel.decision import Single
from noisychannel.defenses import Operated
from noisychannel.engine import Measure, Store, Train, history, key_of, table
from noisychannel.errors import UserError
from noisychannel.networks import NETWORKS, Checkpoint
from noisychannel.report.stats import Estimate, accuracy
from noisychannel.spec import describe
from noisychannel.types import Network
from noisychannel.zoo.presets import Preset

__all__ = ["Card", "check_place", "from_card", "preset_of", "with_weights", "write_card"]


_CARD, _WEIGHTS = "card.json", "weights.safetensors"
_FILES = (_CARD, "README.md", _WEIGHTS)


@dataclass(frozen=True)
class Card:
    """A trained network with its numbers.

    Args:
        preset: what was asked for.
        train: the task that made it.
        clean: accuracy on the test examples, one draw an answer.
        draws: of the network per test example.
        command: what to type to make it again.
        machine: where it was made.
    """

    preset: Preset
    train: Train
    clean: Estimate
    draws: int
    command: str
    machine: Mapping[str, object]


def write_card(
    chosen: Preset, train: Train, measure: Measure, store: Store, folder: Path, command: str
) -> Card:
    """Put weights, history and card of a finished training into a folder."""
    clean = accuracy(table(store, measure), Single())
    machine = store.run(key_of(train))
    card = Card(chosen, train, clean, measure.draws, command, machine)
    check_place(folder, train)
    weights = store.read(key_of(train), _WEIGHTS)
    digest = hashlib.sha256(weights).hexdigest()
    epochs = [e._asdict() for e in history(train, store)]
    facts = _facts(card, digest, epochs)
    files = {
        _CARD: (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode(),
        "README.md": _page(card, digest, epochs).encode(),
        _WEIGHTS: weights,
    }
    folder.mkdir(parents=True, exist_ok=True)
    # The card first: weights without one are taken for a stranger's, and nobody loads them without their hash.
    for name, content in files.items():
        partial = folder / f"{name}.partial"
        partial.write_bytes(content)
        partial.rename(folder / name)
    return card


def check_place(folder: Path, train: Train) -> None:
    """Refuse a folder with another training, or with weights of unknown origin: nothing is lost.

    Raises:
        UserError: it has one.
    """
    for name in _FILES:
        if (folder / name).exists() and not (folder / name).is_file():
            raise UserError(
                f"output: expected no folder at {folder / name}, got one; name another with --output"
            )
    held = "an unreadable card"
    if (folder / _CARD).exists():
        with suppress(OSError, ValueError, KeyError, TypeError):
            held = json.loads((folder / _CARD).read_bytes())["training"]
    else:
        held = "weights without a card" if (folder / _WEIGHTS).exists() else key_of(train)
    if held != key_of(train):
        raise UserError(
            f"output: expected an empty folder or this training's own, got {folder}, which holds another "
            f"training ({held}); name another folder with --output"
        )


def preset_of(folder: Path) -> str:
    """The name of the preset that a folder's card speaks of.

    Raises:
        UserError: the card cannot be read.
    """
    return str(_read_card(folder)["name"])


def from_card(chosen: Preset, folder: Path) -> Network:
    """The preset's network with a folder's weights, if they and the network are those of its card.

    Raises:
        UserError: they are not, or the card cannot be read.
    """
    facts, weights = _read_card(folder), Checkpoint(str(folder / _WEIGHTS))
    if facts["network"] != json.loads(json.dumps(describe(chosen.network))):
        raise UserError(
            f"zoo: expected the network of preset {chosen.name} as it is now, got another one in "
            f"{folder / _CARD}, made by another version; train it again"
        )
    if facts["weights_sha256"] != weights.fingerprint():
        raise UserError(
            f"zoo: expected the weights that {folder / _CARD} speaks of, got others in {_WEIGHTS}; "
            "fetch or train them again"
        )
    return with_weights(chosen.network, folder / _WEIGHTS)


def with_weights(spec: Network, file: Path) -> Network:
    """A network spec of ours with stored weights.

    Raises:
        UserError: a stranger's network, whose weights are its own.
    """
    ours: tuple[type, ...] = (Operated, *map(type, NETWORKS))
    if isinstance(spec, ours):
        return replace(cast("Operated", spec), checkpoint=Checkpoint(str(file)))
    raise UserError(f"weights: expected a network of ours, got {type(spec).__name__}")


def _read_card(folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / _CARD).read_bytes())
        if {"name", "network", "weights_sha256"} <= facts.keys():
            return facts
    except (OSError, ValueError, AttributeError):
        pass
    raise UserError(
        f"zoo: expected a model card with name, network and weights_sha256, got something else in {folder / _CARD}"
    )


def _facts(card: Card, digest: str, epochs: list[dict[str, Any]]) -> dict[str, object]:
    train, clean = card.train, card.clean
    return {
        "name": card.preset.name,
        "figures": card.preset.figures,
        "network": describe(train.network),
        "data": train.data.name,
        "recipe": describe(train.recipe),
        "start": card.preset.start,
        "training": key_of(train),
        "seed": train.seed,
        "devices": train.devices,
        "clean_accuracy": {
            "value": clean.value, "low": clean.low, "high": clean.high, "examples": clean.n,
            "draws": card.draws, "method": clean.method,
        },
        "history": epochs,
        "weights_sha256": digest,
        "command": card.command,
        "machine": dict(card.machine),
    }  # fmt: skip


def _page(card: Card, digest: str, epochs: list[dict[str, Any]]) -> str:
    train, recipe, machine = card.train, card.train.recipe, card.machine
    last = epochs[-1]
    seconds = float(str(machine.get("seconds", 0)))
    begun = f" It begins from the weights of `{card.preset.start}`." if card.preset.start else ""
    drawn = "one answer each" if card.draws == 1 else f"{card.draws} draws each"
    rows = [
        ("network", f"`{train.network!r}`"),
        ("data", f"`{train.data.name}`, split train; nothing was chosen on the test split"),
        ("clean accuracy", f"{card.clean.percent} on {card.clean.n} test examples, {drawn}"),
        ("channel before it", f"`{recipe.channel!r}`"),
        ("recipe", f"`{recipe!r}`"),
        ("epochs run", f"{len(epochs)}; loss of the last {last['loss']:.4f}"),
        ("seed", str(train.seed)),
        ("time", f"{seconds / 60:.0f} min (of the last stretch, if it was interrupted)"),
        ("machine", ", ".join(f"{n} {v}" for n, v in machine.items() if n != "seconds")
         + f"; {train.execution.device}, {train.execution.threads} threads"),
        ("weights", f"sha256 {digest}"),
    ]  # fmt: skip
    lines = "\n".join(f"| {name} | {text} |" for name, text in rows)
    return (
        f"# {card.preset.name}\n\nFor figures: {card.preset.figures} of the paper.{begun}\n\n"
        f"| | |\n|---|---|\n{lines}\n\nMade again by\n\n```\n{card.command}\n```\n\n"
        "Clean accuracy says nothing of robustness: audit it.\n"
    )
