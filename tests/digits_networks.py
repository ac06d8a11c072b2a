"""The small network for handwritten digits that attacks are compared on, trained on the spot."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from torch import Tensor, nn

from linear import FixedNetwork
from noisychannel import rng
from noisychannel.data import DataSpec
from noisychannel.networks import SmallNet
from noisychannel.training import Recipe, fit
from noisychannel.types import Batch


@lru_cache(maxsize=1)
def trained() -> nn.Module:
    """Without gradients of its weights; the same module for everybody."""
    with rng.root("peers"):
        module = fit(SmallNet().build(), DataSpec("digits", "train").load(), Recipe()).network
    return module.eval().requires_grad_(requires_grad=False)


@dataclass(frozen=True)
class Digits(FixedNetwork):
    """That network as a part."""

    shape: ClassVar[tuple[int, ...]] = (1, 8, 8)

    def build(self) -> nn.Module:
        return trained()


def recognised(count: int) -> Batch:
    """The first test images that it gets right."""
    batch = DataSpec("digits", "test").load()
    return batch.rows(trained()(batch.x).argmax(dim=1) == batch.y).rows(slice(0, count))


def right(x: Tensor, batch: Batch) -> int:
    """How many of the images x, made from the batch, it still gets right."""
    return int((trained()(x).argmax(dim=1) == batch.y).sum())
