"""An audit that did not do its work says so: one planted liar for each doubt."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import reported
from auditing import audited, request, statuses
from noisychannel.audit.attempts import rung
from noisychannel.audit.conduct import Judged
from noisychannel.audit.headline import lead
from noisychannel.audit.verdict import exit_code
from noisychannel.data import from_arrays
from noisychannel.defenses import Defense
from noisychannel.errors import UserError
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


def planted(lie: str, folder: Path) -> Judged:
    made = torch.Generator().manual_seed(5)
    x = (torch.rand(16, *SHAPE, generator=made) * 0.3).clamp(0, 1)
    x[:4] += 0.7  # a quarter of the images is bright
    y = ((x.flatten(1) - 0.5) @ Planted("").weight.detach().T).argmax(dim=1)
    network = Defense(Foreign(Planted(lie).eval(), SHAPE, f"planted {lie}"))
    data = from_arrays(x, y, classes=2)
    given = {"data": data, "norm": L2(), "epsilon": 0.05, "budget": reported.TINY, "part": 8}
    return audited(request(network, name=lie, **given), folder)


def evidence(judged: Judged, name: str) -> str:
    return next(f.evidence for f in judged.findings if f.name == name)


def test_an_honest_network_leaves_no_doubt(in_memory: Path) -> None:
    judged = planted("", in_memory)
    assert statuses(judged, "fail") <= {"enough-images"}
    assert judged.evaluation in ("VALID", "UNDER-POWERED")


def test_a_vanishing_gradient_is_said(in_memory: Path) -> None:
    judged = planted("sure", in_memory)
    assert "gradient-present" in statuses(judged, "fail")
    assert "vanishes on 100.0 %" in evidence(judged, "gradient-present")
    assert judged.evaluation == "GRADIENT MASKING"
    assert "upper bound" in lead(judged)


def test_images_that_could_not_be_attacked_are_said(in_memory: Path) -> None:
    judged = planted("raises", in_memory)
    assert "answers-all" in statuses(judged, "fail")
    crafted = judged.evidence.mine.examples(rung(1))["status"].to_pylist()
    assert crafted.count("failed") == 4  # the bright quarter
    assert "0.0 % [0.0" not in evidence(judged, "answers-all").partition(";")[2]
    assert exit_code(judged.evaluation, judged.gain) != 0


def test_a_network_without_an_answer_is_refused_before_the_work(in_memory: Path) -> None:
    with pytest.raises(UserError, match=r"nan.*: expected finite logits, got NaN"):
        planted("nan", in_memory)
