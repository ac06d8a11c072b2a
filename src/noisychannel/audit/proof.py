"""What an audit hands to a defense's author: the images that break it, and a script that checks them without us."""

import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from noisychannel.admission import check_fields
from noisychannel.data import from_uint8, to_uint8
from noisychannel.decision import Decision, MeanProb, Single, Vote
from noisychannel.errors import UserError, expected
from noisychannel.norms import L2, Linf
from noisychannel.report.stats import Estimate, WorstCase
from noisychannel.types import Batch, Images

__all__ = ["Bytes", "Proof", "Strongest", "in_bytes", "strongest", "write_proof"]

_RULES: dict[type[Decision], str] = {Single: "single", Vote: "vote", MeanProb: "mean_prob"}

UNMOVED = "none"
"""In place of an attack's name: the clean image stands, since no attack that fits the budget was chosen."""


class Strongest(NamedTuple):
    """One image per example, in the order of the clean ones, and the attack that made it (or `none`)."""

    x: Images
    attack: tuple[str, ...]


class Bytes(NamedTuple):
    """The adversarial images on the 8-bit grid, and the accuracy that was measured on those."""

    x: UInt8[Tensor, "n *shape"]
    accuracy: Estimate


@dataclass(frozen=True, eq=False)
class Proof:
    """A broken defense, as its author can check it.

    Args:
        defense: its name.
        data: name of the examples; their indices are those of `clean`.
        clean: the examples.
        unattacked: the defense's accuracy on them.
        adversarial: the images that break it, as `strongest` composes them.
        accuracy: the defense's accuracy on those, measured on draws that no attack saw.
        norm: of the budget.
        epsilon: the budget, pixels in [0, 1], > 0.
        rule: by which the defender decides; `Single` where nothing is random.
        draws: answers per image on which the accuracies rest, at least a decision's.
        eight_bit: the same images as bytes, where these were measured too.

    Raises:
        UserError: images that are not one for each example, outside [0, 1] or beyond the budget; an accuracy of
            other examples; fewer draws than a decision takes.
    """

    defense: str
    data: str
    clean: Batch
    unattacked: Estimate
    adversarial: Strongest
    accuracy: Estimate
    norm: L2 | Linf
    epsilon: float
    rule: Decision
    draws: int
    eight_bit: Bytes | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        _check_budget(self.epsilon)
        if type(self.rule) not in _RULES:
            raise expected("rule", "Single, Vote or MeanProb, which verify.py knows", self.rule)
        if self.draws < self.rule.draws:
            raise expected("draws", f"at least {self.rule.draws}, as {self.rule} takes", self.draws)
        if len(self.adversarial.attack) != len(self.clean):
            raise expected(
                "adversarial.attack",
                f"a name for each of {len(self.clean)} examples",
                len(self.adversarial.attack),
            )
        for name, x, accuracy in self.claims:
            if accuracy.n != len(self.clean):
                raise expected(f"{name} accuracy", f"of {len(self.clean)} examples", accuracy.n)
            _check_images(name, _pixels(x), self.clean.x)
            if not _fits(_pixels(x), self.clean.x, self.norm, self.epsilon).all():
                raise expected(
                    f"{name} images",
                    f"at most {self.epsilon:g} in {self.norm} from the clean ones",
                    "others; `strongest` puts the clean image in their place",
                )

    @property
    def claims(self) -> tuple[tuple[str, Tensor, Estimate], ...]:
        """What is claimed of which images; float32 or bytes."""
        found = (
            ("clean", self.clean.x, self.unattacked),
            ("adversarial", self.adversarial.x, self.accuracy),
        )
        if self.eight_bit is None:
            return found
        return (*found, ("adversarial, 8-bit", self.eight_bit.x, self.eight_bit.accuracy))


