"""What `save` leaves in a folder: a page, its numbers, its rows, and a proof where there is one."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import fakes_networks as fakes
import reported
from noisychannel.audit.api import audit
from noisychannel.audit.conduct import Judged
from noisychannel.audit.levels import BYTES, LEVELS, worst_images
from noisychannel.audit.page import render
from noisychannel.audit.record import record, rows
from noisychannel.audit.saved import proof_of, save
from noisychannel.engine import Execution
from noisychannel.errors import UserError

PROVENANCE = reported.PROVENANCE
MADE: dict[str, Callable[[], Judged]] = {
    f.__name__: f
    for f in (reported.noisy, reported.voted, reported.robust, reported.masked, reported.alone)
}
PROOF = {"README.txt", "adversarials.pt", "verify.py"}


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_broken_defense_leaves_page_numbers_rows_and_proof(tmp_path: Path) -> None:
    judged = reported.noisy()
    save(judged, tmp_path / "a" / "b", PROVENANCE)
    folder = tmp_path / "a" / "b"
    assert names(folder) == {"report.html", "audit.json", "rows.parquet"} | {
        f"proof/{name}" for name in PROOF
    }
    assert (folder / "report.html").read_text("utf-8") == render((judged,), PROVENANCE)[0]
    kept = json.loads((folder / "audit.json").read_text("utf-8"))
    assert kept == {**record(judged), "command": PROVENANCE.command, "date": PROVENANCE.date}
    assert pq.read_table(folder / "rows.parquet").equals(rows(judged))
    first = {p: (folder / p).read_bytes() for p in names(folder)}
    save(judged, folder, PROVENANCE)
    assert {p: (folder / p).read_bytes() for p in names(folder)} == first


@pytest.mark.parametrize("name", MADE)
def test_what_is_proven_is_the_headline(name: str) -> None:
    judged = MADE[name]()
    found = proof_of(judged)
    assert found is not None
    assert (found.accuracy, found.unattacked) == (judged.headline, judged.settings["clean"])
    r = judged.evidence.request
    assert (found.norm, found.epsilon, found.rule) == (r.norm, r.epsilon, r.defense.rule)
    # One half of the draws chose the attacks: the claim rests on the other.
    assert found.draws == (reported.TINY.scoring // 2 if r.defense.stochastic else 1)
    assert torch.equal(found.adversarial.x, worst_images(judged.evidence.mine).x)


def test_bytes_are_claimed_only_where_just_those_were_measured() -> None:
    judged = reported.robust()
    found = proof_of(judged)
    side = judged.evidence.mine
    assert found is not None
    assert found.eight_bit is not None
    assert found.eight_bit.accuracy == side.accuracy(LEVELS + BYTES)
    asked = side.candidates(LEVELS + BYTES)
    assert torch.equal(found.eight_bit.x.float() / 255, asked)


def test_bytes_of_other_images_are_not_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    side = reported.robust().evidence.mine
    other = side.candidates(LEVELS + BYTES).clone()
    other[0, 0, 0, 0] = 1 - other[0, 0, 0, 0]
    real = side.candidates
    monkeypatch.setattr(side, "candidates", lambda n: other if n == LEVELS + BYTES else real(n))
    found = proof_of(reported.robust())
    assert found is not None
    assert found.eight_bit is None


def test_what_nothing_broke_leaves_no_proof_and_takes_an_old_one_away(tmp_path: Path) -> None:
    save(reported.alone(), tmp_path, PROVENANCE)
    assert names(tmp_path) >= {f"proof/{name}" for name in PROOF}
    (tmp_path / "proof" / "mine.txt").write_text("a user's own")
    save(reported.untouched(), tmp_path, PROVENANCE)
    assert names(tmp_path) == {"report.html", "audit.json", "rows.parquet", "proof/mine.txt"}
    (tmp_path / "proof" / "mine.txt").unlink()
    save(reported.untouched(), tmp_path, PROVENANCE)
    assert not (tmp_path / "proof").exists()


def test_the_author_confirms_the_break_without_this_tool(tmp_path: Path) -> None:
    judged = reported.small(
        fakes.LIARS["quantised"](fakes.plain()), fakes.plain(), name="quantised"
    )
    save(judged, tmp_path, PROVENANCE)
    made = tmp_path / "proof" / "mine.py"
    made.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(fakes.__file__).parent)!r})\nimport fakes_networks as fakes\n\n\n"
        "def broken():\n    return fakes.LIARS['quantised'](fakes.plain())\n"
    )
    script = [sys.executable, "verify.py", "--model"]
    done = subprocess.run(
        [*script, "mine.py:broken"],
        cwd=made.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "CONFIRMED" in done.stdout


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"output: expected a folder to write to, got .*file"):
        save(reported.alone(), tmp_path / "file", PROVENANCE)
    (tmp_path / "folder" / "audit.json").mkdir(parents=True)
    with pytest.raises(UserError, match=r"output: expected a folder to write to, got .*folder"):
        save(reported.alone(), tmp_path / "folder", PROVENANCE)


def test_from_python_in_one_call(tmp_path: Path) -> None:
    data = fakes.digits(count=12)
    how = Execution("cpu", 1, 128, max_rows=512)
    found = audit(
        fakes.plain(), data, norm="linf", epsilon=0.9, store=tmp_path / "runs", execution=how
    )
    found.save(tmp_path / "out")
    assert names(tmp_path / "out") >= {
        "report.html",
        "audit.json",
        "rows.parquet",
        "proof/verify.py",
    }
    kept = json.loads((tmp_path / "out" / "audit.json").read_text("utf-8"))
    assert kept["command"] == "from Python"
    assert found.rows().equals(rows(found))
    assert found.rows().num_rows > 0
