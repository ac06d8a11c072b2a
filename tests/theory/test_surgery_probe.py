"""What the probe of a surgery must find: layers that are passed by, layers called again, networks that break."""

import copy
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from noisychannel import rng
from noisychannel.defenses import (
    PNI,
    BandLimited,
    HalfPrecision,
    ParamNet,
    RobustNet,
    Surgery,
    sites_of,
)
from noisychannel.defenses.probe import prove
from noisychannel.errors import UserError
from noisychannel.noise import GaussLaw

IMAGE = (3, 8, 8)
OWN: list[Surgery] = [PNI(sharing="own"), RobustNet(), RobustNet(when="train"), PNI("input")]
EACH: list[Surgery] = [RobustNet(), BandLimited(50), HalfPrecision(), PNI(), PNI("output")]
NETS: list[Surgery] = [*EACH, ParamNet(), ParamNet(sharing="own")]


def images(rows: int = 2, shape: tuple[int, ...] = IMAGE) -> Tensor:
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(1))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return make().eval()


def under(
    rows: int, module: nn.Module, x: Tensor, *, gradients: bool = False, **how: Any
) -> Tensor:
    stream = rng.Stream("scoring", torch.arange(rows), **how)
    with torch.set_grad_enabled(gradients), rng.bracket(stream):
        return module(x).detach()


# ---------------------------------------------------------------- torch's fused paths


PATCHES = (3, 16, 16)


class Convolving(nn.TransformerEncoderLayer):
    """Adds a convolution over the tokens, before the layer's own forward."""

    def __init__(self) -> None:
        super().__init__(16, 2, 8, dropout=0.0, batch_first=True)
        self.over = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, src: Tensor, *args: Any, **how: Any) -> Tensor:
        return super().forward(self.over(src), *args, **how)


def transformer(*, stacked: bool = False) -> nn.Module:
    def make() -> nn.Module:
        layer = Convolving()
        block = nn.TransformerEncoder(layer, 2) if stacked else layer
        return nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), block)

    return seeded(make)


ATTENTION = (r".*out_proj",)
FUSED: list[Surgery] = [
    PNI(skip=(*ATTENTION, "0"), alpha=5.0),
    PNI("input", skip=(*ATTENTION, "0")),
    PNI(sharing="own", skip=ATTENTION),
    HalfPrecision(skip=(*ATTENTION, "0")),
    RobustNet(),
    BandLimited(50),
    ParamNet(),
    ParamNet(sharing="own"),
]


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("surgery", FUSED, ids=repr)
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap over the fused kernel
def test_a_fused_path_does_not_pass_the_defense_by(surgery: Surgery, stacked: bool) -> None:
    """torch's encoder layer in eval mode without gradients reads the weights and calls no layer."""
    net, x = transformer(stacked=stacked), images(2, PATCHES)
    module = surgery(net, PATCHES)
    with_gradients = under(2, module, x, gradients=True)
    for twin in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        without = under(2, twin, x)
        torch.testing.assert_close(without, with_gradients, rtol=0, atol=1e-3)
        assert (without - under(2, net, x)).abs().max() > 1e-4


def test_the_proof_takes_the_fused_path() -> None:
    """Without the hook that keeps torch from it, which another torch might not ask for."""
    module = PNI(skip=(*ATTENTION, "0"))(transformer(), PATCHES)
    for part in module.modules():
        part._forward_pre_hooks.clear()
    with pytest.raises(UserError, match=r"never calls 2\.linear1, 2\.linear2 \(2 of 2 layers\)"):
        prove(module, ["2.linear1", "2.linear2"], PATCHES, transformer())


def test_the_output_of_attention_is_still_refused() -> None:
    for surgery in (PNI(), HalfPrecision()):
        with pytest.raises(UserError, match=r"never calls 2\.self_attn\.out_proj"):
            surgery(transformer(), PATCHES)


