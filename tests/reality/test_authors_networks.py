"""The paper authors' own networks on all of CIFAR-10: exactly the accuracy that they recorded."""

import os

import pytest
import torch
from torch import nn

from noisychannel.data import DataSpec
from noisychannel.networks import AUTHORS_NAMES, Checkpoint, ResNet20, authors_resnet20, prepare
from noisychannel.types import Batch

pytestmark = pytest.mark.skipif(
    not {"NOISYCHANNEL_DATA", "NOISYCHANNEL_WEIGHTS"} <= set(os.environ),
    reason="needs $NOISYCHANNEL_DATA (cifar10) and $NOISYCHANNEL_WEIGHTS (the authors' networks)",
)


def correct(module: nn.Module, batch: Batch) -> int:
    with torch.no_grad():
        hits = [
            (module(batch.x[rows]).argmax(dim=1) == batch.y[rows]).sum()
            for rows in torch.arange(len(batch)).split(250)
        ]
    return int(torch.stack(hits).sum())


@pytest.mark.parametrize(("name", "recorded"), [("plain", 8800), ("advtrain", 8402)])
def test_clean_accuracy_is_the_recorded_one(name: str, recorded: int) -> None:
    network = authors_resnet20(f"cifar10-resnet20-{name}").build()
    assert correct(prepare(network), DataSpec("cifar10").load()) == recorded


def test_the_other_shortcut_is_near_chance() -> None:
    checkpoint = Checkpoint("cifar10-resnet20-plain", AUTHORS_NAMES)
    batch = DataSpec("cifar10", subset="first:500").load()
    assert correct(ResNet20(checkpoint=checkpoint).build(), batch) > 420
    assert correct(ResNet20(shortcut="split", checkpoint=checkpoint).build(), batch) < 125


def test_prepared_authors_network_is_the_same_function() -> None:
    network = authors_resnet20("cifar10-resnet20-advtrain").build()
    x = DataSpec("cifar10", subset="first:100").load().x
    with torch.no_grad():
        torch.testing.assert_close(prepare(network)(x), network(x), rtol=0, atol=1e-4)


def test_cifar10_is_whole_and_in_order() -> None:
    batch = DataSpec("cifar10").load()
    assert batch.y[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]  # cat, ship, ship, airplane …
    assert batch.y.bincount().tolist() == [1000] * 10
    # Test-set mean of each colour (Krizhevsky 2009).
    torch.testing.assert_close(
        batch.x.double().mean(dim=(0, 2, 3)), torch.tensor([0.49421, 0.48513, 0.45041]).double(),
        rtol=0, atol=1e-5,
    )  # fmt: skip
