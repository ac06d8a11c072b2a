"""Named randomness: every draw is a pure function of who asks, for which example, at which step.

A draw is named by (root, role, part, site, example, step, draw) and computed by a counter-based
generator (SplitMix64's finaliser over a keyed counter; Steele, Lea & Flood 2014), so that neither
the micro-batch, nor examples that leave early, nor the number of workers, nor the device change
anybody's draws. Only this module seeds.
"""

import hashlib
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from noisychannel.splitmix import GOLDEN, gauss, mix, unit

__all__ = [
    "COPIES",
    "Role",
    "Stream",
    "asked",
    "bracket",
    "generator",
    "normal",
    "root",
    "root_name",
    "shared_normal",
    "stranger_seeded",
    "torch_seeded",
    "uniform",
]

Role = Literal["attack", "attacked-defense", "selection", "scoring", "train", "fixed"]

COPIES = 1 << 40  # sets apart rows of one example in a stranger's call; no data set is as large

# Odd 64-bit constants (as signed integers) that spread steps and draws, as the golden ratio does
# examples. Odd, so that multiplication is a bijection modulo 2^64.
_STEP = 0xD6E8FEB86659FD93 - (1 << 64)
_DRAW = 0xA0761D6478BD642F - (1 << 64)

# One block of noise stays in a core's cache: larger blocks were 1.6 x slower per element on a CPU.
_CPU_BLOCK = 1 << 17
_CUDA_BLOCK = 1 << 26

_root: ContextVar[str] = ContextVar("root", default="unnamed")


@dataclass(frozen=True, eq=False)
class Stream:
    """The name of a source of randomness.

    Args:
        role: who draws; roles never share draws, but attacker and defender do `fixed` ones.
        index: identity of each example (n,), on the device of the draws.
        step: which question of a sequence, one for all or one per example (n,).
        draws: numbers of the independent draws per example; rows then run draw-major (d · n rows).
        part: a name that sets two draws of one role apart.
    """

    role: Role
    index: Tensor
    step: int | Tensor = 0
    draws: range = field(default=range(1))
    part: str = ""

    def named(self, part: str) -> "Stream":
        """A stream beside this one that shares none of its draws."""
        return replace(self, part=f"{self.part}/{part}")

    def keys(self, site: int) -> Tensor:
        """One 64-bit key per row: mix(base + A·example + B·step + C·draw)."""
        base = _hash64(f"{_root.get()}|{self.role}|{self.part}|{site}")
        rows = self.index.long() * GOLDEN + base
        if isinstance(self.step, Tensor):
            rows = rows + self.step * _STEP
        else:
            rows = rows + _wrap(self.step * _STEP)
        if len(self.draws) == 1:
            return mix(rows + _wrap(self.draws[0] * _DRAW))
        draws = torch.tensor(list(self.draws), device=rows.device) * _DRAW
        return mix((draws[:, None] + rows[None]).reshape(-1))


