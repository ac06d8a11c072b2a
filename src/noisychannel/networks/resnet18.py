"""The paper authors' ResNet-18 for 32 × 32 images."""

from dataclasses import dataclass
from typing import ClassVar, no_type_check

from torch import Tensor, nn
from torch.nn import functional

from noisychannel.networks.normalize import normalized
from noisychannel.networks.spec import Pictures, build

__all__ = ["AuthorsResNet", "ResNet18"]


@dataclass(frozen=True)
class ResNet18(Pictures):
    """ResNet-18 with a 3 × 3 stem of stride 1 and, all the same, the 3 × 3 max-pool of stride 2.

    Tensor names (behind the normalising layer, which has none) are torchvision's.

    Args:
        classes: number of classes.
        channels: colours of the input.
        mean: normalisation, one number per colour; empty: none.
        std: normalisation, one number per colour; empty: none.
        checkpoint: stored weights; None: initial weights.
        seed: name of the initial weights.

    Source: He et al. 2016; details §4.
    """

    version: ClassVar[int] = 1

    def build(self) -> nn.Module:
        """The network, in eval mode."""
        return build(lambda: AuthorsResNet(self), self.checkpoint, self.seed)


class AuthorsResNet(nn.Module):
    """The module of `ResNet18`."""

    def __init__(self, spec: ResNet18) -> None:
        super().__init__()
        self.normalize = normalized(spec.mean, spec.std)
        self.conv1 = _conv(spec.channels, 64, 3)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_Block(64, 64), _Block(64, 64))
        self.layer2 = nn.Sequential(_Block(64, 128), _Block(128, 128))
        self.layer3 = nn.Sequential(_Block(128, 256), _Block(256, 256))
        self.layer4 = nn.Sequential(_Block(256, 512), _Block(512, 512))
        self.fc = nn.Linear(512, spec.classes)

    @no_type_check  # the tests' type checker would refuse the proxy that `prepare` traces with
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(self.normalize(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.maxpool(x)))))
        return self.fc(x.mean(dim=(2, 3)))


class _Block(nn.Module):
    """relu(x' + bn(conv(relu(bn(conv(x)))))), x' = x, or bn(conv 1 × 1 (x)) where the width doubles."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1 = _conv(before, after, 3, stride)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = _conv(after, after, 3)
        self.bn2 = nn.BatchNorm2d(after)
        projection = (_conv(before, after, 1, stride), nn.BatchNorm2d(after))
        self.downsample = nn.Sequential(*(() if before == after else projection))

    @no_type_check  # the tests' type checker would refuse the proxy that `prepare` traces with
    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.downsample(x))


def _conv(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
