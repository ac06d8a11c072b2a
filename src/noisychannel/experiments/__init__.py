"""The paper: one file per figure or table."""

from noisychannel.experiments.fig01_recovery import FIG01
from noisychannel.experiments.fig02_placement import FIG02
from noisychannel.experiments.fig03_white_box import FIG03
from noisychannel.experiments.fig04_boundary import FIG04
from noisychannel.experiments.fig05_clean import FIG05
from noisychannel.experiments.fig06_deltas import FIG06
from noisychannel.experiments.fig07_window import FIG07
from noisychannel.experiments.fig08_trials import FIG08
from noisychannel.experiments.fig09_adaptive_votes import FIG09
from noisychannel.experiments.fig10_eot import FIG10
from noisychannel.experiments.fig11_noise_types import FIG11
from noisychannel.experiments.fig12_gradients import FIG12
from noisychannel.experiments.fig15_confidence import FIG15
from noisychannel.experiments.fig16_hessian import FIG16
from noisychannel.experiments.fig17_pictures import FIG17
from noisychannel.experiments.fig18_black_box import FIG18
from noisychannel.experiments.pni import PNI_QUESTION
from noisychannel.experiments.sec33_taylor import SEC33
from noisychannel.experiments.sec46_noise import SEC46
from noisychannel.experiments.secr_series import SECR
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
from noisychannel.experiments.table3_imagenet import TABLE3

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

EXPERIMENTS = (
    FIG01,
    FIG02,
    FIG03,
    FIG04,
    FIG05,
    FIG06,
    FIG07,
    FIG08,
    FIG09,
    FIG10,
    FIG11,
    FIG12,
    FIG15,
    FIG16,
    FIG17,
    FIG18,
    TABLE1,
    TABLE3,
    SEC33,
    SEC46,
    SECR,
    PNI_QUESTION,
)
"""In the paper's order, then `pni`; Table 2 stands with Figure 5, Figures 13 and 14 with 12, 4.7 with Figure 3."""
