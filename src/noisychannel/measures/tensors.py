"""How large the tensors are that noise is added to: the guides to its strength."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa
import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.defenses.layers import CONVOLUTIONS
from noisychannel.errors import UserError, expected
from noisychannel.measures.question import Asked
from noisychannel.types import Images

__all__ = ["LayerStatistics", "layer_statistics"]


@dataclass(frozen=True)
class LayerStatistics:
    """`layer_statistics` of a defense's network at what it sees, as a question; one row per layer and micro-batch.

    Columns: those of `layer_statistics`, and examples (of the micro-batch).

    Source: paper 4.6, 4.7.
    """

    version: ClassVar[int] = 1

    @property
    def work(self) -> float:
        """One pass."""
        return 1.0

    def __call__(self, asked: Asked) -> pa.Table:
        """Of the network as it was built: folding a batch norm would change the weights.

        Raises:
            UserError: no convolution fires.
        """
        module = asked.defense.network.build().to(asked.x.device)
        stream = rng.Stream("scoring", asked.batch.index)
        with rng.bracket(stream):
            rows = layer_statistics(module, asked.defense.channel(asked.x.clone()))
        counts = pa.array([len(asked.x)] * rows.num_rows)
        return rows.append_column("examples", counts)


def layer_statistics(module: nn.Module, x: Images) -> pa.Table:
    """One row per convolution that fires, in the order in which they first do: its input and its weight on data.

    Columns: name, position (from 0), input_std, input_count (elements per example), weight_std,
    weight_count. A std is √(mean of (v − mean)²) over all elements, of inputs also over all
    examples, in double precision. Inputs are what arrives, before the layer's own noise, and of a
    layer that is called several times all of them; weights are the stored ones, without noise.

    Args:
        module: a network in eval mode, before or after surgery. If it is random, open the stream of
            its noise around the call (`rng.bracket`).
        x: examples in [0, 1], all in one pass.

    Raises:
        UserError: training mode, or no convolution fires.

    Source: paper 4.6 (features have more elements than weights and larger stds, so take more noise), 4.7
    (the stds of the inputs are the guides to RobustNet's strengths).
    """
    if module.training:
        raise expected("layer_statistics", "a network in eval mode", "one in training mode")
    layers = {n: m for n, m in module.named_modules() if isinstance(m, CONVOLUTIONS)}
    seen: dict[str, _Moments] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            seen.setdefault(name, _Moments()).add(args[0] if args else named["input"])

        return hook

    handles = [
        layer.register_forward_pre_hook(note(name), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise UserError(
            f"layer_statistics: expected a network that calls Conv1d or Conv2d layers, but "
            f"{type(module).__name__} calls none of its {len(layers)}"
        )
    weights = [_Moments(layers[name].get_parameter("weight")) for name in seen]
    return pa.table(
        {
            "name": list(seen),
            "position": list(range(len(seen))),
            "input_std": [moments.std for moments in seen.values()],
            "input_count": [moments.count // len(x) for moments in seen.values()],
            "weight_std": [moments.std for moments in weights],
            "weight_count": [moments.count for moments in weights],
        }
    )


class _Moments:
    """Number, mean and sum of squared deviations of all elements seen (Chan, Golub & LeVeque 1983)."""

    def __init__(self, values: Tensor | None = None) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        if values is not None:
            self.add(values)

    def add(self, values: Tensor) -> None:
        """More of them."""
        # Each example's own weights run under `vmap`, which shows a layer one example; here it is all.
        flat = torch.func.debug_unwrap(values).detach().double()
        mean, count = float(flat.mean()), flat.numel()
        shift, total = mean - self.mean, self.count + count
        self.squares += float((flat - mean).square().sum()) + shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.count = total

    @property
    def std(self) -> float:
        """√(mean of (v − mean)²)."""
        return (self.squares / self.count) ** 0.5
