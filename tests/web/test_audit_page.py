"""The pages that users get, in a real browser: the audit's, and an experiment's."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from audit.test_audit import NETWORK, PROVENANCE, asked, audited
from experiments.test_experiments import PAPER, fabricated, smoke
from noisychannel import audit
from noisychannel.channels import CD, Gauss
from noisychannel.defenses import Defense
from noisychannel.experiments import EXPERIMENTS
from noisychannel.report.html import page, write_page
from web.test_page import Outline, browse, needs_chromium


def audit_page(root: Path) -> tuple[str, int]:
    """Two defenses, one with a name that a browser could take for a tag; and its number of plots."""
    defenses = {"gauss:0.1": Defense(NETWORK, Gauss(0.1)), "<script>cd</script>": None}
    defenses["<script>cd</script>"] = Defense(NETWORK, CD(3))
    requests = [replace(asked(d, 0.1), name=name) for name, d in defenses.items() if d]
    made = [audited(request, root / "store") for request in requests]
    text, _ = audit.render(tuple(outcome for outcome, _ in made), made[0][1], PROVENANCE)
    return text, len(defenses)


def experiment_page(name: str) -> tuple[str, int]:
    """A page of fabricated rows, and its number of plots."""
    experiment = next(e for e in EXPERIMENTS if e.name == name)
    results = fabricated(experiment, PAPER[name])
    sections = experiment.sections(smoke(experiment), results)
    plots = 2 * name.startswith("fig")
    return page(experiment.title, "It holds.", sections, PROVENANCE), plots


PAGES: dict[str, Callable[[Path], tuple[str, int]]] = {
    "audit": audit_page,
    "fig01": lambda _root: experiment_page("fig01"),
    "fig04": lambda _root: experiment_page("fig04"),
    "fig10": lambda _root: experiment_page("fig10"),
    "table1": lambda _root: experiment_page("table1"),
}


# One page with plots and one with tables are enough for every day.
DAILY = ("audit", "table1")


@pytest.fixture(
    params=[p if p in DAILY else pytest.param(p, marks=pytest.mark.slow) for p in PAGES]
)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, int]:
    return PAGES[request.param](tmp_path)


def captioned(outline: Outline) -> list[bool]:
    """Of each table, whether a caption comes first in it."""
    tags = [tag for tag, _ in outline.seen]
    return [tags[i + 1] == "caption" for i, tag in enumerate(tags) if tag == "table"]


def outside(outline: Outline) -> list[str]:
    """Addresses that are neither on the page nor in it."""
    named = [
        value for name in ("src", "href", "action", "srcset") for value in outline.values(name)
    ]
    return [value for value in named if not value.startswith(("data:", "#"))]


@needs_chromium
def test_in_a_browser(made: tuple[str, int], tmp_path: Path) -> None:
    """Plots drawn, nothing on the console: a request outside would stand there, refused by the page itself."""
    text, plots = made
    assert "default-src 'none'" in text
    write_page(tmp_path / "page.html", text)
    dom, console = browse(tmp_path / "page.html", tmp_path / "profile")
    assert console == []
    assert dom.count('class="scatterlayer') == plots
    if plots:
        assert dom.count('class="js-line"') >= plots  # curves, not empty axes
    outline = Outline(dom)
    assert outside(outline) == []
    assert outline.count("table") > 0
    assert all(captioned(outline))


def test_tables_can_be_read_without_seeing_them(made: tuple[str, int]) -> None:
    outline = Outline(made[0])
    assert captioned(outline) == [True] * outline.count("table")
    heads = [attrs.get("scope") for tag, attrs in outline.seen if tag == "th"]
    assert set(heads) == {"col", "row"}
    tables = re.findall(r"<table.*?</table>", made[0], re.DOTALL)
    for table in tables:
        header, body = re.findall(r"<tr.*?</tr>", table, re.DOTALL)[:2]
        columns = header.count("<th ")
        assert header.count('scope="col"') == columns
        assert body.count('scope="row"') == 1
        assert body.count("<td") == columns - 1
    assert all(attrs.get("alt") for tag, attrs in outline.seen if tag == "img")


def test_nothing_is_asked_of_the_network(made: tuple[str, int]) -> None:
    outline = Outline(made[0])
    assert outside(outline) == []
    assert "<script>cd" not in made[0]
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    assert {
        link.removeprefix("#") for link in outline.values("href") if link.startswith("#")
    } <= set(ids)
