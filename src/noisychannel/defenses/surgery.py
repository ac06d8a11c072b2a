"""Surgery: layers of any network replaced by ones that adopt their parameters and do one more thing.

Names in the state dict stay, copies and pickles work, and a probe must see every operated layer
compute: a replaced layer that its parent never calls would silently be no defense.
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from noisychannel.defenses.layers import (
    ALTERED,
    CONVOLUTIONS,
    LAYERS,
    Altered,
    AlteredConv1d,
    AlteredConv2d,
    AlteredLinear,
    Effect,
    Site,
)
from noisychannel.defenses.probe import firing_order, prove
from noisychannel.errors import UserError, expected, reason

__all__ = [
    "altered",
    "check_matches",
    "check_patterns",
    "copied",
    "learnt_scales",
    "operate",
    "sites_of",
]

_OPERATED = (AlteredConv1d, AlteredConv2d, AlteredLinear)
_CONVOLVING = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
)  # fmt: skip

_HARMLESS = frozenset(
    {"reset_parameters", "extra_repr", "__init__", "__module__", "__doc__", "__annotations__",
     "__firstlineno__", "__static_attributes__", "__qualname__", "__constants__", "__slots__",
     "__orig_bases__", "__parameters__", "__weakref__", "__dict__", "__annotate__",
     "__annotate_func__", "__annotations_cache__", "__abstractmethods__", "_abc_impl"}
)  # fmt: skip
"""What a subclass may define and yet compute as its base does."""
_NAME = "noisychannel: altered"
"""A hook's key; torch's own are numbers, which another process counts anew."""
_Module = TypeVar("_Module", bound=nn.Module)


def operate(
    module: nn.Module,
    choose: Callable[[Site], Effect | None],
    shape: tuple[int, ...],
    kinds: tuple[type[nn.Module], ...] = CONVOLUTIONS,
    skip: tuple[str, ...] = (),
) -> nn.Module:
    """A copy of a network whose chosen layers have an effect; weights, names and modes as before.

    Args:
        module: any network; untouched.
        choose: the effect of each layer, or None to leave it.
        shape: shape of one example, for the probe.
        kinds: which layers are offered: Conv1d, Conv2d, Linear.
        skip: patterns (from the start) of names of layers that are not offered.

    Raises:
        UserError: no layer matched; a layer that cannot be operated; one that the network never
            calls, or whose weight it also reads elsewhere (unseen where that is `weight.data`).
    """
    _targets(module, kinds, skip)  # first, since torch cannot even copy some that are refused
    own = copied(module)
    sites = firing_order(own, _targets(own, kinds, skip), shape)
    chosen = {site.name: effect for site in sites if (effect := choose(site)) is not None}
    if not chosen:
        raise UserError(
            f"surgery: expected a layer to operate, but none of {len(sites)} in "
            f"{type(module).__name__} was chosen; check the placement"
        )
    for site in sites:
        if site.name in chosen:
            _replace(own, site, chosen[site.name])
    prove(own, list(chosen), shape, module)
    return own


def sites_of(
    module: nn.Module,
    shape: tuple[int, ...],
    kinds: tuple[type[nn.Module], ...] = CONVOLUTIONS,
    skip: tuple[str, ...] = (),
) -> list[Site]:
    """The layers that surgery would meet, in the order in which they fire. Raises: UserError as `operate`."""
    return firing_order(module, _targets(module, kinds, skip), shape)


def altered(module: nn.Module) -> Iterator[tuple[str, Altered]]:
    """Names and layers of a network that have an effect."""
    for name, layer in module.named_modules():
        if isinstance(layer, _OPERATED):
            yield name, layer


def learnt_scales(module: nn.Module) -> frozenset[str]:
    """Names of the parameters that are learnt noise scales: no weight decay for them."""
    return frozenset(
        f"{name}.{scale}"
        for name, layer in module.named_modules()
        if isinstance(layer, _OPERATED)
        for scale, _ in layer.named_parameters(recurse=False)
        if scale not in ("weight", "bias")
    )


def copied(module: _Module, who: str = "surgery") -> _Module:
    """A deep copy. Raises: UserError where torch or a stranger's code cannot make one."""
    try:
        return copy.deepcopy(module)
    except Exception as error:
        raise UserError(
            f"{who}: expected a network that copy.deepcopy can copy, got: {reason(error)[:200]}; "
            "make weights that are computed from others (weight_norm) plain ones first"
        ) from error


def check_patterns(name: str, patterns: object) -> None:
    """Refuse what is no tuple of regular expressions."""
    if not isinstance(patterns, tuple):  # a text would be taken letter by letter
        raise expected(name, 'a tuple of patterns such as ("stem",)', repr(patterns))
    for pattern in patterns:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(pattern, str):
            raise expected(name, 'patterns such as "stem"', repr(pattern))  # pyright: ignore[reportUnknownArgumentType]
        try:
            re.compile(pattern)
        except re.error as error:
            raise expected(name, "a regular expression", f"{pattern!r} ({error})") from error


