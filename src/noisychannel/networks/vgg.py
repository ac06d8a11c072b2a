"""The paper authors' VGG-16 with batch norm for 32 × 32 images."""

from dataclasses import dataclass
from typing import ClassVar, no_type_check

from torch import Tensor, nn

from noisychannel.networks.normalize import normalized
from noisychannel.networks.spec import Pictures, build

__all__ = ["VGG16", "AuthorsVGG"]

_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""Filters of each convolution; 0: a max-pool that halves the image."""


@dataclass(frozen=True)
class VGG16(Pictures):
    """VGG-16: thirteen 3 × 3 convolutions with batch norm, five max-pools, and one linear layer.

    Initial weights: N(0, 0.02²) in convolutions and in the linear layer, N(1, 0.02²) in batch norms;
    biases 0. Tensor names are torchvision's `features.N`, then `classifier`.

    Args:
        classes: number of classes.
        channels: colours of the input, of any height and width ≥ 32.
        mean: normalisation, one number per colour; empty: none.
        std: normalisation, one number per colour; empty: none.
        checkpoint: stored weights; None: initial weights.
        seed: name of the initial weights.

    Source: Simonyan and Zisserman 2015, configuration D; details §4.
    Differs: 1. the average over the last map, which for 32 × 32 is one pixel, in place of AvgPool(1).
    """

    version: ClassVar[int] = 1

    def build(self) -> nn.Module:
        """The network, in eval mode."""
        return build(lambda: AuthorsVGG(self), self.checkpoint, self.seed)


class AuthorsVGG(nn.Module):
    """The module of `VGG16`."""

    def __init__(self, spec: VGG16) -> None:
        super().__init__()
        self.normalize = normalized(spec.mean, spec.std)
        self.features = nn.Sequential(*_layers(spec.channels))
        self.classifier = nn.Linear(512, spec.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                nn.init.normal_(module.weight, float(isinstance(module, nn.BatchNorm2d)), 0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    @no_type_check  # the tests' type checker would refuse the proxy that `prepare` traces with
    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(self.normalize(x)).mean(dim=(2, 3)))


def _layers(channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width in _WIDTHS:
        if width:
            conv = nn.Conv2d(channels, width, 3, padding=1)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    return layers
