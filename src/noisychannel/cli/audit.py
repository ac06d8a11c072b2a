"""The main job: `audit` one defense, `compare` several."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from noisychannel.audit import (
    CPU_ROWS,
    Judged,
    Request,
    as_attack,
    budget_of,
    check_fit,
    conducted,
    exit_code,
    foresee,
    foretold,
    processes,
    render,
    save,
    target,
    terminal_table,
)
from noisychannel.channels import parse_channel
from noisychannel.cli import arguments
from noisychannel.cli.options import (
    AssumedOption,
    BaseOption,
    BudgetOption,
    DataOption,
    DecisionOption,
    DeviceOption,
    EpsilonOption,
    MicroOption,
    MinutesOption,
    NetworkOption,
    NormOption,
    OutputOption,
    SeedOption,
    SplitOption,
    StoreOption,
    SubsetOption,
    ThreadsOption,
    WorkersOption,
)
from noisychannel.cli.progress import errors, run_with_bar
from noisychannel.data import DataSpec
from noisychannel.decision import parse_decision
from noisychannel.defenses import Defense, fixed_draws
from noisychannel.engine import Execution, Store, Task, Workers, pace, plan, trainings
from noisychannel.errors import UserError, no_exit

__all__ = ["audit", "compare"]

_SUBSTITUTE = typer.Option(
    help="Differentiable stand-in for the channel (BPDA), e.g. fc:50. Repeat."
)
_ATTACK = typer.Option(help="Your attack beside ours: FILE.py:FUNCTION that makes it. Repeat.")
_DRAWS = typer.Option(
    help="The defender draws fresh for every question, or once for each input: fixed."
)
_QUERIES = typer.Option(
    help="Most questions of an attacker without gradients. 0: what the budget allows."
)
_TRIES = typer.Option(
    help="Times that the attacker may hand in an image, where one success is enough."
)
_DRY = typer.Option("--dry-run", help="Say what it takes at most, and run nothing.")
_TARGET = (
    "gauss:0.3, fc:60, svd:50+clip …, zoo:NAME, "
    "zoo:FOLDER of a trained network, hub:OWNER/NAME, robustbench:NAME, or FILE.py:FUNCTION"
)


@dataclass(frozen=True)
class Words:
    """What was typed about the threat and the work, shared by both commands."""

    data: str
    split: str
    subset: str
    norm: str
    epsilon: str
    decision: str
    budget: str
    base: str
    substitutes: Sequence[str]
    attacks: Sequence[str]
    assumed: str
    draws: str
    queries: int
    tries: int
    network: str
    seed: int

    def __post_init__(self) -> None:
        if self.draws not in ("fresh", "fixed"):
            raise UserError(f"draws: expected fresh or fixed, got {self.draws!r}")

    @no_exit()
    def requests(self, texts: Sequence[str], how: Execution) -> tuple[Request, ...]:
        """One per target, all alike in everything else."""
        chosen = DataSpec(self.data, self.split, self.subset)
        chosen.load()  # whatever is wrong with the data is said before anything else
        rule = parse_decision(self.decision)

        def defense(text: str) -> Defense:
            made = target(
                text, chosen, lambda: arguments.network(self.network, self.data, how), rule
            )
            if not trainings(made):
                check_fit(text, made, chosen)
            return made

        def request(text: str) -> Request:
            victim = defense(text)
            return Request(
                text,
                fixed_draws(victim, self.seed) if self.draws == "fixed" else victim,
                chosen,
                arguments.norm(self.norm),
                arguments.number("epsilon", self.epsilon),
                budget_of(self.budget),
                defense(self.base) if self.base else None,
                tuple(parse_channel(s) for s in self.substitutes),
                tuple(as_attack(a) for a in self.attacks),
                parse_channel(self.assumed),
                self.queries or None,
                self.tries,
                seed=self.seed,
                execution=how,
            )

        return tuple(request(text) for text in texts)


def audit(
    what: Annotated[str, typer.Argument(metavar="TARGET", help=_TARGET)],
    data: DataOption = "digits",
    split: SplitOption = "test",
    subset: SubsetOption = "first:200",
    norm: NormOption = "l2",
    epsilon: EpsilonOption = "0.5",
    decision: DecisionOption = "single",
    budget: BudgetOption = "quick",
    base: BaseOption = "",
    substitute: Annotated[list[str] | None, _SUBSTITUTE] = None,
    attack: Annotated[list[str] | None, _ATTACK] = None,
    assumed: AssumedOption = "laplace:0.05",
    draws: Annotated[str, _DRAWS] = "fresh",
    queries: Annotated[int, _QUERIES] = 0,
    tries: Annotated[int, _TRIES] = 1,
    network: NetworkOption = "",
    minutes: MinutesOption = 0.0,
    dry_run: Annotated[bool, _DRY] = False,  # noqa: FBT002  # typer's way of a switch
    seed: SeedOption = 0,
    output: OutputOption = Path("audit"),
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    workers: WorkersOption = 0,
    micro_batch: MicroOption = 128,
) -> None:
    """Attack a defense under every threat setting, and say what is left of it and whether that can be believed."""
    how = arguments.execution(device, threads, micro_batch, CPU_ROWS)
    limit, many = arguments.limit(minutes), arguments.workers(workers)
    words = Words(
        data, split, subset, norm, epsilon, decision, budget, base, substitute or (), attack or (),
        assumed, draws, queries, tries, network, seed,
    )  # fmt: skip
    (request,) = words.requests((what,), how)
    results = Store(store)
    if dry_run:
        _foretold(request, results, many.count)
        return
    arguments.writable(output)
    judged = _audited(request, results, limit, many)
    arguments.draw(output, save(judged, output, _provenance(words, request, how)))
    _say((judged,), output)
    raise typer.Exit(exit_code(judged.evaluation, judged.gain))


def compare(
    targets: Annotated[list[str], typer.Argument(metavar="TARGETS", help=_TARGET)],
    data: DataOption = "digits",
    split: SplitOption = "test",
    subset: SubsetOption = "first:200",
    norm: NormOption = "l2",
    epsilon: EpsilonOption = "0.5",
    decision: DecisionOption = "single",
    budget: BudgetOption = "quick",
    base: BaseOption = "",
    assumed: AssumedOption = "laplace:0.05",
    network: NetworkOption = "",
    minutes: MinutesOption = 0.0,
    seed: SeedOption = 0,
    output: OutputOption = Path("comparison"),
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    workers: WorkersOption = 0,
    micro_batch: MicroOption = 128,
) -> None:
    """Audit several defenses in one setting, side by side and paired image by image."""
    if len(targets) < 2 or len(set(targets)) < len(targets):
        raise UserError(f"targets: expected two or more different ones, got {' '.join(targets)}")
    how = arguments.execution(device, threads, micro_batch, CPU_ROWS)
    limit, many = arguments.limit(minutes), arguments.workers(workers)
    words = Words(
        data, split, subset, norm, epsilon, decision, budget, base, (), (),
        assumed, "fresh", 0, 1, network, seed,
    )  # fmt: skip
    requests = words.requests(targets, how)
    arguments.writable(output)
    results = Store(store)
    judged = tuple(_audited(r, results, limit, many) for r in requests)
    provenance = _provenance(words, requests[0], how)
    text, shown = render(judged, provenance)
    arguments.write(output, text, shown, "report.html")
    for one, place in zip(judged, _folders(targets), strict=True):
        save(one, output / place, provenance)
    _say(judged, output)


@no_exit()
def _audited(request: Request, results: Store, limit: float | None, many: Workers) -> Judged:
    able = processes(request, many.count)

    def step(name: str, wanted: Sequence[Task]) -> None:
        run_with_bar(wanted, results, able, name)

    return conducted(request, results, able, step, limit)


def _folders(targets: Sequence[str]) -> list[str]:
    """A folder's name for each target: its letters and digits, numbered."""
    plain = ["".join(c if c.isalnum() else "-" for c in t).strip("-") for t in targets]
    return [f"{i}-{name}" for i, name in enumerate(plain, 1)]


