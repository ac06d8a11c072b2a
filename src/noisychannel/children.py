"""Processes that this one starts: they leave Ctrl-C to it, and never outlive it."""

import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["deaf", "end_with"]


@contextmanager
def deaf() -> Generator[None]:
    """No interrupt reaches this thread, or what is started inside; one that comes meanwhile is heard after."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int) -> None:
    """End this process when its parent is gone.

    A parent that is killed can end nobody; whoever takes its children has another number.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
