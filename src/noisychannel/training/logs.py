"""TensorBoard's curves of a training."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from noisychannel.training.checkpoint import Epoch

__all__ = ["ignore", "logger"]


def ignore(_told: object) -> None:
    """Listen to nothing; a named function, since processes are started with a pickle."""


@contextmanager
def logger(folder: Path | None) -> Generator[Callable[[Epoch], None]]:
    """Writes epochs to a TensorBoard event file; closed after, since its own thread would outlive the process."""
    if folder is None:
        yield ignore
        return
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    try:
        writer = TensorBoardLogger(folder, name="", version="")
    except ModuleNotFoundError:
        warnings.warn(
            "training: no logs are written, since tensorboardX is not installed; "
            "pip install tensorboardX",
            stacklevel=2,
        )
        yield ignore
        return

    def log(epoch: Epoch) -> None:
        found = {"loss": epoch.loss, "learning_rate": epoch.rate, "validation": epoch.validation}
        writer.log_metrics({n: v for n, v in found.items() if v is not None}, epoch.epoch)
        writer.save()

    try:
        yield log
    finally:
        writer.finalize("over")
