"""The examples of docs/interop.md, run one after the other, as the page says."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"


# foolbox imports a name from where SciPy has deprecated it.
@pytest.mark.filterwarnings("ignore:Please import `gaussian_filter`:DeprecationWarning")
def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    for peer in ("foolbox", "torchattacks", "art.attacks.evasion"):
        pytest.importorskip(peer, reason="the page shows all three; its first table installs them")
    blocks = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    space: dict[str, Any] = {"__name__": "docs_interop"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), space)
    said = capsys.readouterr().out.splitlines()
    assert len(blocks) == 6
    assert len(said) == 11
    assert "found" in said[0]
    assert all(name in " ".join(said) for name in ("LinfProj", "torchattacks PGD", "ART Projected"))
