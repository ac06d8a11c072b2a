"""Input perturbations C(x): what a defender lets every image pass before the network sees it."""

from collections.abc import Callable
from typing import Any

from noisychannel.channels.additive import Gauss, Laplace, Uniform
from noisychannel.channels.chain import Chain
from noisychannel.channels.colour_depth import CD
from noisychannel.channels.frequency import FC
from noisychannel.channels.gradient import straight_through, substituted
from noisychannel.channels.plain import Clip, Identity
from noisychannel.channels.svd import SVD
from noisychannel.errors import UserError
from noisychannel.types import Channel

__all__ = [
    "CD",
    "CHANNELS",
    "FC",
    "SVD",
    "Chain",
    "Clip",
    "Gauss",
    "Identity",
    "Laplace",
    "Uniform",
    "parse_channel",
    "straight_through",
    "substituted",
]

CHANNELS: tuple[Channel, ...] = (
    Identity(),
    Clip(),
    FC(50.0),
    CD(4),
    SVD(50.0),
    Gauss(0.1),
    Uniform(0.1),
    Laplace(0.1),
    Chain(Gauss(0.1), Clip()),
)
"""One representative of each."""

_NAMES: dict[str, tuple[Callable[..., Channel], Callable[[str], Any] | None]] = {
    "identity": (Identity, None),
    "clip": (Clip, None),
    "fc": (FC, float),
    "cd": (CD, int),
    "svd": (SVD, float),
    "gauss": (Gauss, float),
    "uniform": (Uniform, float),
    "laplace": (Laplace, float),
}
_FORMS = (
    "gauss:SIGMA, uniform:BOUND, laplace:SCALE, fc:PERCENT, cd:BITS, svd:PERCENT, clip, identity"
)


def parse_channel(text: str) -> Channel:
    """A channel from its name, parts joined by `+`.

    >>> parse_channel("gauss:0.1+clip")
    Chain(Gauss(sigma=0.1), Clip(low=0.0, high=1.0))

    Raises:
        UserError: an unknown name, a missing or malformed number, or one out of range.
    """
    parts = [_parse_one(part, text) for part in text.split("+")]
    return parts[0] if len(parts) == 1 else Chain(*parts)


def _parse_one(text: str, whole: str) -> Channel:
    name, colon, number = text.strip().lower().partition(":")
    if name not in _NAMES:
        raise UserError(f"channel: expected one of {_FORMS} (joined by +), got {whole!r}")
    make, convert = _NAMES[name]
    if convert is None:
        if colon:
            raise UserError(f"channel: expected {name} without a number, got {whole!r}")
        return make()
    try:
        value = convert(number)
    except ValueError:
        kind = "a whole number" if convert is int else "a number"
        example = {"fc": "fc:60", "cd": "cd:4", "svd": "svd:50"}.get(name, f"{name}:0.1")
        raise UserError(
            f"channel: expected {kind} after '{name}:', as in {example}, got {whole!r}"
        ) from None
    return make(value)
