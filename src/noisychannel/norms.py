"""Distances as objects: a norm knows how to measure, project, step and sample, so that each attack is written once."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from noisychannel import rng

__all__ = ["L0", "L2", "NORMS", "Linf", "Norm", "per_example"]


def per_example(value: float | Tensor, like: Tensor) -> Tensor:
    """A number, or one number per example (n,), shaped to multiply examples `like` (n, …)."""
    if not isinstance(value, Tensor):
        value = torch.full((len(like),), value, dtype=like.dtype, device=like.device)
    return value.to(like.dtype).view(-1, *([1] * (like.ndim - 1)))


@runtime_checkable
class Norm(Protocol):
    """A way to measure a perturbation; radii are floats or one per example, in pixels of [0, 1]."""

    version: ClassVar[int]

    def size(self, delta: Tensor) -> Tensor:
        """Norm of each example's perturbation: (n, …) → (n,)."""
        ...

    def project(self, delta: Tensor, radius: float | Tensor) -> Tensor:
        """The nearest perturbation of norm at most `radius`."""
        ...

    def steepest(self, gradient: Tensor) -> Tensor:
        """The unit-norm perturbation that increases a linear function of this gradient most."""
        ...

    def sample(self, like: Tensor, radius: float | Tensor, stream: rng.Stream) -> Tensor:
        """A random perturbation inside the ball of `radius` around each example of `like`."""
        ...

    def distance(self, x: Tensor, reference: Tensor) -> Tensor:
        """Norm of x − reference per example."""
        ...


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)  # of no examples too, unlike reshape


@dataclass(frozen=True)
class Linf:
    """Largest absolute change of any element: ‖δ‖∞ = maxᵢ |δᵢ|.   Source: foolbox, Madry et al. 2018."""

    version: ClassVar[int] = 1

    def size(self, delta: Tensor) -> Tensor:
        """‖δ‖∞ of each example."""
        return _flat(delta).abs().amax(dim=1)

    def distance(self, x: Tensor, reference: Tensor) -> Tensor:
        """‖x − reference‖∞ of each example."""
        return self.size(x - reference)

    def project(self, delta: Tensor, radius: float | Tensor) -> Tensor:
        """Clip every element to [−radius, radius]."""
        if not isinstance(radius, Tensor):
            return delta.clamp(-radius, radius)
        bound = per_example(radius, delta)
        return torch.minimum(torch.maximum(delta, -bound), bound)

    def steepest(self, gradient: Tensor) -> Tensor:
        """sign(g)."""
        return gradient.sign()

    def sample(self, like: Tensor, radius: float | Tensor, stream: rng.Stream) -> Tensor:
        """Uniform in the cube [−radius, radius]."""
        return (rng.uniform(like, stream) * 2 - 1) * per_example(radius, like)


@dataclass(frozen=True)
class L2:
    """Euclidean length: ‖δ‖₂ = (Σᵢ δᵢ²)^½."""

    version: ClassVar[int] = 2

    def size(self, delta: Tensor) -> Tensor:
        """‖δ‖₂ of each example."""
        return _flat(delta).norm(dim=1)

    def distance(self, x: Tensor, reference: Tensor) -> Tensor:
        """‖x − reference‖₂ of each example."""
        return self.size(x - reference)

    def project(self, delta: Tensor, radius: float | Tensor) -> Tensor:
        """Shorten δ to `radius` where it is longer."""
        size = per_example(self.size(delta), delta)
        return delta * (per_example(radius, delta) / size.clamp_min(1e-12)).clamp_max(1.0)

    def steepest(self, gradient: Tensor) -> Tensor:
        """g / ‖g‖₂, and 0 where the gradient is 0 (scaled first, so that tiny gradients do not underflow)."""
        # The least normal number: below it denormals are flushed to 0, and 0/0 is no step.
        least = torch.finfo(gradient.dtype).tiny
        scaled = gradient / per_example(Linf().size(gradient), gradient).clamp_min(least)
        return scaled / per_example(self.size(scaled), scaled).clamp_min(1e-12)

    def sample(self, like: Tensor, radius: float | Tensor, stream: rng.Stream) -> Tensor:
        """Uniform in the ball: a Gaussian direction, length radius · u^(1/d)."""
        direction = self.steepest(rng.normal(like, stream.named("direction")))
        share = rng.uniform(_flat(like)[:, :1], stream) ** (1.0 / _flat(like).shape[1])
        return direction * per_example(share[:, 0], like) * per_example(radius, like)


@dataclass(frozen=True)
class L0:
    """Number of changed elements: ‖δ‖₀ = #{i : δᵢ ≠ 0}; a radius is a count of elements."""

    version: ClassVar[int] = 1

    def size(self, delta: Tensor) -> Tensor:
        """‖δ‖₀ of each example."""
        return (_flat(delta) != 0).sum(dim=1).to(delta.dtype)

    def distance(self, x: Tensor, reference: Tensor) -> Tensor:
        """Number of elements in which x differs from the reference."""
        return self.size(x - reference)

    def project(self, delta: Tensor, radius: float | Tensor) -> Tensor:
        """Keep the ⌊radius⌋ elements of largest magnitude, drop the rest."""
        flat = _flat(delta)
        order = flat.abs().argsort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order)
        )
        keep = rank < per_example(radius, flat).floor()
        return (flat * keep).view_as(delta)

    def steepest(self, gradient: Tensor) -> Tensor:
        """±1 at the one element where |g| is largest."""
        flat = _flat(gradient)
        best = flat.abs().argmax(dim=1, keepdim=True)
        step = torch.zeros_like(flat).scatter_(1, best, flat.gather(1, best).sign())
        return step.view_as(gradient)

    def sample(self, like: Tensor, radius: float | Tensor, stream: rng.Stream) -> Tensor:
        """⌊radius⌋ elements at random, each changed uniformly in [−1, 1]."""
        scores = rng.uniform(like, stream.named("direction")) + 1e-6
        chosen = self.project(scores, radius) != 0
        return torch.where(chosen, rng.uniform(like, stream) * 2 - 1, torch.zeros_like(like))


NORMS: tuple[Norm, ...] = (L0(), L2(), Linf())
