"""ResNet-20 for 32 × 32 images, and the paper authors' trained ones."""

from dataclasses import dataclass
from typing import ClassVar, Literal, no_type_check

from torch import Tensor, nn
from torch.nn import functional

from noisychannel.errors import expected
from noisychannel.networks.normalize import normalized
from noisychannel.networks.spec import Checkpoint, Deterministic, Names, build, check_sizes

__all__ = ["AUTHORS_NAMES", "CifarResNet", "ResNet20", "Shortcut", "authors_resnet20"]

Shortcut = Literal["append", "split"]

AUTHORS_NAMES: Names = (
    (r"conv_1_3x3\.", "stem."),
    (r"bn_1\.", "stem_norm."),
    (r"stage_(\d)\.(\d)\.conv_a\.", r"stage\1.\2.first."),
    (r"stage_(\d)\.(\d)\.bn_a\.", r"stage\1.\2.first_norm."),
    (r"stage_(\d)\.(\d)\.conv_b\.", r"stage\1.\2.second."),
    (r"stage_(\d)\.(\d)\.bn_b\.", r"stage\1.\2.second_norm."),
)
"""Tensor names of the paper authors' ResNet-20 (after PNI's), to ours."""


@dataclass(frozen=True)
class ResNet20(Deterministic):
    """ResNet-20: 3 × 3 stem, three stages of three blocks of 16, 32, 64 filters, parameter-free shortcuts.

    Args:
        classes: number of classes.
        channels: colours of the input.
        shortcut: where a stage halves the image, the shortcut takes every second pixel and adds
            all-zero channels: `append` all of them after the existing ones (as the paper's authors
            and PNI), `split` half before and half after (as most others).
        mean: normalisation, one number per colour; empty: none.
        std: normalisation, one number per colour; empty: none.
        checkpoint: stored weights; None: initial weights.
        seed: name of the initial weights.

    Source: He et al. 2016, §4.2, option A.
    """

    version: ClassVar[int] = 1
    classes: int = 10
    channels: int = 3
    shortcut: Shortcut = "append"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    checkpoint: Checkpoint | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_sizes(classes=self.classes, channels=self.channels)
        if self.shortcut not in ("append", "split"):
            raise expected("shortcut", "append or split", repr(self.shortcut))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example, for a probe."""
        return (self.channels, 32, 32)

    def build(self) -> nn.Module:
        """The network, in eval mode."""
        return build(lambda: CifarResNet(self), self.checkpoint, self.seed)


def authors_resnet20(name: str) -> ResNet20:
    """The paper authors' ResNet-20 of this name in `$NOISYCHANNEL_WEIGHTS`, e.g. `cifar10-resnet20-plain`.

    Input in [0, 1], not normalised. Source: details §4; weights/README.
    """
    return ResNet20(checkpoint=Checkpoint(name, AUTHORS_NAMES))


class CifarResNet(nn.Module):
    """The module of `ResNet20`."""

    def __init__(self, spec: ResNet20) -> None:
        super().__init__()
        self.normalize = normalized(spec.mean, spec.std)
        self.stem = _conv3x3(spec.channels, 16)
        self.stem_norm = nn.BatchNorm2d(16)
        self.stage1 = _stage(16, 16, spec.shortcut)
        self.stage2 = _stage(16, 32, spec.shortcut)
        self.stage3 = _stage(32, 64, spec.shortcut)
        self.classifier = nn.Linear(64, spec.classes)
        nn.init.kaiming_normal_(self.classifier.weight)

    @no_type_check  # the tests' type checker would refuse the proxy that `prepare` traces with
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem_norm(self.stem(self.normalize(x))))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.classifier(x.mean(dim=(2, 3)))


class _Block(nn.Module):
    """relu(x' + bn(conv(relu(bn(conv(x)))))), x' = x or x at every second pixel with zero channels."""

    def __init__(self, before: int, after: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.stride = 1 if before == after else 2
        extra = after - before
        self.padding = (0, extra) if shortcut == "append" else (extra // 2, extra - extra // 2)
        self.first = _conv3x3(before, after, self.stride)
        self.first_norm = nn.BatchNorm2d(after)
        self.second = _conv3x3(after, after)
        self.second_norm = nn.BatchNorm2d(after)

    @no_type_check  # the tests' type checker would refuse the proxy that `prepare` traces with
    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        if self.stride != 1:
            kept = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(kept, (0, 0, 0, 0, *self.padding))
        return functional.relu(x + y)


def _stage(before: int, after: int, shortcut: Shortcut) -> nn.Sequential:
    return nn.Sequential(
        _Block(before, after, shortcut),
        _Block(after, after, shortcut),
        _Block(after, after, shortcut),
    )


def _conv3x3(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
