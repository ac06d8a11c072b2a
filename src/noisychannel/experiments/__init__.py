"""The paper: one file per figure or table."""

from noisychannel.experiments.fig01_recovery import FIG01
from noisychannel.experiments.fig04_boundary import FIG04
from noisychannel.experiments.fig10_eot import FIG10
from noisychannel.experiments.setting import (
    Cell,
    Claim,
    Experiment,
    Result,
    Scale,
    Setting,
    read,
    setting,
)
from noisychannel.experiments.table1_transfer import TABLE1

__all__ = [
    "EXPERIMENTS",
    "Cell",
    "Claim",
    "Experiment",
    "Result",
    "Scale",
    "Setting",
    "read",
    "setting",
]

EXPERIMENTS = (FIG01, FIG04, FIG10, TABLE1)
