"""Who has PyTorch and the folder can tell a true claim from a false one, and a sound folder from another."""

import ast
import os
import pickle
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.audit.proof import Bytes, Proof, Strongest, in_bytes, strongest, write_proof
from noisychannel.data import from_uint8, to_uint8
from noisychannel.decision import Decision, MeanProb, Single, Vote
from noisychannel.defenses import Defense
from noisychannel.errors import UserError
from noisychannel.measures import draws
from noisychannel.networks import Foreign
from noisychannel.norms import L2, Linf
from noisychannel.report.stats import Estimate, WorstCase, accuracy, wilson, worst_case
from noisychannel.types import Batch

EPSILON = 4 / 255
SPREAD = 2 / 255 / 0.5244
"""Noise behind which 2 grey levels have the right sign with probability Φ(.5244) = .7."""

# What an author has: left halves tell the classes by 60 grey levels, right halves by 2 or 6.
NETWORKS = f"""
import torch

def of(half, spread=0.0):
    def network(x):
        seen = (x - 128 / 255)[..., half].flatten(1).mean(1)
        if spread:
            assert torch.initial_seed() != 0, "draws of the author's choice"
            seen = seen + spread * torch.randn(len(x))
        return 100 * torch.stack([-seen, seen], dim=1)
    return network

def broken():
    return of(slice(4, None))

def robust():
    return of(slice(4))

def random():
    torch.manual_seed(0)
    return of(slice(4, None), {SPREAD})

def none():
    return None
"""

ALONE = """
from networks import broken, random, robust

for absent in ("noisychannel", "numpy", "safetensors", "scipy", "pyarrow"):
    try:
        __import__(absent)
    except ImportError:
        continue
    raise AssertionError(absent)
"""


class Fragile(nn.Module):
    """`random` of the above, for the library."""

    def forward(self, x: Tensor) -> Tensor:
        seen = (x - 128 / 255)[..., 4:].flatten(1).mean(1) + SPREAD * torch.randn(len(x))
        return 100 * torch.stack([-seen, seen], dim=1)


@dataclass(frozen=True)
class World:
    """200 images, last first: `strong` right halves that 4 levels do not turn, and `wrong` labels."""

    wrong: int = 10
    strong: int = 30

    @property
    def clean(self) -> Batch:
        number = torch.arange(200).flip(0)
        y = number % 2
        sign = (2 * y - 1).view(-1, 1, 1, 1)
        x = torch.full((200, 1, 8, 8), 128.0)
        x[..., :4] += 60 * sign
        x[..., 4:] += torch.where(number < self.strong, 6, 2).view(-1, 1, 1, 1) * sign
        x[..., 0, 0], x[..., 0, 1] = 0.0, 255.0  # so that pixels can leave [0, 1] within the budget
        return Batch(x / 255, torch.where(number >= 200 - self.wrong, 1 - y, y), 3 * number)

    def attack(self, levels: float) -> Tensor:
        """Right halves moved so far away from the label."""
        x, sign = self.clean.x.clone(), 2 * self.clean.y - 1
        x[..., 4:] -= levels / 255 * sign.view(-1, 1, 1, 1)
        return x

    @property
    def chosen(self) -> Strongest:
        """One attack turns even images, another odd ones; on strong images a third was chosen, that goes too far."""
        index = self.clean.index.sort().values
        parity = {0: "even", 1: "odd"}
        winner = tuple("far" if i < 3 * self.strong else parity[i % 2] for i in index.tolist())
        odd = (self.clean.index % 2).view(-1, 1, 1, 1) == 1
        candidates = {
            "even": torch.where(odd, self.clean.x, self.attack(4)),
            "odd": torch.where(odd, self.attack(4), self.clean.x),
            "far": self.attack(9),
        }
        worst = WorstCase(wilson(self.strong, 200), index, winner)
        return strongest(self.clean, candidates, worst, Linf(), EPSILON)

    @property
    def proof(self) -> Proof:
        """What is true of `broken`."""
        plain, turned = wilson(200 - self.wrong, 200), wilson(self.strong, 200)
        return Proof(
            "broken", "halves", self.clean, plain, self.chosen, turned, Linf(), EPSILON, Single(), 1
        )


