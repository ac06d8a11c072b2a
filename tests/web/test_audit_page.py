"""The pages that users get, in a real browser: the audit's, the comparison's, and an experiment's."""

import html
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

import reported
from experiments.test_experiments import PAPER, fabricated, smoke
from noisychannel.audit.page import render
from noisychannel.experiments import EXPERIMENTS
from noisychannel.report.html import page, write_page
from reported import PROVENANCE
from web.test_page import Outline, browse, needs_chromium


def audit_page() -> tuple[str, int]:
    """A random defense, with a name that a browser could take for a tag; and its number of plots."""
    return render((reported.noisy(),), PROVENANCE)[0], 6


def masked_page() -> tuple[str, int]:
    """One that fails checks, has no draws to double and no window."""
    return render((reported.masked(),), PROVENANCE)[0], 2


def comparison() -> tuple[str, int]:
    """Three defenses side by side."""
    audits = (reported.noisy(), reported.robust(), reported.masked())
    return render(audits, PROVENANCE)[0], 1


def experiment_page(name: str) -> tuple[str, int]:
    """A page of fabricated rows, and its number of plots."""
    experiment = next(e for e in EXPERIMENTS if e.name == name)
    results = fabricated(experiment, PAPER[name])
    sections = experiment.sections(smoke(experiment), results)
    plots = 2 * name.startswith("fig")
    return page(experiment.title, "It holds.", sections, PROVENANCE), plots


PAGES: dict[str, Callable[[], tuple[str, int]]] = {
    "audit": audit_page,
    "masked": masked_page,
    "compare": comparison,
    "fig01": lambda: experiment_page("fig01"),
    "fig04": lambda: experiment_page("fig04"),
    "fig10": lambda: experiment_page("fig10"),
    "table1": lambda: experiment_page("table1"),
}


# One page with plots and one with tables are enough for every day.
DAILY = ("audit", "table1")
AUDITS = ("audit", *(pytest.param(p, marks=pytest.mark.slow) for p in ("masked", "compare")))


@pytest.fixture(
    params=[p if p in DAILY else pytest.param(p, marks=pytest.mark.slow) for p in PAGES]
)
def made(request: pytest.FixtureRequest) -> tuple[str, int]:
    return PAGES[request.param]()


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
    assert "<b>noise" not in made[0]
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    assert {
        link.removeprefix("#") for link in outline.values("href") if link.startswith("#")
    } <= set(ids)


# ---------------------------------------------------------------- an audit's page on a phone, and without a mouse

LOOK = """
const wide = innerWidth + 1, out = [];
for (const e of document.querySelectorAll("body *"))
  if (!e.closest(".scroll") && e.getBoundingClientRect().right > wide) out.push(e.tagName + "." + e.className);
const closed = [...document.querySelectorAll("details")].filter(e => !e.querySelector("summary"));
for (const e of document.querySelectorAll("details")) { e.querySelector("summary").click(); }
const stops = [...document.querySelectorAll("a[href], summary, [tabindex='0']")];
const deaf = e => { e.focus(); return e.tabIndex < 0 || document.activeElement !== e; };
const missed = stops.filter(deaf).map(e => e.textContent);
const shut = [...document.querySelectorAll("details")].filter(e => !e.open).length;
const plots = [...document.querySelectorAll(".plot .main-svg")].map(e => e.clientWidth);
const said = {width: innerWidth, room: document.documentElement.clientWidth,
  content: document.documentElement.scrollWidth, out, missed, shut,
  stops: stops.length, closed: closed.length, plots};
parent.postMessage(JSON.stringify(said), "*");
"""
HOST = """<!DOCTYPE html><html lang="en"><head><title>A phone</title></head><body>
<iframe src="page.html" title="page" style="width: 390px; height: 844px; border: 0"></iframe>
<script>addEventListener("message", e => { document.body.dataset.said = e.data; });</script></body></html>"""


def on_a_phone(text: str, folder: Path) -> dict[str, object]:
    """What a page of 390 pixels looks like to its own script; headless windows are never so narrow, frames are."""
    look = f'<script>addEventListener("load", () => setTimeout(() => {{ {LOOK} }}, 2000));</script></body>'
    write_page(folder / "page.html", text.replace("</body>", look))
    write_page(folder / "host.html", HOST)
    dom, console = browse(folder / "host.html", folder / "profile")
    assert console == []
    found = re.search(r'data-said="([^"]*)"', dom)
    assert found is not None
    return json.loads(html.unescape(found.group(1)))


@needs_chromium
@pytest.mark.parametrize("name", AUDITS)
def test_an_audit_can_be_read_on_a_phone_and_without_a_mouse(name: str, tmp_path: Path) -> None:
    text, plots = PAGES[name]()
    said = on_a_phone(text, tmp_path)
    assert said["width"] == 390
    assert said["content"] == said["room"]  # nothing to scroll sideways for
    assert said["out"] == []
    drawn = said["plots"]
    assert isinstance(drawn, list)
    assert len(drawn) >= plots
    assert all(0 < width <= 390 for width in drawn)
    assert said["missed"] == []  # every link, table and summary takes the focus
    assert said["shut"] == said["closed"] == 0
    assert isinstance(said["stops"], int)
    assert said["stops"] > 4


@needs_chromium
def test_what_is_too_wide_for_a_phone_is_seen(tmp_path: Path) -> None:
    """The liar of the test above."""
    text, _ = audit_page()
    wide = text.replace("</main>", '<p style="width: 600px">wide</p><details></details></main>')
    said = on_a_phone(wide.replace("<details></details>", ""), tmp_path)
    assert said["content"] != said["room"]
    assert said["out"] == ["P."]


@pytest.mark.parametrize("name", AUDITS)
def test_headings_go_down_one_at_a_time(name: str) -> None:
    outline = Outline(PAGES[name]()[0])
    levels = [int(tag[1]) for tag, _ in outline.seen if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    text = PAGES[name]()[0]
    assert all(
        words.strip() for words in re.findall(r"<h[1-6][^>]*>(.*?)</h[1-6]>", text, re.DOTALL)
    )


@pytest.mark.parametrize("name", AUDITS)
def test_figures_are_described_in_words_and_numbers(name: str) -> None:
    text, plots = PAGES[name]()
    outline = Outline(text)
    described = [
        a["aria-label"] or "" for t, a in outline.seen if t == "div" and a.get("role") == "img"
    ]
    assert sum(label.count(" against ") for label in described) >= plots
    assert text.count("Numbers behind “") == outline.count("summary") == len(described)
    heads = re.findall(r"<th [^>]*>(.*?)</th>", text)
    assert all(head.strip() for head in heads)


def test_a_verdict_is_not_told_by_colour_alone() -> None:
    for name, judged in (("audit", reported.noisy()), ("masked", reported.masked())):
        words = re.findall(r'<p class="word">(.*?)</p>', PAGES[name]()[0])
        assert words == [judged.evaluation, judged.gain]
