"""An audit that did not do its work says so: one planted liar for each doubt."""

from pathlib import Path

import torch
from torch import Tensor, nn

from noisychannel import audit
from noisychannel.data import from_arrays
from noisychannel.defenses import Defense
from noisychannel.engine import Store, run, serial
from noisychannel.networks import Foreign
from noisychannel.norms import L2

SHAPE = (1, 4, 4)


class Planted(nn.Module):
    """A linear network of two classes that goes wrong in one way."""

    def __init__(self, lie: str) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(2, 16, generator=made))
        self.lie = lie

    def forward(self, x: Tensor) -> Tensor:
        logits = (x.flatten(1) - 0.5) @ self.weight.T
        bright = x.flatten(1).mean(dim=1) > 0.6  # none of the probes, which are uniform noise
        if self.lie == "sure":
            return logits * 1e6
        if self.lie == "raises" and x.requires_grad and bool(bright.any()):
            raise RuntimeError("no gradient for bright images")
        if self.lie == "nan":
            return torch.where(bright[:, None], torch.nan, logits)
        return logits


def doubts(lie: str, folder: Path) -> str:
    made = torch.Generator().manual_seed(5)
    x = (torch.rand(16, *SHAPE, generator=made) * 0.3).clamp(0, 1)
    x[:4] += 0.7  # a quarter of the images is bright
    y = ((x.flatten(1) - 0.5) @ Planted("").weight.detach().T).argmax(dim=1)
    network = Foreign(Planted(lie).eval(), SHAPE, f"planted {lie}")
    data = from_arrays(x, y, classes=2)
    request = audit.Request(lie, Defense(network), data, L2(), epsilon=0.5, steps=3, eot=1)
    store = Store(folder)
    wanted = [m for cell in audit.cells(request) for m in cell.measures]
    run(wanted, store, serial, lambda _whole, _todo: lambda _amount: None)
    return " ".join(audit.outcome(request, store).doubts)


def test_an_honest_network_leaves_no_doubt(tmp_path: Path) -> None:
    assert doubts("", tmp_path) == ""


def test_a_vanishing_gradient_is_said(tmp_path: Path) -> None:
    assert "the gradient vanishes on 100 % of the images" in doubts("sure", tmp_path)


def test_images_that_could_not_be_attacked_are_said(tmp_path: Path) -> None:
    assert "raised or gave NaN on 25 % of the images" in doubts("raises", tmp_path)


def test_answers_that_are_none_are_said(tmp_path: Path) -> None:
    assert "no answer (NaN) to 25.0 % of clean questions" in doubts("nan", tmp_path)
