"""From a network and examples to a trained copy, on one device or several (Lightning Fabric)."""

import copy

import safetensors.torch
from torch import nn

from noisychannel.training import checkpoint, door, origin
from noisychannel.training.checkpoint import Made
from noisychannel.training.loop import Fitted, Watch, train_on
from noisychannel.training.processes import Job, train_in_processes
from noisychannel.training.recipe import Recipe
from noisychannel.types import Batch

__all__ = ["fit"]


def fit(
    module: nn.Module,
    batch: Batch,
    recipe: Recipe,
    watch: Watch | None = None,
    devices: int = 1,
) -> Fitted:
    """A trained copy of a network; the network itself is untouched.

    Parameters without `requires_grad` stay as they are, in their values and in this flag; statistics of
    batch norm are no parameters, and follow `freeze_norm`.

    Args:
        module: takes pixels in [0, 1], gives logits.
        batch: the training examples, on the device to train on.
        recipe: how.
        watch: listeners and folders.
        devices: processes that share each batch: GPUs, or several on the CPU. With batch norm in
            training mode each has the statistics of its own share.

    Raises:
        UserError: network, examples and recipe do not fit together, nothing is left to train, the
            scratch folder is another training's, or a loss or a weight is no finite number.
    """
    watch = watch or Watch()
    door.check(module, batch, recipe, devices)
    made: Made = {}
    if watch.scratch is not None:
        made = origin.made(module, batch, recipe, devices)
        checkpoint.check_own(watch.scratch, made)
    accelerator = "cuda" if batch.x.is_cuda else "cpu"
    if devices == 1:
        from lightning_fabric import Fabric

        one = [batch.x.device.index or 0] if batch.x.is_cuda else 1
        fabric = Fabric(accelerator=accelerator, devices=one)
        return train_on(fabric, module, batch, recipe, watch, made)
    own = copy.deepcopy(module).cpu()
    job = Job(own, batch.to("cpu"), recipe, made, accelerator, devices)
    state, history = train_in_processes(job, watch)
    own.load_state_dict(safetensors.torch.load(state))
    return Fitted(own.to(batch.x.device).eval(), history)