def alone(tmp_path: Path, proof: Proof, function: str) -> subprocess.CompletedProcess[str]:
    """Checked as the author does: from an empty folder, with PyTorch and nothing else that the tool needs."""
    for folder in ("author", "empty", "poison"):
        (tmp_path / folder).mkdir()
    (tmp_path / "author" / "networks.py").write_text(NETWORKS, "utf-8")
    (tmp_path / "author" / "alone.py").write_text(ALONE, "utf-8")
    for name in ("noisychannel", "numpy", "safetensors", "scipy", "pyarrow"):
        refuse = f"raise ModuleNotFoundError({name!r})\n"
        (tmp_path / "poison" / f"{name}.py").write_text(refuse, "utf-8")
    write_proof(tmp_path / "proof", proof)
    for name in ("torch", "zipfile", "networks"):  # whatever else came with the folder is not run
        (tmp_path / "proof" / f"{name}.py").write_text("raise SystemExit(9)\n", "utf-8")
    target = f"{tmp_path / 'author' / 'alone.py'}:{function}"
    return subprocess.run(
        [sys.executable, str(tmp_path / "proof" / "verify.py"), "--model", target],
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "poison")},
        capture_output=True,
        text=True,
        timeout=250,
    )


Verify = Callable[[str], tuple[int, str]]


@pytest.fixture
def verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Verify:
    """The script of `tmp_path/proof` in this process, on a function of the author's: exit code, and what it said."""
    (tmp_path / "networks.py").write_text(NETWORKS, "utf-8")

    def run(function: str) -> tuple[int, str]:
        target = f"{tmp_path / 'networks.py'}:{function}"
        monkeypatch.setattr(sys, "argv", ["verify.py", "--model", target])
        monkeypatch.setattr(sys, "path", [*sys.path])
        code: Any = 0
        with torch.random.fork_rng(devices=[]):
            try:
                runpy.run_path(str(tmp_path / "proof" / "verify.py"))
            except SystemExit as end:
                code = end.code
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


# ---------------------------------------------------------------- alone with PyTorch
def test_the_broken_network_is_confirmed(tmp_path: Path) -> None:
    done = alone(tmp_path, World().proof, "broken")
    assert done.returncode == 0, done.stderr
    clean, attacked, verdict = done.stdout.splitlines()
    assert clean == "clean: claimed 0.950 [0.910, 0.973], measured 0.950 [0.910, 0.973]"
    assert attacked == "adversarial: claimed 0.150 [0.107, 0.206], measured 0.150 [0.107, 0.206]"
    assert verdict.startswith("CONFIRMED")


def test_a_robust_twin_is_not(tmp_path: Path) -> None:
    done = alone(tmp_path, World().proof, "robust")
    assert done.returncode == 1, done.stderr
    assert "measured 0.950" in done.stdout.splitlines()[1]
    assert "NOT CONFIRMED" in done.stderr


def voted() -> Proof:
    """Measured by the library: a draw is right with probability .7, and .3 under attack; of 15, .95 and .05."""
    world, rule = World(wrong=0, strong=0), Vote(15)
    defense = Defense(Foreign(Fragile().eval(), (1, 8, 8)), decision=rule)
    network, clean = defense.network.build(), world.clean
    candidates = {"weak": world.attack(1), "strong": world.attack(4)}
    with rng.root("proof"):
        plain = accuracy(draws(defense, network, clean.x, clean, 60), rule)
        turned = {name: draws(defense, network, x, clean, 60) for name, x in candidates.items()}
    worst = worst_case(turned, rule)
    assert plain.low < 0.95 < plain.high
    assert worst.estimate.high < 0.12
    chosen = strongest(clean, candidates, worst, Linf(), EPSILON)
    return Proof(
        "random", "halves", clean, plain, chosen, worst.estimate, Linf(), EPSILON, rule, 30
    )


def test_a_random_network_under_vote_is_confirmed(tmp_path: Path, verify: Verify) -> None:
    proof = voted()
    done = alone(tmp_path, proof, "random")
    assert done.returncode == 0, done.stdout + done.stderr
    # One by one the same answers are no vote: .7 of them are right, of 15 together .95.
    write_proof(tmp_path / "proof", replace(proof, rule=Single()))
    code, said = verify("random")
    assert (code, "another network" in said) == (2, True), said


