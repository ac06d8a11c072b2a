"""What a number of a recipe must be, said of anything that may come instead of one."""

import math
from numbers import Integral, Real

__all__ = ["number", "part", "whole"]


def whole(value: object, least: int) -> bool:
    """Whether it is a whole number that is large enough."""
    return isinstance(value, Integral) and int(value) >= least


def number(value: object, above: float = -math.inf, *, least: float = -math.inf) -> bool:
    """Whether it is a finite number > `above` and ≥ `least`."""
    if not isinstance(value, Real) or not math.isfinite(value):
        return False
    return above < float(value) and least <= float(value)


def part(value: object, method: str) -> bool:
    """Whether it is an object with a method; a class, which somebody forgot to call, is none."""
    return callable(getattr(value, method, None)) and not isinstance(value, type)
