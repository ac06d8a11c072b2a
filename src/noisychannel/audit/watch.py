"""What a network calls while it answers: dropout and batch statistics that are active, and the weights it uses."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Watch"]

_DROPOUTS = frozenset(
    ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
)
_WEIGHTED = frozenset(
    (
        "linear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "matmul",
        "__matmul__",
    )
)


class Watch(TorchFunctionMode):
    """Notes calls of torch's functions inside, however a network makes them.

    `dropouts` and `statistics` name what is active, `used` holds sums of all weights used, in order.

    Args:
        weights: whether to note weights (not under `vmap`, whose tensors have no numbers).
    """

    def __init__(self, *, weights: bool = False) -> None:
        super().__init__()
        self.weights = weights
        self.dropouts: list[str] = []
        self.statistics: list[str] = []
        self.used: list[tuple[float, float]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Note the call, and make it."""
        named, called = kwargs or {}, str(getattr(func, "__name__", ""))
        if called in _DROPOUTS:
            if _given(args, named, "training", 2) and _given(args, named, "p", 1):
                self.dropouts.append(called)
        elif called == "batch_norm":
            if _given(args, named, "training", 5):
                self.statistics.append(called)
        elif self.weights and called in _WEIGHTED:
            self._use(_given(args, named, "weight", 1), called)
        return func(*args, **named)

    def _use(self, weight: Any, called: str) -> None:
        # More than two axes in a product are data: attention multiplies examples with each other.
        if isinstance(weight, Tensor) and not ("matmul" in called and weight.ndim > 2):
            plain = weight.detach().double()
            self.used.append((float(plain.sum()), float(plain.square().sum())))


def _given(args: tuple[Any, ...], named: dict[str, Any], name: str, place: int) -> Any:
    """An argument, which torch's layers hand on by name and its own functions by place; None: its default."""
    return named.get(name, args[place] if len(args) > place else None)
