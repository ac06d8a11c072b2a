"""How reports say a budget, a difference, a count."""

from pathlib import Path

from noisychannel.audit.request import Request
from noisychannel.data import Dataset, DataSpec
from noisychannel.norms import L2, Linf
from noisychannel.report.stats import Estimate

__all__ = ["budget_words", "counted", "data_words", "norm_words", "points", "short"]


def data_words(data: Dataset) -> str:
    """Which examples; of a folder its last name alone, since pages travel."""
    name = Path(data.name).name if Path(data.name).is_absolute() else data.name
    split = f" {data.split}" if isinstance(data, DataSpec) else ""
    part = "" if data.part is None else f", {data.part[0]} to {data.part[1] - 1} of these"
    return f"{name}{split}, {data.subset}{part}"


def norm_words(norm: L2 | Linf) -> str:
    """`L∞` or `L2`."""
    return "L∞" if norm == Linf() else "L2"


def budget_words(request: Request) -> str:
    """The attacker's budget, e.g. `L∞ ≤ 0.0314 (8/255)`."""
    levels = 255 * request.epsilon
    whole = request.norm == Linf() and abs(levels - round(levels)) < 1e-6
    grey = f" ({levels:.0f}/255)" if whole else ""
    return f"{norm_words(request.norm)} ≤ {request.epsilon:.4g}{grey}"


def points(difference: Estimate) -> str:
    """A difference of two accuracies, in points, with its interval."""
    value, low, high = (100 * v + 0.0 for v in difference[:3])
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def short(estimate: Estimate) -> str:
    """In percent with the interval, without the sign: for narrow columns."""
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}–{100 * estimate.high:.1f}]"


def counted(number: float, noun: str) -> str:
    """`1 draw`, `1,200 draws`."""
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"
