"""The command that trains a preset and writes its model card."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from noisychannel import zoo
from noisychannel.cli import arguments
from noisychannel.cli.options import DeviceOption, StoreOption, ThreadsOption
from noisychannel.cli.progress import run_with_bar
from noisychannel.engine import Store, key_of, serial
from noisychannel.errors import expected

__all__ = ["train"]

_PRESET = typer.Option("--preset", help="cifar10/robustnet …; noisychannel list shows all.")
_EPOCHS = typer.Option(help="Another number of epochs than the preset's, for a trial; 0: its own.")
_DEVICES = typer.Option(help="Processes that share each batch: GPUs, or several on the CPU.")
_OUTPUT = typer.Option("--output", help="Folder in which NAME/ gets weights and model card.")


def train(
    preset: Annotated[str, _PRESET],
    epochs: Annotated[int, _EPOCHS] = 0,
    seed: Annotated[int, typer.Option(help="Root of all draws.")] = 0,
    devices: Annotated[int, _DEVICES] = 1,
    output: Annotated[Path, _OUTPUT] = Path("trained"),
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 2,
) -> None:
    """Train one of the paper's networks and write its weights and model card."""
    chosen = zoo.preset(preset)
    if epochs < 0:
        raise expected("epochs", "a whole number ≥ 0", epochs)
    if epochs:
        chosen = zoo.shorter(chosen, epochs)
    how = arguments.execution(device, threads, micro_batch=128)
    arguments.writable(output / chosen.name)
    _ = chosen.train.size, chosen.test.size  # what is wrong with the data is said before the work
    task = zoo.train(chosen, seed, devices, how)
    zoo.check_place(output / chosen.name, task)
    measure = zoo.clean_measure(task, chosen)
    results = Store(store)
    run_with_bar([measure], results, serial)
    card = zoo.write_card(chosen, task, measure, results, output / chosen.name, arguments.command())
    console = Console()
    words = f"{chosen.name}: clean accuracy {card.clean.percent}, {card.clean.n} test examples"
    console.print(words, markup=False, highlight=False, soft_wrap=True)
    folder = output / chosen.name
    console.print(f"model card: {folder / 'README.md'}", markup=False, soft_wrap=True)
    logs = results.logs(key_of(task))
    if logs.is_dir():
        console.print(f"logs: tensorboard --logdir {logs}", markup=False, soft_wrap=True)
