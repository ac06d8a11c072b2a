"""Noise on weights: ParamNet on all parameters, PNI on those of the layers, with a learnt scale."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.parameter import is_lazy

from noisychannel import rng
from noisychannel.defenses.activations import NoisyInput, When, active, check_when
from noisychannel.defenses.layers import LAYERS, Altered, Site
from noisychannel.defenses.passes import called_before, mark, remembered
from noisychannel.defenses.probe import prove_replaceable, show
from noisychannel.defenses.surgery import check_patterns, copied, operate
from noisychannel.errors import UserError, expected
from noisychannel.noise import GaussLaw
from noisychannel.types import Sharing

__all__ = ["PNI", "NoisyModule", "ParamNet", "PerturbedLayer"]


@dataclass(frozen=True)
class ParamNet:
    """Noise on every parameter, batch norm's included: f(x; θ + ε), ε ~ N(0, σ²), drawn at each forward pass.

    Args:
        sigma: σ ≥ 0, in units of the parameters, whatever their size.
        when: `always`, `train` or `test` (Figure 2 C compares the last two).
        sharing: `shared` or `own`; `own` needs eval mode, since batch norm in training mode mixes
            examples, and a network without noise of its own.

    Raises:
        UserError: a number or word out of range; when called with a network, one that the noise
            would not reach everywhere, and what `own` cannot take.

    Source: paper 4.6, Figure 2 C; details §4.
    """

    version: ClassVar[int] = 1
    sigma: float = 0.02
    when: When = "always"
    sharing: Literal["shared", "own"] = "shared"

    def __post_init__(self) -> None:
        GaussLaw(self.sigma)
        check_when(self.when)
        _check_sharing(self.sharing)

    @property
    def stochastic(self) -> bool:
        """Whether two equal questions may have different answers."""
        return self.when != "train" and self.sigma > 0

    @property
    def weights(self) -> Sharing:
        """Whose draw of the weights an answer comes from."""
        return self.sharing if self.stochastic else "fixed"

    def identity(self) -> "ParamNet":
        """σ = 0."""
        return replace(self, sigma=0.0)

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        """The network behind the same names, its parameters perturbed at each call."""
        noisy = NoisyModule(module, self)
        prove_replaceable(noisy.hidden[0], shape)
        show(noisy, shape, noisy, 2, who="ParamNet")
        return noisy


class NoisyModule(nn.Module):
    """A network called with perturbed parameters; its own parts are registered here under their own names."""

    def __init__(self, module: nn.Module, how: ParamNet) -> None:
        super().__init__()
        if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
            raise UserError(
                "ParamNet: expected a network in Python, got a scripted one, whose parameters cannot "
                "be replaced for a call; give the network that was scripted"
            )
        inner = copied(module, "ParamNet")
        if not any(True for _ in inner.parameters()):
            raise UserError(f"ParamNet: expected parameters, found none in {type(module).__name__}")
        if unmade := [n for n, p in inner.named_parameters() if is_lazy(p)]:
            raise UserError(
                f"ParamNet: expected parameters with sizes, got a lazy {unmade[0]}; "
                "show the network an example first"
            )
        # The same dictionaries, so that names, moves and loads reach both. The tuple hides it from
        # registration, which would put a prefix before every name.
        for part in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            self.__dict__[part] = inner.__dict__[part]
        self.how = how
        self.hidden = (inner,)
        self.training = inner.training  # not train(): parts may be in other modes

    def forward(self, x: Tensor) -> Any:  # a stranger's network may give more than logits
        how, inner = self.how, self.hidden[0]
        inner.training = self.training  # the one part that no walk over the modules reaches
        if not (active(how.when, training=self.training) and how.sigma > 0):
            return inner(x)
        named = dict(inner.named_parameters())
        if how.sharing == "own":
            return self._each(x, named)
        noisy = {n: p + how.sigma * rng.shared_normal(p) for n, p in named.items()}
        return functional_call(inner, noisy, (x,))

    def _each(self, x: Tensor, named: Mapping[str, Tensor]) -> Tensor:
        if self.training:
            raise UserError(
                "ParamNet: expected eval mode for weight noise of each example's own, got training "
                "mode, where batch norm mixes examples; train with sharing='shared'"
            )
        inner, sigma = self.hidden[0], self.how.sigma
        if any(_draws(part) for part in inner.modules()):
            raise UserError(
                "ParamNet: expected a network without noise for sharing='own', got one with noisy layers, "
                "whose draws a pass over single examples cannot name; take sharing='shared'"
            )
        noisy = {n: p + sigma * each_normal(p, len(x)) for n, p in named.items()}

        def one(parameters: dict[str, Tensor], example: Tensor) -> Tensor:
            logits = functional_call(inner, parameters, (example[None],))
            if not isinstance(logits, Tensor):
                raise UserError(
                    "ParamNet: expected a network that gives one tensor for sharing='own', got "
                    f"{type(logits).__name__}; take sharing='shared', or wrap it to give its logits"
                )
            return logits[0]

        return vmap(one)(noisy, x)


@dataclass(frozen=True)
class PNI:
    """Parametric noise injection: v + α·std(v)·η, η ~ N(0, 1), α learnt; v the layer's weight, input or output.

    The gradient reaches α through the noise and v through the sum; std(v)·η counts as a constant.

    Args:
        where: v: the `weight` (PNI-W), the `input` (PNI-I) or the `output` (PNI-A) of every
            convolution and linear layer.
        granularity: one α per `layer`, per `channel` (of output for weights), or per `element`.
        alpha: its initial value.
        when: `always`, `train` or `test`.
        sharing: for weights: `shared` by the examples of a pass, or each example's `own`. One pass
            (a call of the network) has one draw of each layer's weights, however often it is
            called; `own` refuses a layer that is called again.
        skip: patterns of names of layers that are left alone.

    Raises:
        UserError: a word out of its list, or α that is no number.

    Source: details §4; He, Rakin & Fan 2019 (PNI).
    Differs: 1. std of an input or output is each example's own, not the batch's (examples would
    depend on their batch mates). 2. alpha = 0 is the identity only until it is trained.
    """

    version: ClassVar[int] = 2
    where: Literal["weight", "input", "output"] = "weight"
    granularity: Literal["layer", "channel", "element"] = "layer"
    alpha: float = 0.25
    when: When = "always"
    sharing: Literal["shared", "own"] = "shared"
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_patterns("skip", self.skip)
        check_when(self.when)
        _check_sharing(self.sharing)
        for name, words in (
            ("where", ("weight", "input", "output")),
            ("granularity", ("layer", "channel", "element")),
        ):
            if getattr(self, name) not in words:
                raise expected(name, f"one of {', '.join(words)}", repr(getattr(self, name)))
        alpha: object = self.alpha
        if not (isinstance(alpha, Real) and math.isfinite(alpha)):
            raise expected("alpha", "a finite number", repr(alpha))

    @property
    def stochastic(self) -> bool:
        """Yes, unless only in training: a checkpoint may hold any α."""
        return self.when != "train"

    @property
    def weights(self) -> Sharing:
        """Whose draw of the weights an answer comes from."""
        return self.sharing if self.stochastic and self.where == "weight" else "fixed"

    def identity(self) -> "PNI":
        """α = 0, and no noise in eval mode whatever α a checkpoint holds; the layer's own arithmetic."""
        return replace(self, alpha=0.0, when="train", sharing="shared")

    def __call__(self, module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
        """A copy of the network with perturbed layers and their α."""
        effect = PerturbedLayer(self)
        perturbed = operate(module, lambda _site: effect, shape, LAYERS, self.skip)
        if self.where == "weight":
            mark(perturbed)
        return perturbed


@dataclass(frozen=True)
class PerturbedLayer:
    """y = (W + α·std(W)·η)∗x + b, or the same noise on x or y."""

    how: PNI

    @property
    def name(self) -> str:
        """As the authors named it: alpha_w, alpha_i; ours: alpha_a."""
        return {"weight": "alpha_w", "input": "alpha_i", "output": "alpha_a"}[self.how.where]

    def scale(self, site: Site) -> tuple[str, Tensor]:
        """α of the shape that the granularity asks for."""
        where, fine = self.how.where, self.how.granularity
        shape = tuple(site.layer.get_parameter("weight").shape)
        if where != "weight":
            shape = site.input_shape if where == "input" else site.output_shape
        if (size := math.prod(shape)) < 2:
            raise UserError(
                f"PNI: expected 2 or more values in the {where} of {site.name}, which have a standard "
                f"deviation, got {size}; name it in skip"
            )
        # A convolution's channels come first; a linear layer's features come last.
        last = where != "weight" and isinstance(site.layer, nn.Linear)
        if fine == "layer":
            shape = (1,)
        elif fine == "channel":
            shape = shape[-1:] if last else (shape[0], *[1] * (len(shape) - 1))
        return self.name, torch.full(shape, self.how.alpha)

    def __call__(self, layer: Altered, x: Tensor) -> Tensor:
        how, weight, bias = self.how, layer.weight, layer.bias
        if not active(how.when, training=layer.training):
            return layer.affine(x, weight, bias)
        alpha: Tensor = getattr(layer, self.name)  # under ParamNet it is not a Parameter
        if how.where == "input":
            return layer.affine(x + alpha * _own_noise(x), weight, bias)
        if how.where == "output":
            y = layer.affine(x, weight, bias)
            return y + alpha * _own_noise(y)
        std = weight.detach().std()
        if how.sharing == "shared":
            noise = remembered(layer, lambda: rng.shared_normal(weight.detach()))
            return layer.affine(x, weight + alpha * (std * noise), bias)
        if called_before(layer):
            # Keeping the noise of every example for a second call would take as much memory as all
            # their weights, in networks too that call each layer once.
            raise UserError(
                "PNI: expected a network that calls each layer once for sharing='own', got one that "
                f"calls a layer with weights {tuple(weight.shape)} again; take sharing='shared', or "
                "name it in skip"
            )
        return layer.affine_each(x, weight + alpha * (std * each_normal(weight, len(x))), bias)


def each_normal(like: Tensor, rows: int) -> Tensor:
    """Standard Gaussian noise (rows, *shape of `like`), each row of its own example's stream."""
    return rng.normal(like.detach().expand(rows, *like.shape))


def _draws(part: nn.Module) -> bool:
    """Whether it is a layer with noise on its input, weight or output."""
    return isinstance(getattr(part, "effect", None), NoisyInput | PerturbedLayer)


def _own_noise(v: Tensor) -> Tensor:
    """std(v)·η with the std over each example's elements."""
    std = v.detach().flatten(1).std(dim=1)
    return std.view(-1, *[1] * (v.ndim - 1)) * rng.normal(v.detach())


def _check_sharing(sharing: str) -> None:
    if sharing not in ("shared", "own"):
        raise expected("sharing", "shared or own", repr(sharing))
