"""Band-limited and half-precision layers in the paper authors' own trained network."""

import os

import pytest
import torch
from torch import Tensor, nn

from noisychannel.data import DataSpec
from noisychannel.defenses.band_limited import BandLimited
from noisychannel.defenses.network import Surgery
from noisychannel.defenses.precision import HalfPrecision
from noisychannel.networks import authors_resnet20, prepare
from noisychannel.types import Batch

pytestmark = pytest.mark.skipif(
    not {"NOISYCHANNEL_DATA", "NOISYCHANNEL_WEIGHTS"} <= set(os.environ),
    reason="needs $NOISYCHANNEL_DATA (cifar10) and $NOISYCHANNEL_WEIGHTS (the authors' networks)",
)

SHAPE = (3, 32, 32)


def logits(module: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return torch.cat([prepare(module)(x) for x in batch.x.split(100)])


def compare(surgery: Surgery) -> tuple[Tensor, Tensor, Batch]:
    """Logits of the plain network and of that after surgery, on 500 test images."""
    net = authors_resnet20("cifar10-resnet20-plain").build()
    batch = DataSpec("cifar10", subset="first:500").load()
    return logits(net, batch), logits(surgery(net, SHAPE), batch), batch


def test_at_rate_zero_every_prediction_stays() -> None:
    plain, limited, _ = compare(BandLimited(0))
    assert torch.equal(plain.argmax(dim=1), limited.argmax(dim=1))
    torch.testing.assert_close(limited, plain, rtol=0, atol=1e-3)


def test_half_precision_hardly_changes_a_prediction() -> None:
    plain, low, _ = compare(HalfPrecision())
    assert not torch.equal(plain, low)
    assert int((plain.argmax(dim=1) != low.argmax(dim=1)).sum()) <= 3