class WithoutGradients(nn.Module):
    """Computes otherwise where no gradients are asked for."""

    def __init__(self, *, then: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() is self.then:
            return functional.conv2d(x, self.conv.weight.data, self.conv.bias)
        return self.conv(x)


@pytest.mark.parametrize("then", [False, True])
@pytest.mark.parametrize("surgery", EACH, ids=repr)
def test_a_layer_passed_by_in_one_mode_only(surgery: Surgery, then: bool) -> None:
    with pytest.raises(UserError, match=r"never calls conv \(1 of 1 layers\)"):
        surgery(WithoutGradients(then=then), IMAGE)


# ---------------------------------------------------------------- layers passed by in other ways


def wrapped() -> nn.Module:
    """As accelerate does: a forward on the layer itself, round the one that it had."""
    layer = nn.Conv2d(3, 3, 3)
    old = layer.forward
    layer.forward = lambda *a, **b: old(*a, **b)  # noqa: PLW0108  # no bound method, which copies well
    return nn.Sequential(layer)


def test_a_forward_on_the_layer_itself() -> None:
    for surgery in EACH:
        with pytest.raises(UserError, match=r"on 0 \(Conv2d\): its forward was replaced"):
            surgery(wrapped(), IMAGE)
    net = wrapped()
    net[0]._conv_forward = net[0]._conv_forward  # type: ignore[index]
    del net[0].forward  # type: ignore[index]
    with pytest.raises(UserError, match="its _conv_forward was replaced"):
        RobustNet()(net, IMAGE)


@pytest.mark.parametrize("sharing", ["shared", "own"])
def test_param_net_reaches_what_a_network_computes_with(sharing: Any) -> None:
    """A copy of a network may still hold the layers of the original in a closure, and call those."""
    for frozen in (False, True):
        net = wrapped()
        if frozen:  # then only the layer in the closure tells
            for parameter in list(net.parameters())[:1]:
                parameter.requires_grad_(False)
        with pytest.raises(UserError, match=r"^ParamNet: .* noise would not reach one held elsewh"):
            ParamNet(sharing=sharing)(net, IMAGE)

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)
            self.kept = [self.conv.weight]

        def forward(self, x: Tensor) -> Tensor:
            return functional.conv2d(self.conv(x), self.kept[0])

    net = Keeps().requires_grad_(False)
    with pytest.raises(UserError, match=r"noise would not reach conv\.weight \(3, 3, 3, 3\)"):
        ParamNet(sharing=sharing)(net, IMAGE)
    assert not any(p.requires_grad for p in net.parameters())


class Both(nn.Module):
    """Calls a layer, and uses its weight itself too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + functional.conv2d(x, self.conv.weight)


def test_a_weight_that_the_parent_reads_too() -> None:
    for surgery in EACH:
        for net in (Both(), Both().requires_grad_(False)):
            with pytest.raises(UserError, match="expected the weight of conv to be read by its la"):
                surgery(net, IMAGE)
    assert under(2, ParamNet()(Both(), IMAGE), images()).shape == (2, 3, 6, 6)


def test_a_closure_that_calls_the_original_too() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv = nn.Conv2d(3, 3, 3)
            self.call = lambda x: conv(x)  # noqa: PLW0108  # the closure is the point

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.call(x)

    for surgery in EACH:
        with pytest.raises(
            UserError, match=r"the copy computes with conv\.(weight|bias) of the or"
        ):
            surgery(Beside(), IMAGE)


class Tied(nn.Module):
    """Two layers with one weight, as autoencoders have."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        # Its type and its place are no use of it.
        return self.two(self.one(x.to(self.one.weight.dtype)).to(self.one.weight.device))


@pytest.mark.parametrize("skip", [(), ("one",), ("two",)])
def test_tied_weights_are_no_other_use(skip: tuple[str, ...]) -> None:
    for surgery in (PNI(skip=skip), HalfPrecision(skip=skip)):
        module = surgery(Tied(), (8,))
        assert under(2, module, images(2, (8,))).shape == (2, 8)