# ---------------------------------------------------------------- in this process
@pytest.mark.parametrize("rule", [Single(), Vote(4), MeanProb(4)])
def test_decisions_are_those_of_the_library(tmp_path: Path, verify: Verify, rule: Decision) -> None:
    # Few classes, equal votes, and rows that answer nothing, as NaN or as ∞.
    made = torch.Generator().manual_seed(1)
    groups, n = 3, 60
    logits = torch.randn(2, groups, rule.draws, n, 3, generator=made)
    logits[torch.rand(logits.shape, generator=made) < 0.1] = torch.nan
    logits[torch.rand(logits.shape, generator=made) < 0.02] = torch.inf
    logits[:, :, :, :3] = torch.nan
    torch.save(logits.flatten(0, 2), tmp_path / "logits.pt")
    code = f"import torch\ndef replay():\n    said = iter(torch.load({str(tmp_path / 'logits.pt')!r}))\n"
    world = World()
    clean = world.clean.rows(slice(n))
    everything = Estimate(0.5, 0.0, 1.0, n, "bootstrap")
    chosen = Strongest(clean.x, ("none",) * n)
    budget = (
        Linf(),
        EPSILON,
        rule,
        groups * rule.draws + rule.draws - 1,
    )  # the rest decides nothing
    proof = Proof("replay", "halves", clean, everything, chosen, everything, *budget)
    write_proof(tmp_path / "proof", proof)
    (tmp_path / "networks.py").write_text(code + "    return lambda x: next(said)\n", "utf-8")
    code, said = verify("replay")
    assert code == 0, said
    for line, answers in zip(said.splitlines(), logits, strict=False):
        z = answers.transpose(1, 2).flatten(0, 1)  # (groups · n, k, classes)
        classes = z.argmax(-1).where(z.isfinite().all(-1), -1)
        answer = rule.decide(classes, z.softmax(-1)).view(groups, n)
        right = float((answer == clean.y).double().mean())
        found = wilson(right * n, n)
        assert line.endswith(f"measured {right:.3f} [{found.low:.3f}, {found.high:.3f}]")
        assert 0 < right < 0.6


def tampered(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    bundle = torch.load(folder / "adversarials.pt", weights_only=True)
    change(bundle)
    torch.save(bundle, folder / "adversarials.pt")


def moved(bundle: dict[str, Any], pixel: float, column: int = 0) -> None:
    bundle["claims"][1][1][7, 0, 0, column] = pixel


def floats(bundle: dict[str, Any]) -> None:
    """Within the budget, between two levels."""
    x = bundle["claims"][2][1].float()
    x[..., 7, :4] += 0.3
    bundle["claims"][2][1] = x


TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "beyond the budget": (
        lambda b: moved(b, 4.1 / 255),
        "within linf 0.0156879, got torch.float32 from 0 to 1 at 0.0160784",
    ),
    "below 0": (lambda b: moved(b, -1 / 255), "adversarial: expected floats in [0, 1]"),
    "above 1": (lambda b: moved(b, 256 / 255, 1), "adversarial: expected floats in [0, 1]"),
    "NaN": (lambda b: moved(b, torch.nan), "adversarial: expected floats in [0, 1]"),
    "NaN for a budget": (lambda b: b.update(epsilon=torch.nan), "within linf nan"),
    "labels swapped": (lambda b: b.update(labels=1 - b["labels"]), "or other labels"),
    "off the 8-bit grid": (
        floats,
        "8-bit: expected bytes in [0, 1] within linf 0.0156879, got torch.float32",
    ),
    "no draws": (lambda b: b.update(draws=0), "verify.py: "),
    "nothing in it": (lambda b: b.clear(), "truncated or corrupt"),
}


def with_bytes() -> Proof:
    proof = World().proof
    x = in_bytes(proof.adversarial.x, proof.clean.x, Linf(), EPSILON)
    return replace(proof, eight_bit=Bytes(x, proof.accuracy))


