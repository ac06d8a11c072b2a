"""The command that certifies a network under Gaussian noise."""

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from noisychannel.audit.target import check_fit, target
from noisychannel.cli import arguments
from noisychannel.cli.options import (
    DataOption,
    DeviceOption,
    MicroOption,
    NetworkOption,
    OutputOption,
    SeedOption,
    SplitOption,
    StoreOption,
    SubsetOption,
    ThreadsOption,
    WorkersOption,
)
from noisychannel.cli.progress import run_with_bar
from noisychannel.data import DataSpec
from noisychannel.decision import Single
from noisychannel.engine import Certify, Store, base_of, certificates, key_of, trainings
from noisychannel.errors import no_exit
from noisychannel.report import certified

__all__ = ["certify"]

_TARGET = typer.Argument(
    metavar="TARGET",
    help="gauss:0.25, zoo:NAME, zoo:FOLDER of a trained network, identity, FILE.py:FUNCTION …",
)
_SIGMA = typer.Option(
    help="Standard deviation of the noise, pixels in [0, 1]; not with a target that has its own."
)
_N = typer.Option("--n", help="Noisy draws that bound the class's probability.")
_N0 = typer.Option("--n0", help="Noisy draws that choose the class.")
_ALPHA = typer.Option(help="Chance that one certificate is wrong.")


@no_exit()
def certify(
    what: Annotated[str, _TARGET],
    sigma: Annotated[str, _SIGMA] = "",
    data: DataOption = "digits",
    split: SplitOption = "test",
    subset: SubsetOption = "first:200",
    n: Annotated[int, _N] = 100_000,
    n0: Annotated[int, _N0] = 100,
    alpha: Annotated[float, _ALPHA] = 0.001,
    network: NetworkOption = "",
    seed: SeedOption = 0,
    output: OutputOption = Path("certificates"),
    store: StoreOption = Path("runs"),
    device: DeviceOption = "cpu",
    threads: ThreadsOption = 1,
    workers: WorkersOption = 0,
    micro_batch: MicroOption = 128,
) -> None:
    """Certify the L2 radius within which no attack changes the answer under Gaussian noise."""
    how = arguments.execution(device, threads, micro_batch)
    noise = arguments.number("sigma", sigma) if sigma else None
    chosen = DataSpec(data, split, subset)
    images = chosen.load()  # whatever is wrong with the data is said before anything else
    behind = target(what, chosen, lambda: arguments.network(network, data, how), Single())
    base, noise = base_of(behind, noise)
    # Draws of one image fill a pass as images do, and a pass of 512 was 1.5 times slower an image than one of 128.
    whole = Certify(chosen, base, noise, n0, n, alpha, seed, replace(how, max_rows=micro_batch))
    arguments.writable(output)
    if not trainings(base):
        check_fit(what, base, chosen)
    results, tasks = Store(store), whole.parts()
    run_with_bar(tasks, results, arguments.workers(workers))
    rows = pa.concat_tables([certificates(results, task) for task in tasks])
    took = [results.seconds(key_of(t)) / t.data.size for t in tasks for _ in range(t.data.size)]
    pq.write_table(rows, output / "certificates.parquet", compression="zstd")
    (output / "certificates.tsv").write_text(certified.tsv(rows, took), encoding="utf-8")
    words = f"{len(images)} images of {data} ({split}, {subset}), {n0:,} + {n:,} draws each"
    facts = (
        ("seed", str(seed)),
        ("base network", repr(base)),
        ("device", f"{device}, {threads} threads, micro-batch {micro_batch}"),
    )
    text, shown = certified.render(
        what,
        rows,
        arguments.provenance(words, facts),
        random_base=base.stochastic,
        elements=prod(chosen.shape),
    )
    arguments.write(output, text, shown, "report.html")
    _say(what, noise, rows, output)


def _say(name: str, sigma: float, rows: pa.Table, output: Path) -> None:
    console = Console()
    shown = Table(title=f"{escape(name)}, σ = {sigma:g}: certified accuracy [95 % interval]")
    shown.add_column("L2 radius", justify="right")
    shown.add_column("right and certified", justify="right")
    for r in certified.radii(rows):
        shown.add_row(f"{r:g}", escape(certified.certified_accuracy(rows, r).percent))
    console.print(shown)
    console.print(
        f"abstained: {certified.abstained(rows).percent} of {rows.num_rows} images",
        markup=False,
        highlight=False,
    )
    for file in ("report.html", "certificates.tsv", "certificates.parquet"):
        console.print(f"wrote {output / file}", markup=False, highlight=False, soft_wrap=True)
