"""A stranger's network as a part: checked at the door, named by all that can be read of it."""

import copy
import hashlib
import inspect
import secrets
import sys
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.errors import UserError, reason
from noisychannel.networks.logits import SinglePrecision, check_logits
from noisychannel.networks.opaque import Called, Opaque
from noisychannel.types import Sharing

__all__ = ["Foreign"]

_PROBES = 16
_MODULE_FIELDS = frozenset(vars(nn.Module()))


@dataclass(frozen=True)
class Foreign:
    """Anybody's classifier: a module, or a function of a tensor, from pixels in [0, 1] to logits (n, k).

    It is copied as it stands, so later training does not change this part. Its fingerprint hashes
    its tensors, the files of its classes, its other attributes, and its logits on 16 fixed probes
    under two seeds; if anything of it cannot be read, a fresh nonce stands in (nothing stored is
    then reused), and a warning says so.

    Args:
        module: the network; modules in eval mode.
        shape: shape of one example, (c, h, w) or (c, l).
        name: what reports call it.

    One without gradients is let in, for attacks that need none.

    Raises:
        UserError: left in training mode, wrong output shape, NaN logits, not to be copied, or one that does not
            take one example alone.

    Warns:
        UserWarning: it seems to return probabilities instead of logits.
    """

    version: ClassVar[int] = 1
    module: nn.Module | Callable[[Tensor], Tensor] = field(repr=False, compare=False)
    shape: tuple[int, ...]
    name: str = "foreign"
    nonce: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def __post_init__(self) -> None:
        module = self.module if isinstance(self.module, nn.Module) else Called(self.module)
        training = [name or "the network" for name, m in module.named_modules() if m.training]
        if training and isinstance(self.module, nn.Module):
            raise UserError(
                f"network {self.name!r}: expected eval mode, got training mode in {training[0]}; "
                "call .eval() on it first"
            )
        try:
            own = copy.deepcopy(module).eval().cpu()
        except Exception as error:
            raise UserError(
                f"network {self.name!r}: expected a module that copy.deepcopy can copy, got: {error}"
            ) from error
        object.__setattr__(self, "module", own)
        mend = "choose data of its shape, or wrap it"
        logits = self._first(_PROBES, f"examples of shape {self.shape}", mend)
        check_logits(self.name, logits, _PROBES)
        if logits.dtype != torch.float32:
            object.__setattr__(self, "module", SinglePrecision(own).eval())
        self._check_batch_mates()

    def _first(self, rows: int, what: str, mend: str) -> Any:
        try:
            return self._ask(0, 0, rows=rows)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"network {self.name!r}: expected to take {what}, got: {reason(error)}; {mend}"
            ) from error

    def _check_batch_mates(self) -> None:
        alone = self._first(1, "one example alone", "do not take statistics over the batch")
        if self.stochastic:
            return
        together = self._logits(0)[:1]
        if not torch.allclose(together, alone, rtol=1e-3, atol=1e-3):
            warnings.warn(
                f"network {self.name!r}: its answer on an example depends on the other examples of the "
                "batch; its numbers hold for this micro-batch only",
                stacklevel=4,
            )

    def build(self) -> nn.Module:
        """A copy of the network."""
        return copy.deepcopy(self._module)

    @property
    def _module(self) -> nn.Module:
        assert isinstance(self.module, nn.Module)
        return self.module

    @property
    def opaque(self) -> bool:
        """Whether something in it is no module: a function, or a model of another program."""
        return any(isinstance(m, Opaque) for m in self._module.modules())

    @property
    def stochastic(self) -> bool:
        """Whether it answers differently when asked again with another seed."""
        return self._randomness[0]

    @cached_property
    def differentiable(self) -> bool:
        """Whether autograd finds a way from its logits to its input, be the gradient zero or wrong."""
        return len(self._slope()) > 0

    @property
    def keyed(self) -> bool:
        """Whether our streams alone decide its noise; else torch's global generator must be seeded."""
        return self._randomness[1] and not self._shared

    @property
    def weights(self) -> Sharing:
        """Shared where equal examples of one pass get equal answers, which others of its passes do not repeat."""
        return "shared" if self._shared else "fixed"

    @cached_property
    def _shared(self) -> bool:
        answers = self._ask(0, 0, alike=True)
        return self.stochastic and torch.allclose(answers, answers[:1], rtol=1e-4, atol=1e-4)

    @cached_property
    def _randomness(self) -> tuple[bool, bool]:
        random = not torch.equal(self._logits(0), self._logits(1))
        ours = torch.equal(self._logits(0, torch_seed=0), self._logits(0, torch_seed=1))
        return random, ours

    def _logits(self, seed: int, torch_seed: int | None = None) -> Tensor:
        return self._ask(seed, seed if torch_seed is None else torch_seed)

    def _ask(self, seed: int, torch_seed: int, rows: int = _PROBES, *, alike: bool = False) -> Any:
        """Its answer to the first fixed probes, on one thread, so that no setting of the machine enters."""
        stream = rng.Stream("selection", torch.arange(_PROBES), step=seed, part="probe")
        other = replace(stream, step=torch_seed, part="torch")
        with rng.root("foreign"), _one_thread(), torch.no_grad():
            x = rng.uniform(torch.empty(_PROBES, *self.shape), replace(stream, step=0, part="x"))
            x = x[:1].repeat(_PROBES, *[1] * len(self.shape)) if alike else x[:rows]
            given = x.clone()
            asked = replace(stream, index=stream.index[:rows])
            with rng.bracket(asked), rng.torch_seeded(other):
                answer = self._module(x)
            if not torch.equal(x, given):
                raise UserError(
                    f"network {self.name!r}: expected an input left as it is, got one written into; "
                    "work on a copy (x = x.clone())"
                )
            return answer

    @cached_property
    def _fingerprint(self) -> str:
        seen = [self._logits(0), self._logits(1)]
        found = hashlib.sha256(b"".join(_bytes(t) for t in (*seen, self._slope())))
        same = torch.equal(seen[0], self._logits(0))
        unread = [] if same else ["a source of randomness of its own"]
        for item in _describe(self._module, unread):
            found.update(item + b"\0")
        if not unread:
            return found.hexdigest()
        warnings.warn(
            f"network {self.name!r}: cannot read {', '.join(dict.fromkeys(unread))}; "
            "its results are not reused by later runs",
            UserWarning,
            stacklevel=3,
        )
        return self.nonce

    def _slope(self) -> Tensor:
        """Its gradient at the probes: a backward pass of its own shows in no logit."""
        stream = rng.Stream("selection", torch.arange(_PROBES), part="probe")
        with rng.root("foreign"), _one_thread(), torch.enable_grad():
            like = torch.empty(_PROBES, *self.shape)
            x = rng.uniform(like, replace(stream, part="x")).requires_grad_()
            with rng.bracket(stream), rng.torch_seeded(replace(stream, part="torch")):
                try:
                    return torch.autograd.grad(self._module(x).logsumexp(1).sum(), x)[0]
                except Exception:  # noqa: BLE001  # whatever a stranger raises: attacks would meet the same
                    return torch.zeros(0)

    def fingerprint(self) -> str:
        """Hash of all that decides its answers, or a nonce."""
        return self._fingerprint


