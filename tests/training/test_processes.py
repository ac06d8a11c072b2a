"""Several processes are one training: they end with their parent, are silent, and go on after a kill."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors

from killed import bytes_of, finish, start
from noisychannel import rng
from noisychannel.data import DataSpec
from noisychannel.errors import UserError
from noisychannel.networks import SmallNet
from noisychannel.training import FAST, Recipe, fit
from noisychannel.training.door import check

pytestmark = pytest.mark.slow  # each starts processes that import torch

PROGRAM = """
import signal
import sys
from pathlib import Path

from noisychannel.data import DataSpec
from noisychannel.engine import Execution, Store, Train, run, serial
from noisychannel.networks import SmallNet
from noisychannel.training import Recipe

recipe = Recipe(epochs=200, batch_size=32)
train = Train(
    SmallNet(width=4), DataSpec("digits", "train", "first:128"), recipe, devices=2,
    execution=Execution(threads=1),
)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts what runs in the background
print("started", flush=True)
run([train], Store(Path(sys.argv[1])), serial, lambda whole, todo: lambda work: None)
print("done", flush=True)
"""


def children(process: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(what: object, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def steps_saved(root: Path) -> int:
    for state in (root / "scratch").glob("*/training.safetensors"):
        with safetensors.safe_open(state, "pt") as file:
            return json.loads(file.metadata()["state"])["step"]
    return 0


@pytest.mark.timeout(300)
def test_killed_with_its_processes_and_gone_on_to_the_same_bytes(tmp_path: Path) -> None:
    """kill −9 of the parent: nobody writes the state any more, and the next life has it for its own."""
    finish(start(PROGRAM, tmp_path / "whole"))
    killed = tmp_path / "killed"
    process = start(PROGRAM, killed)
    assert wait_for(lambda: steps_saved(killed) > 0, 120)
    family = children(process.pid)
    assert len(family) >= 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert wait_for(lambda: not any(map(alive, family)), 10)
    assert 0 < steps_saved(killed) < 200 * 4  # they did not come to their end without a parent
    assert not (killed / "objects").exists()
    finish(start(PROGRAM, killed))
    assert bytes_of(killed) == bytes_of(tmp_path / "whole")


INTERRUPTED = """
import signal
from noisychannel.data import DataSpec
from noisychannel.networks import SmallNet
from noisychannel.training import Recipe, fit

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where tests run in the background
batch = DataSpec("digits", "train", "first:128").load()
try:
    print("started", flush=True)
    fit(SmallNet(width=4).build(), batch, Recipe(epochs=100_000, batch_size=32), devices=2)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seconds", [0.5, 2.5, 15.0])
def test_an_interrupt_is_the_parents_alone(seconds: float) -> None:
    """As from a terminal, to the whole group: while they import, while they meet, while they train."""
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    assert wait_for(lambda: len(children(process.pid)) >= 3, 60)  # two, and who counts resources
    time.sleep(seconds)
    family = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == (b"interrupted\n", b"", 0)
    assert wait_for(lambda: not any(map(alive, family)), 10)


@pytest.mark.parametrize("mix", [0.5, 1.0])
def test_halves_of_a_batch_that_devices_share_unevenly(mix: float) -> None:
    """18 examples, 9 clean and 9 attacked: one device has 5 and 4, the other 4 and 5."""
    recipe = Recipe(
        epochs=2, batch_size=18, learning_rate=0.05, freeze_norm=True,
        adversarial=replace(FAST, mix=mix),
    )  # fmt: skip
    batch = DataSpec("digits", "train", "first:90").load()
    with rng.root("halves"):
        one, two = (
            fit(SmallNet(width=4).build(), batch, recipe, devices=devices) for devices in (1, 2)
        )
    pairs = zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True)
    assert max(float((a - b).abs().max()) for a, b in pairs) < 1e-5
    losses = zip(one.history, two.history, strict=True)
    assert all(a.loss == pytest.approx(b.loss, abs=1e-5) for a, b in losses)


def test_a_process_that_is_killed_is_a_sentence() -> None:
    batch = DataSpec("digits", "train", "first:128").load()

    def kill() -> None:
        assert wait_for(lambda: len(multiprocessing.active_children()) == 2, 60)
        multiprocessing.active_children()[1].kill()

    sentence = (
        "training: expected 2 processes to finish, got exit code -9 of one; it was ended from outside, "
        "perhaps short of memory: start it again"
    )
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(UserError, match=sentence):
        fit(SmallNet(width=4).build(), batch, Recipe(epochs=100_000, batch_size=32), devices=2)
    killer.join()
    assert multiprocessing.active_children() == []


def test_an_error_of_a_process_comes_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 classes of labels the network knows 3; not asked before, it fails in the process."""
    monkeypatch.setattr("noisychannel.training.door.check", lambda *_: None)
    batch = DataSpec("digits", "train", "first:128").load()
    module = SmallNet(classes=3, width=4).build()
    with pytest.raises(UserError, match="labels: expected 0 … 2"):
        check(module, batch, Recipe(), 2)
    with pytest.raises(
        RuntimeError, match=r"training: a process failed:\nTraceback(.|\n)*cross_entropy"
    ):
        fit(module, batch, Recipe(epochs=1), devices=2)
