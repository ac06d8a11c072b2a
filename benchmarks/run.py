"""Speed and strength beside foolbox, in one run on the same images: ratios, not absolute times.

    python benchmarks/run.py [--images 200] [--repeats 3] [--device cpu] [--only cw]

Each attack is timed three ways on the paper authors' plain ResNet-20 (`$NOISYCHANNEL_DATA`, `$NOISYCHANNEL_WEIGHTS`):
ours, foolbox's, and foolbox's with our prepared network, so that it is plain what comes from the network and
what from the attack. Runs alternate; medians are printed and written to `benchmarks/latest.json`. Without the
data the digits and a network trained on the spot stand in. Training steps are timed too: `training.py`.
"""

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.attacks import DDN, PGD, CarliniWagner
from noisychannel.attacks.gradient import random_start
from noisychannel.data import DataSpec
from noisychannel.defenses import Defense
from noisychannel.networks import SmallNet, authors_resnet20, prepare
from noisychannel.norms import L2, Linf
from noisychannel.threats import DefenseView, non_adaptive
from noisychannel.training import Recipe, fit
from noisychannel.types import Attack, Batch
from training import training_rows

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import foolbox

EPSILON, STEP = 8 / 255, 2 / 255


class Case(NamedTuple):
    """One attack, ours and theirs."""

    name: str
    ours: Attack
    theirs: Callable[[nn.Module, Batch], Tensor]
    quality: str


class FixedStart(foolbox.attacks.LinfProjectedGradientDescentAttack):
    """foolbox's PGD from given starting points."""

    def __init__(self, start: Tensor, **numbers: Any) -> None:
        super().__init__(**numbers)
        self.start = start

    def get_random_start(self, x0: Any, epsilon: float) -> Any:
        return foolbox.models.base.ep.astensor(self.start)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--images", type=int, default=200)
    ask.add_argument("--repeats", type=int, default=3)
    ask.add_argument("--device", default="cpu")
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--only", default="")
    ask.add_argument("--output", type=Path, default=Path(__file__).with_name("latest.json"))
    args = ask.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False
    plain, batch = network_and_images("plain", args.images, args.device, correct=True)
    print(f"{len(batch)} correctly classified images, {args.device}, {args.threads} threads")
    rows = []
    for case in cases(batch):
        if args.only in case.name:
            repeats = 1 if case.name.startswith("cw") else args.repeats
            rows.append(timed(case, plain, batch, repeats, args.device))
    if args.only in "agreement":
        rows += [agreement(name, args) for name in ("plain", "advtrain")]
    if args.only in "training":
        rows += training_rows(steps=8, repeats=args.repeats, device=args.device)
    args.output.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"written to {args.output}")


def network_and_images(
    name: str, count: int, device: str, *, correct: bool
) -> tuple[nn.Module, Batch]:
    """A network and its first `count` test images, those it gets right if asked for."""
    if os.environ.get("NOISYCHANNEL_DATA") and os.environ.get("NOISYCHANNEL_WEIGHTS"):
        module = authors_resnet20(f"cifar10-resnet20-{name}").build().to(device)
        batch = DataSpec("cifar10", "test", f"first:{int(1.4 * count) + 20}").load().to(device)
    else:
        with rng.root("bench"):
            module = fit(SmallNet().build(), DataSpec("digits", "train").load(), Recipe()).network
        module, batch = module.to(device), DataSpec("digits", "test").load().to(device)
    module.requires_grad_(requires_grad=False)
    if correct:
        batch = batch.rows(module(batch.x).argmax(dim=1) == batch.y)
    return module, batch.rows(slice(0, count))


def cases(batch: Batch) -> list[Case]:
    start = random_start(Linf(), batch.x, EPSILON, batch.index, 0)
    attacks = foolbox.attacks

    def cw(module: nn.Module, b: Batch) -> Tensor:
        numbers: dict[str, Any] = {"binary_search_steps": 5, "steps": 100, "stepsize": 0.01}
        attack = attacks.L2CarliniWagnerAttack(**numbers, initial_const=0.01)
        return attack(wrapped(module, b), b.x, b.y, epsilons=None)[1]

    def pgd(module: nn.Module, b: Batch) -> Tensor:
        attack = FixedStart(start, steps=40, abs_stepsize=STEP)
        return attack(wrapped(module, b), b.x, b.y, epsilons=EPSILON)[1]

    def ddn(module: nn.Module, b: Batch) -> Tensor:
        return attacks.DDNAttack(steps=100)(wrapped(module, b), b.x, b.y, epsilons=None)[1]

    budget = PGD(Linf(), epsilon=EPSILON, steps=40, step_size=STEP, keep="last")
    return [
        Case("pgd-40", budget, pgd, "share fooled"),
        Case("ddn-100", DDN(100), ddn, "median L2"),
        Case("cw-5x100", CarliniWagner(5, 100, 0.01, 0.01), cw, "median L2"),
    ]


