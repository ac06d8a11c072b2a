"""What is let in: each refusal is one sentence that says what was expected, what came, and how to mend it."""

import math
import types
import typing
from dataclasses import fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

from noisychannel.errors import UserError, expected

__all__ = ["check_classes", "check_examples", "check_fields", "check_role"]

_MEND = {
    "Network": "a network part, such as SmallNet() or Foreign(module, shape)",
    "Norm": "a norm, such as Linf() or L2()",
    "Channel": "a channel, such as Gauss(0.03)",
    "Decision": "a decision rule, such as Single() or Vote(16)",
    "View": "a view of a threat, such as DefenseView(adaptive(defense))",
    "Threat": "a threat, such as adaptive(defense)",
}


def check_fields(part: Any) -> None:
    """Refuse a frozen part one of whose numbers or parts is of another kind than its field says.

    Whole numbers must be whole, numbers finite, and parts built, not classes or names of them.

    Raises:
        UserError: naming the first such field.
    """
    for name, kind in _kinds(type(part)).items():
        value = getattr(part, name)
        if not _fits(value, kind):
            raise expected(name, _words(kind), _short(value))


def check_role(name: str, value: object, kind: type) -> None:
    """Refuse an argument that does not play the role `kind`.

    Raises:
        UserError: if it does not.
    """
    if not _fits(value, kind):
        raise expected(name, _words(kind), _short(value))


def check_examples(x: Tensor, y: Tensor, index: Tensor, target: Tensor | None) -> None:
    """Refuse examples that are not float32 in [0, 1], or whose labels or identities do not fit them.

    Raises:
        UserError: for the first misfit.
    """
    if x.dtype != torch.float32:
        raise expected("x", "float32", f"{x.dtype}; x.float() is")
    named = {"y": y, "index": index} | ({} if target is None else {"target": target})
    for name, numbers in named.items():
        if numbers.shape != x.shape[:1]:
            raise expected(
                name, f"one number for each of {len(x)} examples", f"shape {tuple(numbers.shape)}"
            )
        if numbers.dtype != torch.int64:
            raise expected(name, "int64", f"{numbers.dtype}; {name}.long() is")
    if len(x) == 0:
        return
    low, high = (float(end) for end in x.aminmax())
    if not (low >= 0 and high <= 1):
        raise expected("x", "values in [0, 1]", f"{low:g} … {high:g}; normalise inside the network")
    for name, numbers in named.items():
        if name != "index" and int(numbers.min()) < 0:
            raise expected(name, "classes ≥ 0", int(numbers.min()))
    if len(index.unique()) < len(index):
        raise UserError(
            "index: expected a number of its own for each example, which names its noise, got one twice"
        )


def check_classes(labels: tuple[Tensor | None, ...], classes: int) -> None:
    """Refuse labels or targets that a network with so many classes cannot give.

    Raises:
        UserError: naming the highest one.
    """
    for numbers in labels:
        if numbers is not None and len(numbers) and int(numbers.max()) >= classes:
            raise expected(
                "labels", f"classes 0 … {classes - 1} of the network", int(numbers.max())
            )


@cache
def _kinds(part: type) -> dict[str, Any]:
    hints = typing.get_type_hints(part)
    return {field.name: hints[field.name] for field in fields(part) if field.init}


def _fits(value: object, kind: Any) -> bool:
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
            return False
        return math.isfinite(typing.cast("Any", value))
    members = _members(kind)
    if len(members) > 1:
        return any(_fits(value, member) for member in members)
    if not isinstance(kind, type):  # words and containers are checked where they are used
        return True
    return isinstance(value, kind) and not isinstance(value, type)


def _members(kind: Any) -> tuple[Any, ...]:
    origin = typing.get_origin(kind)
    return typing.get_args(kind) if origin in (typing.Union, types.UnionType) else (kind,)


def _words(kind: Any) -> str:
    if kind is int:
        return "a whole number"
    if kind is float:
        return "a finite number"
    if kind is type(None):
        return "None"
    if kind is bool:
        return "True or False"
    members = _members(kind)
    if len(members) > 1:
        return " or ".join(_words(member) for member in members)
    return _MEND.get(kind.__name__, f"{kind.__name__}(…)")


def _short(value: object) -> str:
    if isinstance(value, nn.Module):
        return f"a module {type(value).__name__}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if is_dataclass(value):
        return f"a {type(value).__name__}"
    return repr(value)
