"""A part's name: frozen dataclass → canonical JSON → hash. Equal behaviour has equal bytes, any other number others."""

import dataclasses
import hashlib
import inspect
import json
import math
from functools import cache
from pathlib import Path
from typing import Any, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

from noisychannel.errors import expected

__all__ = ["Fingerprinted", "canonical", "describe", "key"]


@runtime_checkable
class Fingerprinted(Protocol):
    """A part whose behaviour depends on bytes that its numbers do not hold: data, a checkpoint, a module."""

    def fingerprint(self) -> str:
        """Hash of those bytes."""
        ...


def describe(part: object) -> Any:
    """A part as plain JSON values: its type, its version, its numbers, and its fingerprint if it has one.

    Equal parts have equal texts: integers in float fields become floats, also where the field is
    optional or a tuple, so that `Gauss(1)` and `Gauss(1.0)` are one part; −0.0 becomes 0.0.

    Raises:
        UserError: a value that has no canonical form (a tensor, a function, NaN).
    """
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return _describe_dataclass(part)
    if part is None or isinstance(part, bool | str | int):
        return part
    if isinstance(part, float):
        if math.isnan(part):
            raise expected("spec", "numbers", "NaN")
        return part + 0.0 if math.isfinite(part) else ("inf" if part > 0 else "-inf")
    if isinstance(part, list | tuple):
        return [describe(item) for item in part]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(part, dict):
        return {str(k): describe(v) for k, v in part.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    raise expected(
        "spec", "frozen dataclasses of numbers, text and lists", f"a {type(part).__name__}"
    )


def _describe_dataclass(part: Any) -> dict[str, Any]:
    kind = type(part)
    hints = _hints(kind)
    out: dict[str, Any] = {
        "type": f"{kind.__module__.removeprefix('noisychannel.')}.{kind.__name__}"
    }
    if "version" in hints:
        out["version"] = kind.version
    if kind.__module__.partition(".")[0] != "noisychannel":
        out["source"] = _source(kind)  # no golden row guards a user's version: his file speaks
    for item in dataclasses.fields(part):
        if item.repr:  # fields with repr=False hold live objects, which the fingerprint speaks for
            value = getattr(part, item.name)
            out[item.name] = describe(_as_declared(value, hints[item.name]))
    if isinstance(part, Fingerprinted):
        out["fingerprint"] = part.fingerprint()
    return out


@cache
def _hints(kind: type) -> dict[str, Any]:
    """The annotations of a class, resolved once: a plan describes the same classes thousands of times."""
    return get_type_hints(kind)


def _as_declared(value: Any, hint: Any) -> Any:
    """Integers where the annotation says float, alone, in a union, or as what a tuple holds, as floats."""
    within: tuple[Any, ...] = get_args(hint)
    if isinstance(value, int):
        kinds = within or (hint,)
        return float(value) if float in kinds and int not in kinds else value
    if isinstance(value, tuple) and get_origin(hint) is tuple:
        items: tuple[Any, ...] = value
        kinds = within[:1] * len(items) if within[-1:] == (...,) else within
        return tuple(_as_declared(v, h) for v, h in zip(items, kinds, strict=True))
    if isinstance(value, tuple):
        return next((_as_declared(value, h) for h in within if get_origin(h) is tuple), value)
    return value


def _source(kind: type) -> str:
    try:
        file = inspect.getsourcefile(kind)
    except TypeError:
        file = None
    if file is None or not Path(file).is_file():
        raise expected(
            "spec", f"{kind.__qualname__} in a file", "a class typed in; put it in a file"
        )
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def canonical(part: object) -> str:
    """The one JSON text of a part: sorted keys, no blanks, floats in shortest round-trip form."""
    return json.dumps(describe(part), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def key(part: object) -> str:
    """32 hexadecimal digits (128 bits of SHA-256) of the canonical text."""
    return hashlib.sha256(canonical(part).encode()).hexdigest()[:32]
