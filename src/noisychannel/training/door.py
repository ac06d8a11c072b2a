"""What does not fit together is said before the first step, and before any process is started."""

import copy

import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.errors import UserError, expected, reason
from noisychannel.training.checks import whole
from noisychannel.training.recipe import Recipe, seen
from noisychannel.types import Batch

__all__ = ["BATCH_NORMS", "check"]

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def check(module: nn.Module, batch: Batch, recipe: Recipe, devices: int) -> None:
    """Refuse what cannot be trained: numbers that do not fit, and a network that cannot answer two examples.

    The network asked is a copy, with draws of its own, so the training is what it would be without.

    Raises:
        UserError: what does not fit, and how to mend it.
    """
    _check_examples(batch)
    rows = _check_sizes(batch, recipe, devices)
    if not isinstance(module, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise expected("network", "a torch.nn.Module", f"a {type(module).__name__}")
    if not any(p.requires_grad for p in module.parameters()):
        count = sum(1 for _ in module.parameters())
        got = f"{count}, all of them frozen" if count else "none"
        raise UserError(
            f"network: expected parameters to train, got {got}; call .requires_grad_(True) on what shall learn"
        )
    own = copy.deepcopy(module).to(batch.x.device).train()
    if recipe.freeze_norm:
        for layer in own.modules():
            if isinstance(layer, BATCH_NORMS):
                layer.eval()
    part = batch.rows(slice(0, rows))
    # Windows may be smaller in the first epochs: the network must take both sizes.
    for done in sorted({0.0, (recipe.epochs - 1) / recipe.epochs if recipe.augment else 0.0}):
        classes = _answered(own, part, recipe, done)
        low, high = int(batch.y.min()), int(batch.y.max())
        if low < 0 or high >= classes:
            raise UserError(
                f"labels: expected 0 … {classes - 1}, since the network gives {classes} logits, got "
                f"{low if low < 0 else high}; choose a network with as many classes as the data"
            )


def _check_examples(batch: Batch) -> None:
    if not batch.x.is_floating_point():
        raise UserError(
            f"images: expected floating-point pixels in [0, 1], got {batch.x.dtype}; "
            "divide them by their largest value"
        )
    y = batch.y
    if y.ndim != 1 or y.dtype == torch.bool or y.is_floating_point() or y.is_complex():
        got = f"{y.dtype} of shape {tuple(y.shape)}"
        raise expected("labels", "one whole number per example", got)
    if not len(batch.x) == len(y) == len(batch.index):
        got = f"{len(batch.x)} images, {len(y)} labels and {len(batch.index)} indices"
        raise expected("training examples", "as many labels and indices as images", got)


def _check_sizes(batch: Batch, recipe: Recipe, devices: int) -> int:
    """How many examples to ask the network about: as few as its smallest pass, two at most."""
    if not whole(devices, 1):
        raise expected("devices", "a whole number ≥ 1", devices)
    if batch.x.is_cuda and devices > torch.cuda.device_count():
        raise expected("devices", f"at most {torch.cuda.device_count()}, the GPUs here", devices)
    if recipe.validation and recipe.validation > len(batch) - 2:
        most = f"at most {len(batch) - 2} of {len(batch)} examples"
        raise expected("validation", most, recipe.validation)
    if (count := len(batch) - recipe.validation) < 2:
        raise expected("training examples", "at least 2", count)
    size = min(recipe.batch_size, count)
    if size % devices:
        raise expected("batch_size", f"a multiple of {devices} devices", size)
    share, how = size // devices, recipe.adversarial
    if how is None or how.paired:
        return min(2, share)
    if share < 2:
        wanted = f"at least {2 * devices}, so that each of {devices} devices has clean and attacked"
        raise expected("batch_size", f"{wanted} examples (paired=False)", size)
    return min(2, share // 2 if how.mix < 1 or devices > 1 else share - share // 2)


def _answered(module: nn.Module, part: Batch, recipe: Recipe, done: float) -> int:
    """How many classes the network knows, asked as in training."""
    stream = rng.Stream("train", part.index, part="probe")
    try:
        x = seen(recipe, part.x, stream, done)
    except UserError:
        raise
    except Exception as error:
        what = f"augment and channel that take images of shape {tuple(part.x.shape[1:])}"
        raise expected("recipe", what, reason(error)) from error
    try:
        with rng.bracket(stream), rng.torch_seeded(stream.named("torch")):
            logits: object = module(x)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"network: expected one that takes {len(x)} training images of shape {tuple(x.shape[1:])} "
            f"and {x.dtype}, got {reason(error)}; {_mend(module, part.x, x)}"
        ) from error
    if not (isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == len(x)):
        got = (
            f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        )
        raise UserError(
            f"network: expected logits of shape ({len(x)}, classes), got {got}; wrap it in a module "
            "that returns its logits alone"
        )
    if not logits.requires_grad:
        raise UserError(
            "network: expected logits that depend on parameters to train, got none that do; "
            "remove no_grad or detach"
        )
    return logits.shape[1]


def _mend(module: nn.Module, given: Tensor, shown: Tensor) -> str:
    for name, p in module.named_parameters():
        if p.is_floating_point() and p.dtype != shown.dtype:
            return f"{name} is {p.dtype}: bring network and images to one type, as with .float()"
    if shown.shape != given.shape:
        return "windows of early_size need a network that takes images of any size; set it to 0"
    return "choose data or a batch_size that it takes, or wrap it"