def test_the_probe_leaves_no_trace() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)).requires_grad_(False)
    for surgery in NETS:
        module = surgery(net.train(), IMAGE)
        assert all(part.training for part in module.modules())
        assert not any(p.requires_grad for n, p in module.named_parameters() if "alpha" not in n)
        assert not any(vars(part).get("probed") for part in module.modules())
        assert "effect" not in dir(net[0])
        fresh = module.get_buffer("1.running_mean")
        assert torch.equal(fresh, torch.zeros(3))


def test_a_surgery_inside_an_open_stream_draws_nothing_from_it() -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 3, 3)), images(5)
    for surgery in NETS:
        with torch.no_grad(), rng.bracket(rng.Stream("scoring", torch.arange(5))):
            got = surgery(net, IMAGE).eval()(x)
        assert torch.equal(got, under(5, surgery(net, IMAGE).eval(), x))


# ---------------------------------------------------------------- layers that are called again


class Again(nn.Module):
    """c(x) − c(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) - self.conv(x)


@pytest.mark.parametrize("surgery", [PNI(), ParamNet(), ParamNet(sharing="own")], ids=repr)
def test_one_draw_of_weights_is_one_network(surgery: Surgery) -> None:
    module, x = surgery(Again(), IMAGE).eval(), images()
    for twin in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not under(2, twin, x).any()  # under a stream
        assert not under(2, twin, x, gradients=True).any()
        assert not twin(x).any()  # and outside of one


def test_passes_differ_and_gradients_agree() -> None:
    """One noise in both terms of c(x) + c(x), another in the next pass, and ∂/∂α twice that of c(x)."""

    class Sum(Again):
        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.conv(x)

    net, x = Sum().eval(), images()
    twice = PNI()(net, IMAGE)
    once = PNI()(nn.Sequential(copy.deepcopy(net.conv)), IMAGE)
    for step in (0, 1):
        torch.testing.assert_close(
            under(2, twice, x, step=step), 2 * under(2, once, x, step=step), rtol=0, atol=1e-5
        )
    assert not torch.equal(under(2, twice, x), under(2, twice, x, step=1))
    assert not torch.equal(twice(x), twice(x))
    stream = rng.Stream("scoring", torch.arange(2))
    with rng.bracket(stream):
        first, second = twice(x), twice(x)
    assert not torch.equal(first, second)  # two calls under one stream are two passes
    slopes = list[Tensor]()
    for module, name in ((twice, "conv.alpha_w"), (once, "0.alpha_w")):
        with rng.bracket(stream):
            y = module(x)
        slopes.append(torch.autograd.grad(y.sum(), module.get_parameter(name))[0])
    torch.testing.assert_close(slopes[0], 2 * slopes[1], rtol=1e-4, atol=1e-4)


def test_a_pass_ends_where_the_network_raises() -> None:
    class Odd(Again):
        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            if len(x) == 7:
                raise ArithmeticError
            return y

    module, x = PNI()(Odd().eval(), IMAGE), images()
    want = under(2, module, x)
    with pytest.raises(ArithmeticError):
        under(7, module, images(7))
    assert torch.equal(under(2, module, x), want)
    assert not torch.equal(module(x), module(x))
    inner: Any = module.conv  # asked alone there is no pass: a draw for each call
    assert not torch.equal(inner(x), inner(x))


def test_networks_beside_each_other_have_noise_of_their_own() -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 3, 3)), images()

    class Ensemble(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = PNI()(net, IMAGE), PNI()(net, IMAGE)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) - self.two(x)

    assert under(2, Ensemble(), x).abs().min() > 0


def test_own_weights_are_refused_where_a_layer_is_called_again() -> None:
    with pytest.raises(UserError, match="expected a network that calls each layer once for sharin"):
        PNI(sharing="own")(Again(), IMAGE)

    class Sometimes(Again):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if len(x) == 7 else self.conv(x)

    module = PNI(sharing="own")(Sometimes().eval(), IMAGE)
    assert not torch.equal(module(images()), module(images()))
    with pytest.raises(UserError, match="again; take sharing='shared', or name it in skip"):
        under(7, module, images(7))


# ---------------------------------------------------------------- networks that break the rows


class Siamese(nn.Module):
    """Shows an image and its mirror image to one layer as one larger batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.conv(torch.cat((x, x.flip(3)))).chunk(2)
        return one + two


