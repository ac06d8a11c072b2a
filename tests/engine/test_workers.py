"""Tasks in several processes: the same bytes, the same sentences, and nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from killed import bytes_of, finish, start
from linear import LinearNetwork
from noisychannel.attacks import PGD
from noisychannel.channels import Gauss
from noisychannel.data import DataSpec
from noisychannel.defenses import Defense
from noisychannel.engine import (
    Craft,
    Execution,
    Measure,
    Plan,
    Store,
    Task,
    Tick,
    Train,
    Trained,
    Workers,
    cores,
    key_of,
    plan,
    run,
    serial,
)
from noisychannel.engine.task import Files
from noisychannel.errors import UserError
from noisychannel.networks import SmallNet
from noisychannel.threats import adaptive
from noisychannel.training import Recipe

HOW = Execution(threads=1, micro_batch=16)
forks = pytest.mark.skipif(
    sys.platform != "linux" or torch.accelerator.device_count() > 0,
    reason="processes are forked on Linux without a GPU only",
)


def work() -> list[Task]:
    """A training, and crafts and measures that need it or nothing."""
    small = DataSpec("digits", subset="first:40")
    train = Train(SmallNet(width=2), small, Recipe(epochs=1, batch_size=20), execution=HOW)
    wanted: list[Task] = []
    networks: list[Any] = [
        LinearNetwork(shape=(1, 8, 8), classes=10, gain=5.0),
        Trained(train),
    ]
    for network in networks:
        defense = Defense(network, Gauss(0.1))
        for i in range(3):
            data = small.slice(8 * i, 8 * i + 8)
            craft = Craft(data, adaptive(defense), PGD(epsilon=0.1, steps=4), execution=HOW)
            wanted.append(Measure(data, defense, craft, draws=3, execution=HOW))
    return wanted


def made(root: Path, wanted: list[Task], executor: Callable[..., None]) -> list[float]:
    ticks: list[float] = []
    run(wanted, Store(root), executor, lambda _whole, _todo: ticks.append)
    return ticks


@forks
def test_the_same_bytes_and_progress_as_one_after_the_other(tmp_path: Path) -> None:
    wanted = work()
    alone = made(tmp_path / "serial", wanted, serial)
    beside = made(tmp_path / "workers", wanted, Workers(3))
    assert bytes_of(tmp_path / "workers") == bytes_of(tmp_path / "serial")
    assert sum(beside) == pytest.approx(sum(alone)) == pytest.approx(plan(wanted).work)


@dataclass(frozen=True)
class Says:
    """A task that tells who made it, after all that it needs."""

    name: str
    after: tuple["Says", ...] = ()
    execution: Execution = HOW
    seconds: float = 0.0
    error: str = ""

    @property
    def work(self) -> float:
        return 1.0

    def needs(self) -> tuple[Task, ...]:
        return self.after

    def run(self, store: Store, tick: Tick) -> Files:
        if self.error:
            kinds = {"sentence": UserError, "bug": ZeroDivisionError, "exit": SystemExit}
            raise kinds[self.error](f"{self.name}: no")
        for task in self.after:
            store.read(key_of(task), "who")
        if self.name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        tick(1.0)
        return {"who": str(os.getpid()).encode()}


def who(root: Path, *tasks: Says) -> set[int]:
    return {int(Store(root).read(key_of(t), "who")) for t in tasks}


@forks
def test_tasks_wait_for_what_they_need_and_for_nothing_else(tmp_path: Path) -> None:
    first, slow = Says("first"), Says("slow", seconds=1.0)
    chain = Says("third", (Says("second", (first,)),))
    both = Says("both", (chain, slow))
    began = time.monotonic()
    made(tmp_path, [slow, chain, both], Workers(2))
    assert time.monotonic() - began < 2.5
    assert len(who(tmp_path, slow, first)) == 2
    assert os.getpid() not in who(tmp_path, slow, first, chain, both)


@pytest.mark.parametrize(
    ("count", "how"),
    [(1, HOW), (4, Execution(threads=2))],
    ids=["one process", "two threads"],
)
def test_what_cannot_be_made_side_by_side_is_made_here(
    tmp_path: Path, count: int, how: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [replace(Says(f"{i}"), execution=how) for i in range(3)]
    made(tmp_path, [*tasks], Workers(count))
    assert who(tmp_path, *tasks) == {os.getpid()}
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    on_cpu = [Says(f"cpu {i}") for i in range(3)]
    made(tmp_path, [*on_cpu], Workers(4))
    assert who(tmp_path, *on_cpu) == {os.getpid()}


@forks
@pytest.mark.parametrize(
    ("task", "error", "said"),
    [
        (Says("bad", error="sentence"), UserError, "^bad: no$"),
        (
            Says("bad", error="bug"),
            RuntimeError,
            "in another process:\n(.*\n)*.*bad: no",
        ),
        (Says("bad", error="exit"), UserError, "got sys.exit.'bad: no'."),
        (Says("dies"), UserError, "ended from outside .exit code -9.*smaller --workers"),
    ],
    ids=["a sentence", "a failure", "an exit", "a kill"],
)
def test_errors_come_through_and_nobody_is_left(
    tmp_path: Path, task: Says, error: type[Exception], said: str
) -> None:
    slow = [Says(f"slow {i}", seconds=60.0) for i in range(2)]
    others = children()  # of tests before this one in the same process
    began = time.monotonic()
    with pytest.raises(error, match=said):
        made(tmp_path, [task, *slow], Workers(3))
    assert time.monotonic() - began < 20
    assert children() <= others
    assert not any(Store(tmp_path).has(key_of(t)) for t in (task, *slow))


def children(of: int | None = None) -> set[int]:
    path = Path(f"/proc/{of or os.getpid()}/task")
    return {int(pid) for t in path.iterdir() for pid in (t / "children").read_text().split()}


PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from pathlib import Path
import test_workers as here
from noisychannel.engine import Workers
print("started", flush=True)
here.made(Path(sys.argv[1]), {tasks}, Workers(2))
print("done", flush=True)
"""
SLOW = '[here.Says(f"slow {i}", seconds=600.0) for i in range(2)]'