def strongest(
    clean: Batch,
    candidates: Mapping[str, Images],
    worst: WorstCase,
    norm: L2 | Linf,
    epsilon: float,
) -> Strongest:
    """Each example under the attack that was chosen for it; the clean image where that went beyond the budget.

    Args:
        clean: the examples.
        candidates: attack → its images, in the order of `clean`.
        worst: which attack was chosen for which example.
        norm: of the budget.
        epsilon: the budget, pixels in [0, 1], > 0.

    Raises:
        UserError: choices of other examples or of an attack without images, or images that are no examples.
    """
    _check_budget(epsilon)
    chosen = dict(zip(worst.index.tolist(), worst.winner, strict=True))
    if chosen.keys() != set(clean.index.tolist()):
        raise expected(
            "worst", "a choice for each clean example, by index", f"{len(chosen)} others"
        )
    unknown = sorted(set(worst.winner) - candidates.keys())
    if unknown:
        raise expected("candidates", f"the images of {unknown[0]}, which was chosen", [*candidates])
    names = [chosen[i] for i in clean.index.tolist()]
    x = clean.x.clone()
    for name in dict.fromkeys(names):
        _check_images(name, candidates[name], clean.x)
        mine = torch.tensor([n == name for n in names])
        kept = mine & _fits(candidates[name], clean.x, norm, epsilon)
        x[kept] = candidates[name][kept]
    moved = (x != clean.x).flatten(1).any(dim=1).tolist()
    return Strongest(x, tuple(n if m else UNMOVED for n, m in zip(names, moved, strict=True)))


def in_bytes(
    x: Images, clean: Images, norm: L2 | Linf, epsilon: float
) -> UInt8[Tensor, "n *shape"]:
    """The nearest 8-bit images; where rounding leaves the budget, each pixel is rounded towards the clean one.

    Rounded so, no pixel moves further than it did, and the budget holds in any norm.

    Args:
        x: images within the budget.
        clean: the images that they began as, on the 8-bit grid.
        norm: of the budget.
        epsilon: the budget, pixels in [0, 1], > 0.

    Raises:
        UserError: clean images off the grid, near which no 8-bit image need be.
    """
    _check_budget(epsilon)
    _check_images("x", x, clean)
    levels = to_uint8(clean)
    if not torch.allclose(from_uint8(levels), clean, rtol=0, atol=1e-6):
        raise expected(
            "clean images", "pixels on the 8-bit grid, k/255", "others; leave 8 bits out"
        )
    nearest = to_uint8(x)
    beyond = ~_fits(from_uint8(nearest), clean, norm, epsilon)
    delta = 255 * (x[beyond].double() - clean[beyond].double())
    # A ten-thousandth of a level is float32's rounding, and no reason to lose a whole one.
    inward = (delta.abs() + 1e-4).floor() * delta.sign()
    nearest[beyond] = (levels[beyond].double() + inward).to(torch.uint8)
    return nearest


def write_proof(folder: Path, proof: Proof) -> None:
    """Write `adversarials.pt`, `verify.py` and `README.txt`; the same proof, the same bytes.

    `adversarials.pt` holds tensors, numbers and words only, for `torch.load(…, weights_only=True)`: clean, labels,
    index, norm, epsilon, rule, k, draws, claims (name, images, whether they are bytes, accuracy, its interval),
    attacks and attack (the position of each image's in them), defense, data.

    Args:
        folder: made if it is not there.
        proof: what is written.

    Raises:
        UserError: the folder cannot be made or written.
    """
    held = io.BytesIO()
    torch.save(_bundle(proof), held)
    script = files("noisychannel.audit").joinpath("verify.py.txt").read_bytes()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adversarials.pt").write_bytes(held.getvalue())
        (folder / "verify.py").write_bytes(script)
        (folder / "README.txt").write_bytes(_readme(proof).encode())
    except OSError as error:
        raise UserError(
            f"proof: expected a folder to write to, got {folder}: {error.strerror or error}"
        ) from error


