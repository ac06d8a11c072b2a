"""What decides the last bits and the speed of floating point, the same in every process that computes a task."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

__all__ = ["settled"]


@contextmanager
def settled(threads: int) -> Generator[None]:
    """A number of threads, denormals flushed, float32 in full; the process gets its own settings back after.

    Denormals can slow a pass tenfold. The flag is each thread's own, and helper threads inherit it when
    they start: a program that wants it everywhere sets it before its first tensor, as the command line does.
    """
    before, flushed = torch.get_num_threads(), _flushes_denormals()
    cudnn = torch.backends.cudnn.flags(
        enabled=True,
        benchmark=False,
        deterministic=True,
        allow_tf32=False,  # its 10 bits of mantissa are not float32's 23
    )
    precision = torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.set_flush_denormal(True)
    try:
        with cudnn:
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_float32_matmul_precision(precision)
        torch.set_flush_denormal(flushed)


def _flushes_denormals() -> bool:
    """torch tells nobody, so a denormal is halved."""
    return float(torch.tensor(1e-310, dtype=torch.float64) / 2) == 0.0