class _Bracket:
    """An open stream and the number of draws taken from it, so that two noise layers differ."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.site = 0

    def next_site(self) -> int:
        self.site += 1
        return self.site


_open: ContextVar[_Bracket | None] = ContextVar("open", default=None)


@contextmanager
def root(name: str) -> Generator[None]:
    """All draws inside are named below `name` (a task's key, which holds the root seed)."""
    token = _root.set(name)
    try:
        yield
    finally:
        _root.reset(token)


@contextmanager
def bracket(stream: Stream) -> Generator[None]:
    """Noise drawn inside, at whatever depth of a network, comes from `stream`.

    Outside of any bracket noise comes from torch's own global generator, as a user of a single
    channel expects; the engine never draws there.
    """
    token = _open.set(_Bracket(stream))
    try:
        yield
    finally:
        _open.reset(token)


def asked() -> Tensor | None:
    """Identity of the example behind each row (draws · n) of the open bracket; None outside of any."""
    opened = _open.get()
    if opened is None:
        return None
    return (opened.stream.index % COPIES).repeat(len(opened.stream.draws))


def normal(like: Tensor, stream: Stream | None = None) -> Tensor:
    """Standard Gaussian noise of the shape, dtype and device of `like` (Box & Muller 1958).

    z = √(−2 ln u₁) · (cos 2πu₂, sin 2πu₂), u from 23 bits; |z| < 5.8.
    """
    opened = _open.get()
    if stream is None and opened is None:
        return torch.randn(like.shape, dtype=like.dtype, device=like.device)
    return _blocks(like, _keys(stream, opened), gauss)


def shared_normal(like: Tensor) -> Tensor:
    """Standard Gaussian noise of the shape of `like`, one draw for all examples of a pass: noise on weights.

    Within a bracket it is named by the role, the part, the step and the draw, but by no example, so
    that one draw is one network whatever batch it is shown.

    Raises:
        ValueError: the open stream holds several draws or steps, which need a network each.
    """
    opened = _open.get()
    if opened is None:
        return torch.randn(like.shape, dtype=like.dtype, device=like.device)
    stream = opened.stream
    if len(stream.draws) != 1:
        raise ValueError(f"noise shared by a pass was asked for {len(stream.draws)} draws at once")
    if not isinstance(stream.step, int):
        raise ValueError(  # noqa: TRY004  # a tensor of steps is a right type elsewhere
            "noise shared by a pass was asked for a step of each example's own"
        )
    nobody = torch.zeros(1, dtype=torch.long, device=like.device)
    one = Stream(stream.role, nobody, stream.step, stream.draws, f"{stream.part}/shared")
    return _blocks(like[None], one.keys(opened.next_site()), gauss)[0]


def root_name() -> str:
    """The name below which draws are named now: to hand it to another process."""
    return _root.get()


def uniform(like: Tensor, stream: Stream | None = None) -> Tensor:
    """Uniform noise on the open interval (0, 1), of the shape, dtype and device of `like`."""
    opened = _open.get()
    if stream is None and opened is None:
        return torch.rand(like.shape, dtype=like.dtype, device=like.device)
    return _blocks(like, _keys(stream, opened), unit)


def generator(role: Role, part: str = "") -> torch.Generator:
    """A torch generator (CPU) named by the root, a role and a part: for shuffles and initial weights."""
    made = torch.Generator()
    made.manual_seed(_hash64(f"{_root.get()}|{role}|{part}|generator") & ((1 << 63) - 1))
    return made


@contextmanager
def torch_seeded(stream: Stream) -> Generator[None]:
    """Seed torch's global generators by a stream's name, and restore them after.

    For strangers' random modules, which draw from the global generator: their noise then depends
    on the first example, the step and the draw, never on what ran before.
    """
    first = int(stream.keys(0)[0])
    devices = [stream.index.device] if stream.index.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        seed = first & ((1 << 63) - 1)
        # Not torch.manual_seed, which would seed every GPU, the caller's own draws there included.
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def stranger_seeded(stream: Stream) -> Generator[None]:
    """Seed torch's, NumPy's and Python's global generators by a stream's name, and restore them after.

    For strangers' attacks, which draw from any of the three.
    """
    seed = int(stream.keys(1)[0])
    before, python = np.random.get_state(), random.getstate()  # noqa: NPY002  # what they draw from
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    random.seed(seed)
    try:
        with torch_seeded(stream):
            yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
        random.setstate(python)


def _keys(stream: Stream | None, opened: _Bracket | None) -> Tensor:
    if stream is not None:
        return stream.keys(0)
    assert opened is not None
    return opened.stream.keys(opened.next_site())


def _blocks(like: Tensor, keys: Tensor, draw: Callable[[Tensor, int], Tensor]) -> Tensor:
    rows, elements = len(like), like[0].numel() if len(like) else 0
    if len(keys) != rows:
        raise ValueError(
            f"a stream of {len(keys)} rows (examples × draws) was asked for noise on {rows} rows"
        )
    size = max(1, (_CUDA_BLOCK if like.is_cuda else _CPU_BLOCK) // max(1, elements))
    if rows <= size:
        noise = draw(keys, elements)[:, :elements]
    else:
        noise = torch.empty(rows, elements, device=like.device)
        for start in range(0, rows, size):
            noise[start : start + size] = draw(keys[start : start + size], elements)[:, :elements]
    return noise.reshape(like.shape).to(like.dtype)


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def _wrap(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
