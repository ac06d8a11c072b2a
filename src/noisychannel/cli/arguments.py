"""Words of the command line → parts, and the door that refuses what does not fit."""

import os
import shlex
import sys
import time
from fractions import Fraction
from pathlib import Path

import torch

from noisychannel import zoo
from noisychannel.engine import Execution, Workers, cores
from noisychannel.errors import UserError
from noisychannel.experiments import EXPERIMENTS, Experiment, Scale
from noisychannel.experiments.setting import digits_network
from noisychannel.interop.authors import authors_network
from noisychannel.norms import L2, Linf
from noisychannel.report.figure import Figure
from noisychannel.report.html import Part, Provenance, Section, write_page
from noisychannel.report.plots import save_png
from noisychannel.types import Network

__all__ = [
    "command",
    "draw",
    "execution",
    "experiments",
    "limit",
    "network",
    "norm",
    "number",
    "provenance",
    "scale",
    "workers",
    "writable",
    "write",
]


def execution(device: str, threads: int, micro_batch: int, rows: int | None = None) -> Execution:
    """How tasks are computed; refused before the work if the device is not there.

    `rows` are those of one pass on the CPU; None: as many as on a GPU.
    """
    if device not in ("cpu", "cuda"):
        raise UserError(f"device: expected cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device: expected a CUDA device that torch can see, found none; use --device cpu"
        )
    most = 4 * (os.cpu_count() or 1)
    if threads > most:
        raise UserError(f"threads: expected at most {most} on this machine, got {threads}")
    most = 4 * micro_batch
    if rows is not None and device == "cpu":
        most = min(most, rows)
    return Execution(device, threads, micro_batch, max_rows=most)


def workers(count: int) -> Workers:
    """Processes that make tasks; 0: one for each core."""
    most = 4 * cores()
    if not 0 <= count <= most:
        raise UserError(
            f"workers: expected 0 (one for each core) to {most} on this machine, got {count}"
        )
    return Workers(count or cores())


def limit(minutes: float) -> float | None:
    """Minutes of the whole; 0: as long as it takes."""
    if minutes < 0:
        raise UserError(f"minutes: expected a number ≥ 0 (0: no limit), got {minutes:g}")
    return minutes or None


def network(name: str, data: str, how: Execution) -> Network:
    """The network behind a channel that was given by name."""
    if name.startswith(("cifar10-", "svhn-")):
        return authors_network(name)
    if "/" in name:
        return zoo.network(name)
    if data == "digits" and name in ("", "small"):
        return digits_network(how)
    raise UserError(
        "network: expected small (with --data digits), a zoo network such as cifar10/plain-fast, a "
        "folder that train wrote, one of the authors' such as cifar10-resnet20-plain, hub:owner/name, or a "
        "FILE.py:FUNCTION target, "
        f"got {name!r} with --data {data}"
    )


def experiments(name: str) -> tuple[Experiment, ...]:
    """One experiment by name, or all."""
    chosen = tuple(e for e in EXPERIMENTS if name in (e.name, "all"))
    if not chosen:
        known = ", ".join(e.name for e in EXPERIMENTS)
        raise UserError(f"experiment: expected one of {known}, all, got {name!r}")
    return chosen


def scale(text: str) -> Scale:
    """`smoke`, `desk` or `paper`."""
    known: tuple[Scale, ...] = ("smoke", "desk", "paper")
    for one in known:
        if text == one:
            return one
    raise UserError(f"scale: expected smoke, desk or paper, got {text!r}")


def norm(text: str) -> L2 | Linf:
    """`l2` or `linf`."""
    if text not in ("l2", "linf"):
        raise UserError(f"norm: expected l2 or linf, got {text!r}")
    return L2() if text == "l2" else Linf()


def number(name: str, text: str) -> float:
    """A decimal number or a fraction."""
    try:
        return float(Fraction(text))
    except (ValueError, OverflowError, ZeroDivisionError):
        raise UserError(f"{name}: expected a number such as 0.5 or 8/255, got {text!r}") from None


def writable(output: Path) -> None:
    """Fail before the work, not after it."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"output folder {output}: cannot be written ({error.strerror}); "
            "name another with --output"
        ) from None


def write(output: Path, text: str, shown: tuple[Section, ...], name: str) -> None:
    """The page, and its figures as PNG."""
    write_page(output / name, text)
    draw(output, shown)


def draw(folder: Path, shown: tuple[Section, ...]) -> None:
    """All figures as PNG."""
    parts: list[Part] = [part for section in shown for part in section.parts]
    for part in parts:
        if isinstance(part, Figure):
            save_png(part, folder / f"{part.name}.png")


def provenance(samples: str, facts: tuple[tuple[str, str], ...]) -> Provenance:
    """What was typed, and when."""
    return Provenance(command(), time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), samples, facts)


def command() -> str:
    """What was typed."""
    return "noisychannel " + shlex.join(sys.argv[1:])
