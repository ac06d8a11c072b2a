"""The top eigenvalue of the input Hessian: exact from one Jacobian, beside the paper authors' power iteration."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from noisychannel import rng
from noisychannel.defenses import Defense
from noisychannel.measures import AUTHORS_POWER, Asked, Curvature, Jacobian, eigenvalues
from noisychannel.networks import Foreign, prepare
from noisychannel.types import Batch

__all__ = ["hessian_rows"]

_IMAGES = 64
"""The authors' way takes one image at a time."""


def hessian_rows(
    module: nn.Module, batch: Batch, repeats: int, device: str
) -> list[dict[str, Any]]:
    """Ours beside the same 20 steps, on all images at once and on one at a time, as the authors did."""
    few = batch.rows(slice(0, _IMAGES))
    defense = Defense(Foreign(module, tuple(few.x.shape[1:])))
    ready = prepare(module)

    def exact() -> np.ndarray:
        return eigenvalues(Jacobian()(Asked(defense, ready, few.x, few)))[:, 1]

    def together() -> np.ndarray:
        return AUTHORS_POWER(Asked(defense, ready, few.x, few))["largest"].to_numpy()

    def alone() -> np.ndarray:
        each = [few.rows(slice(i, i + 1)) for i in range(len(few))]
        return np.concatenate(
            [AUTHORS_POWER(Asked(defense, module, b.x, b))["largest"].to_numpy() for b in each]
        )

    ways: dict[str, Callable[[], np.ndarray]] = {
        "ours": exact,
        "together": together,
        "alone": alone,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, np.ndarray] = {}
    with rng.root("bench"):
        for _ in range(repeats):
            for name, way in ways.items():
                begin = time.perf_counter()
                found[name] = way()
                if device.startswith("cuda"):
                    torch.cuda.synchronize()
                seconds[name].append(time.perf_counter() - begin)
        # What power iteration comes to when it is given time.
        limit = Curvature(method="power", steps=300, tolerance=1e-8)
        true = limit(Asked(defense, ready, few.x, few))["largest"].to_numpy()
    middle = {name: statistics.median(s) for name, s in seconds.items()}
    error = {name: float(np.median(np.abs(v / true - 1))) for name, v in found.items()}
    peers = {"together": "power iteration, 20 steps", "alone": "the same, one image at a time"}
    return [
        {
            "name": "top input-Hessian eigenvalue",
            "peer": words,
            "ours_s": middle["ours"],
            "peer_s": middle[name],
            "ratio": middle[name] / middle["ours"],
            "goal": 10.0 if name == "alone" else None,
            "ours_quality": error["ours"],
            "peer_quality": error[name],
            "quality": "median relative error",
            "evaluations": 0,
            "images": len(few),
            "repeats": repeats,
            "device": device,
        }
        for name, words in peers.items()
    ]
