"""kill −9 at any moment, start again: the same bytes as a run that nobody disturbed."""

import random
import signal
import time
from pathlib import Path

import pytest

from killed import bytes_of, finish, start

PROGRAM = """
import sys
from pathlib import Path

from linear import LinearNetwork
from noisychannel.attacks import DDN, PGD
from noisychannel.channels import Gauss
from noisychannel.data import DataSpec
from noisychannel.defenses import Defense
from noisychannel.engine import Craft, Execution, Measure, Store, run, serial
from noisychannel.threats import adaptive, non_adaptive

network = LinearNetwork(shape=(1, 8, 8), classes=10, gain=5.0)
defense, how = Defense(network, Gauss(0.1)), Execution(threads=1, micro_batch=16)
wanted = []
for i in range(6):
    data = DataSpec("digits", subset="first:48").slice(8 * i, 8 * i + 8)
    for threat in (non_adaptive(defense), adaptive(defense, draws=2)):
        for attack in (PGD(epsilon=0.1, steps=8), DDN(steps=15)):
            craft = Craft(data, threat, attack, execution=how)
            wanted.append(Measure(data, defense, craft, draws=3, execution=how))
print("started", flush=True)
run(wanted, Store(Path(sys.argv[1])), serial, lambda whole, todo: lambda work: None)
print("done", flush=True)
"""


@pytest.mark.slow  # 12 processes that each import torch
def test_killed_ten_times_gives_the_same_bytes(tmp_path: Path) -> None:
    whole = start(PROGRAM, tmp_path / "whole")
    begun = time.monotonic()
    finish(whole)
    seconds = time.monotonic() - begun
    expected = bytes_of(tmp_path / "whole")
    assert (
        len(expected) == 24 * 4 + 24 * 3
    )  # crafts: 2 files, measures: 1; task.json and manifest.json

    chance, interrupted = random.Random(9), 0
    for _ in range(10):
        process = start(PROGRAM, tmp_path / "killed")
        time.sleep(chance.uniform(0, seconds / 5))
        interrupted += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        partial = (
            bytes_of(tmp_path / "killed") if (tmp_path / "killed" / "objects").exists() else {}
        )
        assert partial.items() <= expected.items()  # what is there is whole
    assert interrupted >= 5
    finish(start(PROGRAM, tmp_path / "killed"))
    assert bytes_of(tmp_path / "killed") == expected
