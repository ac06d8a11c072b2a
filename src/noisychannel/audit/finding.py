"""What one check of an audit found."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Status"]

Status = Literal["pass", "warn", "fail", "not run"]


@dataclass(frozen=True)
class Finding:
    """One check, what became of it, and why.

    Args:
        name: of the check, lower case with hyphens; the same in every audit.
        status: `pass`; `warn`: the numbers stand, with this beside them; `fail`: they do not; `not run`.
        evidence: one sentence with the numbers that decided, or with the reason why it was not run.
        mend: what the defense's author does about it; empty where nothing is to be done.
    """

    name: str
    status: Status
    evidence: str
    mend: str = ""
