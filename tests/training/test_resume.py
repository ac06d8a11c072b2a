"""A training that is interrupted, wherever, goes on to the bytes of one that was not."""

import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from killed import bytes_of, finish, start
from noisychannel import rng
from noisychannel.data import DataSpec
from noisychannel.defenses import PNI, RobustNet
from noisychannel.networks import SmallNet
from noisychannel.noise import GaussLaw
from noisychannel.training import Adversarial, Augment, Fitted, Plateau, Recipe, Watch, fit, loop

SHORT = Recipe(epochs=2, batch_size=16, learning_rate=0.05, weight_decay=1e-3)
DIGITS = DataSpec("digits", "train", "first:48").load()  # three steps an epoch
SAVED = "training.safetensors"


class Dropping(nn.Module):
    """Dropout draws from torch's own generator, which a fresh process has not drawn from."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.dropout = plain(), nn.Dropout2d(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.dropout(x))


def plain() -> nn.Module:
    return SmallNet(width=2).build()


def noisy() -> nn.Module:
    return RobustNet(GaussLaw(0.2), GaussLaw(0.1), learnt=True)(plain(), (1, 8, 8))


def weights_noisy() -> nn.Module:
    return PNI("weight")(plain(), (1, 8, 8))


SETTINGS: dict[str, tuple[Callable[[], nn.Module], Recipe]] = {
    "sgd": (plain, replace(SHORT, augment=Augment(1))),
    "adam": (plain, replace(SHORT, optimizer="adam")),
    "adamw, PNI": (weights_noisy, replace(SHORT, optimizer="adamw")),
    "dropout": (Dropping, SHORT),
    "RobustNet": (noisy, SHORT),
    "best of held out": (plain, replace(SHORT, epochs=3, validation=16, keep="best")),
    "plateau": (plain, replace(SHORT, epochs=3, schedule=Plateau(0, 0.1), learning_rate=1.0)),
    "adversarial": (noisy, replace(SHORT, adversarial=Adversarial(steps=1, start_epoch=1))),
}


class Interrupted(Exception):
    pass


def trained(make: Callable[[], nn.Module], recipe: Recipe, watch: Watch | None = None) -> Fitted:
    torch.manual_seed(time.time_ns() % 1000)  # what the process drew before must not matter
    with rng.root("resumed"):
        return fit(make(), DIGITS, recipe, watch)


def all_of(fitted: Fitted) -> tuple[bytes, tuple[object, ...]]:
    return safetensors.torch.save(fitted.network.state_dict()), fitted.history


def interrupted_after(
    steps: int, make: Callable[[], nn.Module], recipe: Recipe, scratch: Path
) -> bool:
    """Train, and stop dead after some steps of this process, before the last of them is saved."""
    ticks = 0

    def tick(_examples: int) -> None:
        nonlocal ticks
        ticks += 1  # the first is of what was done before
        if ticks > steps:
            raise Interrupted

    try:
        trained(make, recipe, Watch(tick, scratch=scratch))
    except Interrupted:
        return True
    return False


@pytest.fixture(autouse=True)
def _saved_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_SAVE_SECONDS", -1.0)


# ---------------------------------------------------------------- interrupted in this process
@pytest.mark.parametrize("name", SETTINGS)
def test_interrupted_at_every_step(name: str, tmp_path: Path) -> None:
    """Two steps of progress in each life, the last of which is lost: every step is once the first one."""
    make, recipe = SETTINGS[name]
    whole = all_of(trained(make, recipe))
    lives = 0
    while interrupted_after(2, make, recipe, tmp_path):
        lives += 1
    steps = recipe.epochs * (len(DIGITS) - recipe.validation) // recipe.batch_size
    assert lives == steps - 1
    assert all_of(trained(make, recipe, Watch(scratch=tmp_path))) == whole


def test_all_lengths_of_a_first_life(tmp_path: Path) -> None:
    make, recipe = SETTINGS["RobustNet"]
    whole = all_of(trained(make, recipe))
    for steps in range(7):  # the first tick comes before any step
        scratch = tmp_path / str(steps)
        assert interrupted_after(steps, make, recipe, scratch)
        done: list[int] = []
        assert all_of(trained(make, recipe, Watch(done.append, scratch=scratch))) == whole
        # The first tick tells what need not be done again: all steps but the one that was not saved.
        assert done == [16 * max(0, steps - 1)] + [16] * (6 - max(0, steps - 1))


def test_a_finished_training_has_nothing_to_do(tmp_path: Path) -> None:
    make, recipe = SETTINGS["best of held out"]
    whole, done = all_of(trained(make, recipe, Watch(scratch=tmp_path))), list[int]()
    assert all_of(trained(make, recipe, Watch(done.append, scratch=tmp_path))) == whole
    assert done == [6 * 16]


# ---------------------------------------------------------------- a state that cannot be read
def _cut(share: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(share * len(data))]


def _flip(share: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        at = int(share * len(data))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return flip


@pytest.mark.parametrize(
    "harm",
    [_cut(0.0), _cut(0.05), _cut(0.5), _cut(0.999), *(_flip(i / 8) for i in range(8)),
     lambda data: b"\0" * len(data), lambda _: safetensors.torch.save({"a": torch.zeros(1)}),
     lambda _: safetensors.torch.save({"a": torch.zeros(1)}, {"state": "[]", "sum": "0"})],
)  # fmt: skip
def test_a_damaged_state_is_no_state(harm: Callable[[bytes], bytes], tmp_path: Path) -> None:
    make, recipe = SETTINGS["sgd"]
    assert interrupted_after(4, make, recipe, tmp_path)
    saved = tmp_path / SAVED
    saved.write_bytes(harm(saved.read_bytes()))
    done: list[int] = []
    with pytest.warns(UserWarning, match="is damaged; it begins anew"):
        fitted = trained(make, recipe, Watch(done.append, scratch=tmp_path))
    assert done == [0] + [16] * 6  # anew
    assert all_of(fitted) == all_of(trained(make, recipe))


def test_what_a_kill_within_the_writing_leaves_is_harmless(tmp_path: Path) -> None:
    make, recipe = SETTINGS["sgd"]
    assert interrupted_after(4, make, recipe, tmp_path)
    (tmp_path / f"{SAVED}.partial").write_bytes((tmp_path / SAVED).read_bytes()[:99])
    done: list[int] = []
    fitted = trained(make, recipe, Watch(done.append, scratch=tmp_path))
    assert done[0] == 3 * 16
    assert all_of(fitted) == all_of(trained(make, recipe))


# ---------------------------------------------------------------- killed
PROGRAM = """
import sys
from pathlib import Path

