"""What the paper's ImageNet figures run on: the real one with a ResNet-50, a sample of it, or digits in their place."""

from dataclasses import dataclass, replace
from typing import ClassVar, no_type_check

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from noisychannel.data import DataSpec
from noisychannel.errors import CheckpointError, DataError
from noisychannel.experiments.setting import Scale, Setting
from noisychannel.interop.authors import IMAGENET, table1_channels, table3_channels
from noisychannel.networks import Checkpoint, Normalize, imagenet_resnet50
from noisychannel.networks.spec import Deterministic, build
from noisychannel.types import Channel

__all__ = ["MISSING", "WORDS", "SqueezeNet", "imagenet", "six_channels"]

WORDS: dict[Scale, str] = {
    "smoke": "STAND-IN for ImageNet: digits (8 × 8, scikit-learn), small network trained on the spot",
    "desk": "STAND-IN for ImageNet: images of its 114-image sample (imagenet_sample, probably training images) with "
    "SqueezeNet 1.1 (60.9 % top-1), not the validation set with ResNet-50",
    "paper": "ImageNet validation images, ResNet-50 of the hub (timm/resnet50.tv_in1k, 76.13 % top-1)",
}
"""Data and network of each scale, as figures and tables say them."""

MISSING: dict[Scale, str] = {
    "smoke": "",
    "desk": "imagenet_sample in $NOISYCHANNEL_DATA and imagenet/squeezenet1_1_fp16.npz in $NOISYCHANNEL_WEIGHTS",
    "paper": "a folder imagenet in $NOISYCHANNEL_DATA with validation images of all 1,000 classes "
    "(imagenet/val/WNID/*.JPEG, or Parquet files), and the hub for ResNet-50",
}
"""What has to be there where a scale is not run."""


@dataclass(frozen=True)
class SqueezeNet(Deterministic):
    """SqueezeNet 1.1 for ImageNet with stored weights: two megabytes, so that ImageNet's path can be gone offline.

    Eight fire modules (1 × 1 squeeze, then 1 × 1 and 3 × 3 side by side), 1 × 1 convolution to 1,000 classes, average.
    Input: RGB 224 × 224 in [0, 1].

    Args:
        checkpoint: an `.npz` with the tensor names of torchvision's state dict, for pixels 0 … 255 less a mean;
            None: initial weights.

    Source: Iandola et al. 2016, and its release 1.1.
    """

    version: ClassVar[int] = 1
    checkpoint: Checkpoint | None = Checkpoint("imagenet/squeezenet1_1_fp16.npz")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, for a probe."""
        return (3, 224, 224)

    def build(self) -> nn.Module:
        """The network, in eval mode."""
        module = build(_Squeezed, None, 0)
        if self.checkpoint is not None:
            with np.load(self.checkpoint.path()) as stored:
                tensors = {n: torch.from_numpy(stored[n].astype(np.float32)) for n in stored.files}
            module.load_state_dict(tensors)
        return module


class _Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize((123 / 255, 117 / 255, 104 / 255), (1 / 255,) * 3)

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, stride=2, ceil_mode=True)

        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool(),
            _Fire(64, 16, 64), _Fire(128, 16, 64), pool(),
            _Fire(128, 32, 128), _Fire(256, 32, 128), pool(),
            _Fire(256, 48, 192), _Fire(384, 48, 192), _Fire(384, 64, 256), _Fire(512, 64, 256),
        )  # fmt: skip
        # Dropout's place: torchvision's names count it.
        self.classifier = nn.Sequential(nn.Identity(), nn.Conv2d(512, 1000, 1), nn.ReLU())

    @no_type_check  # the tests' type checker would refuse the proxy that `prepare` traces with
    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(self.normalize(x))).mean(dim=(2, 3))


class _Fire(nn.Module):
    """relu(s) through 1 × 1 and 3 × 3 side by side, s = 1 × 1 (x)."""

    def __init__(self, before: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    @no_type_check
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return torch.cat(
            [functional.relu(self.expand1x1(x)), functional.relu(self.expand3x3(x))], dim=1
        )


def imagenet(setting: Setting) -> Setting | None:
    """The setting with ImageNet's data, network and units; None where its files are not at hand.

    At `smoke` it is the setting itself. An `imagefolder` numbers its classes by the sorted names of their folders,
    as the network does: all 1,000 must be there.
    """
    if setting.scale == "smoke":
        return setting
    assert isinstance(setting.data, DataSpec)
    real = setting.scale == "paper"
    name, split = ("imagenet", "validation") if real else ("imagenet_sample", "test")
    # The usual preprocessing: shorter side 256, centre of 224 × 224.
    data = DataSpec(name, split, setting.data.subset, resize=256, crop=224)
    network = imagenet_resnet50() if real else SqueezeNet()
    assert network.checkpoint is not None
    try:
        assert data.size
        network.checkpoint.path()
    except (DataError, CheckpointError):
        return None
    words = WORDS[setting.scale]
    return replace(setting, data=data, network=network, words=words, units=IMAGENET)


def six_channels(where: Setting) -> dict[str, Channel]:
    """Table 3's channels; at `smoke` those of Table 1 (Gauss .03, not .04), whose crafts are then Table 3's too."""
    return table1_channels(where.units) if where.scale == "smoke" else table3_channels()
