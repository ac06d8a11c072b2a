"""What makes a training, so that it goes on from no other one's state."""

import hashlib
import re
from typing import Any

from torch import nn

from noisychannel import rng, spec
from noisychannel.errors import UserError
from noisychannel.training.checkpoint import Made, digest, plain
from noisychannel.training.recipe import Recipe
from noisychannel.types import Batch

__all__ = ["made"]

_MODULE_FIELDS = frozenset(vars(nn.Module()))


def made(module: nn.Module, batch: Batch, recipe: Recipe, devices: int) -> Made:
    """All that decides a training's result and can be read, each part with its hash."""
    data = {"x": batch.x, "y": batch.y, "index": batch.index}
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        "recipe": _sum(_words(recipe) or repr(recipe)),
        "name of its draws (rng.root)": _sum(rng.root_name()),
        "number of devices": _sum(str(devices)),
        "network": _sum(_layers(module)),
        "set of initial weights": digest("", plain(tensors)),
        "set of training examples": digest("", plain(data)),
    }


def _layers(module: nn.Module) -> str:
    """Layers, what is frozen, and the numbers that modules hold besides tensors: strengths of noise, say."""
    lines = [str(module), *(f"{name} {p.requires_grad}" for name, p in module.named_parameters())]
    for place, layer in module.named_modules():
        held = {name: value for name, value in vars(layer).items() if name not in _MODULE_FIELDS}
        lines += [f"{place}.{name} {_words(held[name])}" for name in sorted(held)]
    return "\n".join(lines)


def _words(value: Any) -> str:
    """Canonical text; empty for a stranger's object that has none."""
    try:
        return spec.canonical(value)
    except (UserError, TypeError, ValueError):
        return ""


def _sum(text: str) -> str:
    """A digest without the addresses of objects, which are others in every process."""
    return hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", text).encode()).hexdigest()