from noisychannel.data import DataSpec
from noisychannel.defenses import Operated, RobustNet
from noisychannel.engine import Execution, Store, Train, run, serial
from noisychannel.networks import SmallNet
from noisychannel.training import Adversarial, Augment, Recipe, loop

loop._SAVE_SECONDS = 0.0
recipe = Recipe(
    epochs=4, batch_size=32, augment=Augment(1), validation=60, keep="best",
    adversarial=Adversarial(steps=2, start_epoch=2),
)
network = Operated(SmallNet(width=8), RobustNet())
train = Train(network, DataSpec("digits", "train"), recipe, execution=Execution(threads=1))
print("started", flush=True)
run([train], Store(Path(sys.argv[1])), serial, lambda whole, todo: lambda work: None)
print("done", flush=True)
"""


def steps_saved(root: Path) -> int:
    """How far the state in the scratch folder is."""
    for saved in (root / "scratch").glob(f"*/{SAVED}"):
        with safetensors.safe_open(saved, "pt") as file:
            state: Any = json.loads(file.metadata()["state"])
            return state["step"]
    return 0


@pytest.mark.slow  # a process that imports torch for every life
@pytest.mark.timeout(900)
def test_killed_at_random_moments_gives_the_same_bytes(tmp_path: Path) -> None:
    finish(start(PROGRAM, tmp_path / "whole"))
    expected = bytes_of(tmp_path / "whole")
    names = {Path(name).name for name in expected}
    assert names == {"weights.safetensors", "history.json", "task.json", "manifest.json"}

    killed = tmp_path / "killed"
    chance, progress = random.Random(4), [0]
    for _ in range(8):
        process, until = start(PROGRAM, killed), progress[-1] + chance.randint(1, 25)
        while steps_saved(killed) < until and process.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))  # within a step, or within the writing of its state
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL  # it was at work
        assert not (killed / "objects").exists()  # nothing is published before it is whole
        progress.append(steps_saved(killed))
    assert progress == sorted(progress)  # no life loses what one before has saved
    assert len(set(progress)) == 9  # and each gets somewhere
    finish(start(PROGRAM, killed))
    assert bytes_of(killed) == expected
    assert list((killed / "scratch").iterdir()) == []
    assert steps_saved(killed) == 0
