"""The fully convolutional network for time series."""

from dataclasses import dataclass
from typing import ClassVar, no_type_check

from torch import Tensor, nn
from torch.nn import functional

from noisychannel.networks.normalize import normalized
from noisychannel.networks.spec import Checkpoint, Deterministic, build, check_sizes

__all__ = ["FCN", "SeriesNet"]


@dataclass(frozen=True)
class FCN(Deterministic):
    """Three convolutions over time (128, 256, 128 filters of 8, 5, 3 steps), average over time, linear.

    Each keeps the length ('same' padding with zeros, after the normalisation) and is followed by
    batch norm and ReLU. Input: series (n, c, l) in [0, 1] of any length ≥ 1; `mean` and `std` bring
    them back to the units in which they were measured. Defaults are ECG5000's.

    Args:
        classes: number of classes.
        channels: series per example.
        length: time steps of an example; used only for probes, the network takes any.
        mean: normalisation, one number per channel; empty: none.
        std: normalisation, one number per channel; empty: none.
        checkpoint: stored weights; None: initial weights.
        seed: name of the initial weights.

    Source: Wang et al. 2017, §II.B; details §4.
    Differs: 1. logits, not log-softmax; 2. torch's initial weights and batch norm, not Keras's.
    """

    version: ClassVar[int] = 1
    classes: int = 5
    channels: int = 1
    length: int = 140
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    checkpoint: Checkpoint | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(classes=self.classes, channels=self.channels, length=self.length)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, for a probe."""
        return (self.channels, self.length)

    def build(self) -> nn.Module:
        """The network, in eval mode."""
        return build(lambda: SeriesNet(self), self.checkpoint, self.seed)


class SeriesNet(nn.Module):
    """The module of `FCN`."""

    def __init__(self, spec: FCN) -> None:
        super().__init__()
        self.normalize = normalized(spec.mean, spec.std)
        self.conv1 = nn.Conv1d(spec.channels, 128, 8, padding=3)
        self.norm1 = nn.BatchNorm1d(128)
        self.conv2 = nn.Conv1d(128, 256, 5, padding=2)
        self.norm2 = nn.BatchNorm1d(256)
        self.conv3 = nn.Conv1d(256, 128, 3, padding=1)
        self.norm3 = nn.BatchNorm1d(128)
        self.classifier = nn.Linear(128, spec.classes)

    @no_type_check  # the tests' type checker would refuse the proxy that `prepare` traces with
    def forward(self, x: Tensor) -> Tensor:
        # An even filter needs 3 zeros before and 4 after; torch's own padding="same" warns of it.
        x = functional.pad(self.normalize(x), (0, 1))
        x = functional.relu(self.norm1(self.conv1(x)))
        x = functional.relu(self.norm2(self.conv2(x)))
        x = functional.relu(self.norm3(self.conv3(x)))
        return self.classifier(x.mean(dim=2))
