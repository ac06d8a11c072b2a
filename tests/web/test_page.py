"""The page in a real browser: plots drawn, nothing fetched, nothing complained about."""

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from noisychannel.errors import UserError
from noisychannel.report import html
from noisychannel.report.figure import Figure, Grid, Panel, Picture, Series
from noisychannel.report.stats import wilson

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=10000",
    "--dump-dom",
]

CURVE = Series("Gauss <σ>", (0.1, 1.0, 9.0), (0.1, 0.8, 0.2), (0.0, 0.7, 0.1), (0.2, 0.9, 0.3))
PANEL = Panel("PGD", "‖C(x) − x‖₂", "accuracy", (CURVE,), log_x=True, y_range=(0, 1))
FIGURE = Figure("fig", "Recovery", "Most labels come back.", (PANEL, PANEL))
GRID = Grid("Accuracy", ("Defense", "Adaptive"), (("Gauss(0.3)", wilson(12, 200)), ("FC", "–")))
PICTURE = Picture("Two digits", np.arange(256, dtype=np.uint8).reshape(16, 16))


def sample() -> str:
    return html.page(
        "Is it <real>?",
        "No: 6.0 % survive.",
        (
            html.Section("Verdict", ("A & B <script>alert(1)</script>", GRID)),
            html.Section("Curves", (FIGURE,)),
            html.Section("Images", (PICTURE,)),
        ),
        html.Provenance("noisychannel audit", "2026-01-31", "200 images", (("Seed", "0"),)),
    )


class Outline(HTMLParser):
    """Tags and attributes as a browser sees them, script bodies left out."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def values(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.seen if name in attrs]

    def count(self, tag: str) -> int:
        return sum(seen == tag for seen, _ in self.seen)


def browse(path: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's DOM after its scripts have run, and what stands on the console."""
    done = subprocess.run(
        [str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_chromium
def test_the_browser_draws_every_plot_and_complains_of_nothing(tmp_path: Path) -> None:
    html.write_page(tmp_path / "page.html", sample())
    dom, console = browse(tmp_path / "page.html", tmp_path / "profile")
    assert console == []
    assert dom.count('class="scatterlayer') == 2
    assert dom.count('class="js-fill') >= 2
    assert "Gauss &lt;σ&gt;" in dom


@needs_chromium
def test_the_console_is_heard_and_the_page_cannot_fetch(tmp_path: Path) -> None:
    """The liar of the test above: a page with an error and an address outside."""
    liar = sample().replace(
        "</main>", '<img src="https://example.invalid/x.png"><script>nothing()</script></main>'
    )
    html.write_page(tmp_path / "page.html", liar)
    console = " ".join(browse(tmp_path / "page.html", tmp_path / "profile")[1])
    assert "nothing is not defined" in console
    assert "Content Security Policy" in console


def test_links_work_and_stay_inside() -> None:
    outline = Outline(sample())
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    for link in outline.values("href"):
        assert link == "data:," or link.removeprefix("#") in ids
    assert all(source.startswith("data:") for source in outline.values("src"))


def test_the_page_can_be_read_without_seeing_it() -> None:
    outline = Outline(sample())
    assert outline.seen[0] == ("html", {"lang": "en"})
    assert outline.count("h1") == 1
    assert outline.count("table") == outline.count("caption")
    assert all("scope" in attrs for tag, attrs in outline.seen if tag == "th")
    assert all(attrs.get("alt") for tag, attrs in outline.seen if tag == "img")
    assert any("accuracy against" in label for label in outline.values("aria-label"))


def test_text_is_escaped_and_provenance_printed() -> None:
    text = sample()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    for printed in ("noisychannel audit", "2026-01-31", "200 images", "3.5 to 10.2 · n = 200"):
        assert printed in text
    assert text == sample()


def test_without_plotly_the_page_shows_images_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html.importlib.util, "find_spec", lambda _name: None)
    text = sample()
    assert "the package plotly was not installed" in text
    assert "Plotly.newPlot" not in text
    assert Outline(text).count("img") == 2


def test_a_page_without_figures_is_small() -> None:
    text = html.page("t", "l", (), html.Provenance("c", "d", "s"))
    assert len(text) < 20_000


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output: expected a folder to write to, got .*file"):
        html.write_page(tmp_path / "file" / "page.html", "text")
