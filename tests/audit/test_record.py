"""An audit as data says what its page says, and its rows lead to the same numbers."""

import json
from collections.abc import Callable
from importlib.metadata import version

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import reported
from noisychannel.audit.again import TRIED
from noisychannel.audit.conduct import Judged
from noisychannel.audit.cost import cost, sides, spent
from noisychannel.audit.record import FORMAT, record, rows
from noisychannel.audit.tries import patience
from noisychannel.audit.untested import untested
from noisychannel.audit.verdict import exit_code
from noisychannel.report.stats import Estimate, accuracy
from noisychannel.report.worst import worst_draws

MADE: dict[str, Callable[[], Judged]] = {
    f.__name__: f for f in (reported.noisy, reported.voted, reported.masked, reported.alone)
}
EVERY = pytest.mark.parametrize("name", MADE)
ADDED = ["side", "attempt", "setting", "family", "distance"]


def of(kept: dict[str, object]) -> Estimate:
    return Estimate(**kept)  # pyright: ignore[reportArgumentType]


@EVERY
def test_json_holds_all_of_it_and_says_what_the_audit_says(name: str) -> None:
    judged = MADE[name]()
    kept = record(judged)
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept  # nothing that JSON lacks
    assert kept["format"] == FORMAT
    assert (kept["evaluation"], kept["gain"]) == (judged.evaluation, judged.gain)
    assert kept["exit_code"] == exit_code(judged.evaluation, judged.gain)
    assert of(kept["headline"]) == judged.headline
    if judged.difference is None:
        assert kept["difference"] is None
    else:
        assert of(kept["difference"]) == judged.difference
    assert {s: of(e) for s, e in kept["settings"].items()} == judged.settings
    assert [(f["name"], f["status"], f["evidence"], f["mend"]) for f in kept["findings"]] == [
        (f.name, f.status, f.evidence, f.mend) for f in judged.findings
    ]
    assert [(u["why"], u["what"]) for u in kept["untested"]] == list(untested(judged))
    assert kept["cost"] == cost(judged)._asdict()
    assert (kept["base"] is None) == (judged.evidence.request.twin is None)


@EVERY
def test_every_attempt_with_its_numbers(name: str) -> None:
    judged = MADE[name]()
    listed = {(a["side"], a["name"]): a for a in record(judged)["attempts"]}
    known = {(s, n) for s, side in sides(judged).items() for n in side.attempts}
    assert listed.keys() == known
    for (where, attempt), kept in listed.items():
        side = sides(judged)[where]
        a = side.attempts[attempt]
        assert kept["examples"] == of(kept["accuracy"]).n == len(a.positions)
        assert (kept["gradients"], kept["queries"]) == spent(side, attempt)
        assert (kept["attack"] is None) == (not a.crafts)


def test_the_threat_is_told_for_programs() -> None:
    threat = record(reported.voted())["threat"]
    assert threat["norm"] == "L∞"
    assert threat["epsilon"] == 0.1
    assert threat["decision"] == "Vote(k=2)"
    assert (threat["draws"], threat["scoring_draws"]) == ("fresh", reported.TINY.scoring)
    assert (threat["queries"], threat["tries"]) == (reported.TINY.queries, 5)
    assert record(reported.masked())["threat"]["draws"] == "none"
    assert record(reported.masked())["threat"]["decision"] == "Single()"
    assert record(reported.hurried())["skipped"] == ["other losses"]


def test_tries_are_an_estimate_where_the_draws_reach_and_bounds_elsewhere() -> None:
    short = reported.again(reported.voted(), name="stopped short")
    other = short.evidence.other
    for name in [n for n in other if n.startswith(TRIED)]:
        del other[name]
    near, far = record(reported.noisy())["tries"], record(short)["tries"]
    found = patience(reported.noisy())
    assert found is not None
    assert of(near["estimate"]) == found.left
    assert far["estimate"] is None
    assert 0 <= far["bounds"][0] <= far["bounds"][1] <= 1
    assert of(record(reported.masked())["tries"]["estimate"]) == reported.masked().headline


def test_versions_are_those_that_made_the_rows() -> None:
    kept = record(reported.noisy())["versions"]
    assert kept["noisychannel"] == version("noisychannel")
    assert {"python", "torch", "processor"} <= kept.keys()


def chosen(table: pa.Table, side: str, attempt: str) -> pa.Table:
    return table.filter(pc.field("side") == side).filter(pc.field("attempt") == attempt)


@EVERY
def test_rows_hold_every_draw_of_every_attempt(name: str) -> None:
    judged = MADE[name]()
    table = rows(judged)
    assert table.column_names[:5] == ADDED
    everything = 0
    for where, side in sides(judged).items():
        for attempt, a in side.attempts.items():
            part = chosen(table, where, attempt)
            assert part.drop_columns(ADDED).equals(side.answers(attempt))
            assert set(part["setting"].to_pylist()) == {a.setting}
            assert set(part["family"].to_pylist()) == {a.family}
            everything += part.num_rows
    assert everything == table.num_rows == cost(judged).answers


def test_distances_are_those_that_the_attacks_wrote_down() -> None:
    side = reported.noisy().evidence.mine
    table = rows(reported.noisy())
    far = chosen(table, "defense", "control: no bound")
    known = side.examples("control: no bound")
    linf = dict(zip(known["index"].to_pylist(), known["linf"].to_pylist(), strict=True))
    assert max(linf.values()) > 0.5
    for row in far.select(["index", "distance"]).to_pylist():
        assert row["distance"] == pytest.approx(linf[row["index"]], abs=1e-6)
    assert set(chosen(table, "defense", "clean")["distance"].to_pylist()) == {0.0}
    moved = next(n for n in side.attempts if n.startswith("control: recovery"))
    assert set(chosen(table, "defense", moved)["distance"].to_pylist()) == {None}


@pytest.mark.parametrize("name", ["noisy", "masked"])
def test_the_headline_follows_from_the_rows_alone(name: str) -> None:
    """Without the tool: each image under the attempt that did worst on some draws, scored on the others."""
    judged = MADE[name]()
    table, e = rows(judged).filter(pc.field("side") == "defense"), judged.evidence
    within = e.request.epsilon * (1 + 1e-4) + 1e-7
    clean = chosen(table, "defense", "clean").drop_columns(ADDED)
    found = {"clean": clean}
    for attempt in e.attacked:
        near = chosen(table, "defense", attempt).filter(pc.field("distance") <= within)
        tried = near.drop_columns(ADDED)
        rest = clean.filter(pc.invert(pc.is_in(clean["index"], tried["index"].combine_chunks())))
        found[attempt] = pa.concat_tables([tried, rest])
    again = accuracy(worst_draws(found, e.mine.rule), e.mine.rule)
    assert again.value == pytest.approx(judged.headline.value)
