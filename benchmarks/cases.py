"""What is timed: each attack of ours with its peers, its measure of quality, and the ratio it is meant to reach."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import peers
import torch
from torch import nn

from noisychannel import rng
from noisychannel.attacks import APGD, DDN, FMN, MIFGSM, PGD, Boundary, CarliniWagner, FixedConstant
from noisychannel.attacks.gradient import random_start
from noisychannel.channels import Gauss
from noisychannel.data import DataSpec
from noisychannel.defenses import Defense
from noisychannel.networks import SmallNet, authors_resnet20
from noisychannel.norms import Linf
from noisychannel.threats import Threat, adaptive, non_adaptive
from noisychannel.training import Recipe, fit
from noisychannel.types import Attack, Batch

__all__ = ["Case", "Given", "cases", "gradient_attacks", "network_and_images"]

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
class Case:
    """One attack, ours and the peers'.

    Args:
        peers: name → their run.
        goals: name → ratio peer/ours that the project asks for.
        on_ours: whether the peers are timed on our prepared network too.
        gradient: whether evaluations are gradients (else forwards).
        images: on so many only, where a peer is too slow for all; 0: all.
    """

    name: str
    ours: Attack
    peers: dict[str, peers.Run]
    quality: str
    goals: dict[str, float] = field(default_factory=dict)
    threat: Callable[[nn.Module], Threat] = plainly
    on_ours: bool = True
    gradient: bool = True
    images: int = 0


def cases(batch: Batch) -> list[Case]:
    """In the order of the table."""
    start = random_start(Linf(), batch.x, peers.EPSILON, batch.index, 0)
    pgd = PGD(Linf(), epsilon=peers.EPSILON, steps=40, step_size=peers.STEP, keep="last")
    leaving = PGD(Linf(), epsilon=peers.EPSILON, steps=40, step_size=peers.STEP, stop_early=True)
    eot = PGD(Linf(), epsilon=peers.EPSILON, steps=20, step_size=peers.STEP, keep="last")
    cw = CarliniWagner(5, 100, 0.01, 0.01)
    torchattacks, art = not peers.missing("torchattacks"), not peers.missing("art")
    pgds: dict[str, peers.Run] = {"foolbox": peers.foolbox_pgd(start)}
    eots: dict[str, peers.Run] = {"foolbox EOT": peers.foolbox_eot(start, SIGMA, 10, 20)}
    if torchattacks:
        pgds["torchattacks"] = peers.torchattacks_pgd
        eots["torchattacks EOTPGD"] = peers.torchattacks_eot(SIGMA, 10, 20)
    if art:
        pgds["ART"] = peers.art_pgd
    usual = {"foolbox": 1.6, "torchattacks": 1.6}

    def noisy(m: nn.Module) -> Threat:
        return adaptive(Defense(Given(m), Gauss(SIGMA)), draws=10, averaged="mean_logit")

    table = [
        Case("pgd-40", pgd, pgds, "share fooled", usual),
        Case("pgd-40, won examples leave", leaving, pgds, "share fooled", usual, on_ours=False),
        Case("eot-pgd 20 x 10", eot, eots, "share fooled", {"foolbox EOT": 2.0}, threat=noisy),
        Case("ddn-100", DDN(100), {"foolbox": peers.foolbox_ddn}, "median L2", {"foolbox": 1.6}),
        Case("cw-5x100", cw, {"foolbox": peers.foolbox_cw}, "median L2", {"foolbox": 1.6}),
        Case(
            "time to quality: DDN()", DDN(), {"foolbox C&W": peers.foolbox_cw}, "median L2",
            {"foolbox C&W": 10.0}, on_ours=False,
        ),
        Case(
            "time to quality: DDN(40)", DDN(40), {"foolbox C&W": peers.foolbox_cw}, "median L2",
            {"foolbox C&W": 10.0}, on_ours=False,
        ),
        Case(
            "boundary-1000", Boundary(steps=1000), {"foolbox": peers.foolbox_boundary(1000)},
            "median L2", {"foolbox": 3.0}, gradient=False,
        ),
    ]  # fmt: skip
    if art:
        # ART's line search takes half an hour for 128 images; both are timed on the first 8.
        table.append(
            Case(
                "cw-5x100, 8 images",
                cw,
                {"ART": peers.art_cw},
                "median L2",
                {"ART": 30.0},
                on_ours=False,
                images=8,
            )
        )
    return table


def gradient_attacks() -> dict[str, Attack]:
    """Each at full length on every example, so that the rate is that of a full batch."""
    return {
        "PGD": PGD(Linf(), epsilon=peers.EPSILON, steps=20),
        "APGD": APGD(Linf(), epsilon=peers.EPSILON, steps=20),
        "MI-FGSM": MIFGSM(epsilon=peers.EPSILON, steps=20),
        "DDN": DDN(20),
        "FMN": FMN(steps=20),
        "C&W": CarliniWagner(1, 20, 0.01, 1.0, abort_early=False),
        "fixed-c C&W": FixedConstant(steps=20),
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
