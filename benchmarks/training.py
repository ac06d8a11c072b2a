"""Training steps beside a bare PyTorch loop of the same network, and with noise beside without: ratios of one run."""

import copy
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from noisychannel import rng
from noisychannel.defenses import RobustNet
from noisychannel.networks import ResNet20
from noisychannel.training import Augment, Recipe, Watch, fit
from noisychannel.types import Batch

__all__ = ["training_rows"]

BATCH = 128


def training_rows(steps: int, repeats: int, device: str) -> list[dict[str, Any]]:
    """Median seconds of a step: bare loop, ours, ours with crops and flips, ours with RobustNet's noise."""
    made = torch.Generator().manual_seed(0)
    batch = Batch(
        torch.rand(BATCH * steps, 3, 32, 32, generator=made),
        torch.randint(0, 10, (BATCH * steps,), generator=made),
        torch.arange(BATCH * steps),
    ).to(device)
    plain = ResNet20().build().to(device)
    noisy = RobustNet()(plain, (3, 32, 32))
    recipe = Recipe(epochs=1, batch_size=BATCH)
    augmented = Recipe(epochs=1, batch_size=BATCH, augment=Augment())
    runs: dict[str, Callable[[], Iterator[float]]] = {
        "bare loop": lambda: bare(plain, batch, device),
        "ours": lambda: ours(plain, batch, recipe, device),
        "ours, crops and flips": lambda: ours(plain, batch, augmented, device),
        "ours, RobustNet": lambda: ours(noisy, batch, recipe, device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, go in runs.items():
            seconds[name] += list(go())[1:]  # the first step of a run finds its memory and kernels
    middle = {name: statistics.median(s) for name, s in seconds.items()}
    rows = [
        row("training step", "bare PyTorch loop", middle["ours"], middle["bare loop"], device),
        row("training step, crops and flips", "bare PyTorch loop without them",
            middle["ours, crops and flips"], middle["bare loop"], device),
        row("RobustNet training step", "our plain step", middle["ours, RobustNet"], middle["ours"], device),
    ]  # fmt: skip
    for r in rows:
        print(
            f"{r['name']}: {1000 * r['ours_s']:.0f} ms, {r['peer']}: {1000 * r['peer_s']:.0f} ms "
            f"(ratio {r['ratio']:.2f}), batches of {BATCH}, ResNet-20, {device}",
            flush=True,
        )
    return rows


def row(name: str, peer: str, ours_s: float, peer_s: float, device: str) -> dict[str, Any]:
    return {
        "name": name, "peer": peer, "ours_s": ours_s, "peer_s": peer_s, "ratio": peer_s / ours_s,
        "device": device,
    }  # fmt: skip


def bare(module: nn.Module, batch: Batch, device: str) -> Iterator[float]:
    """What one would write by hand: channels last too, since that is the faster loop."""
    model = copy.deepcopy(module).train().to(memory_format=torch.channels_last)
    x = batch.x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    for start in range(0, len(batch), BATCH):
        begin = time.perf_counter()
        loss = functional.cross_entropy(
            model(x[start : start + BATCH]), batch.y[start : start + BATCH]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        settle(device)
        yield time.perf_counter() - begin


def ours(module: nn.Module, batch: Batch, recipe: Recipe, device: str) -> Iterator[float]:
    """The time between two ticks of `fit`."""
    told: list[float] = []

    def tick(_examples: int) -> None:
        settle(device)
        told.append(time.perf_counter())

    with rng.root("bench"):
        fit(module, batch, recipe, Watch(tick=tick))
    yield from (b - a for a, b in itertools.pairwise(told))


def settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
