"""How an audit is cut into tasks, and who may make them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import fakes_networks as fakes
from auditing import request
from noisychannel import zoo
from noisychannel.audit import audit, processes, target
from noisychannel.audit.api import as_defense
from noisychannel.audit.attempts import stretches
from noisychannel.channels import Gauss
from noisychannel.decision import Single, Vote
from noisychannel.defenses import Defense, fixed_draws
from noisychannel.engine import Execution
from noisychannel.errors import UserError
from noisychannel.networks import SmallNet
from noisychannel.types import Network


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (0, []),
        (1, [1]),
        (15, [15]),
        (16, [8, 8]),
        (31, [10, 10, 11]),
        (200, [50] * 4),
        (450, [90] * 5),
    ],
)
def test_attempts_are_parts_that_several_cores_can_make(size: int, sizes: list[int]) -> None:
    found = list(stretches(request(fakes.plain()), size))
    assert [len(s) for s in found] == sizes
    assert [i for s in found for i in s] == list(range(size))


def test_a_gpu_takes_as_many_as_a_task_may_hold() -> None:
    r = request(fakes.plain(), execution=Execution("cuda"))
    assert [len(s) for s in stretches(r, 200)] == [100, 100]


def network() -> Network:
    return SmallNet()


FILE = """
import torch
from fakes_networks import plain
class Net(torch.nn.Module): ...
def function():
    network = plain()
    return lambda x: network(x)
def kind():
    return Net
"""


def test_a_file_may_make_a_function(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(FILE)
    data = fakes.digits(count=4)
    made = target(f"{tmp_path}/user.py:function", data, network, Single())
    expected = fakes.plain()(data.load().x)
    torch.testing.assert_close(made.network.build()(data.load().x), expected)
    assert processes(request(made), 4).count == 1
    with pytest.raises(UserError, match=r"expected an nn.Module or a function .*got the class Net"):
        target(f"{tmp_path}/user.py:kind", data, network, Single())


def test_a_checkpoint_on_the_hub_is_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        zoo, "defense", lambda name: asked.append(name) or request(fakes.plain()).defense
    )
    made = target("hub:owner/name", fakes.digits(count=4), network, Vote(4))
    assert (asked, made.decision) == (["hub:owner/name"], Vote(4))


def test_a_function_is_asked_in_this_process() -> None:
    """Nobody knows what it holds: a lock, a connection, another program's threads."""
    module = fakes.plain()

    def answer(x: Tensor) -> Tensor:
        return module(x)

    called = as_defense(answer, fakes.digits(count=4), None, "called")
    twin = request(Defense(called.network, Gauss(0.1)))
    assert processes(request(fakes.plain()), 4).count == 4
    assert processes(request(called), 4).count == 1
    assert processes(twin, 4).count == 1
    assert processes(request(fixed_draws(twin.defense)), 4).count == 1
    with pytest.raises(UserError, match="workers: expected a whole number ≥ 1, got 0"):
        audit(module, fakes.digits(count=4), norm="linf", epsilon=0.1, workers=0)
