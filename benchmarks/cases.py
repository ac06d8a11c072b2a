"""What is timed: each attack of ours with its peers, its measure of quality, and the ratio it is meant to reach."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import peers
import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.attacks import APGD, DDN, FMN, MIFGSM, PGD, Boundary, CarliniWagner, FixedConstant
from noisychannel.attacks.gradient import random_start
from noisychannel.channels import Gauss
from noisychannel.data import DataSpec
from noisychannel.decision import Vote
from noisychannel.defenses import Defense
from noisychannel.networks import SmallNet, authors_resnet20
from noisychannel.norms import Linf
from noisychannel.threats import Threat, adaptive, non_adaptive
from noisychannel.training import Recipe, fit
from noisychannel.types import Adversarials, Attack, Batch, View

__all__ = ["Case", "Given", "Mine", "cases", "gradient_attacks", "network_and_images"]

# Noise of the size at which the paper's Gauss channel recovers most labels on CIFAR-10.
SIGMA = 0.03


class Given:
    """A built module as a network part."""

    stochastic = False
    keyed = True
    weights = "fixed"
    shape = (3, 32, 32)

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def build(self) -> nn.Module:
        return self.module


def plainly(module: nn.Module) -> Threat:
    """The bare network."""
    return non_adaptive(Defense(Given(module)))


@dataclass(frozen=True)
class Mine:
    """One attack of ours, and what it is asked to reach.

    Args:
        attack: ours.
        goals: peer → ratio peer/ours that the project asks for; the keys are the peers it is held beside.
        threat: what it attacks, made from the network.
        gradient: whether its evaluations are gradients (else forwards).
    """

    attack: Callable[[View, Batch], Adversarials]
    goals: dict[str, float | None]
    threat: Callable[[nn.Module], Threat] = plainly
    gradient: bool = True


@dataclass(frozen=True)
class Case:
    """Attacks of ours and of peers that run in turns: one row for each of ours beside each of its peers.

    Args:
        ours: name of the row → ours.
        peers: name → their run.
        quality: `share fooled` or `median L2`.
        on_ours: whether the peers are timed on our prepared network too.
        images: on so many only, where a peer is too slow for all; 0: all.
    """

    name: str
    ours: dict[str, Mine]
    peers: dict[str, peers.Run]
    quality: str
    on_ours: bool = True
    images: int = 0


def cases(batch: Batch) -> list[Case]:
    """In the order of the table."""
    start = random_start(Linf(), batch.x, peers.EPSILON, batch.index, 0)
    found = [_pgd(start), _eot(start), _ddn(), _cw(), _boundary(batch)]
    return found if peers.missing("art") else [*found, _art_cw()]


def _pgd(start: Tensor) -> Case:
    pgd = PGD(Linf(), epsilon=peers.EPSILON, steps=40, step_size=peers.STEP, keep="last")
    leaving = PGD(Linf(), epsilon=peers.EPSILON, steps=40, step_size=peers.STEP, stop_early=True)
    theirs: dict[str, peers.Run] = {"foolbox": peers.foolbox_pgd(start)}
    if not peers.missing("torchattacks"):
        theirs["torchattacks"] = peers.torchattacks_pgd
    if not peers.missing("art"):
        theirs["ART"] = peers.art_pgd
    goals = {name: None if name == "ART" else 1.6 for name in theirs}
    ours = {"pgd-40": Mine(pgd, goals), "pgd-40, won examples leave": Mine(leaving, goals)}
    return Case("pgd-40", ours, theirs, "share fooled")


def _eot(start: Tensor) -> Case:
    pgd = PGD(Linf(), epsilon=peers.EPSILON, steps=20, step_size=peers.STEP, keep="last")
    leaving = PGD(Linf(), epsilon=peers.EPSILON, steps=20, step_size=peers.STEP, stop_early=True)
    theirs: dict[str, peers.Run] = {"foolbox EOT": peers.foolbox_eot(start, SIGMA, 10, 20)}
    if not peers.missing("torchattacks"):
        theirs["torchattacks EOTPGD"] = peers.torchattacks_eot(SIGMA, 10, 20)

    def mean_logit(m: nn.Module) -> Threat:
        return adaptive(Defense(Given(m), Gauss(SIGMA)), draws=10, averaged="mean_logit")

    def mean_loss(m: nn.Module) -> Threat:
        return adaptive(Defense(Given(m), Gauss(SIGMA)), draws=10)

    def until_voted(m: nn.Module) -> Threat:
        return adaptive(Defense(Given(m), Gauss(SIGMA), Vote(16)), draws=10, success="rule")

    # foolbox's wrapper averages logits, torchattacks the gradients of the loss, which is our default.
    by_loss: dict[str, float | None] = dict.fromkeys(set(theirs) - {"foolbox EOT"})
    ours = {
        "eot-pgd 20 x 10, mean logit": Mine(pgd, {"foolbox EOT": 2.0}, mean_logit),
        "eot-pgd 20 x 10, mean loss": Mine(pgd, {"foolbox EOT": 2.0} | by_loss, mean_loss),
        "eot-pgd 20 x 10, until voted": Mine(leaving, {"foolbox EOT": 2.0} | by_loss, until_voted),
    }
    return Case("eot-pgd 20 x 10", ours, theirs, "share fooled")


def _ddn() -> Case:
    ours = {"ddn-100": Mine(DDN(100, gamma=0.05, last_gamma=0.05), {"foolbox": 1.6})}
    return Case("ddn-100", ours, {"foolbox": peers.foolbox_ddn}, "median L2")


def _cw() -> Case:
    ours = {
        "cw-5x100": Mine(CarliniWagner(5, 100, 0.01, 0.01), {"foolbox C&W": 1.6}),
        "time to quality: DDN()": Mine(DDN(), {"foolbox C&W": 10.0}),
    }
    return Case("cw-5x100", ours, {"foolbox C&W": peers.foolbox_cw}, "median L2")


def _boundary(batch: Batch) -> Case:
    # Both begin at the first image of another class: foolbox's own start finds none for 19 of 128 images, and raises.
    start = batch.x[(batch.y[:, None] != batch.y).int().argmax(dim=1)]
    goals: dict[str, float | None] = {"foolbox": 3.0}
    ours = {
        f"{name}boundary-{steps}": Mine(
            partial(Boundary(steps=steps), start=start), goals, gradient=False
        )
        for name, steps in (("", 1000), ("time to quality: ", 100))
    }
    theirs = {"foolbox": peers.foolbox_boundary(start, 1000)}
    return Case("boundary-1000", ours, theirs, "median L2")


def _art_cw() -> Case:
    # ART's line search takes half an hour for 128 images; both are timed on the first 8.
    ours = {"cw-5x100, 8 images": Mine(CarliniWagner(5, 100, 0.01, 0.01), {"ART": 30.0})}
    return Case("cw-art", ours, {"ART": peers.art_cw}, "median L2", on_ours=False, images=8)


def gradient_attacks() -> dict[str, Attack]:
    """Each on every example to the end, for the rate of a full batch, and long enough that the loop counts."""
    return {
        "PGD": PGD(Linf(), epsilon=peers.EPSILON, steps=60),
        "APGD": APGD(Linf(), epsilon=peers.EPSILON, steps=60),
        "MI-FGSM": MIFGSM(epsilon=peers.EPSILON, steps=60),
        "DDN": DDN(60),
        "FMN": FMN(steps=60),
        "C&W": CarliniWagner(1, 60, 0.01, 1.0, abort_early=False),
        "fixed-c C&W": FixedConstant(steps=60),
    }


def network_and_images(
    name: str, count: int, device: str, *, correct: bool
) -> tuple[nn.Module, Batch]:
    """A network and its first `count` test images, those it gets right if asked for."""
    if os.environ.get("NOISYCHANNEL_DATA") and os.environ.get("NOISYCHANNEL_WEIGHTS"):
        module = authors_resnet20(f"cifar10-resnet20-{name}").build().to(device)
        batch = DataSpec("cifar10", "test", f"first:{int(1.4 * count) + 20}").load().to(device)
    else:
        with rng.root("bench"):
            module = fit(SmallNet().build(), DataSpec("digits", "train").load(), Recipe()).network
        module, batch = module.to(device), DataSpec("digits", "test").load().to(device)
    module.requires_grad_(requires_grad=False)
    if correct:
        with torch.no_grad():
            batch = batch.rows(module(batch.x).argmax(dim=1) == batch.y)
    return module, batch.rows(slice(0, count))
