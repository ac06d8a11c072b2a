"""Model cards: what a trained network is, how it was made, and how well it does, for people and for programs."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisychannel.decision import Single
from noisychannel.engine import Measure, Store, Train, history, key_of, table
from noisychannel.errors import UserError
from noisychannel.report.stats import Estimate, accuracy
from noisychannel.spec import describe
from noisychannel.zoo.presets import Preset

__all__ = ["Card", "check_place", "write_card"]


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
    weights = store.read(key_of(train), "weights.safetensors")
    digest = hashlib.sha256(weights).hexdigest()
    epochs = [e._asdict() for e in history(train, store)]
    facts = _facts(card, digest, epochs)
    files = {
        "weights.safetensors": weights,
        "README.md": _page(card, digest, epochs).encode(),
        "card.json": (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():  # the card last: what it speaks of is there
        partial = folder / f"{name}.partial"
        partial.write_bytes(content)
        partial.rename(folder / name)
    return card


def check_place(folder: Path, train: Train) -> None:
    """Refuse a folder with the card of another training: nothing is lost.

    Raises:
        UserError: it has one.
    """
    card = folder / "card.json"
    try:
        known = json.loads(card.read_bytes())["training"] if card.exists() else key_of(train)
    except (OSError, ValueError, KeyError, TypeError):
        known = "an unreadable card"
    if known != key_of(train):
        raise UserError(
            f"output: expected an empty folder or this training's own, got {folder}, which holds another "
            f"training ({known}); name another folder with --output"
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
