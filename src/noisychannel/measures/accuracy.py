"""What a defense answers on each draw, as rows; every rate, vote and interval is a reduction of them."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from torch import Tensor

from noisychannel.defenses import Defense, answers
from noisychannel.measures.question import class_of
from noisychannel.norms import L0, L2, Linf
from noisychannel.objectives import label_margin
from noisychannel.types import Adversarials, Batch, Images, Status

__all__ = ["MEASURES", "draws", "examples"]


def examples(batch: Batch, adversarials: Adversarials, slope: Tensor) -> pa.Table:
    """One row per example: what the attack made of it, how far it moved it, and what that cost.

    Columns: index, label, target (−1: untargeted), status, l0, l2, linf (pixels in [0, 1]), forwards, backwards,
    truncated (sequential tests that their budget of draws cut off, and that count as "no"),
    slope (‖∇ₓ cross-entropy‖₂ at the clean example as the attacker sees it: 0 where he sees nothing).
    """
    x = adversarials.x
    target = -np.ones(len(batch), dtype=np.int64) if batch.target is None else _ints(batch.target)
    return pa.table(
        {
            "index": _ints(batch.index),
            "label": _ints(batch.y),
            "target": target,
            "status": [Status(int(s)).word for s in adversarials.status],
            "l0": _floats(L0().distance(x, batch.x)),
            "l2": _floats(L2().distance(x, batch.x)),
            "linf": _floats(Linf().distance(x, batch.x)),
            "forwards": _ints(adversarials.cost.forwards),
            "backwards": _ints(adversarials.cost.backwards),
            "truncated": _ints(adversarials.cost.truncated),
            "slope": _floats(slope),
        }
    )


def draws(
    defense: Defense,
    network: Callable[[Tensor], Tensor],
    x: Images,
    batch: Batch,
    count: int,
    max_rows: int = 512,
) -> pa.Table:
    """One row per (example, draw): the class, its margin, and how far what the network saw is from the clean example.

    Columns: index, label, candidate, draw, weight_draw (rows with the same number were answered by the
    same weights; −1: the weights are not random), predicted, margin (logit of the label minus the best other),
    defended_l2 (‖C(x_adv) − x‖₂), probabilities (K).

    Source: paper 4.2 (distortion of the defended adversarial; details of the authors' code).
    """
    said = answers(defense, network, x, batch, "scoring", count, max_rows)
    logits = said.logits.transpose(0, 1)  # (n, d, k): example-major, as the table
    n, _, classes = logits.shape
    flat = logits.reshape(n * count, classes)
    label = batch.y.repeat_interleave(count)
    probabilities = np.ascontiguousarray(_floats(flat.softmax(dim=1), "float32").reshape(-1))
    return pa.table(
        {
            "index": _ints(batch.index.repeat_interleave(count)),
            "label": _ints(label),
            "candidate": np.zeros(n * count, dtype=np.int32),
            "draw": np.tile(np.arange(count, dtype=np.int32), n),
            # −1: no answer (NaN logits), never right.
            "weight_draw": _weight_draws(defense, batch, count),
            "predicted": _ints(class_of(flat)),
            "margin": _floats(label_margin(flat, label), "float32"),
            "defended_l2": _floats(said.moved.T.reshape(-1), "float32"),
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities), classes),
        }
    )


def _weight_draws(defense: Defense, batch: Batch, count: int) -> np.ndarray:
    """One draw of the weights serves all examples where it is shared, else it serves its own row."""
    n = len(batch)
    match defense.network.weights:
        case "fixed":
            return np.full(n * count, -1, dtype=np.int64)
        case "shared":
            return np.tile(np.arange(count, dtype=np.int64), n)
        case "own":
            index = _ints(batch.index.repeat_interleave(count))
            return index * count + np.tile(np.arange(count, dtype=np.int64), n)


def _ints(x: Tensor) -> np.ndarray:
    return x.cpu().numpy().astype(np.int64)


def _floats(x: Tensor, kind: str = "float64") -> np.ndarray:
    return x.detach().cpu().numpy().astype(kind)


MEASURES = (draws,)
