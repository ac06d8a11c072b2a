"""The high-pass filter that section Q.1.2 proposes against contrast reduction: FC's complement."""

from dataclasses import dataclass
from typing import ClassVar

from noisychannel.channels import FC
from noisychannel.errors import expected
from noisychannel.types import Gradient, Images

__all__ = ["HighPass"]


@dataclass(frozen=True)
class HighPass:
    """The lowest frequencies are replaced by a grey: C(x) = x − L(x) + g, L = FC(100 − share).

    The mean always goes, so g takes its place: without one a network trained on pixels in [0, 1] would see
    a black picture. What grey is blended in, C drops; that the contrast is lower, no linear filter mends.

    Args:
        share: percent of the spectrum that is dropped, 0 … 100, the lowest frequencies first; 0: the mean alone.
        level: g, in [0, 1].

    Raises:
        UserError: a number out of range.

    Source: paper Q.1.2, which names a high-pass filter and gives no number; details §1 (inverse mask).
    """

    version: ClassVar[int] = 1
    stochastic: ClassVar[bool] = False
    gradients: ClassVar[tuple[Gradient, ...]] = ("exact", "straight_through")
    share: float = 1.0
    level: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 100:
            raise expected("share", "0 … 100 percent", self.share)
        if not 0 <= self.level <= 1:
            raise expected("level", "a number between 0 and 1", self.level)

    def __call__(self, x: Images) -> Images:
        return x - FC(100 - self.share)(x) + self.level

    def identity(self) -> None:
        """None: the mean always goes."""
        return

    def expected_l2(self, shape: tuple[int, ...]) -> None:
        """Unknown: it depends on the image's low frequencies."""
        return
