"""An audit as data: what its page says, for programs."""

import sys
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from noisychannel.audit.assumptions import assumptions, question_limit, randomness
from noisychannel.audit.attempts import Attempt
from noisychannel.audit.conduct import Judged
from noisychannel.audit.cost import cost, sides, spent
from noisychannel.audit.side import Side
from noisychannel.audit.tables import withstood
from noisychannel.audit.tries import patience
from noisychannel.audit.untested import untested
from noisychannel.audit.verdict import exit_code
from noisychannel.audit.words import data_words, norm_words
from noisychannel.engine import key_of
from noisychannel.report.stats import Estimate

__all__ = ["FORMAT", "record", "rows"]

FORMAT = 1
"""Raised whenever a field changes its meaning."""


def record(judged: Judged) -> dict[str, Any]:
    """Everything that the page says, as JSON: numbers, strings, lists and dictionaries.

    Accuracies and differences are shares with their interval: {value, low, high, n, method}.
    """
    e, r = judged.evidence, judged.evidence.request
    return {
        "format": FORMAT,
        "defense": {"name": r.name, "spec": str(r.defense)},
        "base": None if r.twin is None else {"given": r.base is not None, "spec": str(r.twin)},
        "data": {
            "name": data_words(r.data),
            "fingerprint": r.data.fingerprint(),
            "examples": r.data.size,
        },
        "evaluation": judged.evaluation,
        "gain": judged.gain,
        "exit_code": exit_code(judged.evaluation, judged.gain),
        "headline": _estimate(judged.headline),
        "difference": None if judged.difference is None else _estimate(judged.difference),
        "settings": {name: _estimate(found) for name, found in judged.settings.items()},
        "tries": _tries(judged),
        "findings": [asdict(f) for f in judged.findings],
        "threat": _threat(judged),
        "budget": asdict(r.budget),
        "seed": r.seed,
        "execution": asdict(r.execution),
        "attempts": [
            _attempt(name, side, a)
            for name, side in sides(judged).items()
            for a in side.attempts.values()
        ],
        "skipped": list(e.skipped),
        "untested": [{"why": why, "what": what} for why, what in untested(judged)],
        "cost": cost(judged)._asdict(),
        "versions": _versions(judged),
    }


def _estimate(e: Estimate) -> dict[str, Any]:
    return {name: _plain(value) for name, value in e._asdict().items()}


def _plain(value: object) -> object:
    """NumPy's numbers are none to JSON."""
    return float(value) if isinstance(value, float) else value


def _tries(judged: Judged) -> dict[str, Any]:
    """What the tries leave that were asked for; only bounds where the draws do not reach, `estimate` is then null."""
    found, wanted = patience(judged), judged.evidence.request.tries
    left = judged.headline if found is None else found.left
    if isinstance(left, Estimate):
        return {"tries": wanted, "estimate": _estimate(left), "bounds": [left.low, left.high]}
    return {"tries": wanted, "estimate": None, "bounds": list(left)}


def _threat(judged: Judged) -> dict[str, Any]:
    r = judged.evidence.request
    return {
        "norm": norm_words(r.norm),
        "epsilon": r.epsilon,
        "decision": str(r.defense.rule),
        "draws": randomness(r.defense),
        "assumed": str(r.assumed),
        "substitutes": [str(s) for s in r.substitutes],
        "attacks": [str(a) for a in r.attacks],
        "queries": question_limit(r),
        "tries": r.tries,
        "scoring_draws": r.scoring(r.defense),
        "words": dict(assumptions(r)),
    }


def _attempt(side_name: str, side: Side, a: Attempt) -> dict[str, Any]:
    gradients, queries = spent(side, a.name)
    craft = a.crafts[0] if a.crafts else None
    return {
        "side": side_name,
        "name": a.name,
        "setting": a.setting,
        "family": a.family,
        "examples": len(a.positions),
        "accuracy": _estimate(withstood(side, a.name)),
        "gradients": gradients,
        "queries": queries,
        "attack": None if craft is None else str(craft.attack),
        "threat": None if craft is None else str(craft.threat),
        "tasks": [key_of(m) for m in a.measures],
    }


def _versions(judged: Judged) -> dict[str, str]:
    """Of this process, and as the store wrote them down when the first rows were made."""
    mine = judged.evidence.mine
    first = next(iter(mine.attempts.values())).measures[0]
    made = mine.store.run(key_of(first))
    here = {"noisychannel": version("noisychannel"), "python": sys.version.split()[0]}
    return {
        **here,
        **{name: str(made[name]) for name in ("python", "torch", "processor") if name in made},
    }


def rows(judged: Judged) -> pa.Table:
    """All draws of all attempts: side, attempt, setting, family, distance, and the columns of a draws table.

    `distance` is the candidate's from its clean image in the audit's norm; what lies beyond ε the headline counts as
    the clean image. Null where the recovery window moved it.
    """
    found: list[pa.Table] = []
    for name, side in sides(judged).items():
        for a in side.attempts.values():
            table = side.answers(a.name)
            for i, (column, word) in enumerate(
                (("side", name), ("attempt", a.name), ("setting", a.setting), ("family", a.family))
            ):
                words = pa.array([word] * table.num_rows, pa.string())
                table = table.add_column(i, column, words)
            found.append(table.add_column(4, "distance", _distances(side, a, table)))
    return pa.concat_tables(found)


def _distances(side: Side, a: Attempt, table: pa.Table) -> pa.Array:
    if any(m.rescale_l2 is not None for m in a.measures):
        return pa.nulls(table.num_rows, pa.float64())
    norm, clean = side.request.norm, side.batch.x
    far = norm.distance(side.candidates(a.name).double(), clean.double()).numpy()
    order = np.argsort(side.index)
    places = order[np.searchsorted(side.index, table["index"].to_numpy(), sorter=order)]
    return pa.array(far[places], pa.float64())