@contextmanager
def _one_thread() -> Generator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _bytes(tensor: Tensor) -> bytes:
    t = tensor.detach().cpu().contiguous()
    return f"{t.dtype}{tuple(t.shape)}".encode() + t.view(-1).view(torch.uint8).numpy().tobytes()


def _describe(module: nn.Module, unread: list[str]) -> Iterator[bytes]:
    """Tensors, attributes, and source files of a module and all its parts; what fails joins `unread`."""
    files: set[str] = set()
    for name, part in module.named_modules(remove_duplicate=False):
        kind = type(part)
        yield f"{name}:{kind.__module__}.{kind.__qualname__}".encode()
        _add_file(kind, files, unread)
        own = {
            **dict(part.named_parameters(recurse=False)),
            **dict(part.named_buffers(recurse=False)),
        }
        attributes = {k: v for k, v in vars(part).items() if k not in _MODULE_FIELDS}
        for key, value in sorted({**attributes, **own}.items()):
            full = f"{name}.{key}".lstrip(".")
            yield f"{full}=".encode() + _value(value, full, files, unread)
        for kind in ("_forward_hooks", "_forward_pre_hooks"):
            hooks = [*vars(part)[kind].values()]
            if not all(map(_is_record, hooks)):
                unread.append(f"the hooks of {name or 'the network'}")
            elif hooks:
                yield f"{name}.{kind}=".encode() + _value(hooks, name, files, unread)
    for file in sorted(files):
        yield hashlib.sha256(Path(file).read_bytes()).digest()


def _value(value: object, name: str, files: set[str], unread: list[str]) -> bytes:
    if isinstance(value, Tensor):
        return _bytes(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}".encode() + value.tobytes()
    if value is None or isinstance(
        value, bool | int | float | str | bytes | torch.dtype | torch.device
    ):
        return repr(value).encode()
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return b"[" + b",".join(_value(item, name, files, unread) for item in items) + b"]"
    if isinstance(value, dict):
        return (
            b"{"
            + b",".join(
                repr(k).encode() + b":" + _value(v, name, files, unread) for k, v in value.items()
            )
            + b"}"
        )
    if isinstance(value, FunctionType) and not value.__closure__:
        _add_file(value, files, unread)
        return f"{value.__module__}.{value.__qualname__}{value.__code__.co_code.hex()}".encode()
    if inspect.isbuiltin(value) or isinstance(value, nn.Module):
        return f"{type(value).__qualname__} {getattr(value, '__qualname__', '')}".encode()
    if _is_record(value):
        _add_file(type(value), files, unread)
        return type(value).__qualname__.encode() + _value(vars(value), name, files, unread)
    unread.append(f"{name} ({type(value).__name__})")
    return b"?"


def _is_record(value: object) -> bool:
    """Whether it is a frozen dataclass, which is what its fields are (and holds not itself)."""
    parameters = getattr(type(value), "__dataclass_params__", None)
    return parameters is not None and parameters.frozen and hasattr(value, "__dict__")


def _add_file(what: Any, files: set[str], unread: list[str]) -> None:
    """The source file of a class or function, unless it is torch's or Python's own."""
    top = what.__module__.partition(".")[0]
    if top in ("torch", "builtins") or top in sys.stdlib_module_names - {"__main__"}:
        return
    try:
        file = inspect.getsourcefile(what)
    except (TypeError, OSError):
        file = None
    if file is None or not Path(file).is_file():
        unread.append(f"the source of {what.__qualname__}")
    else:
        files.add(file)
