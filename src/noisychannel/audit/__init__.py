"""The main job: how much of a defense is left once the attacker knows it."""

from noisychannel.audit.outcome import Outcome, Rung, outcome
from noisychannel.audit.page import render, terminal_table
from noisychannel.audit.plan import SETTINGS, Request, cells
from noisychannel.audit.target import check_fit, target

__all__ = [
    "SETTINGS",
    "Outcome",
    "Request",
    "Rung",
    "cells",
    "check_fit",
    "outcome",
    "render",
    "target",
    "terminal_table",
]