class Constant(Siamese):
    """Shows one layer a constant, one row whatever the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None] * self.conv(torch.ones_like(x[:1])).flatten(1)


@pytest.mark.parametrize(("net", "rows"), [(Siamese(), 4), (Constant(), 1)])
def test_noise_of_each_example_needs_a_row_of_each_example(net: nn.Module, rows: int) -> None:
    for surgery in OWN:
        with pytest.raises(UserError, match=rf"^surgery: expected conv to be shown one row per ex.* "
                           rf"got {rows} rows for 2 examples"):  # fmt: skip
            surgery(net, IMAGE)
    for without in (PNI(), HalfPrecision(), BandLimited(50), ParamNet()):
        assert len(under(3, without(net, IMAGE).eval(), images(3))) == 3


# ---------------------------------------------------------------- strangers' exceptions


class Raises(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.conv, self.error = nn.Conv2d(3, 3, 3), error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize("surgery", NETS, ids=repr)
def test_whatever_a_stranger_raises_is_one_sentence(surgery: Surgery) -> None:
    for error in (AssertionError("size"), AttributeError("a\nb"), KeyError(0), OSError("file")):
        with pytest.raises(UserError, match="expected a network that takes an example of shape") as caught:  # fmt: skip
            surgery(Raises(error), IMAGE)
        assert type(error).__name__ in str(caught.value)
        assert "\n" not in str(caught.value)


class Named(nn.Conv2d):
    """A subclass with a method that its parent calls."""

    def half(self, x: Tensor) -> Tensor:
        return self(x) / 2


class Initialised(nn.Conv2d):
    """One that only starts differently."""

    def __init__(self) -> None:
        super().__init__(3, 3, 3)

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)


def test_subclasses_with_more_to_them() -> None:
    class Parent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Named(3, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv.half(x)

    for surgery in EACH:
        with pytest.raises(UserError, match=r"on conv \(Named\): its class adds half to Conv2d"):
            surgery(Parent(), IMAGE)
        assert surgery(nn.Sequential(Initialised()), IMAGE)


def legacy() -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.Sequential(torch.nn.utils.weight_norm(nn.Conv2d(3, 3, 3)), nn.Conv2d(3, 3, 3))


def test_networks_that_cannot_be_copied_or_called() -> None:
    for surgery, who in ((PNI(skip=("0",)), "surgery"), (ParamNet(), "ParamNet")):
        with pytest.raises(UserError, match=rf"^{who}: expected a network that copy\.deepcopy can"):
            surgery(legacy(), IMAGE)
    with pytest.raises(UserError, match=r"expected parameters with sizes, got a lazy 0\.weight"):
        ParamNet()(nn.Sequential(nn.LazyConv2d(3, 3)), IMAGE)
    with pytest.raises(UserError, match=r"on 0 \(LazyConv2d\): it has no weights yet"):
        RobustNet()(nn.Sequential(nn.LazyConv2d(3, 3)), IMAGE)
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        scripted: Any = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 3)).eval())
    with pytest.raises(UserError, match=r"^ParamNet: expected a network in Python, got a scripted"):
        ParamNet()(scripted, IMAGE)
    with pytest.raises(UserError, match=r"operate on 1\.0 .*: it is scripted"):
        RobustNet()(nn.Sequential(nn.Conv2d(3, 3, 1), scripted), IMAGE)


def test_param_net_of_each_examples_own_wants_one_tensor() -> None:
    class Answers(nn.Module):
        def __init__(self, make: Callable[[Tensor], Any]) -> None:
            super().__init__()
            self.conv, self.make = nn.Conv2d(3, 3, 3), make

        def forward(self, x: Tensor) -> Any:
            return self.make(self.conv(x))

    for make, word in ((lambda y: {"logits": y}, "dict"), (lambda y: (y, y), "tuple")):
        with pytest.raises(UserError, match=f"gives one tensor for sharing='own', got {word}"):
            ParamNet(sharing="own")(Answers(make), IMAGE)
        assert ParamNet()(Answers(make), IMAGE)(images())


# ---------------------------------------------------------------- numbers and patterns

WRONG = {
    "RobustNet(0.2, 0.1)": "init: expected a noise law such as GaussLaw(0.2), or None, got 0.2",
    "RobustNet(inner=0.1)": "inner: expected a noise law such as GaussLaw(0.2), or None, got 0.1",
    "RobustNet(exceptions=(('stem', 0.1),))": "exceptions: expected a noise law such as GaussLaw(0.2)",
    "RobustNet(exceptions=('stem', None))": "exceptions: expected a tuple of pairs such as ((",
    "RobustNet(exceptions='stem')": "exceptions: expected a tuple of pairs such as ((",
    "RobustNet(exceptions=((3, None),))": 'exceptions: expected patterns such as "stem", got 3',
    "RobustNet(exceptions=(('(', None),))": "exceptions: expected a regular expression, got '(' (",
    "RobustNet(init_at='0')": "init_at: expected a whole number ≥ 0, got '0'",
    "ParamNet('0.1')": "sigma: expected a finite number ≥ 0, got '0.1'",
    "GaussLaw(None)": "sigma: expected a finite number ≥ 0, got None",
    "UniformLaw('1')": "bound: expected a finite number ≥ 0, got '1'",
    "LaplaceLaw([1.0])": "scale: expected a finite number ≥ 0, got [1.0]",
    "PNI(alpha='0.1')": "alpha: expected a finite number, got '0.1'",
    "BandLimited('50')": "compression: expected 0 … 100 percent, got '50'",
    "PNI(skip='stem')": "skip: expected a tuple of patterns such as (\"stem\",), got 'stem'",
    "BandLimited(skip='stem')": "skip: expected a tuple of patterns such as (\"stem\",), got 'stem'",
    "HalfPrecision(skip='stem')": "skip: expected a tuple of patterns such as (\"stem\",), got 'stem'",
    "PNI(skip=(3,))": 'skip: expected patterns such as "stem", got 3',
    "operate(nn.ReLU(), None, (3,), skip='0')": "skip: expected a tuple of patterns such as",
}
ASK = """
import json, sys
from torch import nn
from noisychannel.defenses import *
from noisychannel.errors import UserError
from noisychannel.noise import *
said = {}
for text in json.load(sys.stdin):
    try:
        said[text] = repr(eval(text))
    except UserError as error:
        said[text] = str(error)
