"""Specs → stored artifacts."""

from noisychannel.engine.analysis import Analyse, answer
from noisychannel.engine.binarization import Binarize, binarization_rows
from noisychannel.engine.certificates import Certify, base_of, certificates
from noisychannel.engine.pace import Pace, pace
from noisychannel.engine.run import Executor, Plan, plan, run
from noisychannel.engine.serial import serial
from noisychannel.engine.store import Store
from noisychannel.engine.task import Execution, Task, Tick, key_of
from noisychannel.engine.tasks import Craft, Measure, adversarials, table
from noisychannel.engine.training import Train, Trained, history, ready, trainings
from noisychannel.engine.workers import Workers, cores

__all__ = [
    "Analyse",
    "Binarize",
    "Certify",
    "Craft",
    "Execution",
    "Executor",
    "Measure",
    "Pace",
    "Plan",
    "Store",
    "Task",
    "Tick",
    "Train",
    "Trained",
    "Workers",
    "adversarials",
    "answer",
    "base_of",
    "binarization_rows",
    "certificates",
    "cores",
    "history",
    "key_of",
    "pace",
    "plan",
    "ready",
    "run",
    "serial",
    "table",
    "trainings",
]
