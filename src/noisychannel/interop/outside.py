"""Modules around strangers' models: their units, and their own gradients where autograd cannot follow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from noisychannel.networks import Opaque

__all__ = ["Bounded", "Outside"]

_Answer = Callable[[np.ndarray], np.ndarray]
_Pull = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Bounded(nn.Module):
    """f(((low + x·(high − low)) − mean) / std) for x in [0, 1].

    Args:
        model: f.
        low: the pixel that 0 stands for, a number or one for each element.
        high: the pixel that 1 stands for.
        mean: in the model's units, in a shape that broadcasts; None: 0.
        std: likewise; None: 1.
        flip: axis that is reversed before the mean is taken off (RGB and BGR); None: none.
    """

    low: Tensor
    high: Tensor
    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        low: Tensor,
        high: Tensor,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        flip: int | None = None,
    ) -> None:
        super().__init__()
        self.model, self.flip = model, flip
        for name, number in {"low": low, "high": high, "mean": mean, "std": std}.items():
            self.register_buffer(name, None if number is None else number.detach().clone().float())
        self.training = False  # whether the stranger's own is, is asked of him

    def forward(self, x: Tensor) -> Tensor:
        x = self.low + x * (self.high - self.low)
        if self.flip is not None:
            x = x.flip(self.flip)
        if self.mean is not None:
            x = x - self.mean
        return self.model(x if self.std is None else x / self.std)


class Outside(Opaque):
    """A model that is asked, not copied: through autograd, or through NumPy with a gradient of its own.

    Args:
        answer: x → logits; of tensors without `pull`, of NumPy arrays with it.
        pull: (x, ∂L/∂z) → ∂L/∂x.
    """

    def __init__(self, answer: Callable[..., Any], pull: _Pull | None = None) -> None:
        super().__init__()
        self.answer, self.pull = answer, pull
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        if self.pull is None:
            return self.answer(x)
        out = _Numpy.apply(x, self.answer, self.pull)
        assert isinstance(out, Tensor)
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> "Outside":
        """The same stranger: what a copy of his would do (write files, as ART's does) nobody knows."""
        return Outside(self.answer, self.pull)


class _Numpy(torch.autograd.Function):
    """z = answer(x), ∂L/∂x = pull(x, ∂L/∂z)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, answer: _Answer, pull: _Pull) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x)
        ctx.pull = pull
        return _tensor(answer(_array(x)), x)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        # Off inside of a backward pass; the stranger may be torch's too.
        with torch.enable_grad():
            pulled = ctx.pull(_array(x), _array(slope))
        return _tensor(pulled, x), None, None


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.array(array)).to(like)  # a copy: JAX's arrays are read-only
