"""TensorBoard event files: what a person reads there is what the history says."""

import struct
import threading
from pathlib import Path

import pytest
import torch

from noisychannel.data import DataSpec
from noisychannel.networks import SmallNet
from noisychannel.training import Recipe, Watch, fit


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """What stands in the event files: records of length (8 bytes), its sum (4), the event, its sum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + size])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            data = data[16 + size :]
    return found


def test_logs_hold_each_epoch(tmp_path: Path) -> None:
    batch = DataSpec("digits", "train", "first:100").load()
    recipe = Recipe(epochs=3, validation=20)
    history = fit(SmallNet(width=4).build(), batch, recipe, Watch(logs=tmp_path)).history
    threads = {type(thread).__name__ for thread in threading.enumerate()}
    assert "_EventLoggerThread" not in threads  # tensorboardX's writer has ended
    found = scalars(tmp_path)
    assert set(found) == {"loss", "learning_rate", "validation"}
    for epoch in history:
        assert found["loss"][epoch.epoch] == pytest.approx(epoch.loss, rel=1e-6)
        assert found["learning_rate"][epoch.epoch] == pytest.approx(epoch.rate, rel=1e-6)
        assert found["validation"][epoch.epoch] == pytest.approx(epoch.validation, rel=1e-6)


def test_without_tensorboardx_there_is_one_warning_and_the_same_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_fabric.loggers import tensorboard

    batch = DataSpec("digits", "train", "first:100").load()
    logged = fit(
        SmallNet(width=4).build(), batch, Recipe(epochs=1), Watch(logs=tmp_path / "logs")
    ).network
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(tensorboard, name, False)
    with pytest.warns(UserWarning, match="no logs are written, since tensorboardX is not") as told:
        bare = fit(
            SmallNet(width=4).build(), batch, Recipe(epochs=1), Watch(logs=tmp_path / "none")
        ).network
    assert len(told) == 1
    assert not (tmp_path / "none").exists()
    assert torch.equal(bare.state_dict()["conv1.weight"], logged.state_dict()["conv1.weight"])
