"""Speed and strength beside the peers, in one run on the same images: ratios, not absolute times.

    python benchmarks/run.py [--images 128] [--repeats 5] [--minutes 30] [--device cpu] [--threads 2] [--only NAME]

Each attack is timed on the paper authors' plain ResNet-20 (`$NOISYCHANNEL_DATA`, `$NOISYCHANNEL_WEIGHTS`) three ways:
ours, the peer's on the network as a user loads it, and the peer's on our prepared network, so that it is plain what
comes from the network and what from the attack (the last in the first `--network-repeats` rounds only). Runs
alternate; medians are printed and written to `benchmarks/latest.json`. A case that has used its `--minutes` makes no
further rounds, and its rows say how many were made. Without the data the digits and a network trained on the spot
stand in. `--only` renews the rows of the cases whose name begins so and keeps the others. Training steps are timed
too: `training.py`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peers
import torch
from cases import Case, Given, cases, gradient_attacks, network_and_images
from hessian import hessian_rows
from torch import Tensor, nn

from noisychannel.attacks import PGD
from noisychannel.attacks.gradient import random_start
from noisychannel.defenses import Defense, answers
from noisychannel.networks import prepare
from noisychannel.norms import L2, Linf
from noisychannel.objectives import CrossEntropy
from noisychannel.threats import DefenseView, non_adaptive
from noisychannel.types import Adversarials, Batch
from training import training_rows

ON_OURS = ", our network"


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--images", type=int, default=128)
    ask.add_argument("--repeats", type=int, default=5)
    ask.add_argument("--network-repeats", type=int, default=2, help="of peers on our network")
    ask.add_argument("--minutes", type=float, default=30.0, help="per case, at least one round")
    ask.add_argument("--device", default="cpu")
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--only", default="")
    ask.add_argument("--output", type=Path, default=Path(__file__).with_name("latest.json"))
    args = ask.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.allow_tf32 = False
    module, batch = network_and_images("plain", args.images, args.device, correct=True)
    print(f"{len(batch)} correctly classified images, {args.device}, {args.threads} threads")
    rows: list[dict[str, Any]] = []
    for case in cases(batch):
        if case.name.startswith(args.only):
            rows += timed(case, module, batch, args)
    if "efficiency".startswith(args.only):
        rows += efficiency(module, batch, args)
    if "agreement".startswith(args.only):
        rows += [agreement(name, args) for name in ("plain", "advtrain")]
    if "hessian".startswith(args.only):
        rows += hessian_rows(module, batch, args.repeats, args.device)
    if "training".startswith(args.only):
        rows += training_rows(steps=8, repeats=args.repeats, device=args.device)
    kept = json.loads(args.output.read_text()) if args.only and args.output.exists() else []
    renewed = {r["name"] for r in rows}
    rows = [r for r in kept if r["name"] not in renewed] + rows
    args.output.write_text(json.dumps(rows, indent=1) + "\n")
    table(rows)
    print(f"written to {args.output}")


def timed(
    case: Case, module: nn.Module, batch: Batch, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Alternating runs of ours, and of each peer on the network as loaded and on our prepared network."""
    batch = batch.rows(slice(0, case.images)) if case.images else batch
    prepared = prepare(module)
    found: dict[str, Adversarials] = {}

    def ours(name: str, view: DefenseView) -> Tensor:
        found[name] = case.ours[name].attack(view, batch)
        return found[name].x

    loaded = module.requires_grad_(requires_grad=True)  # as `load_state_dict` leaves it
    runs: dict[str, Callable[[], Tensor]] = {}
    for name, mine in case.ours.items():
        view = DefenseView(mine.threat(module), args.device)
        runs[name] = lambda name=name, view=view: ours(name, view)
    for name, go in case.peers.items():
        runs[name] = lambda go=go: go(loaded, batch)
        if case.on_ours:
            runs[name + ON_OURS] = lambda go=go: go(prepared, batch)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    points: dict[str, Tensor] = {}
    began = time.perf_counter()
    for turn in range(args.repeats):
        for name, go in runs.items():
            if name.endswith(ON_OURS) and turn >= args.network_repeats:
                continue
            settle(args.device)
            begin = time.perf_counter()
            points[name] = go().detach()
            settle(args.device)
            seconds[name].append(time.perf_counter() - begin)
        if time.perf_counter() - began > 60 * args.minutes:
            break
    module.requires_grad_(requires_grad=False)
    rows = [
        row_of(case, name, peer, seconds, found[name], points, module, batch)
        for name, mine in case.ours.items()
        for peer in mine.goals
    ]
    for row in rows:
        row["device"] = args.device
        print(sentence(row), flush=True)
    return rows


def row_of(
    case: Case,
    name: str,
    peer: str,
    seconds: dict[str, list[float]],
    found: Adversarials,
    points: dict[str, Tensor],
    module: nn.Module,
    batch: Batch,
) -> dict[str, Any]:
    """One of ours beside one peer."""
    mine = case.ours[name]
    defense = mine.threat(module).assumed
    middle = {run: statistics.median(s) for run, s in seconds.items() if s}
    fooled = [share_fooled(defense, module, batch, points[run]) for run in (name, peer)]
    good = fooled
    if case.quality == "median L2":
        good = [float(L2().distance(points[run], batch.x).median()) for run in (name, peer)]
    evaluations = found.cost.backwards if mine.gradient else found.cost.forwards
    return {
        "name": name,
        "peer": peer,
        "ours_s": middle[name],
        "peer_s": middle[peer],
        "ratio": middle[peer] / middle[name],
        "ours_quality": good[0],
        "peer_quality": good[1],
        "evaluations": float(evaluations.float().mean()),
        "peer_our_network_s": middle.get(peer + ON_OURS),
        "quality": case.quality,
        "fooled": {"ours": fooled[0], "peer": fooled[1]},
        "goal": mine.goals[peer],
        "images": len(batch),
        "runs": len(seconds[name]),
    }


