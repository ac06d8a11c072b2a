"""Adversarial examples made inside the training loop, against the network as it stands."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from noisychannel import rng
from noisychannel.errors import expected
from noisychannel.training.checks import number, whole

__all__ = ["FAST", "Adversarial", "craft"]


@dataclass(frozen=True)
class Adversarial:
    """Train on a mix: (1 − mix)·CE(f(x), y) + mix·CE(f(x_adv), y), x_adv by PGD in an L∞ ball.

    x ← Π(x + step_size·sign ∇CE(f(x), t)), f in eval mode with its noise on, Π onto the ball and [0, 1].

    Args:
        steps: of PGD, ≥ 1.
        epsilon: radius of the ball, pixels in [0, 1].
        step_size: pixels in [0, 1].
        start_epoch: the first epoch with adversarial examples; clean ones only before.
        mix: weight of the adversarial loss, in (0, 1].
        labels: what PGD moves away from: the network's own `predicted` classes (no label leaks
            into the example) or the `true` ones.
        paired: True: every example, clean and adversarial; False: the first half of each batch
            clean and the second adversarial, for less than half of the cost.

    Raises:
        UserError: a number out of range.

    Source: details §5 (defaults: the authors' recipe); paper 4.2, AdvTrain.
    """

    version: ClassVar[int] = 1
    steps: int = 7
    epsilon: float = 0.031
    step_size: float = 0.01
    start_epoch: int = 5
    mix: float = 0.5
    labels: Literal["predicted", "true"] = "predicted"
    paired: bool = True

    def __post_init__(self) -> None:
        checks = (
            ("steps", "a whole number ≥ 1", self.steps, whole(self.steps, 1)),
            ("epsilon", "a number > 0", self.epsilon, number(self.epsilon, 0)),
            ("step_size", "a number > 0", self.step_size, number(self.step_size, 0)),
            ("start_epoch", "a whole number ≥ 0", self.start_epoch, whole(self.start_epoch, 0)),
            ("mix", "a number in (0, 1]", self.mix, number(self.mix, 0) and self.mix <= 1),
            ("labels", "predicted or true", self.labels, self.labels in ("predicted", "true")),
        )
        for name, wanted, got, fine in checks:
            if not fine:
                raise expected(name, wanted, got)


FAST = Adversarial(steps=1, step_size=1.25 * 0.031, start_epoch=0, labels="true", paired=False)
"""FGSM from a random start, one gradient per example, on half of each batch. Source: Wong, Rice & Kolter 2020."""


def craft(module: nn.Module, x: Tensor, y: Tensor, how: Adversarial, stream: rng.Stream) -> Tensor:
    """Adversarial examples (n, …) in [0, 1] against `module`, whose mode and gradients stay as they were."""
    modes = [(m, m.training) for m in module.modules()]
    frozen = [p for p in module.parameters() if p.requires_grad]
    module.eval().requires_grad_(requires_grad=False)
    try:
        return _pgd(module, x, y, how, stream)
    finally:
        for m, training in modes:
            m.training = training
        for p in frozen:
            p.requires_grad_()


def _pgd(module: nn.Module, x: Tensor, y: Tensor, how: Adversarial, stream: rng.Stream) -> Tensor:
    if how.labels == "predicted":
        with torch.no_grad(), rng.bracket(stream.named("predict")):
            y = module(x).argmax(dim=1)
    low, high = (x - how.epsilon).clamp_min(0), (x + how.epsilon).clamp_max(1)
    start = rng.uniform(x, stream.named("start")).mul_(2 * how.epsilon).sub_(how.epsilon)
    point = (x + start).clamp(0, 1)
    for step in range(how.steps):
        leaf = point.detach().requires_grad_()
        with torch.enable_grad(), rng.bracket(stream.named(f"step {step}")):
            loss = functional.cross_entropy(module(leaf), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
        point = torch.clamp(leaf.detach() + how.step_size * gradient.sign(), low, high)
    return point
