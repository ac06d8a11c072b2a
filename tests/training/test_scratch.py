"""A state that was saved is taken by the training that saved it, and by no other."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.channels import Gauss
from noisychannel.data import DataSpec
from noisychannel.defenses import RobustNet
from noisychannel.errors import UserError
from noisychannel.networks import SmallNet
from noisychannel.noise import GaussLaw
from noisychannel.spec import key
from noisychannel.training import FAST, Recipe, Watch, fit
from noisychannel.training.checkpoint import digest
from noisychannel.types import Batch

RECIPE = Recipe(epochs=2, batch_size=16, learning_rate=0.05)
BATCH = DataSpec("digits", "train", "first:48").load()


def network(sigma: float = 0.2, *, seed: int = 0, width: int = 2) -> nn.Module:
    return RobustNet(GaussLaw(sigma))(SmallNet(width=width, seed=seed).build(), (1, 8, 8))


def trained(
    scratch: Path,
    module: nn.Module | None = None,
    batch: Batch = BATCH,
    recipe: Recipe = RECIPE,
    root: str = "own",
) -> dict[str, Tensor]:
    with rng.root(root):
        return fit(module or network(), batch, recipe, Watch(scratch=scratch)).network.state_dict()


def moved(batch: Batch, **changed: Tensor) -> Batch:
    return replace(batch, **changed)


def frozen() -> nn.Module:
    module = network()
    module.get_parameter("conv1.weight").requires_grad_(False)
    return module


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"recipe": replace(RECIPE, learning_rate=0.001, adversarial=FAST)}, "recipe"),
        ({"recipe": replace(RECIPE, channel=Gauss(0.1))}, "recipe"),
        ({"root": "another"}, "name of its draws"),
        ({"module": network(seed=1)}, "set of initial weights"),
        (
            {"module": network(0.3)},
            "network",
        ),  # the same tensors and the same layers, but more noise
        ({"module": frozen()}, "network"),
        ({"module": network(width=3)}, "network and another set of initial weights"),
        ({"batch": moved(BATCH, x=BATCH.x.flip(3))}, "set of training examples"),
        ({"batch": moved(BATCH, y=BATCH.y.flip(0))}, "set of training examples"),
        ({"batch": moved(BATCH, index=BATCH.index + 1)}, "set of training examples"),
        ({"batch": BATCH.rows(slice(0, 32))}, "set of training examples"),
    ],
    ids=str,
)
def test_a_state_of_another_training_is_refused(
    other: dict[str, Any], what: str, tmp_path: Path
) -> None:
    first = trained(tmp_path)
    with pytest.raises(UserError) as told:
        trained(tmp_path, **other)
    assert str(told.value).startswith(
        f"scratch: expected an empty folder or this training's own state, got {tmp_path}, which has the "
        f"state of a training with another {what}"
    )
    assert str(told.value).endswith("; choose another folder or delete it")
    again = trained(tmp_path)  # and the own one is still there, and gives its result again
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_state_that_does_not_say_what_made_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "training.safetensors").write_bytes(
        safetensors.torch.save({}, {"state": "{}", "sum": digest("{}", {})})
    )
    with pytest.raises(UserError, match="of an older version, which does not say what made it"):
        trained(tmp_path)


def test_a_recipe_without_a_spec_goes_on_too(tmp_path: Path) -> None:
    """It is known by what it says of itself, without its address in memory."""

    class Stranger:
        """No frozen dataclass."""

    @dataclass(frozen=True)
    class Holding(Gauss):
        inner: object = None

    def recipe() -> Recipe:
        return replace(RECIPE, channel=Holding(0.1, inner=Stranger()))

    with pytest.raises(UserError, match="spec: expected"):
        key(recipe())
    first, again = (trained(tmp_path, recipe=recipe()) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
