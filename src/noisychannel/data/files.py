"""Files: where the data set of a name may lie, what a folder holds, and hashes that are computed once."""

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path

__all__ = ["SPLITS", "State", "data_files", "file_hash", "places", "state"]

SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}
"""The words in the names of files and folders that say which split they are of, as `datasets` reads them."""

State = tuple[int, int]
"""Size and time of a file; a file that has the same is taken for unchanged."""


def places(name: str) -> list[Path]:
    """Where the data set `name` may lie: in `$NOISYCHANNEL_DATA`, then at that path."""
    root = os.environ.get("NOISYCHANNEL_DATA")
    found = [Path(name).expanduser()]
    if root and not Path(name).is_absolute():
        found.insert(0, Path(root).expanduser() / name)
    return found


def data_files(folder: Path, endings: set[str]) -> list[Path]:
    """The files with these endings, sorted, if the folder holds nothing else but texts, else none.

    None either if its README configures `datasets`. What is hidden does not count.
    """
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(p.startswith(".") for p in file.relative_to(folder).parts)
    ]
    data = [file for file in files if file.suffix.lower() not in (".md", ".txt")]
    readme = folder / "README.md"
    configured = readme.exists() and re.search(
        r"^configs:", readme.read_text("utf-8"), re.MULTILINE
    )
    if configured or any(file.suffix.lower() not in endings for file in data):
        return []
    return data


def state(path: Path) -> State:
    """Size and time of a file."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def file_hash(path: Path) -> bytes:
    """SHA-256 of a file's bytes; a changed file is hashed again."""
    return _file_hash(path, state(path))


@lru_cache(maxsize=1024)
def _file_hash(path: Path, _state: State) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
