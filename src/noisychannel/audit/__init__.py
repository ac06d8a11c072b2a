"""The main job: how much of a defense is left once the attacker knows it."""

from noisychannel.audit.examine import Examination, examine
from noisychannel.audit.facts import Facts
from noisychannel.audit.outcome import Outcome, Rung, outcome
from noisychannel.audit.page import render, terminal_table
from noisychannel.audit.plan import SETTINGS, Request, cells
from noisychannel.audit.target import check_fit, target

__all__ = [
    "SETTINGS",
    "Examination",
    "Facts",
    "Outcome",
    "Request",
    "Rung",
    "cells",
    "check_fit",
    "examine",
    "outcome",
    "render",
    "target",
    "terminal_table",
]
