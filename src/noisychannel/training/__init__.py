"""Training of networks: recipes in numbers, one loop."""

from noisychannel.training.adversarial import FAST, Adversarial
from noisychannel.training.augment import Augment
from noisychannel.training.checkpoint import Epoch
from noisychannel.training.fit import fit
from noisychannel.training.loop import Fitted, Tick, Watch
from noisychannel.training.recipe import (
    AUTHORS_FCN,
    AUTHORS_RESNET18,
    AUTHORS_RESNET20,
    AUTHORS_VGG16,
    FAST_RESNET20,
    Recipe,
)
from noisychannel.training.schedules import SCHEDULES, OneCycle, Plateau, Schedule, Steps

__all__ = [
    "AUTHORS_FCN",
    "AUTHORS_RESNET18",
    "AUTHORS_RESNET20",
    "AUTHORS_VGG16",
    "FAST",
    "FAST_RESNET20",
    "SCHEDULES",
    "Adversarial",
    "Augment",
    "Epoch",
    "Fitted",
    "OneCycle",
    "Plateau",
    "Recipe",
    "Schedule",
    "Steps",
    "Tick",
    "Watch",
    "fit",
]