def waited(true: Callable[[], Any]) -> bool:
    end = time.monotonic() + 30
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@forks
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_takes_its_processes_along(tmp_path: Path, ending: int) -> None:
    process = begun(PROGRAM.format(tasks=SLOW), tmp_path)
    assert waited(lambda: len(children(process.pid)) == 2)
    theirs = children(process.pid)
    process.send_signal(ending)
    process.communicate(timeout=30)
    assert waited(lambda: not any(alive(pid) for pid in theirs))


@forks
@pytest.mark.slow  # processes that each import torch
def test_killed_and_started_again_gives_the_same_bytes(tmp_path: Path) -> None:
    program = PROGRAM.format(tasks="here.work()")
    finish(begun(program, tmp_path / "whole"))
    for seconds in (0.1, 0.3, 0.6, 1.0):
        process = begun(program, tmp_path / "killed")
        time.sleep(seconds)
        process.kill()
        process.communicate()
    finish(begun(program, tmp_path / "killed"))
    assert bytes_of(tmp_path / "killed") == bytes_of(tmp_path / "whole")


def begun(program: str, root: Path) -> subprocess.Popen[bytes]:
    root.mkdir(exist_ok=True)
    here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    return start(here + program, root)


def test_cores_are_those_that_this_process_may_use() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    if sys.platform == "linux":
        one = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        asked = f"{one}from noisychannel.engine import cores; print(cores())"
        assert subprocess.check_output([sys.executable, "-c", asked]) == b"1\n"


def test_a_plan_is_left_as_it_was(tmp_path: Path) -> None:
    wanted = [Says("a", (Says("b"),))]
    before = plan(wanted)
    made(tmp_path, [*wanted], Workers(2))
    assert plan(wanted) == before
    assert isinstance(before, Plan)
