"""Small audits that tests make: of a module on digits, in a folder of its own."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

import fakes_networks as fakes
from noisychannel.audit.conduct import Judged, conduct
from noisychannel.audit.examine import examine
from noisychannel.audit.request import Request
from noisychannel.defenses import Defense
from noisychannel.engine import Execution, Store, Task, run, serial
from noisychannel.networks import Foreign
from noisychannel.norms import Linf

EPSILON = 0.1

Runner = Callable[[str, Sequence[Task]], None]


def defense(what: nn.Module | Defense, name: str = "network") -> Defense:
    """A module as a defense; what `Foreign` warns of, an audit finds by itself."""
    if isinstance(what, Defense):
        return what
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Defense(Foreign(what, fakes.SHAPE, name))


def request(
    what: nn.Module | Defense, base: nn.Module | Defense | None = None, **fields: Any
) -> Request:
    """A quick audit of digits in L∞ 0.1, unless said otherwise."""
    given: dict[str, Any] = {
        "name": "network",
        "data": fakes.digits(),
        "norm": Linf(),
        "epsilon": EPSILON,
        "execution": Execution("cpu", 1, 128, max_rows=512),
        **fields,
    }
    twin = None if base is None else defense(base, "base")
    return Request(defense=defense(what), base=twin, **given)


def runner(store: Store) -> Runner:
    """Makes a step's tasks in this process, silently."""

    def one(_name: str, tasks: Sequence[Task]) -> None:
        run(tasks, store, serial, lambda _whole, _todo: lambda _amount: None)

    return one


def audited(r: Request, folder: Path, *, minutes: float | None = None) -> Judged:
    """Examined, attacked and judged."""
    store = Store(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = examine(r.defense.network, r.data, r.name).findings
        return Judged(conduct(r, store, runner(store), minutes=minutes), found)


def statuses(a: Judged, status: str) -> set[str]:
    """Names of the findings of one status."""
    return {f.name for f in a.findings if f.status == status}
