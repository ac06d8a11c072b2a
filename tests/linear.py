"""A network whose smallest adversarial perturbation is known in closed form."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from noisychannel.types import Batch


class _Affine(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


@dataclass(frozen=True)
class FixedNetwork:
    """What every deterministic network part of the tests says of itself; it lacks only `build`."""

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    keyed: ClassVar[bool] = True
    weights: ClassVar[str] = "fixed"
    shape: ClassVar[tuple[int, ...]] = (3, 8, 8)


@dataclass(frozen=True)
class LinearNetwork:
    """z = W·(x − ½), W ~ N(0, 1/d) per entry times `gain`, from a fixed seed."""

    version: ClassVar[int] = 1
    shape: tuple[int, ...] = (3, 8, 8)
    classes: int = 5
    seed: int = 0
    gain: float = 1.0
    stochastic: ClassVar[bool] = False
    keyed: ClassVar[bool] = True
    weights: ClassVar[str] = "fixed"

    def weight(self) -> Tensor:
        made = torch.Generator().manual_seed(self.seed)
        d = torch.Size(self.shape).numel()
        return self.gain * torch.randn(self.classes, d, generator=made) / d**0.5

    def build(self) -> nn.Module:
        w = self.weight()
        module = _Affine(w, -w.sum(dim=1) / 2)
        return module.eval().requires_grad_(False)

    def batch(self, n: int = 16, spread: float = 0.1, seed: int = 1) -> Batch:
        """Points near the middle of the box, labelled by the network itself."""
        made = torch.Generator().manual_seed(seed)
        x = 0.5 + spread * torch.randn(n, *self.shape, generator=made)
        x = x.clamp(0.2, 0.8)
        return Batch(x, self.build()(x).argmax(dim=1), torch.arange(n))

    def optimum(self, batch: Batch, dual: float) -> Tensor:
        """min over goals of margin / ‖w_own − w_other‖_dual: (n,). L2: dual 2, L∞: dual 1."""
        w, z = self.weight(), self.build()(batch.x)
        out = torch.full((len(batch),), torch.inf)
        for k in range(self.classes):
            if batch.target is None:
                own, other = batch.y, torch.full_like(batch.y, k)
            else:
                own, other = torch.full_like(batch.y, k), batch.target
            margin = z.gather(1, own[:, None])[:, 0] - z.gather(1, other[:, None])[:, 0]
            size = (w[own] - w[other]).norm(p=dual, dim=1)
            distance = margin / size.clamp_min(1e-12)
            if batch.target is None:
                out = torch.where(own == other, out, torch.minimum(out, distance))
        if batch.target is not None:
            raise ValueError(
                "targeted optimum of more than two classes is a projection, not a ratio"
            )
        return out