def _bundle(proof: Proof) -> dict[str, Any]:
    attacks = [sys.intern(name) for name in dict.fromkeys(proof.adversarial.attack)]
    claims: list[list[Any]] = []
    for name, x, (value, low, high, *_) in proof.claims:
        numbers = [float(value), float(low), float(high)]
        claims.append([sys.intern(name), _own(x), x.dtype == torch.uint8, *numbers])
    # Pickle writes a word that it has met, as the same object, in short: equal words must be one object.
    return {
        "clean": claims[0][1],
        "labels": _own(proof.clean.y),
        "index": _own(proof.clean.index),
        "norm": _short(proof.norm),
        "epsilon": float(proof.epsilon),
        "rule": _RULES[type(proof.rule)],
        "k": proof.rule.draws,
        "draws": int(proof.draws),
        "claims": claims,
        "attacks": attacks,
        "attack": torch.tensor([attacks.index(name) for name in proof.adversarial.attack]),
        "defense": sys.intern(proof.defense),
        "data": sys.intern(proof.data),
    }


def _readme(proof: Proof) -> str:
    rule, k = _RULES[type(proof.rule)], proof.rule.draws
    answers = "one answer" if proof.draws == 1 else f"{proof.draws} answers"
    decision = f"{rule} (k = {k}), on {answers} per image"
    return f"""\
{_line(proof.defense)} was right on {proof.accuracy.percent} of these {len(proof.clean)} attacked images,
and on {proof.unattacked.percent} of the clean ones, of {_line(proof.data)} (95 % intervals).
Budget: {_short(proof.norm)} distance at most {proof.epsilon:.6g}, pixels in [0, 1]. Decision: {decision}.
Check it with Python and PyTorch alone; verify.py has under 50 lines, read it first:
  python verify.py --model FILE.py:FUNCTION
FUNCTION() returns your defense in eval mode: images (n, ...) in [0, 1], float32, on the CPU -> logits (n, classes).
Exit code 0: the claim is confirmed: the intervals that you measure overlap those above. 1: on attacked images not.
Exit code 2: bad input, said in one sentence; also another accuracy on clean images: it is another network then.
A random defense is asked with fresh draws, so its numbers vary.
adversarials.pt: images, labels, indices in the data, attacks, claims, for torch.load(..., weights_only=True).
"""


def _line(name: str) -> str:
    return " ".join(name.split())


def _short(norm: L2 | Linf) -> str:
    return "linf" if norm == Linf() else "l2"


def _own(x: Tensor) -> Tensor:
    """A copy that shares nothing: what is written must not depend on what the tensor is a part of."""
    return x.detach().cpu().clone(memory_format=torch.contiguous_format)


def _pixels(x: Tensor) -> Float[Tensor, "n *shape"]:
    return from_uint8(x) if x.dtype == torch.uint8 else x


def _fits(x: Tensor, clean: Tensor, norm: L2 | Linf, epsilon: float) -> Tensor:
    # Projection and clipping round in float32, so a candidate on the sphere may stand a hair outside. In float64,
    # as verify.py reckons, that both let in the same.
    return norm.distance(x.double(), clean.double()) <= epsilon * (1 + 1e-4) + 1e-7


def _check_images(name: str, x: Tensor, clean: Tensor) -> None:
    if x.shape != clean.shape or x.dtype != torch.float32:
        got = f"{tuple(x.shape)} {x.dtype}"
        raise expected(f"images of {name}", f"{tuple(clean.shape)} float32, as the clean ones", got)
    if not ((x >= 0) & (x <= 1)).all():
        raise expected(f"images of {name}", "pixels in [0, 1]", f"{x.amin():g} … {x.amax():g}")


def _check_budget(epsilon: float) -> None:
    if not 0 < epsilon < float("inf"):
        raise expected("epsilon", "a number > 0 (pixels in [0, 1], e.g. 8/255)", epsilon)
