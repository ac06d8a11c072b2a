"""The example of docs/attacks.md runs, and the page names every attack and every status."""

import re
from pathlib import Path
from typing import Any

import pytest

from noisychannel import attacks, rng
from noisychannel.audit.budget import BUDGETS
from noisychannel.audit.verdict import CODES, EVALUATIONS
from noisychannel.types import Status

PAGE = Path(__file__).parents[1] / "docs" / "attacks.md"


def test_the_example_of_attacks_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    space: dict[str, Any] = {"__name__": "docs_attacks"}
    with rng.root("docs"):
        for block in code:
            exec(compile(block, str(PAGE), "exec"), space)
    first, near = capsys.readouterr().out.strip().splitlines()
    words, forwards = first.split("] [")
    assert re.findall(r"\w+", words).count("found") >= 3
    assert re.findall(r"\w+", near).count("found") >= 6
    # 10 gradients and a last look of 10 draws each, 5 candidates on 18 selection draws (two whole votes), and 16 votes
    # on each that was chosen.
    least = 11 * 10 + 5 * 18
    again = [divmod(int(n) - least, 16 * 9) for n in re.findall(r"\d+", forwards)]
    assert all(rest == 0 and 0 <= times <= 5 for times, rest in again)
    assert (space["voted"].cost.backwards <= space["eot"].cost.backwards).all()
    assert (space["blind"].cost.backwards == 0).all()


def test_every_attack_and_every_status_is_on_the_page() -> None:
    page = PAGE.read_text("utf-8")
    for name in set(attacks.__all__) - {"ATTACKS"}:
        assert f"`{name}" in page, name
    for status in Status:
        assert f"| `{status.word}` |" in page


def test_the_page_on_audits_says_what_the_code_does() -> None:
    page = (PAGE.parent / "audit.md").read_text("utf-8")
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("|")}
    for verdict, names in EVALUATIONS.items():
        row = rows[f"`{verdict}`"]
        assert str(CODES[verdict]) in row.split("|")[2]
        assert all(name in row for name in names)
    said = {
        "half-width promised for the headline (points)": lambda b: f"{100 * b.half_width:g}",
        "gradients of a run, each over the draws": lambda b: f"{b.steps}",
        "draws per gradient at most": lambda b: f"{b.most_draws}",
        "draws of the other attacks": lambda b: f"{b.draws}",
        "questions of a black-box attack": lambda b: f"{b.queries:,}",
        "images of the controls": lambda b: f"{b.controls}",
        "draws that score a random defense": lambda b: f"{b.scoring}",
    }
    for name, number in said.items():
        cells = [cell.strip() for cell in rows[name].split("|")[2:-1]]
        assert cells == [number(b) for b in BUDGETS]
