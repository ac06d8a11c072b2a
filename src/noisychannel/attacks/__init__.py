"""Attacks: (view, batch) → Adversarials. Each knows a view, and nothing of defenses or threat settings."""

from noisychannel.attacks.apgd import APGD, TargetedAPGD
from noisychannel.attacks.boundary import Boundary, authors_boundary
from noisychannel.attacks.carlini_wagner import CarliniWagner
from noisychannel.attacks.contrast import ContrastReduction, MinimalContrast
from noisychannel.attacks.ddn import DDN
from noisychannel.attacks.fixed_constant import FixedConstant, authors_fixed_constant
from noisychannel.attacks.fmn import FMN
from noisychannel.attacks.gradient import FGSM, PGD
from noisychannel.attacks.hop_skip_jump import HopSkipJump
from noisychannel.attacks.local_search import LocalSearch
from noisychannel.attacks.minimise import Minimise
from noisychannel.attacks.momentum import MIFGSM
from noisychannel.attacks.noise import AdditiveNoise
from noisychannel.attacks.oracle import Doubt
from noisychannel.attacks.pixels import MultiplePixels, SinglePixel
from noisychannel.attacks.spatial import Spatial
from noisychannel.attacks.spsa import SPSA
from noisychannel.attacks.square import Square
from noisychannel.attacks.starts import BlendedNoise, nearest_starts
from noisychannel.norms import L2, Linf
from noisychannel.objectives import DLR, Margin
from noisychannel.types import Attack

__all__ = [
    "APGD",
    "ATTACKS",
    "DDN",
    "FGSM",
    "FMN",
    "MIFGSM",
    "PGD",
    "SPSA",
    "AdditiveNoise",
    "BlendedNoise",
    "Boundary",
    "CarliniWagner",
    "ContrastReduction",
    "Doubt",
    "FixedConstant",
    "HopSkipJump",
    "LocalSearch",
    "MinimalContrast",
    "Minimise",
    "MultiplePixels",
    "SinglePixel",
    "Spatial",
    "Square",
    "TargetedAPGD",
    "authors_boundary",
    "authors_fixed_constant",
    "nearest_starts",
]

ATTACKS: tuple[Attack, ...] = (
    PGD(Linf()),
    PGD(L2(), epsilon=0.5),
    PGD(loss=DLR(), restarts=2),
    FGSM(),
    FGSM(L2(), epsilon=0.5),
    MIFGSM(),
    APGD(),
    APGD(L2(), epsilon=0.5, loss=Margin(), restarts=2),
    TargetedAPGD(),
    Minimise(),
    DDN(),
    FMN(),
    FMN(Linf()),
    CarliniWagner(),
    FixedConstant(),
    authors_fixed_constant(1.0),
    SPSA(),
    SPSA(L2(), epsilon=0.5, directions="gaussian", update="steepest"),
    Square(),
    Square(L2(), epsilon=0.5),
    LocalSearch(),
    SinglePixel(),
    MultiplePixels(),
    Spatial(),
    Spatial(search="random"),
    Boundary(),
    HopSkipJump(),
    HopSkipJump(Linf()),
    BlendedNoise(),
    BlendedNoise(search="linear", coarse=False),
    AdditiveNoise(),
    AdditiveNoise("uniform", Linf(), epsilon=8 / 255, repeats=10),
    ContrastReduction(),
    MinimalContrast(),
)
