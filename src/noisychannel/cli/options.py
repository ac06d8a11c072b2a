"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "DeviceOption",
    "MicroOption",
    "OutputOption",
    "ScaleOption",
    "StoreOption",
    "ThreadsOption",
]

_STORE = typer.Option("--store", help="Folder of results; a killed run goes on from it.")

StoreOption = Annotated[Path, _STORE]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
ThreadsOption = Annotated[int, typer.Option("--threads", help="Threads of a task; in its key.")]
MicroOption = Annotated[
    int, typer.Option("--micro-batch", help="Images attacked together; in a task's key.")
]
ScaleOption = Annotated[
    str, typer.Option("--scale", help="smoke (minutes), desk (a night), paper (a GPU).")
]
OutputOption = Annotated[Path, typer.Option("--output", help="Folder for the page and the plots.")]
