"""The commands."""

import sys
import warnings
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.markup import escape

from noisychannel import audit as audits
from noisychannel.attacks import ATTACKS
from noisychannel.channels import CHANNELS, parse_channel
from noisychannel.cli import arguments
from noisychannel.cli.certify import certify
from noisychannel.cli.options import (
    DeviceOption,
    MicroOption,
    OutputOption,
    StoreOption,
    ThreadsOption,
)
from noisychannel.cli.paper import report, run_experiment, status
from noisychannel.cli.progress import errors, run_with_bar
from noisychannel.cli.train import train
from noisychannel.data import DataSpec
from noisychannel.decision import DECISIONS, parse_decision
from noisychannel.defenses import DEFENSES
from noisychannel.engine import Store, trainings
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

_DATA = typer.Option(help="digits, cifar10, a folder, or a hub name.")
_SUBSET = typer.Option(help="all, first:200, every:5, balanced:200@7.")
_EPSILON = typer.Option(help="Budget in pixels of [0, 1], e.g. 0.5 or 8/255.")
_DECISION = typer.Option(help="single, vote:K or mean_prob:K.")
_ASSUMED = typer.Option(help="Channel that the partially adaptive attacker assumes.")
_NETWORK = typer.Option(
    help="Behind a channel: small (trained here), a zoo network (cifar10/plain-fast), a folder that train "
    "wrote, an authors' checkpoint."
)
_STEPS = typer.Option(help="Gradients per image of PGD; the search for the smallest takes more.")
_EOT = typer.Option(help="Draws per gradient through a random channel.")
_TARGETS = typer.Argument(
    help="gauss:0.3, fc:60, svd:50+clip …, zoo:NAME, zoo:FOLDER of a trained network, or FILE.py:FUNCTION"
)


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


app.command()(train)
app.command()(certify)
app.command("run")(run_experiment)
app.command()(report)
app.command()(status)


@app.command()
def audit(
    targets: Annotated[list[str], _TARGETS],
    data: Annotated[str, _DATA] = "digits",
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    subset: Annotated[str, _SUBSET] = "first:200",
    norm: Annotated[str, typer.Option(help="l2 or linf.")] = "l2",
    epsilon: Annotated[str, _EPSILON] = "0.5",
    decision: Annotated[str, _DECISION] = "single",
    assumed: Annotated[str, _ASSUMED] = "laplace:0.05",
    network: Annotated[str, _NETWORK] = "",
    steps: Annotated[int, _STEPS] = 40,
    eot: Annotated[int, _EOT] = 8,
    seed: Annotated[int, typer.Option(help="Root of all draws.")] = 0,
    output: OutputOption = Path("audit"),
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 2,
    micro_batch: MicroOption = 128,
) -> None:
    """Attack defenses under every threat setting and report what is left of them."""
    how = arguments.execution(device, threads, micro_batch)
    rule = parse_decision(decision)
    chosen = DataSpec(data, split, subset)
    images = len(chosen.load())  # whatever is wrong with the data is said before anything else
    arguments.writable(output)

    def request(text: str) -> audits.Request:
        behind = audits.target(text, chosen, lambda: arguments.network(network, data, how), rule)
        return audits.Request(
            name=text,
            defense=behind,
            data=chosen,
            norm=arguments.norm(norm),
            epsilon=arguments.number("epsilon", epsilon),
            assumed=parse_channel(assumed),
            eot=eot,
            steps=steps,
            seed=seed,
            execution=how,
        )

    requests = tuple(request(text) for text in targets)
    for one in requests:
        if not trainings(one.defense):
            audits.check_fit(one.name, one.defense, chosen)
    results = Store(store)
    run_with_bar([m for r in requests for c in audits.cells(r) for m in c.measures], results)
    outcomes = tuple(audits.outcome(r, results) for r in requests)
    samples = f"{images} images of {data} ({split}, {subset})"
    facts = (
        ("seed", str(seed)),
        ("draws per gradient", str(eot)),
        ("device", f"{device}, {threads} threads, micro-batch {micro_batch}"),
    )
    text, shown = audits.render(outcomes, results, arguments.provenance(samples, facts))
    arguments.write(output, text, shown, "report.html")
    _say(outcomes, output)


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


def _say(outcomes: tuple[audits.Outcome, ...], output: Path) -> None:
    console.print(audits.terminal_table(outcomes))
    for o in outcomes:
        for doubt in o.doubts:
            warnings.warn(f"{o.request.name}: {doubt}", UserWarning, stacklevel=1)
    console.print(
        f"report: {output / 'report.html'}", markup=False, highlight=False, soft_wrap=True
    )


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    errors.print(
        f"[bold yellow]warning[/]: {escape(str(message))}", soft_wrap=True, highlight=False
    )
