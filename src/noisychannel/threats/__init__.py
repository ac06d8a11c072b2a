"""Threat settings, and the views that attackers have: the only room that knows EOT and BPDA."""

from noisychannel.threats.bpda import Bpda
from noisychannel.threats.settings import (
    Averaged,
    Success,
    Threat,
    adaptive,
    assumes,
    log_mean_prob,
    non_adaptive,
)
from noisychannel.threats.view import DefenseView

__all__ = [
    "Averaged",
    "Bpda",
    "DefenseView",
    "Success",
    "Threat",
    "adaptive",
    "assumes",
    "log_mean_prob",
    "non_adaptive",
]
