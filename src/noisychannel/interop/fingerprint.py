"""What a stranger's object says about itself: the bytes that decide what it does, as far as they can be read."""

import functools
import hashlib
import inspect
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["fingerprint"]

_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, range)


def fingerprint(what: object, name: str, nonce: str) -> str:
    """Hash of an object's numbers, tensors, code, the files of its classes and the versions of its packages.

    Args:
        what: any object; functions with what they close over, objects with their attributes.
        name: what messages call it.
        nonce: stands in if something cannot be read.

    Warns:
        UserWarning: something could not be read; nothing stored is then reused.
    """
    reader = _Reader()
    found = hashlib.sha256()
    for item in reader.read(what, name):
        found.update(item + b"\0")
    for file in sorted(reader.files):
        found.update(hashlib.sha256(Path(file).read_bytes()).digest())
    if not reader.unread:
        return found.hexdigest()
    warnings.warn(
        f"attack {name!r}: cannot read {', '.join(dict.fromkeys(reader.unread))}; its results are not "
        "reused by later runs",
        UserWarning,
        stacklevel=2,
    )
    return nonce


class _Reader:
    """One walk; an object that is met again is named by the place where it was met first."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.unread: list[str] = []
        self.seen: dict[
            int, tuple[int, object]
        ] = {}  # the object too: a freed one's id is given away

    def read(self, what: Any, name: str) -> Iterator[bytes]:
        if what is None or isinstance(what, _PLAIN):
            yield f"{type(what).__name__} {what!r}".encode()
            return
        if id(what) in self.seen:
            yield f"again {self.seen[id(what)][0]}".encode()
            return
        self.seen[id(what)] = (len(self.seen), what)
        if isinstance(what, Tensor | np.ndarray | np.generic) and what.dtype != object:
            yield _bytes(what)
        elif isinstance(what, list | tuple | set | frozenset):
            yield f"{type(what).__name__} {len(what)}".encode()
            for item in sorted(what, key=repr) if isinstance(what, set | frozenset) else what:
                yield from self.read(item, name)
        elif isinstance(what, dict):
            yield f"dict {len(what)}".encode()
            for key, value in what.items():
                yield from self.read(key, name)
                yield from self.read(value, f"{name}.{key}")
        else:
            yield from self._code(what, name)

    def _code(self, what: Any, name: str) -> Iterator[bytes]:
        if isinstance(what, ModuleType):
            yield self._package(what.__name__)
        elif isinstance(what, functools.partial):
            for item in (what.func, what.args, what.keywords):
                yield from self.read(item, name)
        elif isinstance(what, MethodType):
            yield from self.read(what.__self__, name)
            yield from self.read(what.__func__, name)
        elif isinstance(what, FunctionType):
            yield from self._function(what)
        elif isinstance(what, BuiltinFunctionType):
            yield self._package(what.__module__ or "builtins") + what.__qualname__.encode()
        elif isinstance(what, type):
            yield from self._class(what)
        else:
            yield from self._object(what, name)

    def _function(self, function: FunctionType) -> Iterator[bytes]:
        """Its code, its defaults, what it closes over, and the globals that it names."""
        name = function.__qualname__
        yield self._package(function.__module__) + name.encode()
        self._file(function)
        yield from _instructions(function.__code__)
        yield from self.read([function.__defaults__, function.__kwdefaults__], name)
        for variable, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            yield from self.read(cell.cell_contents, f"{name}.{variable}")
        if _theirs(function.__module__) and not _version(function.__module__):
            for variable in sorted(_names(function.__code__) & function.__globals__.keys()):
                yield from self.read(function.__globals__[variable], f"{name}.{variable}")

    def _class(self, kind: type) -> Iterator[bytes]:
        for base in kind.__mro__:
            yield self._package(base.__module__) + base.__qualname__.encode()
            self._file(base)

    def _object(self, what: Any, name: str) -> Iterator[bytes]:
        yield from self._class(type(what))
        try:
            attributes = vars(what)
        except TypeError:
            self.unread.append(f"{name} ({type(what).__name__})")
            return
        for key in sorted(attributes):
            yield from self.read(attributes[key], f"{name}.{key}")

    def _package(self, module: str) -> bytes:
        """The module's name and its package's version: code deep inside speaks through it."""
        return f"{module} {_version(module)} ".encode()

    def _file(self, what: Any) -> None:
        if not _theirs(what.__module__):
            return
        try:
            file = inspect.getsourcefile(what)
        except (TypeError, OSError):
            file = None
        if file is None or not Path(file).is_file():
            self.unread.append(f"the source of {what.__qualname__}")
        else:
            self.files.add(file)


def _version(module: str) -> str:
    package = sys.modules.get(module.partition(".")[0])
    return "" if package is None else str(vars(package).get("__version__", ""))


def _theirs(module: str) -> bool:
    """Not Python's, torch's, NumPy's or our own, whose files say nothing that a version does not."""
    top = module.partition(".")[0]
    known = sys.stdlib_module_names - {"__main__"}
    return top not in ("torch", "numpy", "noisychannel") and top not in known


def _instructions(code: CodeType) -> Iterator[bytes]:
    yield code.co_code
    yield repr(code.co_names).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)
        else:
            yield repr(constant).encode()


def _names(code: CodeType) -> set[str]:
    inner = [_names(c) for c in code.co_consts if isinstance(c, CodeType)]
    return set(code.co_names).union(*inner)


def _bytes(array: Tensor | np.ndarray | np.generic) -> bytes:
    kind = f"{array.dtype}{tuple(array.shape)}".encode()
    if isinstance(array, Tensor):
        flat = array.detach().cpu().contiguous().reshape(-1)
        return kind + flat.view(torch.uint8).numpy().tobytes()
    return kind + array.tobytes()
