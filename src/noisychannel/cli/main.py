"""The commands."""

import sys
import warnings

import torch
import typer
from rich.console import Console
from rich.markup import escape

from noisychannel.attacks import ATTACKS
from noisychannel.channels import CHANNELS
from noisychannel.cli.audit import audit, compare
from noisychannel.cli.certify import certify
from noisychannel.cli.paper import report, run_experiment, status
from noisychannel.cli.progress import errors
from noisychannel.cli.train import train
from noisychannel.decision import DECISIONS
from noisychannel.defenses import DEFENSES
from noisychannel.errors import UserError
from noisychannel.experiments import EXPERIMENTS
from noisychannel.networks import NETWORKS
from noisychannel.zoo import PRESETS, has_weights

__all__ = ["main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Is this perturbation defense real? Attack it as one who knows it would.",
)
console = Console()


def main() -> None:
    """Entry point: a user's error is one sentence and exit code 2."""
    warnings.showwarning = _warn
    # Denormals can slow a pass tenfold. Per thread, and threads inherit it: hence before the first tensor.
    torch.set_flush_denormal(True)
    try:
        app()
    except UserError as error:
        errors.print(f"[bold red]error[/]: {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(2)


app.command()(audit)
app.command()(compare)
app.command()(train)
app.command()(certify)
app.command("run")(run_experiment)
app.command()(report)
app.command()(status)


@app.command("list")
def list_parts() -> None:
    """List channels, attacks, decision rules, networks, defenses, presets and experiments."""
    groups: dict[str, list[str]] = {
        "channels": [repr(c) for c in CHANNELS],
        "attacks": [repr(a) for a in ATTACKS],
        "decision rules": [repr(d) for d in DECISIONS],
        "networks": [repr(n) for n in NETWORKS],
        "defenses by surgery": [repr(d) for d in DEFENSES],
        "presets (noisychannel train --preset NAME)": [
            f"{p.name} (figures {p.figures})" + (", comes trained" if has_weights(p.name) else "")
            for p in PRESETS
        ],
        "experiments": [f"{e.name}: {e.title}" for e in EXPERIMENTS],
    }
    for title, items in groups.items():
        console.print(f"[bold]{title}[/]")
        for item in items:
            console.print(f"  {item}", highlight=False, soft_wrap=True)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    errors.print(
        f"[bold yellow]warning[/]: {escape(str(message))}", soft_wrap=True, highlight=False
    )
