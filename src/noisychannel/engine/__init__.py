"""Specs → stored artifacts."""

from noisychannel.engine.run import Plan, plan, run
from noisychannel.engine.serial import serial
from noisychannel.engine.store import Store
from noisychannel.engine.tasks import (
    Craft,
    Execution,
    Measure,
    Task,
    Tick,
    Train,
    Trained,
    adversarials,
    key_of,
    table,
)

__all__ = [
    "Craft",
    "Execution",
    "Measure",
    "Plan",
    "Store",
    "Task",
    "Tick",
    "Train",
    "Trained",
    "adversarials",
    "key_of",
    "plan",
    "run",
    "serial",
    "table",
]
