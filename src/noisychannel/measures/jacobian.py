"""Input gradients of all classes and the exact input Hessian of a piecewise linear network, from one Jacobian."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from noisychannel.errors import expected
from noisychannel.measures.question import Asked, Look, class_of, column, vectors

__all__ = [
    "Jacobian",
    "Loss",
    "eigenvalues",
    "gradient_norms",
    "is_piecewise_linear",
    "jacobian_of",
    "scaled",
]

Loss = Literal["cross-entropy", "confidence"]
"""Of class c: −log p_c, as the authors' code measured; or p_c, as the paper's section 3.3 defines."""

_CLASSES = 100
"""More classes would take more backward passes than an iteration on Hessian-vector products: `Curvature`."""


@dataclass(frozen=True)
class Jacobian:
    """The logits' gradients at what the network sees, as the Gram matrix of their deviations from their mean.

    C_k = ∇z_k − Σ_j p_j ∇z_j,  G = C Cᵀ,  so that of any class c (all gradients with respect to the input)
    ‖∇(−log p_c)‖² = G_cc,  ‖∇p_c‖² = p_c² G_cc,  and where z is piecewise linear, almost everywhere,
    ∇²(−log p_c) = Σ_k p_k C_kᵀ C_k  (the same for every c),  ∇²p_c = p_c (C_cᵀ C_c − Σ_k p_k C_kᵀ C_k).

    Columns: index, label, draw, predicted, probabilities (K), gram (K·K), straight (whether the network is piecewise
    linear, as its second derivatives at two of the points say: else `eigenvalues` are not the Hessian's).

    Args:
        draws: of a random defense, each a network and an input of its own; one if nothing is random.
        scale: the standard deviation per colour that an input is normalised by: gradients are then with
            respect to (x − mean) / scale, `scale` times as large; empty: pixels of [0, 1].

    Raises:
        UserError: draws below 1; when asked, more than 100 classes.

    Source: paper 3.3 (M₁, M₂), 4.8, M, N; the Hessian of a piecewise linear network is JᵀSJ, S = diag(p) − ppᵀ.
    Differs: (1) the paper's M₁ and M₂ are of class confidence, its experiments of cross-entropy with respect to the
        normalised input: `gradient_norms` and `eigenvalues` give either. (2) K − 1 backward passes instead of 20
        steps of power iteration: exact, and eigenvalues of either sign.
    """

    version: ClassVar[int] = 3
    draws: int = 1
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise expected("draws", "a whole number ≥ 1", self.draws)

    @property
    def work(self) -> float:
        """A forward and K − 1 backward passes of twice its cost; ten classes are taken for granted."""
        return 19.0 * self.draws

    def __call__(self, asked: Asked) -> pa.Table:
        """Rows per (draw, example)."""
        straight = all(is_piecewise_linear(look) for look in asked.first(2).looks(1))
        looks = asked.looks(self.draws)
        return pa.concat_tables([self._rows(asked, look, straight=straight) for look in looks])

    def _rows(self, asked: Asked, look: Look, *, straight: bool) -> pa.Table:
        p = look.logits.detach().double().softmax(dim=1)
        gram = gram_of(jacobian_of(look, self.scale), p)
        return pa.table(
            {
                "index": column(asked.batch.index),
                "label": column(asked.batch.y),
                "draw": np.full(len(p), look.draw, dtype=np.int64),
                "predicted": column(class_of(look.logits)),
                "probabilities": vectors(p),
                "gram": vectors(gram.flatten(1)),
                "straight": np.full(len(p), straight),
            }
        )


def jacobian_of(look: Look, scale: tuple[float, ...] = ()) -> Float[Tensor, "n k d"]:
    """∂ (z_k − z_c) / ∂ input, c the predicted class: one backward pass per class but one, and a row of zeros.

    What all classes have in common drops out of every gradient and Hessian of a softmax.

    Raises:
        UserError: more than 100 classes.
    """
    n, classes = look.logits.shape
    if classes > _CLASSES:
        raise expected(
            "classes", f"at most {_CLASSES} for a Jacobian (else use Curvature)", classes
        )
    chosen = look.logits.argmax(dim=1)
    rows = torch.zeros(n, classes, look.seen[0].numel(), device=look.seen.device)
    every = torch.arange(n, device=look.seen.device)
    for step in range(1, classes):
        k = (chosen + step) % classes
        slope = torch.zeros_like(look.logits)
        slope[every, k], slope[every, chosen] = 1.0, -1.0
        (row,) = torch.autograd.grad(look.logits, look.seen, slope, retain_graph=step < classes - 1)
        rows[every, k] = scaled(row, scale).flatten(1)
    return rows


def gram_of(jacobian: Tensor, p: Tensor) -> Float[Tensor, "n k k"]:
    """G = C Cᵀ in double precision, C_k = Σ_j p_j (∇z_k − ∇z_j): exact also where one class has all but 1e−9.

    C = A J with A = 1 − p on the diagonal, summed from the other classes' p, and −p_j beside it.
    """
    n, classes = p.shape
    own = torch.eye(classes, dtype=torch.bool, device=p.device).expand(n, -1, -1)
    rest = p[:, None, :].expand(n, classes, classes).masked_fill(own, 0)
    spread = torch.diag_embed(rest.sum(dim=2)) - rest
    # (A J)(A J)ᵀ by way of the K × K products of J: a tenth of the double-precision work.
    double = jacobian.double()
    return spread @ (double @ double.transpose(1, 2)) @ spread.transpose(1, 2)


def is_piecewise_linear(look: Look) -> bool:
    """Whether random combinations of the logits have no second derivative at these points.

    ReLU, max-pooling and batch norm in eval mode have none almost everywhere; softplus, sigmoid or attention do.
    """
    weights = torch.linspace(-1, 1, look.logits.shape[1], device=look.logits.device)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(
            (look.logits * weights).sum(), look.seen, create_graph=True
        )
    if not gradient.requires_grad:
        return True
    (second,) = torch.autograd.grad(
        gradient, look.seen, torch.ones_like(gradient), retain_graph=True, materialize_grads=True
    )
    return not bool(second.any())


def scaled(gradient: Tensor, scale: tuple[float, ...]) -> Tensor:
    """A gradient with respect to the normalised input.

    Raises:
        UserError: another number of colours.
    """
    if not scale:
        return gradient
    if len(scale) != gradient.shape[1]:
        raise expected("scale", f"{gradient.shape[1]} numbers, one per colour", len(scale))
    factors = torch.tensor(scale, dtype=gradient.dtype, device=gradient.device)
    return gradient * factors.view(1, -1, *([1] * (gradient.ndim - 2)))


def gradient_norms(rows: pa.Table, loss: Loss = "cross-entropy") -> np.ndarray:
    """‖∇ₓ loss of class c‖₂ for every class (rows, K).

    √G_cc for cross-entropy (the limit of a class that the network is sure of is 0), p_c √G_cc for confidence.
    """
    p, gram = _matrices(rows)
    norms = np.sqrt(np.maximum(np.einsum("nkk->nk", gram), 0))
    return norms if loss == "cross-entropy" else p * norms


def eigenvalues(rows: pa.Table, loss: Loss = "cross-entropy") -> np.ndarray:
    """Smallest and largest eigenvalue (rows, 2) of the input Hessian of the predicted class's loss.

    Of a piecewise linear network, almost everywhere: the Hessian is Cᵀ W C with W diagonal, diag(p) for
    cross-entropy and p_c (e_c e_cᵀ − diag(p)) for confidence. Its nonzero eigenvalues are those of Lᵀ sign(W) L with
    |W|^½ G |W|^½ = L Lᵀ; all others are 0, so that the smallest is at most and the largest at least 0 (an input
    has more elements than there are classes).

    Raises:
        UserError: the network bends.
    """
    if not rows["straight"].to_numpy().all():
        raise expected(
            "eigenvalues", "a piecewise linear network (else use Curvature)", "one that bends"
        )
    p, gram = _matrices(rows)
    weights = p
    if loss == "confidence":
        chosen = rows["predicted"].to_numpy()
        own = p[np.arange(len(p)), chosen][:, None]
        weights = own * (np.eye(p.shape[1])[chosen] - p)
    size = np.sqrt(np.abs(weights))
    values, axes = np.linalg.eigh(size[:, :, None] * gram * size[:, None, :])
    root = axes * np.sqrt(np.maximum(values, 0))[:, None, :]
    found = np.linalg.eigvalsh(np.einsum("nki,nk,nkj->nij", root, np.sign(weights), root))
    return np.stack([np.minimum(found[:, 0], 0), np.maximum(found[:, -1], 0)], axis=1)


def _matrices(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, K) and Gram matrices (n, K, K)."""
    flat = [
        rows[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        for name in ("probabilities", "gram")
    ]
    p = flat[0].reshape(rows.num_rows, -1)
    return p, flat[1].reshape(rows.num_rows, p.shape[1], p.shape[1])
