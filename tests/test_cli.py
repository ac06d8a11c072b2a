"""The command: bad input is one sentence and exit code 2, good input says what it made and where."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from noisychannel import cli
from noisychannel.attacks import ATTACKS
from noisychannel.audit.verdict import CODES
from noisychannel.channels import CHANNELS
from noisychannel.data import from_arrays
from noisychannel.decision import DECISIONS
from noisychannel.engine import Execution, Store, key_of, plan
from noisychannel.errors import CheckpointError, DataError
from noisychannel.experiments import EXPERIMENTS, Scale, setting
from noisychannel.networks import NETWORKS, Checkpoint, SmallNet

USER = """
import torch
from torch import nn

from noisychannel.defenses import Defense
from noisychannel.networks import Checkpoint, SmallNet


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def good():
    return _net().eval()


def bent():
    return nn.Sequential(_net(), nn.Softplus()).eval()


def training():
    return _net()


def probabilities():
    return nn.Sequential(_net(), nn.Softmax(1)).eval()


def colour():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10)).eval()


def number():
    return 3


def nothing():
    pass


def wants_more(argument):
    return _net().eval()


def raises():
    raise RuntimeError("the weights are at home")


def leaves():
    raise SystemExit(0)


class _Leaving(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.calls = _net(), 0

    def forward(self, x):
        self.calls += 1
        if self.calls > 1:
            raise SystemExit(0)
        return self.inner(x)


def leaves_later():
    return _Leaving().eval()


def missing():
    return SmallNet(checkpoint=Checkpoint("missing.safetensors")).build()


def missing_later():
    return Defense(SmallNet(checkpoint=Checkpoint("missing.safetensors")))


def surplus_later():
    return Defense(SmallNet(checkpoint=Checkpoint("surplus.safetensors")))
"""


class Said(NamedTuple):
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, with a user's file in it."""
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "regular-file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOISYCHANNEL_DATA", raising=False)
    monkeypatch.delenv("NOISYCHANNEL_WEIGHTS", raising=False)
    monkeypatch.setenv("COLUMNS", "80")  # sentences are not folded, however narrow the terminal
    return tmp_path


@pytest.fixture
def command(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`noisychannel …` in this process: whatever is not an exit is a traceback, and fails the test."""

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["noisychannel", *arguments])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return call


def real(*arguments: str, cwd: Path) -> Said:
    """`python -m noisychannel …` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "noisychannel", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "80"},
    )
    return Said(done.returncode, done.stdout, done.stderr)


def refused(said: Said, *patterns: str) -> None:
    """Exit code 2, and one sentence on stderr that has all of these in this order."""
    assert said.code == 2
    lines = [line for line in said.err.splitlines() if line.strip()]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: ")
    assert re.search(".*".join(patterns), lines[0]), lines[0]
    assert said.out == ""


def folder_of(
    path: Path, pixels: Any, labels: list[int], names: tuple[str, ...] = ("a", "b")
) -> Path:
    """A test split as the hub stores it, of nested numbers, with the names of the classes."""
    path.mkdir()
    features = {"label": {"_type": "ClassLabel", "names": list(names)}}
    table = pa.table({"image": pixels.tolist(), "label": labels})
    table = table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(table, path / "test-00000-of-00001.parquet")
    return path


PIXELS = np.random.default_rng(0).random((4, 8, 8)).astype(np.float32)


# ---------------------------------------------------------------- in a process of its own


@pytest.mark.usefixtures("here")
def test_the_real_command_refuses_in_one_sentence(tmp_path: Path) -> None:
    refused(
        real("audit", "gauss:0.1", "--data", "nosuch", cwd=tmp_path), "expected", "got 'nosuch'"
    )


