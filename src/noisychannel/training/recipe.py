"""How to train, in numbers."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, no_grad

from noisychannel import rng
from noisychannel.channels import Identity
from noisychannel.errors import expected
from noisychannel.training.adversarial import Adversarial
from noisychannel.training.augment import Augment
from noisychannel.training.checks import number, part, whole
from noisychannel.training.schedules import OneCycle, Plateau, Schedule, Steps
from noisychannel.types import Channel

__all__ = [
    "AUTHORS_FCN",
    "AUTHORS_RESNET18",
    "AUTHORS_RESNET20",
    "AUTHORS_VGG16",
    "FAST_RESNET20",
    "Recipe",
    "seen",
]


@dataclass(frozen=True)
class Recipe:
    """Cross-entropy on shuffled batches of one size, behind a channel if there is one.

    Args:
        epochs: passes over the examples, ≥ 1.
        batch_size: examples per step over all devices, ≥ 2 (batch norm needs two); a smaller rest
            is left out of an epoch.
        learning_rate: its peak, > 0.
        weight_decay: ≥ 0; learnt noise scales have none.
        optimizer: `sgd` (Nesterov), `adam` (decay added to the gradient) or `adamw`.
        momentum: of SGD, 0 … 1.
        schedule: the learning rate over the steps.
        label_smoothing: share of the target spread over all classes, 0 … 1.
        augment: random crops and flips; None: images as they are.
        channel: what the network sees its training images through.
        adversarial: adversarial examples in the mix; None: none.
        validation: training examples held out to watch the accuracy, ≥ 0; never of the test set.
        keep: the weights of the `last` epoch, or of the `best` on the held-out examples.
        stop_at: stop after the first epoch with this accuracy on the held-out examples.
        freeze_norm: whether batch norm keeps its statistics (fine-tuning, several devices).

    Raises:
        UserError: a number out of range, a choice by held-out examples where none are, or adversarial
            examples that would never be made, or behind a channel.
    """

    version: ClassVar[int] = 2
    epochs: int = 15
    batch_size: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = 0.9
    schedule: Schedule = OneCycle()
    label_smoothing: float = 0.0
    augment: Augment | None = None
    channel: Channel = Identity()
    adversarial: Adversarial | None = None
    validation: int = 0
    keep: Literal["last", "best"] = "last"
    stop_at: float | None = None
    freeze_norm: bool = False

    def __post_init__(self) -> None:
        smooth, stop = self.label_smoothing, self.stop_at
        checks = (
            ("epochs", "a whole number ≥ 1", self.epochs, whole(self.epochs, 1)),
            ("batch_size", "a whole number ≥ 2", self.batch_size, whole(self.batch_size, 2)),
            ("learning_rate", "a number > 0", self.learning_rate, number(self.learning_rate, 0)),
            ("weight_decay", "a number ≥ 0", self.weight_decay, number(self.weight_decay, least=0)),
            ("momentum", "a number in 0 … 1", self.momentum, _share(self.momentum)),
            ("label_smoothing", "a number in 0 … 1", smooth, _share(smooth)),
            ("validation", "a whole number ≥ 0", self.validation, whole(self.validation, 0)),
            ("stop_at", "a number in (0, 1]", stop, stop is None or (number(stop, 0) and stop <= 1)),
            ("keep", "last or best", self.keep, self.keep in ("last", "best")),
            ("optimizer", "sgd, adam or adamw", self.optimizer,
             self.optimizer in ("sgd", "adam", "adamw")),
            ("schedule", "a schedule, such as OneCycle()", self.schedule,
             part(self.schedule, "factor")),
            ("augment", "Augment() or None", self.augment,
             self.augment is None or part(self.augment, "__call__")),
            ("channel", "a channel, such as Gauss(0.1)", self.channel,
             part(self.channel, "__call__")),
            ("adversarial", "Adversarial() or None", self.adversarial,
             _of(self.adversarial, Adversarial)),
        )  # fmt: skip
        for name, wanted, got, fine in checks:
            if not fine:
                raise expected(name, wanted, got)
        if (how := self.adversarial) is not None:
            if how.start_epoch >= self.epochs:
                wanted = f"below the {self.epochs} epochs, or no adversarial example is ever made"
                raise expected("start_epoch", wanted, how.start_epoch)
            if self.channel != Identity():
                wanted = "none beside adversarial examples, which would be made behind it"
                raise expected("channel", wanted, self.channel)
        if not self.validation and (self.keep == "best" or stop is not None):
            raise expected("validation", "examples held out, since keep or stop_at need them", 0)


def seen(recipe: Recipe, x: Tensor, stream: rng.Stream, done: float) -> Tensor:
    """The images as the network is shown them: augmented, then through the channel.

    Args:
        recipe: what says how.
        x: images (n, …).
        stream: names the draws.
        done: share of the epochs that are over, 0 … 1.
    """
    if recipe.augment is not None:
        x = recipe.augment(x, stream, done)
    named = stream.named("channel")
    with no_grad(), rng.bracket(named), rng.torch_seeded(named.named("torch")):
        return recipe.channel(x)


def _share(value: object) -> bool:
    return number(value, least=0) and not number(value, least=1)


def _of(value: object, kind: type) -> bool:
    """Whether it is one of a kind, or none at all."""
    return value is None or isinstance(value, kind)


FAST_RESNET20 = Recipe(
    epochs=12,
    batch_size=128,
    learning_rate=0.2,
    weight_decay=5e-4,
    schedule=OneCycle(0.2),
    augment=Augment(),
)
"""For hours rather than days on a CPU: one cycle of Nesterov SGD."""

AUTHORS_RESNET20 = Recipe(
    epochs=160,
    batch_size=128,
    learning_rate=0.1,
    weight_decay=3e-4,
    schedule=Steps((80, 120)),
    augment=Augment(),
    validation=5000,
    keep="best",
)
"""The authors' ResNet-20 (details §5). Differs: 1. the best epoch is chosen on held-out training
images, not on the test set."""

AUTHORS_VGG16 = Recipe(
    epochs=450,
    batch_size=128,
    learning_rate=0.1,
    schedule=Steps((150, 250, 350)),
    augment=Augment(),
    validation=5000,
    keep="best",
)
"""The authors' VGG-16 (details §5): stages of 150, 100, 100, 100 epochs. Differs: 1. the best epoch is chosen on
held-out training images, once, where the authors reload the best by test accuracy at each stage; 2. SGD's
momentum is Nesterov's."""

AUTHORS_RESNET18 = Recipe(
    epochs=350,
    batch_size=32,
    learning_rate=0.01,
    weight_decay=5e-4,
    schedule=Plateau(10),
    augment=Augment(),
)
"""The authors' ResNet-18 (details §5). Differs: 1. the last epoch is kept, not the one of least training loss;
2. SGD's momentum is Nesterov's."""

AUTHORS_FCN = Recipe(
    epochs=1000,
    batch_size=32,
    learning_rate=1e-3,
    weight_decay=1e-4,
    optimizer="adam",
    schedule=Plateau(50),
)
"""The authors' network for time series (details §5)."""
