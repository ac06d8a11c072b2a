"""Arguments of another kind than is asked for: one sentence each, before any work."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from attacking import BARE, EVERY, NETWORK, batch
from noisychannel.attacks import APGD, DDN, PGD, Boundary, CarliniWagner, Minimise
from noisychannel.channels import Gauss
from noisychannel.decision import Vote
from noisychannel.defenses import Defense
from noisychannel.errors import UserError
from noisychannel.norms import Linf
from noisychannel.threats import DefenseView, Threat, adaptive
from noisychannel.types import Attack, Batch

DEFENSE = Defense(NETWORK)
WHO = batch()
nan, inf = float("nan"), float("inf")
Bad: Any = "of another kind"

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: PGD(norm=Bad), "norm: expected a norm, such as Linf() or L2(), got 'of another"),
        (lambda: PGD(Linf), "norm: expected a norm, such as Linf() or L2(), got the class Linf"),
        (lambda: PGD(loss=Bad), "loss: expected CrossEntropy(…) or Hinge(…) or Margin(…) or DLR"),
        (lambda: PGD(steps=2.5), "steps: expected a whole number, got 2.5"),
        (lambda: PGD(steps="5"), "steps: expected a whole number, got '5'"),
        (lambda: PGD(steps=True), "steps: expected a whole number, got True"),
        (lambda: PGD(epsilon=nan), "epsilon: expected a finite number, got nan"),
        (lambda: APGD(epsilon=inf), "epsilon: expected a finite number, got inf"),
        (lambda: PGD(step_size=Bad), "step_size: expected a finite number or None, got"),
        (lambda: PGD(stop_early=1), "stop_early: expected True or False, got 1"),
        (lambda: DDN(gamma=nan), "gamma: expected a finite number, got nan"),
        (lambda: CarliniWagner(constant=inf), "constant: expected a finite number, got inf"),
        (lambda: Minimise(DDN()), "attack: expected PGD(…), got a DDN"),
        (lambda: Boundary(doubt=0.05), "doubt: expected Doubt(…) or None, got 0.05"),
        (lambda: Vote(2.5), "k: expected a whole number, got 2.5"),
        (lambda: Defense(torch.nn.Linear(2, 2)), "got a module Linear"),
        (lambda: Defense(NETWORK, Gauss), "channel: expected a channel, such as Gauss(0.03), got"),
        (
            lambda: Defense(NETWORK, decision="vote:16"),
            "expected a decision rule, such as Single()",
        ),
        (lambda: Threat(NETWORK), "assumed: expected Defense(…), got a LinearNetwork"),
        (lambda: adaptive(DEFENSE, draws=2.5), "draws: expected a whole number, got 2.5"),
        (
            lambda: DefenseView(DEFENSE),
            "threat: expected a threat, such as adaptive(defense), got",
        ),
    ],
)
def test_parts(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        make()


def test_numbers_of_other_libraries_are_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    PGD(epsilon=numpy.float64(0.03), steps=numpy.int64(3))
    PGD(epsilon=0)


@EVERY
@pytest.mark.parametrize("given", [DEFENSE, BARE], ids=["a Defense", "a Threat"])
def test_what_is_no_view_is_refused(attack: Attack, given: Any) -> None:
    with pytest.raises(UserError, match="view: expected a view of a threat, such as DefenseView"):
        attack(given, WHO)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"x": WHO.x * 255}, "x: expected values in [0, 1], got"),
        ({"x": WHO.x - 1}, "x: expected values in [0, 1], got"),
        ({"x": WHO.x * nan}, "x: expected values in [0, 1], got nan … nan"),
        ({"x": WHO.x.double()}, "x: expected float32, got torch.float64; x.float() is"),
        ({"y": WHO.y[:3]}, "y: expected one number for each of 6 examples, got shape (3,)"),
        ({"y": WHO.y.float()}, "y: expected int64, got torch.float32; y.long() is"),
        ({"y": WHO.y - 9}, "y: expected classes ≥ 0, got"),
        ({"target": WHO.y[:3]}, "target: expected one number for each of 6 examples"),
        ({"index": WHO.index * 0}, "index: expected a number of its own for each example"),
    ],
)
def test_examples(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        replace(WHO, **change)


def test_parts_of_examples_may_stand_in_several_rows() -> None:
    twice = WHO.rows(torch.tensor([1, 1, 0]))
    assert twice.index.tolist() == [11, 11, 30]
    assert len(Batch(WHO.x[:0], WHO.y[:0], WHO.index[:0])) == 0


@EVERY
@pytest.mark.parametrize("name", ["y", "target"])
def test_labels_beyond_the_classes(attack: Attack, name: str) -> None:
    far = replace(WHO, **{name: torch.full_like(WHO.y, 97)})
    with pytest.raises(UserError, match=r"labels: expected classes 0 … 4 of the network, got 97"):
        attack(DefenseView(BARE), far)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(
        UserError, match="device: expected a CUDA device that torch can see, or cpu"
    ):
        DefenseView(BARE, "cuda")
