"""Attacks: (view, batch) → Adversarials. Each knows a view, and nothing of defenses or threat settings."""

from noisychannel.attacks.carlini_wagner import CarliniWagner
from noisychannel.attacks.ddn import DDN
from noisychannel.attacks.gradient import PGD
from noisychannel.attacks.minimise import Minimise
from noisychannel.norms import L2, Linf
from noisychannel.types import Attack

__all__ = ["ATTACKS", "DDN", "PGD", "CarliniWagner", "Minimise"]

ATTACKS: tuple[Attack, ...] = (
    PGD(Linf()),
    PGD(L2(), epsilon=0.5),
    Minimise(),
    DDN(),
    CarliniWagner(),
)
