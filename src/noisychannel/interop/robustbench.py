"""Networks of RobustBench's model zoo, loaded by that package."""

import importlib
from typing import Any

from noisychannel.errors import UserError, reason
from noisychannel.interop.peers import installed
from noisychannel.networks import Foreign

__all__ = ["robustbench_network"]

_FORM = "robustbench:NAME, or robustbench:NAME@DATASET/THREAT such as Standard@cifar10/L2"


def robustbench_network(text: str, shape: tuple[int, ...]) -> Foreign:
    """`robustbench:NAME@DATASET/THREAT` as a network of ours; theirs take pixels in [0, 1] and normalise inside.

    RobustBench downloads the weights and reads them in its own way: the user trusts it with that.

    Args:
        text: the name, after the colon; without @ it is `cifar10/Linf`.
        shape: of one example, (c, h, w).

    Raises:
        UserError: the package is not installed, the text has another form, or it knows no such network.

    Source: Croce et al. 2021 (RobustBench).
    """
    name, at, where = text.partition("@")
    dataset, slash, threat = where.partition("/")
    if not name or (at and not (dataset and slash and threat)):
        raise UserError(f"robustbench: expected {_FORM}, got {text!r}")
    with installed("robustbench"):
        load_model: Any = importlib.import_module("robustbench.utils").load_model
    try:
        made: Any = load_model(name, dataset=dataset or "cifar10", threat_model=threat or "Linf")
    except Exception as error:
        raise UserError(
            f"robustbench: expected the name of a network that it can load, got {text!r} ({reason(error)}); "
            "see its model_zoo"
        ) from error
    return Foreign(made.eval(), shape, name)
