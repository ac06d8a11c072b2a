"""The errors that callers catch; everything else is a plain ValueError or TypeError.

UserError               the user can mend it: printed as one sentence, exit code 2
├── DataError           a data set that is missing or malformed
├── CheckpointError     a checkpoint that does not fit its network
└── StoreError          the folder of results
    ├── MissingArtifact     asked for, but not computed yet
    └── CorruptArtifact     its bytes are not those that were written
"""

from collections.abc import Generator
from contextlib import contextmanager

__all__ = [
    "CheckpointError",
    "CorruptArtifact",
    "DataError",
    "MissingArtifact",
    "StoreError",
    "UserError",
    "expected",
    "no_exit",
    "reason",
]


class UserError(ValueError):
    """Something the user can mend; its message says what was expected, what came, and how to mend it."""


class DataError(UserError):
    """A data set that is missing, or whose images or labels are not what they should be."""


class CheckpointError(UserError):
    """A checkpoint that is missing or does not fit the network it is meant for."""


class StoreError(UserError):
    """The folder of results cannot be used."""


class MissingArtifact(StoreError):
    """An artifact was asked for that nobody has computed yet."""


class CorruptArtifact(StoreError):
    """An artifact whose bytes differ from those that were written."""


def expected(name: str, wanted: str, got: object) -> UserError:
    """The one sentence of every refused number: `name: expected wanted, got value`."""
    return UserError(f"{name}: expected {wanted}, got {got}")


def reason(error: Exception) -> str:
    """What a stranger's code raised, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextmanager
def no_exit() -> Generator[None]:
    """Where a user's code runs: were it to end the program, the exit code would be its word, not our verdict.

    Raises:
        UserError: it called sys.exit.
    """
    try:
        yield
    except SystemExit as left:
        raise UserError(
            f"your code: expected to return or to raise, got sys.exit({left.code!r}); remove the call"
        ) from left