def wrapped(module: nn.Module, batch: Batch) -> Any:
    return foolbox.PyTorchModel(module, bounds=(0, 1), device=batch.x.device)


def timed(case: Case, module: nn.Module, batch: Batch, repeats: int, device: str) -> dict[str, Any]:
    """Alternating runs of ours, theirs, and theirs on our prepared network."""
    view = DefenseView(non_adaptive(Defense(Given(module))), device)
    prepared = prepare(module)
    found: dict[str, Any] = {}

    def ours() -> Tensor:
        found["ours"] = case.ours(view, batch)
        return found["ours"].x

    runs = {
        "ours": ours,
        "peer": lambda: case.theirs(module, batch),
        "peer, our network": lambda: case.theirs(prepared, batch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    points: dict[str, Tensor] = {}
    for _ in range(repeats):
        for name, go in runs.items():
            settle(device)
            begin = time.perf_counter()
            points[name] = go()
            settle(device)
            seconds[name].append(time.perf_counter() - begin)
    middle = {name: statistics.median(s) for name, s in seconds.items()}
    good = {name: quality(case, module, batch, x) for name, x in points.items()}
    cost = found["ours"].cost.backwards.float().mean()
    fooled = {
        n: float((module(x).argmax(dim=1) != batch.y).float().mean()) for n, x in points.items()
    }
    print(
        f"{case.name}: ours {middle['ours']:.1f} s, foolbox {middle['peer']:.1f} s "
        f"(ratio {middle['peer'] / middle['ours']:.2f}), foolbox on our network "
        f"{middle['peer, our network']:.1f} s (ratio {middle['peer, our network'] / middle['ours']:.2f}); "
        f"{case.quality}: ours {good['ours']:.4f}, foolbox {good['peer']:.4f}; fooled: ours "
        f"{fooled['ours']:.3f}, foolbox {fooled['peer']:.3f}; our gradients per image {cost:.0f}",
        flush=True,
    )
    return {
        "name": case.name,
        "peer": "foolbox",
        "ours_s": middle["ours"],
        "peer_s": middle["peer"],
        "peer_our_network_s": middle["peer, our network"],
        "ratio": middle["peer"] / middle["ours"],
        "ours_quality": good["ours"],
        "peer_quality": good["peer"],
        "quality": case.quality,
        "fooled": fooled,
        "evaluations": float(cost),
        "images": len(batch),
        "device": device,
    }


def agreement(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """PGD-40 from the same starting points: on how many images do ours and foolbox's disagree?"""
    module, batch = network_and_images(name, 500, args.device, correct=False)
    case = cases(batch)[0]
    assert isinstance(case.ours, PGD)
    start = random_start(Linf(), batch.x, EPSILON, batch.index, 0)
    view = DefenseView(non_adaptive(Defense(Given(module))), args.device)
    ours = module(case.ours(view, batch, start).x).argmax(dim=1) != batch.y
    theirs = module(case.theirs(module, batch)).argmax(dim=1) != batch.y
    share = float((ours != theirs).float().mean())
    robust = [1 - float(broken.float().mean()) for broken in (ours, theirs)]
    print(
        f"pgd-40 agreement on {name}, {len(batch)} images: robust accuracy ours {robust[0]:.3f}, "
        f"foolbox {robust[1]:.3f}; robust/broken differs on {100 * share:.1f} %",
        flush=True,
    )
    return {
        "name": f"pgd-40 agreement, {name}",
        "peer": "foolbox",
        "ours_quality": robust[0],
        "peer_quality": robust[1],
        "differs": share,
        "images": len(batch),
    }


class Given:
    """A built module as a network part."""

    stochastic = False
    keyed = True
    weights = "fixed"
    shape = (3, 32, 32)

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def build(self) -> nn.Module:
        return self.module


def quality(case: Case, module: nn.Module, batch: Batch, x: Tensor) -> float:
    if case.quality == "median L2":
        return float(L2().distance(x, batch.x).median())
    return float((module(x).argmax(dim=1) != batch.y).float().mean())


def settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
