"""Classifiers: ours by name, anybody's by wrapping; all take pixels in [0, 1] and give logits."""

from noisychannel.networks.fcn import FCN
from noisychannel.networks.foreign import Foreign
from noisychannel.networks.normalize import Normalize
from noisychannel.networks.opaque import Opaque
from noisychannel.networks.prepare import prepare
from noisychannel.networks.resnet18 import ResNet18
from noisychannel.networks.resnet50 import ResNet50, imagenet_resnet50
from noisychannel.networks.resnet_cifar import AUTHORS_NAMES, ResNet20, authors_resnet20
from noisychannel.networks.small import SmallNet
from noisychannel.networks.spec import Checkpoint
from noisychannel.networks.vgg import VGG16
from noisychannel.types import Network

__all__ = [
    "AUTHORS_NAMES",
    "FCN",
    "NETWORKS",
    "VGG16",
    "Checkpoint",
    "Foreign",
    "Normalize",
    "Opaque",
    "ResNet18",
    "ResNet20",
    "ResNet50",
    "SmallNet",
    "authors_resnet20",
    "imagenet_resnet50",
    "prepare",
]

NETWORKS: tuple[Network, ...] = (SmallNet(), ResNet20(), ResNet18(), ResNet50(), VGG16(), FCN())
"""One representative of each architecture of ours."""
