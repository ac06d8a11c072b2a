"""The commands of the paper's experiments: run, report, status."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from noisychannel.cli import arguments
from noisychannel.cli.options import (
    DeviceOption,
    MicroOption,
    OutputOption,
    ScaleOption,
    StoreOption,
    ThreadsOption,
    WorkersOption,
)
from noisychannel.cli.progress import run_with_bar
from noisychannel.engine import Craft, Execution, Plan, Store, Task, key_of, pace, plan
from noisychannel.errors import MissingArtifact, UserError
from noisychannel.experiments import EXPERIMENTS, Claim, Experiment, Setting, setting
from noisychannel.experiments.abstract import abstract
from noisychannel.experiments.page import Chapter, chapter, paper, render
from noisychannel.report.markdown import markdown

__all__ = ["report", "run_experiment", "status"]

console = Console()

_NAME = typer.Argument(help="fig01, table1 …, or all; claims: the table of all claims.")
_DRAWN = typer.Argument(help="fig01, table1 …, or all; paper: one page of all; claims: the table.")
_DRY = typer.Option("--dry-run", help="Say what it takes, and run nothing.")
_JSON = typer.Option("--json", help="Write the claims to this file.")


def run_experiment(
    name: Annotated[str, _NAME],
    scale: ScaleOption = "smoke",
    output: OutputOption = Path("reports"),
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    workers: WorkersOption = 0,
    micro_batch: MicroOption = 128,
    dry_run: Annotated[bool, _DRY] = False,  # noqa: FBT002  # typer's way of a switch
    json_file: Annotated[Path | None, _JSON] = None,
) -> None:
    """Reproduce figures and tables of the paper."""
    chosen = arguments.experiments("all" if name == "claims" else name)
    execution = arguments.execution(device, threads, micro_batch)
    executor = arguments.workers(workers)
    places = [_setting(e, scale, execution) for e in chosen]
    results = Store(store)
    if dry_run:
        _foresee(list(zip(chosen, places, strict=True)), results, executor.count)
        return
    arguments.writable(output)
    wanted = [m for e, s in zip(chosen, places, strict=True) for m in _wanted(e, s)]
    run_with_bar(wanted, results, executor)
    made = [chapter(e, s, results) for e, s in zip(chosen, places, strict=True)]
    if name == "claims":
        _claims(made, [], json_file)
        return
    for one in made:
        _page(one, execution, output)
    if json_file is not None:
        _write(json_file, _rows(made))


def report(
    name: Annotated[str, _DRAWN] = "all",
    scale: ScaleOption = "smoke",
    output: OutputOption = Path("reports"),
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    micro_batch: MicroOption = 128,
    json_file: Annotated[Path | None, _JSON] = None,
) -> None:
    """Draw pages again from stored rows; nothing is computed."""
    arguments.writable(output)
    execution = arguments.execution(device, threads, micro_batch)
    results = Store(store)
    if name in ("paper", "claims"):
        made, missing = _stored(scale, execution, results)
        if name == "claims":
            _claims(made, missing, json_file)
        else:
            _whole(made, missing, execution, output)
        return
    for experiment in arguments.experiments(name):
        try:
            one = chapter(experiment, _setting(experiment, scale, execution), results)
        except MissingArtifact:
            command = f"noisychannel run {experiment.name} --scale {scale} --store {store}"
            usual = (
                ("device", device, "cpu"),
                ("threads", threads, 1),
                ("micro-batch", micro_batch, 128),
            )
            command += "".join(f" --{name} {got}" for name, got, default in usual if got != default)
            raise UserError(
                f"report: {experiment.name} at scale {scale} is not run; do: {command}"
            ) from None
        _page(one, execution, output)


def status(
    scale: ScaleOption = "smoke",
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    micro_batch: MicroOption = 128,
) -> None:
    """Say how much of each experiment is in the store."""
    execution = arguments.execution(device, threads, micro_batch)
    for experiment in EXPERIMENTS:
        whole = plan(_wanted(experiment, _setting(experiment, scale, execution)))
        left = whole.todo(Store(store))
        done = len(whole.tasks) - len(left.tasks)
        console.print(
            f"{experiment.name} ({scale}): {done} of {len(whole.tasks)} tasks done, "
            f"{left.work:.0f} of {whole.work:.0f} expected passes left"
        )


def _setting(experiment: Experiment, scale: str, execution: Execution) -> Setting:
    return setting(arguments.scale(scale), experiment.subsets, execution)


def _wanted(experiment: Experiment, where: Setting) -> list[Task]:
    return [task for cell in experiment.cells(where) for task in cell.measures]


def _stored(
    scale: str, execution: Execution, store: Store
) -> tuple[list[Chapter], list[Experiment]]:
    """What is in the store, and the experiments that are not."""
    made: list[Chapter] = []
    missing: list[Experiment] = []
    for experiment in EXPERIMENTS:
        try:
            made.append(chapter(experiment, _setting(experiment, scale, execution), store))
        except MissingArtifact:
            missing.append(experiment)
    return made, missing


def _page(one: Chapter, how: Execution, output: Path) -> None:
    made = arguments.provenance(one.words, _facts(how))
    text, shown = render(one, made)
    arguments.write(output, text, shown, f"{one.experiment.name}.html")
    for claim in one.claims:
        console.print(_line(claim), highlight=False, soft_wrap=True)
    page = output / f"{one.experiment.name}.html"
    console.print(f"page: {page}", markup=False, soft_wrap=True)


def _whole(made: list[Chapter], missing: list[Experiment], how: Execution, output: Path) -> None:
    """The reproduction page, its Markdown twin, and the figures of both."""
    provenance = arguments.provenance("as each figure says", _facts(how))
    lead, text, shown = paper(made, missing, provenance)
    arguments.write(output, text, (), "paper.html")
    arguments.writable(output / "images")
    arguments.draw(output / "images", shown)
    twin = markdown("The paper, reproduced", lead, shown, provenance)
    (output / "paper.md").write_text(twin, encoding="utf-8")
    console.print(f"page: {output / 'paper.html'}", markup=False, soft_wrap=True)


def _facts(how: Execution) -> tuple[tuple[str, str], ...]:
    return (("device", how.device), ("threads", str(how.threads)))


def _line(claim: Claim) -> str:
    colour = "green" if claim.holds else "yellow"
    return f"{claim.name}: [{colour}]{claim.verdict}[/]: {claim.evidence}"


def _claims(made: list[Chapter], missing: list[Experiment], json_file: Path | None) -> None:
    claims = [c for one in made for c in one.claims]
    claims = [*abstract(claims), *claims]
    table = Table(title="The paper's claims")
    for heading, wrapped in (
        ("claim", False),
        ("section", True),
        ("verdict", True),
        ("evidence", True),
    ):
        table.add_column(heading, no_wrap=not wrapped, overflow="fold")
    for c in claims:
        colour = {True: "green", False: "red", None: "yellow"}[c.holds]
        table.add_row(c.name, c.where or "–", f"[{colour}]{c.verdict}[/]", c.evidence)
    console.print(table, highlight=False)
    if missing:
        names = ", ".join(e.name for e in missing)
        console.print(f"not run: {names}", markup=False, soft_wrap=True)
    if json_file is not None:
        _write(json_file, [*_rows_of(abstract(claims), "all"), *_rows(made)])


def _rows(made: list[Chapter]) -> list[dict[str, Any]]:
    return [row for one in made for row in _rows_of(one.claims, one.words, one.where.scale)]


def _rows_of(claims: Sequence[Claim], on: str, scale: str = "") -> list[dict[str, Any]]:
    return [
        {
            "name": c.name,
            "section": c.where,
            "sentence": c.sentence,
            "verdict": c.verdict,
            "evidence": c.evidence,
            "statistic": None if c.statistic is None else c.statistic._asdict(),
            "scale": scale,
            "on": on,
        }
        for c in claims
    ]


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    try:
        file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"json: expected a file that can be written, got {file} ({error.strerror})"
        ) from None


def _foresee(chosen: list[tuple[Experiment, Setting]], store: Store, workers: int) -> None:
    """Tasks, gradients and time, figure by figure; what figures share is counted with the first."""
    seen: set[str] = set()
    table = Table("experiment", "tasks", "in the store", "gradients at most", "time")
    total = 0.0
    speed = pace(plan(m for e, s in chosen for m in _wanted(e, s)), store)
    for experiment, where in chosen:
        whole = plan(_wanted(experiment, where))
        fresh = Plan(tuple(t for t in whole.tasks if key_of(t) not in seen))
        seen.update(key_of(t) for t in fresh.tasks)
        left = fresh.todo(store)
        seconds = speed.seconds(left.tasks, workers)
        total += seconds
        gradients = sum(_gradients(t) for t in left.tasks)
        found = str(len(fresh.tasks) - len(left.tasks))
        table.add_row(
            experiment.name,
            str(len(fresh.tasks)),
            found,
            f"{gradients:,}",
            _time(seconds),
        )
    console.print(table)
    console.print(
        f"in all {_time(total)} at {speed.rate:,.0f} passes/s on average ({speed.source})",
        highlight=False,
    )


def _gradients(task: Task) -> int:
    if not isinstance(task, Craft):
        return 0
    draws = task.threat.draws if task.threat.assumed.stochastic else 1
    return task.data.size * task.attack.gradients * draws


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
