"""The top of the input Hessian's spectrum by Hessian-vector products: for networks that bend, or have many classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from noisychannel import rng
from noisychannel.errors import expected
from noisychannel.measures.jacobian import Loss, scaled
from noisychannel.measures.question import Asked, Look, class_of, column
from noisychannel.norms import per_example

__all__ = ["AUTHORS_POWER", "Curvature"]

Product = Callable[[Tensor], Tensor]
"""v (n, …) → Hv (n, …), each example its own Hessian."""


@dataclass(frozen=True)
class Curvature:
    """Extreme eigenvalues of ∇²ₓ loss of the predicted class at what the network sees.

    Lanczos: the extreme eigenvalues of the tridiagonal T_m = Q_mᵀ H Q_m, Q_m an orthonormal basis of
    span(v, Hv, …, H^{m−1}v), fully reorthogonalised, v random; `residual` is ‖H q − θ q‖₂ of the largest.
    Power: v ← Hv / ‖Hv‖, λ = vᵀHv, which is the eigenvalue of largest magnitude: one number twice.

    Columns: index, label, draw, predicted, smallest, largest, residual, products (Hv that were taken).

    Args:
        loss: of the predicted class.
        method: how.
        steps: Hessian-vector products at most.
        tolerance: an example is done when two successive values differ by less, relatively.
        draws: of a random defense, each a Hessian of its own.
        scale: standard deviation per colour of a normalised input; empty: pixels of [0, 1].

    Raises:
        UserError: steps or draws below 1.

    Source: paper 3.3, N; details §6 (the authors' 20 steps, relative tolerance 1e−4, start uniform on [0, 1)).
    Differs: (1) all examples of a batch at once. (2) where the network is piecewise linear and K ≤ 100,
        `Jacobian` gives the same exactly from K backward passes.
    """

    version: ClassVar[int] = 2
    loss: Loss = "cross-entropy"
    method: Literal["lanczos", "power"] = "lanczos"
    steps: int = 30
    tolerance: float = 1e-6
    draws: int = 1
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "draws"):
            if getattr(self, name) < 1:
                raise expected(name, "a whole number ≥ 1", getattr(self, name))

    @property
    def work(self) -> float:
        """A product costs a backward pass through a backward pass: about four forwards more."""
        return self.draws * (3.0 + 6.0 * self.steps)

    def __call__(self, asked: Asked) -> pa.Table:
        """Rows per (draw, example)."""
        return pa.concat_tables([self._rows(asked, look) for look in asked.looks(self.draws)])

    def _rows(self, asked: Asked, look: Look) -> pa.Table:
        product = hessian_product(look, self.loss, self.scale)
        stream = rng.Stream("scoring", asked.batch.index, look.draw, range(1), "curvature")
        start = rng.uniform(look.seen.detach(), stream)
        if self.method == "lanczos":
            ends, residual, taken = _lanczos(product, start - 0.5, self.steps, self.tolerance)
        else:
            ends, residual, taken = _power(product, start, self.steps, self.tolerance)
        return pa.table(
            {
                "index": column(asked.batch.index),
                "label": column(asked.batch.y),
                "draw": np.full(len(start), look.draw, dtype=np.int64),
                "predicted": column(class_of(look.logits)),
                "smallest": column(ends[:, 0]),
                "largest": column(ends[:, 1]),
                "residual": column(residual),
                "products": np.full(len(start), taken, dtype=np.int64),
            }
        )


AUTHORS_POWER = Curvature(method="power", steps=20, tolerance=1e-4)
"""The authors' deflated power iteration, top value only."""


def hessian_product(look: Look, loss: Loss, scale: tuple[float, ...] = ()) -> Product:
    """v → ∇²loss · v for every example, by a backward pass through the gradient's graph."""
    with torch.enable_grad():
        chosen = look.logits.argmax(dim=1, keepdim=True)
        value = look.logits.log_softmax(dim=1).gather(1, chosen)
        value = value.exp() if loss == "confidence" else -value
        (gradient,) = torch.autograd.grad(value.sum(), look.seen, create_graph=True)

    def product(v: Tensor) -> Tensor:
        if not gradient.requires_grad:
            return torch.zeros_like(v)
        (out,) = torch.autograd.grad(
            gradient, look.seen, scaled(v, scale), retain_graph=True, materialize_grads=True
        )
        return scaled(out, scale)

    return product


def _power(
    product: Product, start: Tensor, steps: int, tolerance: float
) -> tuple[Float[Tensor, "n 2"], Tensor, int]:
    """(λ, λ), ‖Hv − λv‖ and the products taken; an example whose value stands still keeps it."""
    v = start / _size(start)
    value = torch.full_like(start.flatten(1)[:, 0], torch.inf)
    residual, done, taken = torch.zeros_like(value), torch.zeros_like(value, dtype=torch.bool), 0
    while taken < steps and not bool(done.all()):
        moved, taken = product(v), taken + 1
        now = (moved * v).flatten(1).sum(dim=1)
        gap = (moved - per_example(now, v) * v).flatten(1).norm(dim=1)
        still = (now - value).abs() <= tolerance * now.abs()
        value, residual = now.where(~done, value), gap.where(~done, residual)
        done |= still
        v = moved / _size(moved)
    return torch.stack([value, value], dim=1), residual, taken


def _lanczos(
    product: Product, start: Tensor, steps: int, tolerance: float
) -> tuple[Float[Tensor, "n 2"], Tensor, int]:
    """Extreme Ritz values, residual of the largest, and the products taken."""
    n = len(start)
    flat = start.flatten(1).double()
    basis = [flat / flat.norm(dim=1, keepdim=True)]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    ends, residual = flat.new_zeros(n, 2), flat.new_zeros(n)
    done = torch.zeros_like(residual, dtype=torch.bool)
    for step in range(min(steps, flat.shape[1])):
        q = basis[-1]
        moved = product(q.float().view_as(start)).flatten(1).double()
        diagonal.append((moved * q).sum(dim=1))
        for _ in range(2):  # twice is enough (Parlett): rounding would bring found directions back
            for old in basis:
                moved = moved - (moved * old).sum(dim=1, keepdim=True) * old
        size = moved.norm(dim=1)
        projected = _tridiagonal(diagonal, beside)
        # An example whose network gives no number has no eigenvalue, and must not stop the others.
        known = projected.isfinite().all(dim=2).all(dim=1)
        values, vectors = torch.linalg.eigh(projected.where(known[:, None, None], 0.0))
        values = values.where(known[:, None], torch.nan)
        now = torch.stack([values[:, 0], values[:, -1]], dim=1)
        largest = now.abs().amax(dim=1).clamp_min(1e-30)
        still = ((now - ends).abs() <= tolerance * largest[:, None]).all(dim=1) & (step > 0)
        ends = torch.where(done[:, None], ends, now)
        residual = torch.where(done, residual, (size * vectors[:, -1, -1]).abs())
        # Where the space is exhausted the next direction would be rounding.
        done |= still | (size <= 1e-7 * largest) | ~known
        beside.append(size)
        basis.append(moved / size.clamp_min(1e-300)[:, None])
        if bool(done.all()):
            break
    return ends, residual, len(diagonal)


def _tridiagonal(diagonal: list[Tensor], beside: list[Tensor]) -> Float[Tensor, "n m m"]:
    out = torch.diag_embed(torch.stack(diagonal, dim=1))
    if len(diagonal) > 1:
        off = torch.stack(beside[: len(diagonal) - 1], dim=1)
        out = out + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    return out


def _size(v: Tensor) -> Tensor:
    """‖v‖₂ per example, never 0, in the shape that divides v."""
    return per_example(v.flatten(1).norm(dim=1).clamp_min(1e-30), v)