def sentence(row: dict[str, Any]) -> str:
    other = row["peer_our_network_s"]
    network = f" (on our network {other / row['ours_s']:.2f})" if other else ""
    goal = f", goal {row['goal']:g}" if row["goal"] else ""
    return (
        f"{row['name']}: ours {row['ours_s']:.2f} s, {row['peer']} {row['peer_s']:.2f} s, ratio {row['ratio']:.2f}"
        f"{network}{goal}; {row['quality']}: ours {row['ours_quality']:.4f}, theirs {row['peer_quality']:.4f}; fooled: "
        f"{row['fooled']['ours']:.3f}, {row['fooled']['peer']:.3f}; {row['evaluations']:.0f} evaluations an image; "
        f"{row['images']} images, {row['runs']} runs"
    )


def table(rows: list[dict[str, Any]]) -> None:
    """All rows, one a line."""
    print(
        f"\n{'what':34} {'peer':22} {'ours s':>8} {'peer s':>8} {'ratio':>6} {'goal':>5} {'on our net':>10}"
    )
    for r in rows:
        if "ratio" not in r:
            continue
        other = r.get("peer_our_network_s")
        network = f"{other / r['ours_s']:10.2f}" if other else " " * 10
        goal = f"{r['goal']:5g}" if r.get("goal") else " " * 5
        print(
            f"{r['name']:34} {r['peer']:22} {r['ours_s']:8.2f} {r['peer_s']:8.2f} {r['ratio']:6.2f} {goal} {network}"
        )


def efficiency(module: nn.Module, batch: Batch, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Gradients per second inside each gradient attack over those of the bare loop on the prepared network."""
    view = DefenseView(non_adaptive(Defense(Given(module))), args.device)
    prepared = prepare(module)

    def bare(model: nn.Module, count: int = 12) -> float:
        begin = time.perf_counter()
        for _ in range(count):
            leaf = batch.x.detach().requires_grad_()
            loss = CrossEntropy()(model(leaf), batch.goal).sum()
            torch.autograd.grad(loss, leaf)
        settle(args.device)
        return count * len(batch) / (time.perf_counter() - begin)

    rows = []
    networks = {"as loaded": module, "prepared": prepared}
    rates = {
        n: statistics.median(bare(m) for _ in range(args.repeats)) for n, m in networks.items()
    }
    said = ", ".join(f"{n} {r:.0f}" for n, r in rates.items())
    print(f"bare forward-backward loop, gradients/s: {said}", flush=True)
    for name, attack in gradient_attacks().items():
        inside, outside = [], []
        for _ in range(args.repeats):
            outside.append(bare(prepared))
            begin = time.perf_counter()
            cost = attack(view, batch).cost
            settle(args.device)
            inside.append(float(cost.backwards.sum()) / (time.perf_counter() - begin))
        share = statistics.median(inside) / statistics.median(outside)
        print(f"efficiency of {name}: {share:.3f} of the bare loop (goal .93)", flush=True)
        rows.append(
            {
                "name": f"efficiency of {name}",
                "peer": "bare loop, prepared",
                "ours_s": 1 / statistics.median(inside),
                "peer_s": 1 / statistics.median(outside),
                "ratio": share,
                "goal": 0.93,
                "images": len(batch),
                "device": args.device,
            }
        )
    return rows


def agreement(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """PGD-40 from the same starting points: on how many images do ours and foolbox's disagree?"""
    module, batch = network_and_images(name, 500, args.device, correct=False)
    start = random_start(Linf(), batch.x, peers.EPSILON, batch.index, 0)
    view = DefenseView(non_adaptive(Defense(Given(module))), args.device)
    attack = PGD(Linf(), epsilon=peers.EPSILON, steps=40, step_size=peers.STEP, keep="last")
    ours = module(attack(view, batch, start).x).argmax(dim=1) != batch.y
    theirs = module(peers.foolbox_pgd(start)(module, batch)).argmax(dim=1) != batch.y
    share = float((ours != theirs).float().mean())
    robust = [1 - float(broken.float().mean()) for broken in (ours, theirs)]
    print(
        f"pgd-40 agreement on {name}, {len(batch)} images: robust accuracy ours {robust[0]:.3f}, "
        f"foolbox {robust[1]:.3f}; robust/broken differs on {100 * share:.1f} %",
        flush=True,
    )
    return {
        "name": f"agreement of pgd-40, {name}",
        "peer": "foolbox",
        "ours_quality": robust[0],
        "peer_quality": robust[1],
        "differs": share,
        "images": len(batch),
    }


def share_fooled(defense: Defense, module: nn.Module, batch: Batch, x: Tensor) -> float:
    """Share of wrong answers of the attacked defense, on fresh draws where it is random."""
    draws = 16 if defense.stochastic else 1
    labels = answers(defense, module, x, batch, "scoring", draws).logits.argmax(dim=2)
    return float((labels != batch.y).float().mean())


def settle(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
