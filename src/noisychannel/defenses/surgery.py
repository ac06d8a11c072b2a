"""Surgery: layers of any network replaced by ones that adopt their parameters and do one more thing.

Names in the state dict stay, copies and pickles work, and a probe forward must see every operated
layer fire: a replaced layer that its parent never calls would silently be no defense.
"""

import copy
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from noisychannel import rng
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
from noisychannel.errors import UserError

__all__ = ["altered", "learnt_scales", "operate", "sites_of"]

_OPERATED = (AlteredConv1d, AlteredConv2d, AlteredLinear)
_CONVOLVING = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
)  # fmt: skip


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
        UserError: no layer matched; a layer that cannot be operated; one that the network never calls.
    """
    _targets(module, kinds, skip)  # first, since torch cannot even copy some that are refused
    own = copy.deepcopy(module)
    names = _targets(own, kinds, skip)
    sites = _probe(own, names, shape)
    chosen = {site.name: effect for site in sites if (effect := choose(site)) is not None}
    if not chosen:
        raise UserError(
            f"surgery: expected a layer to operate, but none of {len(sites)} in "
            f"{type(module).__name__} was chosen; check the placement"
        )
    for site in sites:
        if site.name in chosen:
            _replace(own, site, chosen[site.name])
    _probe(own, {name: own.get_submodule(name) for name in chosen}, shape)
    return own


def sites_of(
    module: nn.Module,
    shape: tuple[int, ...],
    kinds: tuple[type[nn.Module], ...] = CONVOLUTIONS,
    skip: tuple[str, ...] = (),
) -> list[Site]:
    """The layers that surgery would meet, in the order in which they fire. Raises: UserError as `operate`."""
    return _probe(module, _targets(module, kinds, skip), shape)


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


def _targets(
    module: nn.Module, kinds: tuple[type[nn.Module], ...], skip: tuple[str, ...]
) -> dict[str, nn.Module]:
    """The layers on offer, each once, under its first name."""
    # All that convolve are looked at, so that one that cannot be operated is an error, not a gap.
    wanted = (*kinds, *_CONVOLVING) if set(kinds) & set(CONVOLUTIONS) else kinds
    found: dict[str, nn.Module] = {}
    for name, layer in module.named_modules():
        if not isinstance(layer, wanted) or any(re.match(p, name) for p in skip):
            continue
        if reason := _refusal(layer):
            raise UserError(
                f"surgery: cannot operate on {name or 'the network'} ({type(layer).__name__}): "
                f"{reason}; name it in skip (RobustNet: exceptions) to leave it as it is"
            )
        found[name] = layer
    if not found:
        words = ", ".join(kind.__name__ for kind in kinds)
        raise UserError(
            f"surgery: expected a network with {words} layers, found none in {type(module).__name__}"
        )
    return found


def _refusal(layer: nn.Module) -> str | None:
    """Why a layer cannot be operated, if so."""
    if isinstance(layer, _OPERATED):
        return "it has been operated already"
    base = next((kind for kind in LAYERS if isinstance(layer, kind)), None)
    if base is None:
        return "only Conv1d, Conv2d and Linear are known"
    if parametrize.is_parametrized(layer):
        return "its weights are parametrised; remove the parametrisation first"
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        return "its weight is made by a hook; remove the hook first"
    kind = type(layer)
    if kind.forward is not base.forward or (
        base is not nn.Linear and kind._conv_forward is not base._conv_forward  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
    ):
        return f"it computes otherwise than {base.__name__}"
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


def _bypassed(name: str, _layer: nn.Module, _given: object) -> None:
    """Hook of a replaced layer, which its parent may still hold in a list or a method."""
    raise UserError(
        f"surgery: the network calls {name} without what was done to it; its parent holds the layer "
        "elsewhere than among its modules; name it in skip"
    )


def _probe(module: nn.Module, layers: dict[str, nn.Module], shape: tuple[int, ...]) -> list[Site]:
    """Show the network one grey example and note the layers in the order in which they fire."""
    fired: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(
            _: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], made: Tensor
        ) -> None:
            given = args[0] if args else named["input"]
            fired.setdefault(name, (tuple(given.shape[1:]), tuple(made.shape[1:])))

        return hook

    handles = [
        layer.register_forward_hook(note(name), with_kwargs=True) for name, layer in layers.items()
    ]
    tensors = [*module.parameters(), *module.buffers(), torch.zeros(())]
    tensor = next(t for t in tensors if t.is_floating_point())
    nobody = torch.zeros(1, dtype=torch.long)
    try:
        with _eval_mode(module), torch.no_grad(), rng.torch_seeded(rng.Stream("selection", nobody)):
            module(torch.full((1, *shape), 0.5, device=tensor.device, dtype=tensor.dtype))
    except UserError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"surgery: expected a network that takes an example of shape {shape}, got: {reason}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    silent = [name for name in layers if name not in fired]
    if silent:
        raise UserError(
            f"surgery: the network never calls {', '.join(silent[:3])} "
            f"({len(silent)} of {len(layers)} layers), so nothing done there would count; "
            "its parent uses the weights directly, or does not use the layer; name it in skip (RobustNet: exceptions)"
        )
    return [
        Site(name, layers[name], position, *shapes)
        for position, (name, shapes) in enumerate(fired.items())
    ]


@contextmanager
def _eval_mode(module: nn.Module) -> Generator[None]:
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training
