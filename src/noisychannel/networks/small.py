"""A small convolutional network that learns the digits in seconds."""

from dataclasses import dataclass
from typing import ClassVar, no_type_check

from torch import Tensor, nn
from torch.nn import functional

from noisychannel.networks.normalize import normalized
from noisychannel.networks.spec import Checkpoint, Deterministic, build, check_sizes

__all__ = ["SmallConvNet", "SmallNet"]


@dataclass(frozen=True)
class SmallNet(Deterministic):
    """Three 3 × 3 convolutions with batch norm (the second of stride 2), global average, linear.

    Args:
        classes: number of classes.
        channels: colours of the input, of any height and width ≥ 4.
        width: filters of the first convolution; the others have twice as many.
        mean: normalisation, one number per colour; empty: none.
        std: normalisation, one number per colour; empty: none.
        checkpoint: stored weights; None: initial weights.
        seed: name of the initial weights.
    """

    version: ClassVar[int] = 1
    classes: int = 10
    channels: int = 1
    width: int = 32
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    checkpoint: Checkpoint | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(classes=self.classes, channels=self.channels, width=self.width)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, for a probe."""
        return (self.channels, 8, 8)

    def build(self) -> nn.Module:
        """The network, in eval mode."""
        return build(lambda: SmallConvNet(self), self.checkpoint, self.seed)


class SmallConvNet(nn.Module):
    """The module of `SmallNet`."""

    def __init__(self, spec: SmallNet) -> None:
        super().__init__()
        w = spec.width
        self.normalize = normalized(spec.mean, spec.std)
        self.conv1 = nn.Conv2d(spec.channels, w, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(w)
        self.conv2 = nn.Conv2d(w, 2 * w, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * w)
        self.conv3 = nn.Conv2d(2 * w, 2 * w, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(2 * w)
        self.classifier = nn.Linear(2 * w, spec.classes)

    @no_type_check  # the tests' type checker would refuse the proxy that `prepare` traces with
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm1(self.conv1(self.normalize(x))))
        x = functional.relu(self.norm2(self.conv2(x)))
        x = functional.relu(self.norm3(self.conv3(x)))
        return self.classifier(x.mean(dim=(2, 3)))
