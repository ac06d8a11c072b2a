"""The peak of accuracy over the levels of a channel: what is answered there, and how far it lies from others' peaks."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from noisychannel.report.stats import LEVEL, RESAMPLES, Estimate, correct_matrix

__all__ = ["Levels", "spread"]

_AT_ONCE = 100  # resamples whose weights are held in memory together


class Levels:
    """A channel at several strengths, before the same images."""

    def __init__(self, draws: Sequence[pa.Table]) -> None:
        """Takes one table of draws per strength."""
        self._draws = draws
        self.right = np.stack([correct_matrix(t).double().mean(dim=1).numpy() for t in draws])
        """Share of right answers (levels, n)."""
        self.lengths = np.stack([_per_image(t, "defended_l2") for t in draws])
        """Mean L2 of what the network saw from the original (levels, n)."""

    @property
    def peak(self) -> float:
        """The mean L2 at which most is answered rightly."""
        return float(self.lengths[self.right.mean(axis=1).argmax()].mean())

    def at_peak(self) -> pa.Table:
        """Answers at the peak, which for each half of the images is the other half's.

        The greatest of many accuracies, of the images that it is the greatest for, would be luck.
        """
        return pa.concat_tables(
            _half(self._draws[int(self.right[:, 1 - half :: 2].mean(axis=1).argmax())], half)
            for half in (0, 1)
        )


def spread(channels: Sequence[Levels], *, seed: int = 0) -> Estimate:
    """The greatest mean L2 of the channels' peaks over the least.

    Where a curve is flat its peak may be at several levels, and a greatest of such would be far from the least by
    chance. So each channel's peak is sought anew in every resample of the images, which gives it an interval, all of
    them together at 95 %; the ratio lies between what they allow at least and at most.

    Args:
        channels: before the same images.
        seed: of the bootstrap.

    Source: Bonferroni (intervals that hold together).
    """
    n = channels[0].right.shape[1]
    generator = np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for _ in range(0, RESAMPLES, _AT_ONCE):
        weights = generator.multinomial(n, np.full(n, 1 / n), size=_AT_ONCE) / n
        found.append(np.stack([_sought(c, weights) for c in channels]))
    tail = (1 - LEVEL) / 2 / len(channels)
    low, high = np.quantile(np.concatenate(found, axis=1), [tail, 1 - tail], axis=1)
    peaks = [c.peak for c in channels]
    value = max(peaks) / min(peaks)
    least, most = max(1.0, low.max() / high.min()), high.max() / low.min()
    return Estimate(value, min(value, float(least)), max(value, float(most)), n, "bootstrap")


def _sought(levels: Levels, weights: np.ndarray) -> np.ndarray:
    """Mean L2 at the peak of each resample (resamples,)."""
    best = (weights @ levels.right.T).argmax(axis=1)
    return (weights @ levels.lengths.T)[np.arange(len(best)), best]


def _per_image(draws: pa.Table, column: str) -> np.ndarray:
    """Mean over an image's draws, by index."""
    _, place = np.unique(draws["index"].to_numpy(), return_inverse=True)
    return np.bincount(place, draws[column].to_numpy()) / np.bincount(place)


def _half(draws: pa.Table, which: int) -> pa.Table:
    """The rows of every second image, by index."""
    _, place = np.unique(draws["index"].to_numpy(), return_inverse=True)
    return draws.filter(pa.array(place % 2 == which))
