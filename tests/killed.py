"""Programs that are killed and started again, and what they leave."""

import os
import subprocess
import sys
from pathlib import Path


def start(program: str, root: Path) -> subprocess.Popen[bytes]:
    """A process of a program that is given a folder, says `started`, works, and says `done`."""
    path = os.pathsep.join(
        [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    return process


def finish(process: subprocess.Popen[bytes]) -> None:
    """Let it come to its end."""
    out, _ = process.communicate(timeout=250)
    assert process.returncode == 0
    assert out == b"done\n"


def bytes_of(root: Path) -> dict[str, bytes]:
    """Every published file but the clock times."""
    files = [p for p in (root / "objects").rglob("*") if p.is_file() and p.name != "run.json"]
    return {str(p.relative_to(root)): p.read_bytes() for p in files}
