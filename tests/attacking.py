"""Attacks run against the linear network under a root of randomness, and two outcomes compared."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from linear import LinearNetwork
from noisychannel import rng
from noisychannel.attacks import ATTACKS
from noisychannel.channels import Gauss
from noisychannel.defenses import Defense
from noisychannel.threats import DefenseView, Threat, adaptive, non_adaptive
from noisychannel.types import Adversarials, Attack, Batch

NETWORK = LinearNetwork(gain=5.0)
BARE = non_adaptive(Defense(NETWORK))
NOISY = adaptive(Defense(NETWORK, Gauss(0.05)), draws=2)
EVERY = pytest.mark.parametrize("attack", ATTACKS, ids=repr)
THREATS = pytest.mark.parametrize("threat", [BARE, NOISY], ids=["deterministic", "Gauss"])
INDEX = torch.tensor([30, 11, 52, 3, 94, 5])


def batch(network: LinearNetwork = NETWORK, targeted: bool = False) -> Batch:
    made = replace(network.batch(n=6), index=INDEX)
    return replace(made, target=(made.y + 1) % network.classes) if targeted else made


def attacked(
    attack: Attack, who: Batch | None = None, threat: Threat = BARE, root: str = "laws"
) -> Adversarials:
    with rng.root(root):
        return attack(DefenseView(threat), batch() if who is None else who)


def same(a: Adversarials, b: Adversarials, exact: bool = True) -> None:
    """To the last bit, or with equal statuses and equal distances to 1e-3."""
    assert torch.equal(a.status, b.status)
    if exact:
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.cost.forwards, b.cost.forwards)
        assert torch.equal(a.cost.backwards, b.cost.backwards)
    else:
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-3)


def taken(found: Adversarials, rows: Tensor) -> Adversarials:
    cost = type(found.cost)(*(counts[rows] for counts in found.cost))
    return Adversarials(found.x[rows], found.status[rows], cost)