print(json.dumps(said))
"""


def test_wrong_types_are_refused_at_the_door() -> None:
    """In a process of its own, without the type checker that stands before our doors under pytest."""
    done = subprocess.run(
        [sys.executable, "-c", ASK], input=json.dumps(list(WRONG)), text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    for text, said in json.loads(done.stdout).items():
        assert said.startswith(WRONG[text]), f"{text}: {said}"


@pytest.mark.parametrize("kind", [PNI, BandLimited, HalfPrecision])
def test_patterns_that_skip(kind: Any) -> None:
    with pytest.raises(UserError, match=r"skip: expected a regular expression, got '\(' \("):
        kind(skip=("(",))
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    assert kind(skip=("0",))(net, IMAGE)
    with pytest.raises(UserError, match="expected patterns of layers such as 0, got 'stem'"):
        kind(skip=("0", "stem"))(net, IMAGE)


def test_patterns_that_except() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    for law in (None, GaussLaw(0.1)):
        with pytest.raises(UserError, match=r"exceptions.*: expected patterns of layers .* got 'stem'"):  # fmt: skip
            RobustNet(exceptions=(("stem", law),))(net, IMAGE)
        assert RobustNet(exceptions=(("1", law),))(net, IMAGE)
    with pytest.raises(UserError, match=re.escape("got 'stem'")):
        sites_of(net, IMAGE, skip=("stem",))
