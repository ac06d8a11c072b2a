"""What a defender runs: a network, after surgery or not, a channel before it, and a decision rule."""

from noisychannel.defenses.activations import AUTHORS_FIRST_BLOCKS, RobustNet
from noisychannel.defenses.band_limited import BandLimited
from noisychannel.defenses.defense import Defense, answers, chunks_of, global_noise
from noisychannel.defenses.fixed import FixedChannel, FixedNetwork, fixed_draws
from noisychannel.defenses.network import Operated, Surgery
from noisychannel.defenses.precision import HalfPrecision
from noisychannel.defenses.surgery import altered, learnt_scales, operate, sites_of
from noisychannel.defenses.weights import PNI, ParamNet
from noisychannel.noise import LaplaceLaw, UniformLaw

__all__ = [
    "AUTHORS_FIRST_BLOCKS",
    "DEFENSES",
    "PNI",
    "BandLimited",
    "Defense",
    "FixedChannel",
    "FixedNetwork",
    "HalfPrecision",
    "Operated",
    "ParamNet",
    "RobustNet",
    "Surgery",
    "altered",
    "answers",
    "chunks_of",
    "fixed_draws",
    "global_noise",
    "learnt_scales",
    "operate",
    "sites_of",
]

DEFENSES: tuple[Surgery, ...] = (
    RobustNet(),
    RobustNet(UniformLaw(0.35), UniformLaw(0.3)),
    RobustNet(LaplaceLaw(0.15), LaplaceLaw(0.1), learnt=True),
    ParamNet(),
    ParamNet(sharing="own"),
    PNI(),
    PNI(granularity="channel", sharing="own"),
    PNI("input"),
    PNI("output", "element"),
    BandLimited(50),
    HalfPrecision(),
)
"""The surgeries that tests, docs and the command line go through."""