def check_matches(name: str, patterns: tuple[str, ...], layers: list[str]) -> None:
    """Refuse a pattern that no layer's name begins with."""
    for pattern in patterns:
        if layers and not any(re.match(pattern, layer) for layer in layers):
            raise expected(name, f"patterns of layers such as {layers[0]}", repr(pattern))


def _targets(
    module: nn.Module, kinds: tuple[type[nn.Module], ...], skip: tuple[str, ...]
) -> dict[str, nn.Module]:
    """The layers on offer, each once, under its first name."""
    # All that convolve are looked at, so that one that cannot be operated is an error, not a gap.
    wanted = (*kinds, *_CONVOLVING) if set(kinds) & set(CONVOLUTIONS) else kinds
    check_patterns("skip", skip)
    every = {n: layer for n, layer in module.named_modules() if _is_one_of(layer, wanted)}
    check_matches("skip (RobustNet: exceptions)", skip, list(every))
    found: dict[str, nn.Module] = {}
    for name, layer in every.items():
        if any(re.match(p, name) for p in skip):
            continue
        if why := _refusal(layer):
            raise UserError(
                f"surgery: cannot operate on {name or 'the network'} ({type(layer).__name__}): "
                f"{why}; name it in skip (RobustNet: exceptions) to leave it as it is"
            )
        found[name] = layer
    if not found:
        words = ", ".join(kind.__name__ for kind in kinds)
        raise UserError(
            f"surgery: expected a network with {words} layers, found none in {type(module).__name__}"
        )
    return found


def _is_one_of(layer: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether it is of these kinds, or was before it was scripted."""
    if isinstance(layer, torch.jit.ScriptModule):
        return getattr(layer, "original_name", "") in {kind.__name__ for kind in kinds}
    return isinstance(layer, kinds)


def _refusal(layer: nn.Module) -> str | None:
    """Why a layer cannot be operated, if so."""
    if isinstance(layer, _OPERATED):
        return "it has been operated already"
    if isinstance(layer, torch.jit.ScriptModule):
        return "it is scripted; give the network in Python"
    base = next((kind for kind in LAYERS if isinstance(layer, kind)), None)
    if base is None:
        return "only Conv1d, Conv2d and Linear are known"
    if isinstance(layer, LazyModuleMixin):
        return "it has no weights yet; show the network an example first"
    if parametrize.is_parametrized(layer):
        return "its weights are parametrised; remove the parametrisation first"
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        return "its weight is made by a hook; remove the hook first"
    kind = type(layer)
    if kind.forward is not base.forward or (
        base is not nn.Linear and kind._conv_forward is not base._conv_forward  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
    ):
        return f"it computes otherwise than {base.__name__}"
    # An altered layer is a plain Conv1d, Conv2d or Linear: what a subclass or this one layer has more
    # would be lost, or, as with a `forward` of its own, would be called in the place of the effect.
    if more := [n for n in vars(layer) if callable(getattr(base, n, None))]:
        return f"its {more[0]} was replaced on the layer itself; put the original back first"
    own = kind.__mro__[: kind.__mro__.index(base)]
    if more := [n for part in own for n in vars(part) if n not in _HARMLESS]:
        return f"its class adds {more[0]} to {base.__name__}, which would be lost"
    return None


def _replace(module: nn.Module, site: Site, effect: Effect) -> None:
    """Put an altered layer in the place of the site's, under each of its names."""
    old = site.layer
    base = next(kind for kind in LAYERS if isinstance(old, kind))
    new = ALTERED[base].__new__(ALTERED[base])
    # The same parameter objects, hooks and mode, but not the same dictionaries: what is registered
    # for one, the probe's hooks for instance, must not be for the other.
    parts = vars(old).items()
    new.__dict__.update({k: v.copy() if isinstance(v, dict) else v for k, v in parts})
    new.effect = effect
    # torch asks whether any layer has hooks before it takes a fused path (nn.TransformerEncoderLayer
    # in eval mode without gradients), which reads the weights and calls no layer.
    vars(new)["_forward_pre_hooks"][_NAME] = _KeepsOffFusedPaths()
    if (scale := effect.scale(site)) is not None:
        like = next(old.parameters())
        new.register_parameter(scale[0], nn.Parameter(scale[1].to(like.device, like.dtype)))
    if old is module:
        raise UserError(
            f"surgery: expected a network of layers, got a single {type(old).__name__}; "
            "put it into an nn.Sequential"
        )
    for parent in list(module.modules()):
        for child, layer in list(
            vars(parent)["_modules"].items()
        ):  # named_children hides second names
            if layer is old:
                setattr(parent, child, new)
    old.register_forward_pre_hook(partial(_bypassed, site.name))


@dataclass(frozen=True)
class _KeepsOffFusedPaths:
    """Hook of an altered layer: that it has one is all. No function, which a fingerprint may be unable to read."""

    def __call__(self, layer: nn.Module, given: object) -> None:
        """Nothing."""


def _bypassed(name: str, _layer: nn.Module, _given: object) -> None:
    """Hook of a replaced layer, which its parent may still hold in a list or a method."""
    raise UserError(
        f"surgery: the network calls {name} without what was done to it; its parent holds the layer "
        "elsewhere than among its modules; name it in skip"
    )
