"""One call of an operated network is one pass: in it a layer that is called again has the same weight noise."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

__all__ = ["called_before", "mark", "one_pass", "remembered"]


class _Pass:
    """The layers that drew so far, with their noise if it is kept, and the pass around this one."""

    def __init__(self, outer: "_Pass | None") -> None:
        self.outer = outer
        self.noise: dict[object, Tensor | None] = {}


_open: ContextVar[_Pass | None] = ContextVar("pass", default=None)

_NAME = "noisychannel: one pass"
"""Its key among a module's hooks. torch's own are numbers, which another process counts anew: after a
pickle's journey the next hook to be registered could take the place of this one."""


def mark(module: nn.Module) -> None:
    """Make each call of this module a pass. Hooks of its own are copied and pickled with it."""
    parts = vars(module)
    parts["_forward_pre_hooks"][_NAME] = _enter
    parts["_forward_hooks"][_NAME] = _leave
    parts["_forward_hooks_always_called"][_NAME] = True  # where it raises too


@contextmanager
def one_pass() -> Generator[None]:
    """What runs inside is one pass."""
    _enter()
    try:
        yield
    finally:
        _leave()


def remembered(layer: object, draw: Callable[[], Tensor]) -> Tensor:
    """The noise that a layer drew first in this pass; outside of a pass a fresh one."""
    now = _open.get()
    if now is None:
        return draw()
    kept = now.noise.get(layer)
    if kept is None:
        kept = now.noise[layer] = draw()
    return kept


def called_before(layer: object) -> bool:
    """Whether a layer has asked this already in this pass."""
    now = _open.get()
    if now is None:
        return False
    before = layer in now.noise
    now.noise[layer] = None
    return before


def _enter(*_: object) -> None:
    _open.set(_Pass(_open.get()))


def _leave(*_: object) -> None:
    now = _open.get()
    _open.set(None if now is None else now.outer)