def test_the_images_as_bytes_are_a_claim_of_their_own(tmp_path: Path, verify: Verify) -> None:
    proof = with_bytes()
    write_proof(tmp_path / "proof", proof)
    code, said = verify("broken")
    assert code == 0, said
    assert "adversarial, 8-bit: claimed 0.150 [0.107, 0.206], measured 0.150" in said
    assert proof.eight_bit is not None
    write_proof(
        tmp_path / "proof", replace(proof, eight_bit=Bytes(proof.eight_bit.x, wilson(0, 200)))
    )
    code, said = verify("broken")
    assert (code, "NOT CONFIRMED" in said) == (1, True), said


@pytest.mark.parametrize("how", TAMPERED)
def test_a_folder_that_is_not_as_it_says_is_refused(
    tmp_path: Path, verify: Verify, how: str
) -> None:
    change, sentence = TAMPERED[how]
    write_proof(tmp_path / "proof", with_bytes())
    tampered(tmp_path / "proof", lambda _: None)
    assert verify("broken")[0] == 0
    tampered(tmp_path / "proof", change)
    code, said = verify("broken")
    assert code == 2
    assert sentence in said.splitlines()[-1]


def test_the_budget_is_held_in_l2_too(tmp_path: Path, verify: Verify) -> None:
    proof = replace(World().proof, norm=L2(), epsilon=EPSILON * 32**0.5)
    write_proof(tmp_path / "proof", proof)
    assert verify("broken")[0] == 0
    tampered(tmp_path / "proof", lambda b: moved(b, 1 / 255))
    code, said = verify("broken")
    assert (code, "within l2 0.0887" in said) == (2, True), said


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "half of it": lambda all_of: all_of[: len(all_of) // 2],
    "one byte short": lambda all_of: all_of[:-1],
    "one bit of an image": lambda all_of: all_of[:5000] + bytes([all_of[5000] ^ 1]) + all_of[5001:],
    "empty": lambda _: b"",
    "another file": lambda _: b"To whom it may concern",
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, verify: Verify, how: str) -> None:
    write_proof(tmp_path / "proof", World().proof)
    file = tmp_path / "proof" / "adversarials.pt"
    file.write_bytes(DAMAGED[how](file.read_bytes()))
    code, said = verify("broken")
    assert code == 2
    assert said == (
        "verify.py: adversarials.pt: expected the file as it was written, got a truncated or corrupt one\n"
    )


