"""What every test leaves as it was."""

from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from hypothesis import settings

# Whether a formula holds does not depend on what else the machine does: no example has a deadline.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _torch_settings() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Threads, and denormals, which the command line flushes for the whole process."""
    threads = torch.get_num_threads()
    torch.set_flush_denormal(False)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run it: without the type checker of the tests, which would be first to object."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
