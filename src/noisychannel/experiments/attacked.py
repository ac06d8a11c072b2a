"""Which images an attack moved across the boundary, and what the network says of them behind a channel."""

import numpy as np

from noisychannel.experiments.setting import Result

__all__ = ["moved", "recovered"]


def moved(result: Result) -> np.ndarray:
    """Of each row: whether its image was right before and was moved across; rows have one draw per image."""
    assert result.examples is not None
    attacked = result.examples.sort_by("index")
    found = np.array(attacked["status"].to_pylist()) == "found"
    known = attacked["index"].to_numpy()
    # What was misclassified without the attack is found, and stays where it is.
    across = found & (attacked["l2"].to_numpy() > 1e-6)
    return across[np.searchsorted(known, result.draws["index"].to_numpy())]


def recovered(result: Result) -> np.ndarray:
    """Of each moved image, by index: whether the network gives it its label again behind the channel."""
    rows = result.draws.filter(moved(result)).sort_by("index")
    return rows["label"].to_numpy() == rows["predicted"].to_numpy()
