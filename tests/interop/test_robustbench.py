"""RobustBench's networks by name: the package is not installed here, so a stand-in of it answers."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from noisychannel.errors import UserError
from noisychannel.interop import robustbench_network

SHAPE = (3, 4, 4)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What its loader was asked for; it knows one network, and hands that out in training mode as theirs does."""
    found: list[dict[str, str]] = []

    def load_model(name: str, **where: str) -> nn.Module:
        found.append({"name": name, **where})
        if name != "Standard":
            raise KeyError(name)
        return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(48, 10))

    package, utils = ModuleType("robustbench"), ModuleType("robustbench.utils")
    vars(utils)["load_model"] = load_model
    monkeypatch.setitem(sys.modules, "robustbench", package)
    monkeypatch.setitem(sys.modules, "robustbench.utils", utils)
    return found


def test_a_name_is_loaded_and_put_into_eval_mode(asked: list[dict[str, str]]) -> None:
    network = robustbench_network("Standard", SHAPE)
    assert asked == [{"name": "Standard", "dataset": "cifar10", "threat_model": "Linf"}]
    assert not network.stochastic  # its dropout is off
    assert network.build()(torch.zeros(2, *SHAPE)).shape == (2, 10)


def test_data_set_and_threat_are_named_after_an_at(asked: list[dict[str, str]]) -> None:
    robustbench_network("Standard@cifar100/L2", SHAPE)
    assert asked == [{"name": "Standard", "dataset": "cifar100", "threat_model": "L2"}]


@pytest.mark.parametrize("text", ["", "Standard@", "Standard@cifar10", "@cifar10/Linf", "S@/L2"])
@pytest.mark.usefixtures("asked")
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="robustbench: expected robustbench:NAME"):
        robustbench_network(text, SHAPE)


@pytest.mark.usefixtures("asked")
def test_what_it_does_not_know_is_said() -> None:
    with pytest.raises(UserError, match=r"'Nobody2030'.*model_zoo"):
        robustbench_network("Nobody2030", SHAPE)


def test_without_the_package_the_sentence_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "robustbench.utils", None)
    with pytest.raises(UserError, match=r"no module 'robustbench.*'; pip install"):
        robustbench_network("Standard", SHAPE)
