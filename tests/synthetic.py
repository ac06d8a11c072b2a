"""Tables of draws of which the truth is known: p per image, and draws that are right with that probability."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from scipy.special import expit, ndtr, ndtri

POPULATIONS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "all easy": lambda g, n: g.beta(30, 1, n),
    "mixed": lambda g, n: g.beta(0.5, 0.5, n),
    "near 0 or 1": lambda g, n: np.where(g.random(n) < 0.1, 0.01, 0.99),
    "borderline": lambda _, n: np.full(n, 0.5),
}


def shifted(p: np.ndarray, by: np.ndarray | float) -> np.ndarray:
    """p after a shift on the scale of the normal's quantiles."""
    return ndtr(ndtri(np.clip(p, 1e-9, 1 - 1e-9)) + by)


def latent(
    p: np.ndarray, m: int, generator: np.random.Generator, correlation: float = 0.0
) -> np.ndarray:
    """(n, m) numbers, > 0 with probability pᵢ; the draws of a column are correlated, those of an image are not."""
    own = generator.standard_normal((len(p), m))
    common = generator.standard_normal(m)
    noise = (1 - correlation) ** 0.5 * own + correlation**0.5 * common
    return ndtri(np.clip(p, 1e-9, 1 - 1e-9))[:, None] + noise


def table(z: np.ndarray, *, shared: bool = False, first: int = 0) -> pa.Table:
    """A draws table: label 0 of two classes, right where z > 0, surer the larger |z|; rows by draw, then example."""
    n, m = z.shape
    z = np.ascontiguousarray(z.T).ravel()
    right = expit(3 * z)
    probabilities = np.stack([right, 1 - right], axis=1).astype(np.float32).ravel()
    draw = np.repeat(np.arange(m), n)
    return pa.table(
        {
            "index": np.tile(np.arange(first, first + n), m),
            "label": np.zeros(n * m, dtype=np.int64),
            "candidate": np.zeros(n * m, dtype=np.int32),
            "draw": draw.astype(np.int32),
            "weight_draw": draw if shared else np.full(n * m, -1, dtype=np.int64),
            "predicted": (z <= 0).astype(np.int64),
            "margin": z.astype(np.float32),
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities), 2),
        }
    )


def answers(right: np.ndarray, *, shared: bool = False) -> pa.Table:
    """A draws table of given right (True) and wrong answers, all equally sure."""
    return table(np.where(right, 1.0, -1.0), shared=shared)
