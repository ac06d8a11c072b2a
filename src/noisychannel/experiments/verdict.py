"""Holds, does not hold, undecided: what an interval says of a bound."""

from noisychannel.report.stats import ENOUGH, Estimate

__all__ = ["above", "below", "every", "given", "number", "off"]


def above(estimate: Estimate, bound: float) -> bool | None:
    """True where the whole interval lies above the bound, False where it lies below, else None; of few None."""
    if estimate.n < ENOUGH:
        return None
    if estimate.low > bound:
        return True
    return False if estimate.high < bound else None


def below(estimate: Estimate, bound: float) -> bool | None:
    """True where the whole interval lies below the bound, False where it lies above, else None; of few None."""
    found = above(estimate, bound)
    return None if found is None else not found


def off(estimate: Estimate, constant: float) -> Estimate:
    """The estimate less a constant."""
    value, low, high = (v - constant for v in (estimate.value, estimate.low, estimate.high))
    return estimate._replace(value=value, low=low, high=high)


def every(*verdicts: bool | None) -> bool | None:
    """False where one is, True where all are, else None."""
    if False in verdicts:
        return False
    return None if None in verdicts else True


def given(guard: bool | None, verdict: bool | None) -> bool | None:  # noqa: FBT001  # verdicts, no switches
    """The verdict where the guard surely holds, else None: of what could not be seen nothing is denied either.

    A guard is what has to be so before a sentence can be judged (the network works, the attack breaks the plain one).
    It must not be what the sentence says, nor fail wherever that is false: such a sentence could never be denied.
    """
    return verdict if guard is True else None


def number(estimate: Estimate) -> str:
    """A number that is no percentage, with its interval.

    >>> number(Estimate(0.1234, 0.1, 0.2, 50, "bootstrap"))
    '0.123 [0.1, 0.2]'
    """
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"
