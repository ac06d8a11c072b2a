"""What a user points at: a channel by name before a network, or a Python file that makes a defense."""

import hashlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from noisychannel import zoo
from noisychannel.admission import check_role
from noisychannel.audit.request import twin_of
from noisychannel.channels import parse_channel
from noisychannel.data import Dataset
from noisychannel.decision import Decision, Single
from noisychannel.defenses import Defense
from noisychannel.errors import UserError, reason
from noisychannel.interop import robustbench_network
from noisychannel.interop.authors import authors_network
from noisychannel.networks import Foreign
from noisychannel.types import Attack, Network

__all__ = ["as_attack", "check_fit", "target"]


def target(text: str, data: Dataset, network: Callable[[], Network], decision: Decision) -> Defense:
    """A defense: `gauss:0.3`, `fc:60+clip`, `zoo:NAME`, `hub:OWNER/NAME`, `robustbench:NAME`, `FILE.py:make_defense`.

    The authors' own networks go by their names (`cifar10-resnet20-advtrain`); `off:` before any of these is the same
    at strength 0.

    The named function is called without arguments, and returns an `nn.Module` or a function from [0, 1] inputs to
    logits, or a `Defense`. Only this runs a user's code, and only because he names the file.

    Args:
        text: as typed.
        data: examples, whose shape a stranger's network is examined with.
        network: makes the network behind a channel given by name.
        decision: the defender's rule; `single` leaves a `Defense` its own.

    Raises:
        UserError: a file or function that is not there, or what it returns is no defense.
    """
    if text.startswith("off:"):
        whole = target(text.removeprefix("off:"), data, network, decision)
        left = twin_of(whole)
        if left is None:
            raise UserError(f"{text}: expected a defense that can be switched off, got {whole}")
        return left
    if text.startswith(("cifar10-", "svhn-")):
        return Defense(authors_network(text), decision=decision)
    if text.startswith(("zoo:", "hub:")):
        return replace(zoo.defense(text.removeprefix("zoo:")), decision=decision)
    if text.startswith("robustbench:"):
        named = robustbench_network(text.removeprefix("robustbench:"), data.shape)
        return Defense(named, decision=decision)
    if ".py" not in text:
        return Defense(network(), parse_channel(text), decision)
    made = _call(text)
    if isinstance(made, Defense):
        return made if decision == Single() else replace(made, decision=decision)
    if callable(made) and not isinstance(made, type):
        classifier: Any = made
        return Defense(Foreign(classifier, data.shape, text.rpartition(":")[2]), decision=decision)
    raise UserError(
        f"{text}: expected an nn.Module or a function from [0, 1] inputs to logits, or a noisychannel Defense, "
        f"got {'the class ' + made.__name__ if isinstance(made, type) else 'a ' + type(made).__name__}"
    )


def as_attack(text: str) -> Attack:
    """A user's attack: `FILE.py:FUNCTION`, called without arguments; that runs his code, because he names the file.

    Raises:
        UserError: a file or function that is not there, or what it returns is no attack.
    """
    made = _call(text)
    check_role(f"attack {text}", made, Attack)
    return made


def check_fit(name: str, defense: Defense, data: Dataset) -> None:
    """Ask the network about one example before the work.

    Args:
        name: what messages call the defense.
        defense: whose network need not be trained first.
        data: the examples that it will be asked about.

    Raises:
        UserError: the network does not take such examples, or has too few classes.

    Warns:
        UserWarning: it takes them, but was made for others.
    """
    example, made_for = data.slice(0, 1).load(), defense.network.shape
    module = defense.network.build()  # a checkpoint that does not fit is said here
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = module(example.x)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{name}: expected examples of a shape like {made_for}, for which the network was made, got "
            f"{data.shape} of {data.name} ({reason(error)}); choose other data or another network"
        ) from error
    classes = logits.shape[1]
    if classes < data.classes:
        raise UserError(
            f"{name}: expected data of at most {classes} classes, which the network tells apart, got "
            f"{data.classes} in {data.name}; choose other data or another network"
        )
    if data.shape != made_for or data.classes != classes:
        warnings.warn(
            f"{name}: made for examples of shape {made_for} and {classes} classes, asked about those of "
            f"{data.name}, {data.shape} and {data.classes} classes: is that the data it was trained on?",
            stacklevel=2,
        )


def _call(text: str) -> Any:
    file, _, function = text.rpartition(":")
    path = Path(file or text)
    if not file or not function or not path.is_file():
        raise UserError(f"target: expected FILE.py:FUNCTION with a file that exists, got {text!r}")
    spec = importlib.util.spec_from_file_location(
        f"noisychannel_target_{path.stem}_{_hash(path)}", path
    )
    if spec is None or spec.loader is None:
        raise UserError(f"target: expected a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that the source of its classes can be read, for their key
    loader = spec.loader
    _said(path.name, lambda: loader.exec_module(module))
    make = vars(module).get(function)
    if not callable(make):
        raise UserError(f"target: expected a function {function!r} in {path}, found none")
    return _said(text, make)


def _hash(path: Path) -> str:
    """Two files of one name are two modules."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]


def _said(where: str, make: Callable[[], Any]) -> Any:
    """Run the user's code: what it raises is his to mend, and said in one sentence."""
    try:
        return make()
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{where}: expected code that runs, got {reason(error)}; mend it, or run it alone to see where"
        ) from error
