"""The executor of one process: one task after the other."""

from noisychannel.engine.run import Plan, execute
from noisychannel.engine.store import Store
from noisychannel.engine.task import Tick

__all__ = ["serial"]


def serial(todo: Plan, store: Store, tick: Tick) -> None:
    """Run the tasks in the plan's order."""
    for task in todo.tasks:
        execute(task, store, tick)
