"""The command line: arguments → calls."""

import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Bar
from rich.text import Text

from noisychannel import audit as audits
from noisychannel.attacks import ATTACKS
from noisychannel.channels import CHANNELS, parse_channel
from noisychannel.data import DataSpec
from noisychannel.decision import DECISIONS, parse_decision
from noisychannel.engine import Execution, Plan, Store, Task, Tick, plan, run, serial
from noisychannel.errors import MissingArtifact, UserError
from noisychannel.experiments import EXPERIMENTS, Experiment, Scale, read, setting
from noisychannel.experiments.setting import digits_network
from noisychannel.networks import NETWORKS, authors_resnet20
from noisychannel.norms import L2, Linf
from noisychannel.report.figure import Figure, Grid
from noisychannel.report.html import Part, Provenance, Section, page, write_page
from noisychannel.report.plots import save_png
from noisychannel.types import Network

__all__ = ["main"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Is this perturbation defense real? Attack it as one who knows it would.",
)
console = Console()
errors = Console(stderr=True)

StoreOption = Annotated[
    Path, typer.Option("--store", help="Folder of results; a killed run goes on from it.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
ThreadsOption = Annotated[
    int, typer.Option("--threads", help="Threads of a task; part of its key.")
]
ScaleOption = Annotated[
    str, typer.Option("--scale", help="smoke (minutes), desk (a night), paper (a GPU).")
]


def main() -> None:
    """Entry point: a user's error is one sentence and exit code 2."""
    warnings.showwarning = _warn
    try:
        app()
    except UserError as error:
        errors.print(f"[bold red]error[/]: {error}", soft_wrap=True, highlight=False)
        sys.exit(2)


@app.command()
def audit(
    targets: Annotated[
        list[str], typer.Argument(help="gauss:0.3, fc:60, svd:50+clip … or FILE.py:FUNCTION")
    ],
    data: Annotated[str, typer.Option(help="digits, cifar10, a folder, or a hub name.")] = "digits",
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    subset: Annotated[
        str, typer.Option(help="all, first:200, every:5, balanced:200@7.")
    ] = "first:200",
    norm: Annotated[str, typer.Option(help="l2 or linf.")] = "l2",
    epsilon: Annotated[
        str, typer.Option(help="Budget in pixels of [0, 1], e.g. 0.5 or 8/255.")
    ] = "0.5",
    decision: Annotated[str, typer.Option(help="single, vote:K or mean_prob:K.")] = "single",
    assumed: Annotated[
        str, typer.Option(help="Channel that the partially adaptive attacker assumes.")
    ] = "laplace:0.05",
    network: Annotated[
        str, typer.Option(help="Behind a channel: small (trained here), or an authors' checkpoint.")
    ] = "",
    steps: Annotated[int, typer.Option(help="Gradients per image of each attack.")] = 40,
    eot: Annotated[int, typer.Option(help="Draws per gradient through a random channel.")] = 8,
    seed: Annotated[int, typer.Option(help="Root of all draws.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for report.html and the plots.")] = Path(
        "audit"
    ),
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 2,
) -> None:
    """Attack defenses under every threat setting and report what is left of them."""
    execution = Execution(device=device, threads=threads)
    chosen = DataSpec(data, split, subset)
    chosen.size  # noqa: B018  an unknown data set is said before anything else
    _writable(output)
    requests = tuple(
        audits.Request(
            name=text,
            defense=audits.target(
                text, chosen, lambda: _network(network, data, execution), parse_decision(decision)
            ),
            data=chosen,
            norm=_norm(norm),
            epsilon=_number("epsilon", epsilon),
            assumed=parse_channel(assumed),
            eot=eot,
            steps=steps,
            seed=seed,
            execution=execution,
        )
        for text in targets
    )
    results = Store(store)
    wanted = [m for r in requests for cell in audits.cells(r) for m in cell.measures]
    _run(wanted, results)
    outcomes = tuple(audits.outcome(r, results) for r in requests)
    first = requests[0]
    shown = page(
        "noisychannel audit: " + ", ".join(targets),
        audits.lead(outcomes),
        audits.sections(outcomes, results),
        _provenance(
            f"{chosen.size} images of {data} ({split}, {subset}); "
            f"{first.scoring} scoring draws per image where a defense is random",
            (("seed", str(seed)), ("device", device), ("threads", str(threads))),
        ),
    )
    _write(output, shown, audits.sections(outcomes, results), "report.html")
    console.print(audits.terminal_table(outcomes))
    console.print(f"report: {output / 'report.html'}")


@app.command("run")
def run_experiment(
    name: Annotated[str, typer.Argument(help="fig01, table1, or all.")],
    scale: ScaleOption = "smoke",
    output: Annotated[Path, typer.Option(help="Folder for the page and the plots.")] = Path(
        "reports"
    ),
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 2,
    micro_batch: Annotated[
        int, typer.Option(help="Images attacked together; part of the key.")
    ] = 128,
) -> None:
    """Reproduce figures and tables of the paper."""
    chosen = _experiments(name)
    execution = _execution(device, threads, micro_batch)
    _writable(output)
    results = Store(store)
    settings = [setting(_scale(scale), e.subsets, execution) for e in chosen]
    wanted = [
        m for e, s in zip(chosen, settings, strict=True) for c in e.cells(s) for m in c.measures
    ]
    _run(wanted, results)
    for experiment in chosen:
        _report(experiment, scale, execution, results, output)


@app.command()
def report(
    name: Annotated[str, typer.Argument(help="fig01, table1, or all.")] = "all",
    scale: ScaleOption = "smoke",
    output: Annotated[Path, typer.Option(help="Folder for the page and the plots.")] = Path(
        "reports"
    ),
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 2,
    micro_batch: Annotated[int, typer.Option(help="As in the run.")] = 128,
) -> None:
    """Draw pages again from stored rows; nothing is computed."""
    _writable(output)
    execution = _execution(device, threads, micro_batch)
    for experiment in _experiments(name):
        try:
            _report(experiment, scale, execution, Store(store), output)
        except MissingArtifact:
            command = f"noisychannel run {experiment.name} --scale {scale} --store {store}"
            raise UserError(
                f"report: {experiment.name} at scale {scale} is not run; do: {command}"
            ) from None


@app.command()
def status(
    scale: ScaleOption = "smoke",
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 2,
    micro_batch: Annotated[int, typer.Option(help="As in the run.")] = 128,
) -> None:
    """Say how much of each experiment is in the store."""
    execution = _execution(device, threads, micro_batch)
    for experiment in EXPERIMENTS:
        cells = experiment.cells(setting(_scale(scale), experiment.subsets, execution))
        whole = plan(m for c in cells for m in c.measures)
        left = whole.todo(Store(store))
        done = len(whole.tasks) - len(left.tasks)
        console.print(
            f"{experiment.name} ({scale}): {done} of {len(whole.tasks)} tasks done, "
            f"{left.work:.0f} of {whole.work:.0f} expected passes left"
        )


@app.command("list")
def list_parts() -> None:
    """List channels, attacks, decision rules, networks and experiments."""
    groups: dict[str, list[str]] = {
        "channels": [repr(c) for c in CHANNELS],
        "attacks": [repr(a) for a in ATTACKS],
        "decision rules": [repr(d) for d in DECISIONS],
        "networks": [repr(n) for n in NETWORKS],
        "experiments": [f"{e.name}: {e.title}" for e in EXPERIMENTS],
    }
    for title, items in groups.items():
        console.print(f"[bold]{title}[/]")
        for item in items:
            console.print(f"  {item}", highlight=False, soft_wrap=True)


def _report(
    experiment: Experiment, scale: str, execution: Execution, store: Store, output: Path
) -> None:
    where = setting(_scale(scale), experiment.subsets, execution)
    results = tuple(read(cell, store) for cell in experiment.cells(where))
    claims = experiment.claims(results)
    rows = tuple((c.sentence, "holds" if c.holds else "does not hold", c.evidence) for c in claims)
    checked = Grid("Claims", ("the paper says", "on these rows", "evidence"), rows)
    shown = (*experiment.sections(where, results), Section("Claims, checked", (checked,)))
    text = page(
        f"{experiment.title} ({scale})",
        "; ".join(f"{c.name}: {'holds' if c.holds else 'does not hold'}" for c in claims),
        shown,
        _provenance(
            f"{where.data.size} images; {where.words}",
            (("device", execution.device), ("threads", str(execution.threads))),
        ),
    )
    _write(output, text, shown, f"{experiment.name}.html")
    for claim in claims:
        mark = "[green]holds[/]" if claim.holds else "[yellow]does not hold[/]"
        console.print(f"{claim.name}: {mark}: {claim.evidence}", highlight=False, soft_wrap=True)
    console.print(f"page: {output / f'{experiment.name}.html'}")


def _run(wanted: list[Task], store: Store) -> None:
    with _progress() as bar:

        def watch(whole: Plan, todo: Plan) -> Tick:
            done = len(whole.tasks) - len(todo.tasks)
            line = bar.add_task(
                f"{len(todo.tasks)} tasks ({done} found in {store.root})", total=max(todo.work, 1.0)
            )
            return lambda amount: bar.advance(line, amount)

        run(wanted, store, serial, watch)


class _Rate(ProgressColumn):
    """Passes through networks per second."""

    def render(self, task: Bar) -> Text:
        return Text(f"{task.speed or 0.0:,.0f} passes/s")


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as shown:
        yield shown


def _network(name: str, data: str, execution: Execution) -> Network:
    if name.startswith("cifar10-"):
        return authors_resnet20(name)
    if data == "digits" and name in ("", "small"):
        return digits_network(execution)
    raise UserError(
        f"network: expected small (with --data digits), cifar10-resnet20-plain or "
        f"cifar10-resnet20-advtrain, or a FILE.py:FUNCTION target, got {name!r} with --data {data}"
    )


def _experiments(name: str) -> tuple[Experiment, ...]:
    chosen = tuple(e for e in EXPERIMENTS if name in (e.name, "all"))
    if not chosen:
        known = ", ".join(e.name for e in EXPERIMENTS)
        raise UserError(f"experiment: expected one of {known}, all, got {name!r}")
    return chosen


def _scale(text: str) -> Scale:
    for known in ("smoke", "desk", "paper"):
        if text == known:
            return known
    raise UserError(f"scale: expected smoke, desk or paper, got {text!r}")


def _norm(text: str) -> L2 | Linf:
    if text not in ("l2", "linf"):
        raise UserError(f"norm: expected l2 or linf, got {text!r}")
    return L2() if text == "l2" else Linf()


def _number(name: str, text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{name}: expected a number such as 0.5 or 8/255, got {text!r}") from None


def _execution(device: str, threads: int, micro_batch: int) -> Execution:
    return Execution(device, threads, micro_batch, max_rows=4 * micro_batch)


def _writable(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"output folder {output}: cannot be written ({error.strerror}); name another with --output"
        ) from None


def _write(output: Path, text: str, shown: tuple[Section, ...], name: str) -> None:
    write_page(output / name, text)
    parts: list[Part] = [part for section in shown for part in section.parts]
    for part in parts:
        if isinstance(part, Figure):
            save_png(part, output / f"{part.name}.png")


def _provenance(samples: str, facts: tuple[tuple[str, str], ...]) -> Provenance:
    command = "noisychannel " + shlex.join(sys.argv[1:])
    return Provenance(command, time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), samples, facts)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    errors.print(f"[bold yellow]warning[/]: {message}", soft_wrap=True, highlight=False)
