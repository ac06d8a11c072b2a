"""The main job: how much of a defense is left once the attacker knows it, and whether that can be believed."""

from noisychannel.audit.api import CPU_ROWS, Audit, Knobs, audit, conducted, processes
from noisychannel.audit.budget import BUDGETS, Budget, budget_of
from noisychannel.audit.conduct import Judged, conduct, foresee
from noisychannel.audit.cost import foretold
from noisychannel.audit.examine import Examination, examine
from noisychannel.audit.facts import Facts
from noisychannel.audit.finding import Finding
from noisychannel.audit.page import render, terminal_table
from noisychannel.audit.request import Request, twin_of
from noisychannel.audit.saved import save
from noisychannel.audit.target import as_attack, check_fit, target
from noisychannel.audit.verdict import exit_code

__all__ = [
    "BUDGETS",
    "CPU_ROWS",
    "Audit",
    "Budget",
    "Examination",
    "Facts",
    "Finding",
    "Judged",
    "Knobs",
    "Request",
    "as_attack",
    "audit",
    "budget_of",
    "check_fit",
    "conduct",
    "conducted",
    "examine",
    "exit_code",
    "foresee",
    "foretold",
    "processes",
    "render",
    "save",
    "target",
    "terminal_table",
    "twin_of",
]
