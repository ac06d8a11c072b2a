"""Section 3.3 on data: how a small perturbation changes a class's confidence, and what the expansion says of it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.errors import expected
from noisychannel.measures.jacobian import is_piecewise_linear, jacobian_of
from noisychannel.measures.question import Asked, class_of, column
from noisychannel.norms import per_example

__all__ = ["TaylorTerms"]


@dataclass(frozen=True)
class TaylorTerms:
    """f(x + ε) − f(x) of the predicted class's confidence f, beside the terms of its expansion and their bounds.

    first = εᵀ∇f,  second = ½ εᵀ∇²f ε;  |first| ≤ ‖ε‖₂ M₁,  |second| ≤ ½ ‖ε‖₂² |λ|_max.  ε is Gaussian of random
    direction and of the length asked for. The Hessian is a piecewise linear network's, almost everywhere:
    ∇²p_c = p_c (C_cᵀ C_c − Σ_k p_k C_kᵀ C_k), C_k = ∇z_k − Σ_j p_j ∇z_j.

    Columns: index, label, predicted, draw, length, changed (f(x + ε) − f(x)), first, second, kept (whether
    x + ε has the class of x).

    Args:
        lengths: ‖ε‖₂ in pixels of [0, 1].
        draws: directions per length.

    Raises:
        UserError: no length, one that is not positive, draws below 1, or, when asked, a network that bends.

    Source: paper 3.3, F.
    """

    version: ClassVar[int] = 2
    lengths: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    draws: int = 4

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) <= 0:
            raise expected("lengths", "positive lengths", self.lengths)
        if self.draws < 1:
            raise expected("draws", "a whole number ≥ 1", self.draws)

    @property
    def work(self) -> float:
        """A Jacobian of ten classes, and a pass per perturbation."""
        return 19.0 + len(self.lengths) * self.draws

    def __call__(self, asked: Asked) -> pa.Table:
        """Rows per (example, length, direction)."""
        if not all(is_piecewise_linear(few) for few in asked.first(2).looks(1)):
            raise expected("TaylorTerms", "a piecewise linear network", "one that bends")
        (look,) = asked.looks(1)
        x = look.seen.detach()
        jacobian = jacobian_of(look).double()
        p = look.logits.detach().double().softmax(dim=1)
        chosen, predicted = p.argmax(dim=1), class_of(look.logits)
        own = p.gather(1, chosen[:, None])[:, 0]
        tables: list[pa.Table] = []
        for draw in range(self.draws):
            stream = rng.Stream("scoring", asked.batch.index, draw, range(1), "taylor")
            noise = rng.normal(x, stream)
            unit = noise / per_example(noise.flatten(1).norm(dim=1), noise)
            along = torch.einsum("nkd,nd->nk", jacobian, unit.flatten(1).double())
            along = along - (p * along).sum(dim=1, keepdim=True)  # C_k · ε / ‖ε‖
            mine = along.gather(1, chosen[:, None])[:, 0]
            first, second = own * mine, own * (mine**2 - (p * along**2).sum(dim=1)) / 2
            for length in self.lengths:
                said = asked.beside(x + length * unit, look.draw).double().softmax(dim=1)
                changed = said.gather(1, chosen[:, None])[:, 0] - own
                kept = (said.argmax(dim=1) == chosen).long()
                terms = (changed, length * first, length**2 * second)
                tables.append(_table(asked, predicted, draw, length, terms, kept))
        return pa.concat_tables(tables)


def _table(
    asked: Asked,
    predicted: Tensor,
    draw: int,
    length: float,
    terms: tuple[Tensor, Tensor, Tensor],
    kept: Tensor,
) -> pa.Table:
    n = len(predicted)
    return pa.table(
        {
            "index": column(asked.batch.index),
            "label": column(asked.batch.y),
            "predicted": column(predicted),
            "draw": np.full(n, draw, dtype=np.int64),
            "length": np.full(n, length),
            "changed": column(terms[0]),
            "first": column(terms[1]),
            "second": column(terms[2]),
            "kept": column(kept),
        }
    )
