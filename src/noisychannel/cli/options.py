"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AssumedOption",
    "BaseOption",
    "BudgetOption",
    "DataOption",
    "DecisionOption",
    "DeviceOption",
    "EpsilonOption",
    "MicroOption",
    "MinutesOption",
    "NetworkOption",
    "NormOption",
    "OutputOption",
    "ScaleOption",
    "SeedOption",
    "SplitOption",
    "StoreOption",
    "SubsetOption",
    "ThreadsOption",
    "WorkersOption",
]

_NETWORK = typer.Option(
    "--network",
    help="Behind a target given by name: small (trained here), a zoo network (cifar10/plain-fast), a folder that "
    "train wrote, an authors' checkpoint.",
)
_STORE = typer.Option("--store", help="Folder of results; a killed run goes on from it.")

DataOption = Annotated[
    str, typer.Option("--data", help="digits, cifar10, a folder, or a hub name.")
]
SplitOption = Annotated[str, typer.Option("--split", help="Split of the data set.")]
SubsetOption = Annotated[
    str, typer.Option("--subset", help="all, first:200, every:5, balanced:200@7.")
]
NetworkOption = Annotated[str, _NETWORK]
SeedOption = Annotated[int, typer.Option("--seed", help="Root of all draws.")]
StoreOption = Annotated[Path, _STORE]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
ThreadsOption = Annotated[int, typer.Option("--threads", help="Threads of a task; in its key.")]
WorkersOption = Annotated[
    int,
    typer.Option(
        "--workers",
        help="Processes at most that make tasks side by side, of one thread each (on the CPU, with --threads 1). "
        "0: one for each core.",
    ),
]
MicroOption = Annotated[
    int, typer.Option("--micro-batch", help="Images attacked together; in a task's key.")
]
ScaleOption = Annotated[
    str, typer.Option("--scale", help="smoke (minutes), desk (a night), paper (a GPU).")
]
OutputOption = Annotated[Path, typer.Option("--output", help="Folder for the page and the plots.")]
EpsilonOption = Annotated[str, typer.Option(help="Budget in pixels of [0, 1], e.g. 0.5 or 8/255.")]
DecisionOption = Annotated[str, typer.Option(help="single, vote:K or mean_prob:K.")]
BudgetOption = Annotated[
    str, typer.Option(help="quick (minutes), standard (an hour or more), deep (a night, or a GPU).")
]
BaseOption = Annotated[
    str,
    typer.Option(
        help="The undefended network, or the defense at strength 0, named as a target; else what can be told."
    ),
]
AssumedOption = Annotated[
    str, typer.Option(help="Channel that the partially adaptive attacker assumes.")
]
MinutesOption = Annotated[
    float, typer.Option(help="Leave out what would not end in so many minutes. 0: no limit.")
]
NormOption = Annotated[str, typer.Option(help="l2 or linf.")]