def _provenance(words: Words, request: Request, how: Execution):
    samples = f"{request.data.size} examples of {words.data} ({words.split}, {words.subset})"
    facts = (
        ("seed", str(words.seed)),
        ("device", f"{how.device}, {how.threads} threads, micro-batch {how.micro_batch}"),
    )
    return arguments.provenance(samples, facts)


def _say(judged: tuple[Judged, ...], output: Path) -> None:
    console = Console()
    console.print(terminal_table(judged))
    for one in judged:
        for finding in one.findings:
            if finding.status == "fail":
                said = f"{one.evidence.request.name}: {finding.name}: {finding.evidence} {finding.mend}"
                errors.print(f"[bold red]fail[/]: {escape(said)}", soft_wrap=True, highlight=False)
    console.print(
        f"report: {output / 'report.html'}", markup=False, highlight=False, soft_wrap=True
    )


@no_exit()
def _foretold(request: Request, results: Store, workers: int) -> None:
    """What each step takes at most: it attacks what still stands, and ends once nothing is left to win."""
    steps = foresee(request, results)
    everything = plan(t for s in steps for t in s.tasks)
    rates, images = pace(everything, results), request.data.size
    shown = Table(title=f"{escape(request.name)}: at most, with budget {request.budget.name}")
    for column in ("step", "attacks", "gradients an image", "questions an image", "minutes"):
        shown.add_column(column, justify="left" if column == "step" else "right")
    total = [0.0, 0.0, 0.0]
    for step in foretold(steps):
        minutes = rates.seconds(plan(step.tasks).todo(results).tasks, workers) / 60
        numbers = [step.gradients / images, step.queries / images, minutes]
        total = [t + n for t, n in zip(total, numbers, strict=True)]
        words = (f"{numbers[0]:,.0f}", f"{numbers[1]:,.0f}", f"{numbers[2]:.1f}")
        shown.add_row(step.name, str(step.attacks or ""), *words)
    shown.add_section()
    shown.add_row("all", "", f"{total[0]:,.0f}", f"{total[1]:,.0f}", f"{total[2]:.1f}")
    console = Console()
    console.print(shown)
    console.print(
        "Gradients and questions count every draw. Most audits take a fraction: what one attack broke no other is "
        f"tried on. Time: {rates.source}.",
        highlight=False,
    )
