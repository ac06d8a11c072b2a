"""ResNet-50 for ImageNet, and the public trained one."""

from dataclasses import dataclass
from typing import ClassVar, no_type_check

from torch import Tensor, nn
from torch.nn import functional

from noisychannel.networks.normalize import normalized
from noisychannel.networks.spec import Checkpoint, Deterministic, build, check_sizes

__all__ = ["Bottlenecks", "ResNet50", "imagenet_resnet50"]


@dataclass(frozen=True)
class ResNet50(Deterministic):
    """ResNet-50, v1.5: bottlenecks of 1 × 1, 3 × 3, 1 × 1, in which the 3 × 3 has the stride.

    Tensor names (behind the normalising layer, which has none) are torchvision's and timm's. Input:
    RGB of any height and width ≥ 32; trained ones want 224 × 224.

    Args:
        classes: number of classes.
        mean: normalisation, one number per colour; empty: none. Default: ImageNet's.
        std: normalisation, one number per colour; empty: none. Default: ImageNet's.
        checkpoint: stored weights; None: initial weights.
        seed: name of the initial weights.

    Source: He et al. 2016, table 1.
    Differs: 1. the stride is in the 3 × 3 instead of the first 1 × 1, as in torchvision.
    """

    version: ClassVar[int] = 1
    classes: int = 1000
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    checkpoint: Checkpoint | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(classes=self.classes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, for a probe."""
        return (3, 224, 224)

    def build(self) -> nn.Module:
        """The network, in eval mode."""
        return build(lambda: Bottlenecks(self), self.checkpoint, self.seed)


def imagenet_resnet50() -> ResNet50:
    """ResNet-50 with torchvision's first ImageNet weights (`IMAGENET1K_V1`, 76.13 % top-1).

    They come from the hub, where timm keeps them under the same names.
    """
    return ResNet50(checkpoint=Checkpoint("hub:timm/resnet50.tv_in1k"))


class Bottlenecks(nn.Module):
    """The module of `ResNet50`."""

    def __init__(self, spec: ResNet50) -> None:
        super().__init__()
        self.normalize = normalized(spec.mean, spec.std)
        self.conv1 = _conv(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)
        self.fc = nn.Linear(2048, spec.classes)

    @no_type_check  # the tests' type checker would refuse the proxy that `prepare` traces with
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(self.normalize(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.maxpool(x)))))
        return self.fc(x.mean(dim=(2, 3)))


class _Bottleneck(nn.Module):
    """relu(x' + y), y = x through three convolutions, x' = x or, in a stage's first block, bn(conv 1 × 1 (x))."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.conv1 = _conv(before, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, after, 1)
        self.bn3 = nn.BatchNorm2d(after)
        projection = () if before == after else (_conv(before, after, 1, stride), nn.BatchNorm2d(after))  # fmt: skip
        self.downsample = nn.Sequential(*projection)

    @no_type_check  # the tests' type checker would refuse the proxy that `prepare` traces with
    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def _stage(before: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = (_Bottleneck(4 * width, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(_Bottleneck(before, width, stride), *rest)


def _conv(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
