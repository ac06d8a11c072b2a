"""What the paper's experiments run on, at each scale, and the shape that every experiment file has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

from noisychannel.data import Dataset, DataSpec
from noisychannel.defenses import Operated, Surgery
from noisychannel.engine import Analyse, Execution, Measure, Store, Train, Trained, answer, table
from noisychannel.interop.authors import CIFAR10, AuthorsUnits
from noisychannel.networks import SmallNet, authors_resnet20
from noisychannel.report.html import Section
from noisychannel.report.stats import Estimate
from noisychannel.training import Recipe
from noisychannel.types import Network

__all__ = [
    "Cell",
    "Claim",
    "Experiment",
    "Result",
    "Scale",
    "Setting",
    "digits_network",
    "read",
    "setting",
]

Scale = Literal["smoke", "desk", "paper"]


@dataclass(frozen=True)
class Setting:
    """Data, network and machine of one run.

    Args:
        scale: `smoke` minutes on digits; `desk` a night on two cores; `paper` the paper's own sizes.
        data: the examples.
        network: the undefended network.
        words: how reports name them.
        units: the paper authors' strengths in ours.
        part: examples per task, the grain of resuming.
    """

    scale: Scale
    data: Dataset
    network: Network
    words: str
    units: AuthorsUnits
    execution: Execution
    part: int

    def parts(self) -> tuple[Dataset, ...]:
        """The examples in slices of `part`."""
        size = self.data.size
        return tuple(
            self.data.slice(start, min(start + self.part, size))
            for start in range(0, size, self.part)
        )


@dataclass(frozen=True)
class Cell:
    """One number of a figure or table: its place, and the tasks behind it.

    Args:
        place: column name → value, e.g. panel, series, strength.
        measures: one task per slice of the data, all of one kind.
    """

    place: tuple[tuple[str, str | float], ...]
    measures: tuple[Measure, ...] | tuple[Analyse, ...]


@dataclass(frozen=True)
class Result:
    """A cell with its rows (`draws`: of a Measure, or what an Analyse answered); `examples`: None without an attack."""

    place: Mapping[str, str | float]
    draws: pa.Table
    examples: pa.Table | None


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, checked on rows.

    Args:
        name: short, stable.
        sentence: what is claimed.
        holds: whether it does, on these rows; None: they do not decide it.
        evidence: the statistic with its interval, and how many images.
        where: the paper's section.
        statistic: the number that decides, with its interval; None where several do.
    """

    name: str
    sentence: str
    holds: bool | None
    evidence: str
    where: str = ""
    statistic: Estimate | None = None

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "holds", False: "does not hold", None: "undecided"}[self.holds]


@dataclass(frozen=True)
class Experiment:
    """One figure or table of the paper.

    Args:
        name: as on the command line.
        title: as in the report.
        subsets: the examples of each scale.
        cells: what is to be measured.
        sections: results → what the report shows.
        claims: results → checks.
        words: data and networks of each scale, where they are not the setting's.
        stand_ins: scales at which other data stand for those that the claims are about; each claim then says so.
        examples: what they are called.
    """

    name: str
    title: str
    subsets: Mapping[Scale, str]
    cells: Callable[[Setting], tuple[Cell, ...]]
    sections: Callable[[Setting, tuple[Result, ...]], tuple[Section, ...]]
    claims: Callable[[tuple[Result, ...]], tuple[Claim, ...]]
    words: Mapping[Scale, str] | None = None
    stand_ins: tuple[Scale, ...] = ()
    examples: str = "images"


_SMALL, _USUAL = SmallNet(), Recipe()


def digits_network(
    execution: Execution,
    surgery: Surgery | None = None,
    recipe: Recipe = _USUAL,
    bare: SmallNet = _SMALL,
) -> Trained:
    """A small network trained on digits on the spot: what runs where there is no CIFAR-10, and no other's weights.

    Args:
        execution: where it is trained.
        surgery: what is done to it before it is trained.
        recipe: how it is trained.
        bare: the network.
    """
    network = bare if surgery is None else Operated(bare, surgery)
    how = Execution(execution.device, execution.threads)  # training reads nothing else of it
    return Trained(Train(network, DataSpec("digits", "train"), recipe, execution=how))


def setting(scale: Scale, subset: Mapping[Scale, str], execution: Execution) -> Setting:
    """The setting of a scale; `subset` names its examples.

    Raises:
        UserError: CIFAR-10 or the authors' networks cannot be found.
    """
    if scale == "smoke":
        data = DataSpec("digits", "test", subset[scale])
        words = "digits (8 × 8, scikit-learn), small network trained on the spot"
        grey = replace(CIFAR10, mean=())  # the authors' CIFAR-10 strengths, without its colours
        return Setting(scale, data, digits_network(execution), words, grey, execution, part=100)
    data = DataSpec("cifar10", "test", subset[scale])
    words = "CIFAR-10 test images, the paper authors' plain ResNet-20 (88.00 % clean)"
    part = 100 if scale == "desk" else 2000
    network = authors_resnet20("cifar10-resnet20-plain")
    return Setting(scale, data, network, words, CIFAR10, execution, part)


def read(cell: Cell, store: Store) -> Result:
    """The cell's rows from the store.

    Raises:
        MissingArtifact: a task was not run yet.
    """
    draws = pa.concat_tables(
        [answer(store, m) if isinstance(m, Analyse) else table(store, m) for m in cell.measures]
    )
    crafts = [m.craft for m in cell.measures if m.craft is not None]
    examples = pa.concat_tables([table(store, c) for c in crafts]) if crafts else None
    return Result(dict(cell.place), draws, examples)
