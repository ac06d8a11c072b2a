"""Folders that tests of audits share."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

SHM = Path("/dev/shm")


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a place: a store waits for its disk at every artifact."""
    if not SHM.is_dir():
        yield tmp_path
        return
    with TemporaryDirectory(dir=SHM) as folder:
        yield Path(folder)