class Code:
    """What pickle runs when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_code_in_the_file_is_not_run(tmp_path: Path, verify: Verify) -> None:
    write_proof(tmp_path / "proof", World().proof)
    file, ran = tmp_path / "proof" / "adversarials.pt", tmp_path / "ran"
    for write in (torch.save, lambda what, where: where.write_bytes(pickle.dumps(what))):
        write({"claims": Code(ran)}, file)
        code, said = verify("broken")
        assert (code, ran.exists()) == (2, False)
        assert "weights_only" not in said  # torch's advice would have it run
    torch.save(Code(ran), file)
    torch.load(file, weights_only=False)
    assert ran.exists()  # it is as dangerous as it should be


@pytest.mark.parametrize(
    ("function", "sentence"),
    [("absent", "KeyError('absent')"), ("none", "'NoneType' object is not callable")],
)
def test_what_is_no_network_is_said(
    tmp_path: Path, verify: Verify, function: str, sentence: str
) -> None:
    write_proof(tmp_path / "proof", World().proof)
    code, said = verify(function)
    assert (code, said.count("\n"), sentence in said) == (2, 1, True), said


# ---------------------------------------------------------------- what is written
def test_the_script_is_short_and_needs_pytorch_alone(tmp_path: Path) -> None:
    write_proof(tmp_path, World().proof)
    text = (tmp_path / "verify.py").read_text("utf-8")
    assert len(text.splitlines()) < 50
    assert max(len(line) for line in text.splitlines()) <= 100
    imported = {
        alias.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported - sys.stdlib_module_names == {"torch"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(ast.parse(text)))
    readme = (tmp_path / "README.txt").read_text("utf-8").splitlines()
    assert len(readme) == 10
    assert "  python verify.py --model FILE.py:FUNCTION" in readme
    assert "15.0 % [10.7, 20.6] of these 200" in readme[0]
    assert "linf distance at most 0.0156863" in readme[2]
    assert readme[2].endswith("Decision: single (k = 1), on one answer per image.")


def test_the_same_proof_is_the_same_bytes(tmp_path: Path) -> None:
    # One word is the name of the defense, of the data, and of an attack.
    some = with_bytes()
    named = tuple("halves" if name == "odd" else name for name in some.adversarial.attack)
    one = replace(some, defense="halves", adversarial=Strongest(some.adversarial.x, named))
    # The same numbers and words as other objects: words put together anew, tensors that are parts of others.
    wide = torch.stack([one.clean.x, one.adversarial.x], dim=1)
    attack = tuple("".join([*name]) for name in one.adversarial.attack)
    two = replace(
        one,
        clean=replace(one.clean, x=wide[:, 0]),
        adversarial=Strongest(wide[:, 1], attack),
        defense="".join([*one.defense]),
        data="".join([*one.data]),
    )
    files = ("adversarials.pt", "verify.py", "README.txt")
    for name, proof in {"one": one, "two": two}.items():
        write_proof(tmp_path / name, proof)
        assert sorted(f.name for f in (tmp_path / name).iterdir()) == sorted(files)
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_is_held_is_exact(tmp_path: Path) -> None:
    world = World()
    write_proof(tmp_path, world.proof)
    held = torch.load(tmp_path / "adversarials.pt", weights_only=True)
    assert torch.equal(held["clean"], world.clean.x)
    assert torch.equal(held["labels"], world.clean.y)
    assert torch.equal(held["index"], world.clean.index)
    assert torch.equal(held["claims"][1][1], world.chosen.x)
    assert held["epsilon"] == EPSILON
    named = tuple(held["attacks"][i] for i in held["attack"])
    assert named == world.chosen.attack


# ---------------------------------------------------------------- which images
def test_each_example_has_the_image_of_its_attack() -> None:
    world = World()
    clean, (x, attack) = world.clean, world.chosen
    number = clean.index // 3
    turned = number >= world.strong
    assert torch.equal(x[turned], world.attack(4)[turned])
    assert torch.equal(x[~turned], clean.x[~turned])  # where the chosen one went too far
    for i, name in zip(number.tolist(), attack, strict=True):
        assert name == ("none" if i < world.strong else "odd" if i % 2 else "even")


@pytest.mark.parametrize(("factor", "kept"), [(1 + 0.9e-4, True), (1 + 1.2e-4, False)])
def test_rounding_is_allowed_for_and_no_more(factor: float, kept: bool) -> None:
    clean = Batch(torch.full((3, 1, 4, 4), 0.5), torch.zeros(3).long(), torch.arange(3))
    x = clean.x + 0.1 * factor
    worst = WorstCase(wilson(0, 3), clean.index, ("a",) * 3)
    found = strongest(clean, {"a": x}, worst, Linf(), 0.1)
    assert torch.equal(found.x, x if kept else clean.x)
    assert found.attack == ("a" if kept else "none",) * 3


def test_who_lets_in_and_who_checks_reckon_alike() -> None:
    made = torch.Generator().manual_seed(3)
    clean = Batch(
        torch.rand(64, 3, 16, 16, generator=made), torch.zeros(64).long(), torch.arange(64)
    )
    x = (clean.x + 0.01 * torch.randn(clean.x.shape, generator=made)).clamp(0, 1)
    precise = L2().distance(x.double(), clean.x.double())
    rounded = L2().distance(x, clean.x).double()
    row = int((precise - rounded).argmax())
    assert rounded[row] < precise[row]
    # A budget between the distances that float32 and float64 find, of which the script finds the latter.
    epsilon = float(((precise + rounded)[row] / 2 - 1e-7) / (1 + 1e-4))
    worst = WorstCase(wilson(0, 1), clean.index[row : row + 1], ("a",))
    found = strongest(
        clean.rows(slice(row, row + 1)), {"a": x[row : row + 1]}, worst, L2(), epsilon
    )
    assert found.attack == ("none",)


def test_bytes_are_the_nearest_within_the_budget() -> None:
    made = torch.Generator().manual_seed(2)
    clean = from_uint8(to_uint8(torch.rand(40, 1, 8, 8, generator=made)))
    x = (clean + (torch.rand(clean.shape, generator=made) * 2 - 1) * EPSILON).clamp(0, 1)
    # The budget is a whole number of levels: the nearest ones are within it.
    assert torch.equal(in_bytes(x, clean, Linf(), EPSILON), to_uint8(x))
    # It is not: rounding leaves it somewhere on each image, and there goes towards the clean one.
    odd = 3.7 / 255
    x = (clean + (x - clean).sign() * odd).clamp(0, 1)
    rounded = from_uint8(in_bytes(x, clean, Linf(), odd))
    assert (Linf().distance(from_uint8(to_uint8(x)), clean) > odd * 1.01).all()
    assert torch.equal(
        (rounded - clean).mul(255).round().abs().amax((1, 2, 3)), torch.full((40,), 3)
    )
    assert ((rounded - clean) * (x - clean) >= 0).all()
    # In L2 an image that spends it all leaves it when its pixels are rounded away from the clean one.
    delta = torch.zeros(1, 1, 8, 8)
    delta[..., :4] = 2.7 / 255
    clean = torch.full((1, 1, 8, 8), 100 / 255)
    size = float(L2().size(delta)[0])
    found = in_bytes(clean + delta, clean, L2(), size)
    assert torch.equal(found, to_uint8(clean + delta * 2 / 2.7))


def test_a_whole_level_is_not_lost_to_rounding() -> None:
    clean, up = torch.arange(252.0).div(255).view(1, 1, 14, 18), torch.zeros(1, 1, 14, 18)
    up[..., 0, 0] = 2.6 / 255  # one pixel leaves the budget of 2.6 levels when rounded to 3
    x = clean + 2 / 255 + up - (up > 0) * 2 / 255
    found = in_bytes(x, clean, Linf(), 2.6 / 255).long() - to_uint8(clean).long()
    assert (found == 2).all()


@dataclass(frozen=True)
class First:
    """A rule of somebody's own."""

    version: ClassVar[int] = 1
    draws: int = 2

    def decide(self, labels: Tensor, probabilities: Tensor) -> Tensor:
        return labels[:, 0]


