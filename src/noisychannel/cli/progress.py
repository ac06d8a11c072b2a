"""Running a plan with a bar: how far, how fast, how long yet."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Bar
from rich.text import Text

from noisychannel.engine import Executor, Plan, Store, Task, Tick, plan, run

__all__ = ["errors", "run_with_bar"]

errors = Console(stderr=True)


def run_with_bar(wanted: Sequence[Task], store: Store, executor: Executor, step: str = "") -> None:
    """Make what is wanted and missing; the bar of a step goes when it is done."""
    store.check_writable()  # before the bar, or the sentence stands amid it
    if step and not plan(wanted).todo(store).tasks:
        return
    with _progress(transient=bool(step) and errors.is_terminal) as bar:

        def watch(whole: Plan, todo: Plan) -> Tick:
            done = len(whole.tasks) - len(todo.tasks)
            words = step or f"{len(todo.tasks)} tasks ({done} found in {store.root})"
            line = bar.add_task(
                words, total=max(todo.work, 1.0), visible=not step or bool(todo.tasks)
            )
            return lambda amount: bar.advance(line, amount)

        run(wanted, store, executor, watch)


class _Rate(ProgressColumn):
    """Passes through networks per second."""

    def render(self, task: Bar) -> Text:
        return Text(f"{task.speed or 0.0:,.0f} passes/s")


@contextmanager
def _progress(*, transient: bool) -> Generator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=transient) as shown:
        yield shown