@pytest.mark.usefixtures("here")
def test_probabilities_are_warned_of_and_audited(tmp_path: Path) -> None:
    said = real(
        *("audit", "user.py:probabilities", "--subset", "first:4", "--threads", "1"), cwd=tmp_path
    )
    assert said.code == CODES["UNDER-POWERED"], said.err
    warned = [line for line in said.err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1
    assert re.search("expected logits, got .*probabilities.*; remove its last softmax", warned[0])
    assert "UserWarning" not in said.err
    assert "Traceback" not in said.err
    assert "adaptive" in said.out
    assert (tmp_path / "audit" / "report.html").is_file()


# ---------------------------------------------------------------- bad input

BAD: dict[str, tuple[str, tuple[str, ...]]] = {
    # what is wrong: (arguments, what the sentence says)
    "data set": (
        "audit gauss:0.1 --data nosuch",
        ("data set: expected one of digits", "got 'nosuch'", "NOISYCHANNEL_DATA"),
    ),
    "split": ("audit gauss:0.1 --split dev", ("split: expected train or test", "got 'dev'")),
    "subset first:0": (
        "audit gauss:0.1 --subset first:0",
        ("subset: expected all, first:N", "got 'first:0'"),
    ),
    "subset empty": ("audit gauss:0.1 --subset=", ("subset: expected all, first:N", "got ''")),
    "subset too large": (
        "audit gauss:0.1 --subset first:356",
        ("subset: expected first:N with N ≤ 355", "got first:356"),
    ),
    "channel": ("audit grauss:0.1", ("channel: expected one of gauss:SIGMA", "got 'grauss:0.1'")),
    "channel's number": ("audit gauss:much", ("channel: expected a number", "got 'gauss:much'")),
    "sigma": ("audit gauss:-1", ("sigma: expected a finite number ≥ 0", "got -1")),
    "sigma nan": ("audit gauss:nan", ("sigma: expected a finite number ≥ 0", "got nan")),
    "bits 0": ("audit cd:0", ("bits: expected a whole number, 1 … 8", "got 0")),
    "bits 9": ("audit cd:9", ("bits: expected a whole number, 1 … 8", "got 9")),
    "fc 120": ("audit fc:120", ("compression: expected 0 … 100 percent", "got 120")),
    "svd 120": ("audit svd:120", ("compression: expected 0 … 100 percent", "got 120")),
    "chain": ("audit fc:50+cd:9", ("bits: expected a whole number, 1 … 8", "got 9")),
    "assumed": ("audit gauss:0.1 --assumed magic", ("channel: expected one of", "got 'magic'")),
    "norm": ("audit gauss:0.1 --norm l3", ("norm: expected l2 or linf", "got 'l3'")),
    "epsilon abc": ("audit gauss:0.1 --epsilon abc", ("epsilon: expected a number", "got 'abc'")),
    "epsilon nan": ("audit gauss:0.1 --epsilon nan", ("epsilon: expected a number", "got 'nan'")),
    "epsilon 1/0": ("audit gauss:0.1 --epsilon 1/0", ("epsilon: expected a number", "got '1/0'")),
    "epsilon huge": (
        "audit gauss:0.1 --epsilon 1e400",
        ("epsilon: expected a number", "got '?1e400"),
    ),
    "epsilon 0": ("audit gauss:0.1 --epsilon 0", ("epsilon: expected a number > 0", "got 0")),
    "decision": (
        "audit gauss:0.1 --decision best",
        ("decision: expected single, vote:K or mean_prob:K", "got 'best'"),
    ),
    "vote of none": ("audit gauss:0.1 --decision vote:0", ("vote: expected at least 1", "got 0")),
    "budget": ("audit gauss:0.1 --budget huge", ("budget: expected one of quick", "got 'huge'")),
    "draws": ("audit gauss:0.1 --draws two", ("draws: expected fresh or fixed", "got 'two'")),
    "tries": ("audit gauss:0.1 --tries 0", ("tries: expected a whole number ≥ 1", "got 0")),
    "queries": ("audit gauss:0.1 --queries -1", ("queries: expected a whole number", "got -1")),
    "workers": (
        "audit gauss:0.1 --workers -3",
        ("workers: expected 0 .one for each core", "got -3"),
    ),
    "leaves": ("audit user.py:leaves", ("got sys.exit.0.", "remove the call")),
    "leaves later": ("audit user.py:leaves_later", ("got sys.exit.0.", "remove the call")),
    "compare leaves": ("compare user.py:good user.py:leaves", ("got sys.exit.0.",)),
    "certify leaves": ("certify user.py:leaves --sigma 0.1", ("got sys.exit.0.",)),
    "minutes": ("audit gauss:0.1 --minutes -1", ("minutes: expected a number ≥ 0", "got -1")),
    "substitute": (
        "audit gauss:0.1 --substitute magic",
        ("channel: expected one of", "got 'magic'"),
    ),
    "attack": ("audit gauss:0.1 --attack user.py:number", ("attack user.py:number", "got")),
    "base": ("audit gauss:0.1 --base nosuch.py:f", ("expected FILE.py:FUNCTION", "nosuch.py:f")),
    "base alike": ("audit user.py:good --base user.py:good", ("base: expected another defense",)),
    "off": ("audit off:user.py:good", ("off:user.py:good: expected a defense", "switched off")),
    "authors' name": ("audit cifar10-nosuch", ("cifar10-nosuch",)),
    "robustbench": ("audit robustbench:@x", ("robustbench: expected robustbench:NAME", "'@x'")),
    "compare one": ("compare gauss:0.1", ("targets: expected two or more", "got gauss:0.1")),
    "compare's minutes": (
        "compare gauss:0.1 gauss:0.2 --minutes -1",
        ("minutes: expected a number ≥ 0", "got -1"),
    ),
    "compare twice": ("compare gauss:0.1 gauss:0.1", ("targets: expected two or more",)),
    "network": (
        "audit gauss:0.1 --network vgg",
        ("network: expected small", "FILE.py:FUNCTION", "got 'vgg'"),
    ),
    "no checkpoint": (
        "audit gauss:0.1 --network cifar10-nosuch",
        ("authors' network: expected one of cifar10-resnet20-plain", "got 'cifar10-nosuch'"),
    ),
    "no preset": (
        "train --preset cifar10/nosuch",
        ("preset: expected one of .*cifar10/plain-12", "got 'cifar10/nosuch'; noisychannel list"),
    ),
    "no such zoo network": (
        "audit zoo:nosuch",
        (
            r"zoo: expected a network that comes trained \(.*cifar10/plain-12",
            "card.json",
            "got 'nosuch'",
        ),
    ),
    "network to be trained first": (
        "audit zoo:cifar10/vgg16-plain",
        ("zoo: expected weights of 'cifar10/vgg16-plain'", "noisychannel train --preset"),
    ),
    "network for other images": (
        "audit zoo:cifar10/plain-12 --subset first:5",
        (r"a shape like \(3, 32, 32\)", r"got \(1, 8, 8\) of digits", "choose other data"),
    ),
    "network for series": (
        "audit fc:50 --network ecg5000/plain-fast --subset first:5",
        (r"a shape like \(1, 140\)", r"got \(1, 8, 8\) of digits", "choose other data"),
    ),
    "output is a file": (
        "train --preset digits/robustnet --output regular-file",
        ("output folder regular-file.digits.robustnet: cannot be written", "--output"),
    ),
    "epochs": ("train --preset digits/plain --epochs -1", ("epochs: expected a whole", "got -1")),
    "devices": ("train --preset digits/plain --devices 0", ("devices: expected a whole", "got 0")),
    "threads": ("audit gauss:0.1 --threads 0", ("threads: expected a whole number ≥ 1", "got 0")),
    "device": ("audit gauss:0.1 --device toaster", ("device: expected cpu", "got '?toaster")),
    "output": (
        "audit gauss:0.1 --output regular-file/x",
        ("output folder regular-file/x: cannot be written", "--output"),
    ),
    "store": (
        "audit user.py:good --store regular-file/x",
        ("results folder regular-file/x: cannot be written", "--store"),
    ),
    "no file": ("audit nosuch.py:f", ("target: expected FILE.py:FUNCTION", "got 'nosuch.py:f'")),
    "no function": ("audit user.py", ("target: expected FILE.py:FUNCTION", "got 'user.py'")),
    "other function": ("audit user.py:nosuch", ("expected a function 'nosuch' in user.py",)),
    "a number": ("audit user.py:number", ("user.py:number: expected an nn.Module", "got a int")),
    "nothing": ("audit user.py:nothing", ("user.py:nothing: expected an nn.Module", "NoneType")),
    "training": (
        "audit user.py:training",
        ("expected eval mode", "got training mode", r"call \.eval\(\)"),
    ),
    "function raises": ("audit user.py:raises", ("user.py:raises", "the weights are at home")),
    "function wants more": ("audit user.py:wants_more", ("user.py:wants_more", "argument")),
    "other colours": ("audit user.py:colour", ("network 'colour'", r"1, 8, 8", "3 channels")),
    "experiment": (
        "run fig99",
        ("experiment: expected one of fig01, fig02, ", "pni, all, got 'fig99'"),
    ),
    "scale": ("run fig01 --scale huge", ("scale: expected smoke, desk or paper", "got 'huge'")),
    "run threads": ("run fig01 --threads 0", ("threads: expected a whole number ≥ 1", "got 0")),
    "run device": ("run fig01 --device toaster", ("device: expected cpu", "got '?toaster")),
    "micro-batch": ("run fig01 --micro-batch 0", ("micro_batch: expected a whole number", "got 0")),
    "run output": (
        "run fig01 --output regular-file/x",
        ("output folder regular-file/x: cannot be written", "--output"),
    ),
    "run store": (
        "run fig01 --store regular-file/x",
        ("results folder regular-file/x: cannot be written", "--store"),
    ),
    "report's experiment": ("report fig99", ("experiment: expected one of", "got 'fig99'")),
    "report's scale": ("report fig01 --scale huge", ("scale: expected smoke", "got 'huge'")),
    "report's output": ("report --output regular-file/x", ("cannot be written", "--output")),
    "status' scale": ("status --scale huge", ("scale: expected smoke", "got 'huge'")),
    "status' device": ("status --device toaster", ("device: expected cpu", "got '?toaster")),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str, command: Command) -> None:
    arguments, patterns = BAD[name]
    refused(command(*arguments.split()), *patterns)


def test_cuda_where_there_is_none(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for words in (("audit", "user.py:good"), ("run", "fig01")):
        refused(
            command(*words, "--device", "cuda"), "device: expected", "(got|found)", "device cpu"
        )


@pytest.mark.parametrize(
    ("text", "reason"),
    [("import nosuchmodule\n", "nosuchmodule"), ("def f(:\n", "syntax"), ("1 / 0\n", "zero")],
    ids=["ImportError", "SyntaxError", "ZeroDivisionError"],
)
def test_a_file_that_does_not_import(text: str, reason: str, command: Command, here: Path) -> None:
    (here / "broken.py").write_text(text)
    refused(command("audit", "broken.py:f"), "broken.py", reason)


def test_images_outside_the_box(command: Command, here: Path) -> None:
    for name, pixels in (("bright", 2 * PIXELS), ("dark", PIXELS - 1), ("nan", PIXELS * np.nan)):
        folder = folder_of(here / name, pixels, [0, 1, 0, 1])
        arguments = ("audit", "user.py:good", "--data", str(folder), "--subset", "all")
        refused(command(*arguments), r"images: expected pixels in \[0, 1\], got", "rescale them")


def test_an_image_outside_the_box_is_found_before_anything_is_computed(
    command: Command, here: Path
) -> None:
    """The last image lies in the second slice of the work."""
    pixels = np.concatenate([np.tile(PIXELS, (30, 1, 1)), 2 * PIXELS[:1]])
    folder = folder_of(here / "bright", pixels, [0, 1] * 60 + [0])
    arguments = ("audit", "user.py:good", "--data", str(folder), "--subset", "all")
    refused(command(*arguments), r"images: expected pixels in \[0, 1\], got", "rescale them")
    assert not list((here / "runs").glob("objects/*/*"))


def test_labels_out_of_range(command: Command, here: Path) -> None:
    for name, labels in (("large", [0, 1, 0, 2]), ("negative", [0, 1, 0, -1])):
        folder = folder_of(here / name, PIXELS, labels)
        arguments = ("audit", "user.py:good", "--data", str(folder), "--subset", "all")
        refused(command(*arguments), "labels: expected 0 … 1, got", "number the classes from 0")


def test_arrays_at_the_door() -> None:
    with pytest.raises(DataError, match=r"images: expected pixels in \[0, 1\], got .* rescale"):
        from_arrays(2 * PIXELS[:, None], [0, 1, 0, 1])
    with pytest.raises(DataError, match="labels: expected 0 … 1, got 0 … 2; number"):
        from_arrays(PIXELS[:, None], [0, 1, 0, 2], classes=2)


@pytest.mark.parametrize("when", ["at once", "later"])
def test_checkpoints_that_do_not_fit(when: str, command: Command, here: Path) -> None:
    """`later`: the file makes a Defense, whose checkpoint is not read yet."""
    whole = {n: t.contiguous() for n, t in SmallNet().build().state_dict().items()}
    less = {n: t for n, t in whole.items() if n != "classifier.bias"}
    save_file(less, here / "missing.safetensors")
    save_file({**whole, "extra": torch.zeros(1)}, here / "surplus.safetensors")
    if when == "at once":
        refused(
            command("audit", "user.py:missing"), "expected the 20 tensors", "classifier.bias", "map"
        )
        with pytest.raises(CheckpointError, match=r"got 1 left over \(extra\); map the names"):
            SmallNet(checkpoint=Checkpoint("surplus.safetensors")).build()
    else:
        for name, said in (("missing", r"missing \(class"), ("surplus", r"left over \(extra")):
            refused(command("audit", f"user.py:{name}_later"), "expected the 20 tensors", said)


@pytest.mark.parametrize("name", ["[/b]", "[red]", "[0, 1]", "a\\[b]"])
def test_square_brackets_are_text(name: str, command: Command) -> None:
    """The terminal library would read them as its own marks: lose them, or stop at them."""
    refused(command("audit", "gauss:0.1", "--data", name), re.escape(f"got {name!r}"))


def test_what_typer_refuses_is_exit_code_2_without_traceback(command: Command) -> None:
    for arguments in (("audit",), ("nosuch",), ("audit", "gauss:0.1", "--tries", "many")):
        said = command(*arguments)
        assert said.code == 2
        assert said.err.startswith("Usage: ")
        assert "Traceback" not in said.err


# ---------------------------------------------------------------- what it says and makes


def test_help(command: Command) -> None:
    said = command("--help")
    assert said.code == 0
    for name in ("audit", "compare", "certify", "run", "report", "status", "list"):
        assert re.search(rf"^\W*{name} ", said.out, re.MULTILINE)
        one = command(name, "--help")
        assert (one.code, one.err) == (0, "")
        assert re.search(rf"Usage: .* {name} ", one.out)


def test_list_names_every_part(command: Command) -> None:
    said = command("list")
    assert said.code == 0
    lines = [line.strip() for line in said.out.splitlines()]
    for part in (*CHANNELS, *ATTACKS, *DECISIONS, *NETWORKS):
        assert repr(part) in lines
    for experiment in EXPERIMENTS:
        assert f"{experiment.name}: {experiment.title}" in lines


def test_status_counts_what_is_in_the_store(
    command: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = tuple(e for e in EXPERIMENTS if e.name in ("fig01", "fig16"))  # all of them take a minute
    monkeypatch.setattr("noisychannel.cli.paper.EXPERIMENTS", two)
    scale: Scale = "smoke"
    where = setting(scale, EXPERIMENTS[0].subsets, Execution(threads=1))
    tasks = plan(m for cell in EXPERIMENTS[0].cells(where) for m in cell.measures).tasks
    store = Store(here / "runs")
    for done in (0, 3):
        for task in tasks[:done]:
            store.put(key_of(task), {}, "", {})
        said = command("status")
        assert said.code == 0
        left = sum(task.work for task in tasks[done:])
        first = said.out.replace("\n", " ")
        assert f"{EXPERIMENTS[0].name} (smoke): {done} of {len(tasks)} tasks done" in first
        assert f"{left:.0f} of {sum(t.work for t in tasks):.0f} expected passes left" in first
    assert all(experiment.name in said.out for experiment in two)


@pytest.mark.parametrize("options", ["", "--threads 2", "--micro-batch 64", "--device cuda"])
def test_report_before_a_run_says_what_to_do(
    options: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that it names must make what this report would read: threads are part of a key."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    said = command("report", "fig01", "--store", "here", *options.split())
    refused(said, "fig01 at scale smoke is not run; do: noisychannel run fig01 --scale smoke")
    assert "--store here" in said.err
    assert options in said.err


def test_an_audit_writes_its_page_and_prints_its_table(command: Command, here: Path) -> None:
    arguments = (
        "audit",
        "user.py:good",
        "--subset",
        "first:12",
        "--epsilon",
        "1",
        "--threads",
        "1",
    )
    said = command(*arguments, "--output", "out")
    judged = json.loads((here / "out" / "audit.json").read_text("utf-8"))
    assert said.code == judged["exit_code"] == CODES["UNDER-POWERED"], said.err
    for word in ("clean", "adaptive", "user.py:good", "UNDER-POWERED"):
        assert word in said.out
    assert "enough-images" in said.err
    assert "report: out/report.html\n" in said.out
    text = (here / "out" / "report.html").read_text("utf-8")
    assert "noisychannel " + " ".join(arguments) in text
    for file in ("rows.parquet", "settings.png", "proof/verify.py"):
        assert (here / "out" / file).is_file()
    long = "/".join(["a-folder-with-a-long-name"] * 6)  # stays in one piece, to be copied
    before = sorted(here.glob("runs/objects/*/*"))
    again = command(*arguments, "--output", long)
    assert sorted(here.glob("runs/objects/*/*")) == before  # every task was found
    assert f"report: {long}/report.html\n" in again.out
    assert again.out.partition("report:")[0] == said.out.partition("report:")[0]


def test_a_dry_run_says_what_it_takes_and_runs_nothing(command: Command, here: Path) -> None:
    said = command("audit", "user.py:good", "--subset", "first:12", "--threads", "1", "--dry-run")
    assert said.code == 0
    for word in ("clean images", "without gradients", "controls of the", "Time: measured"):
        assert word in said.out
    assert not (here / "runs").exists()
    assert not (here / "audit").exists()


def test_a_comparison_has_a_page_of_all_and_one_of_each(command: Command, here: Path) -> None:
    words = ("--subset", "first:12", "--epsilon", "1", "--threads", "1", "--output", "out")
    said = command("compare", "user.py:good", "user.py:bent", *words)
    assert said.code == 0, said.err
    assert "user.py:good" in said.out
    assert "user.py:bent" in said.out
    assert (here / "out" / "report.html").is_file()
    for folder in ("1-user-py-good", "2-user-py-bent"):
        assert (here / "out" / folder / "report.html").is_file()
        assert (here / "out" / folder / "audit.json").is_file()