def test_what_makes_no_proof_is_refused() -> None:
    world = World()
    proof, clean = world.proof, world.clean
    for change, sentence in (
        ({"draws": 3, "rule": Vote(4)}, "draws: expected at least 4"),
        ({"draws": 3, "rule": First()}, "rule: expected Single, Vote or MeanProb"),
        ({"accuracy": wilson(3, 100)}, "adversarial accuracy: expected of 200 examples"),
        ({"epsilon": -1.0}, "epsilon: expected a number > 0"),
        ({"epsilon": 3 / 255}, "adversarial images: expected at most"),
        ({"adversarial": Strongest(clean.x, ("a",))}, "a name for each of 200"),
        ({"adversarial": Strongest(clean.x - 1 / 255, ("a",) * 200)}, "adversarial: .* pixels in"),
        ({"eight_bit": Bytes(to_uint8(world.attack(9)), proof.accuracy)}, "8-bit images: expected"),
    ):
        with pytest.raises(UserError, match=sentence):
            replace(proof, **change)
    some = WorstCase(wilson(0, 200), clean.index, ("a",) * 200)
    for index, images, sentence in (
        (clean.index + 1, {"a": clean.x}, "worst: expected a choice for each"),
        (clean.index, {"b": clean.x}, "candidates: expected the images of a"),
        (clean.index, {"a": clean.x[:9]}, "images of a: expected"),
        (clean.index, {"a": clean.x - 1e-3}, "pixels in"),
    ):
        with pytest.raises(UserError, match=sentence):
            strongest(clean, images, replace(some, index=index), Linf(), EPSILON)
    with pytest.raises(UserError, match="clean images: expected pixels on the 8-bit grid"):
        in_bytes(clean.x, clean.x * 0.999, Linf(), EPSILON)
