"""Surgery on strangers' networks, and the noise it adds against the formulas of its law."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from noisychannel import rng
from noisychannel.defenses import (
    AUTHORS_FIRST_BLOCKS,
    PNI,
    BandLimited,
    HalfPrecision,
    ParamNet,
    RobustNet,
    Surgery,
    altered,
    learnt_scales,
    operate,
    sites_of,
)
from noisychannel.defenses.activations import NoisyInput
from noisychannel.defenses.layers import LAYERS, AlteredConv1d, AlteredConv2d, AlteredLinear
from noisychannel.errors import UserError
from noisychannel.networks import ResNet20
from noisychannel.noise import GaussLaw, LaplaceLaw, NoiseLaw, UniformLaw

Layer = nn.Conv1d | nn.Conv2d | nn.Linear
IMAGE = (3, 8, 8)


def numbers(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stream(rows: int, **how: Any) -> rng.Stream:
    return rng.Stream("scoring", torch.arange(rows), **how)


def under(rows: int, function: Callable[..., Tensor], *args: Tensor, **how: Any) -> Tensor:
    with rng.bracket(stream(rows, **how)):
        return function(*args)


def many(module: nn.Module, x: Tensor, rows: int) -> Tensor:
    """The answers to one example, each under noise of its own, without gradients."""
    with torch.no_grad():
        return under(rows, module, x.expand(rows, *x.shape)).double()


def seeded(make: Callable[[], nn.Module], seed: int = 5) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval()


# ---------------------------------------------------------------- a stranger's ResNet, as torchvision writes it


class BasicBlock(nn.Module):
    def __init__(self, inplanes: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class StrangersResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2), BasicBlock(16, 16))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.avgpool(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(x, 1))


STRANGERS_ORDER = [
    "conv1",
    "layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2",
    "layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0", "layer2.1.conv1", "layer2.1.conv2",
]  # fmt: skip


def test_a_strangers_resnet_gets_robustnet() -> None:
    net, shape = seeded(StrangersResNet), (3, 32, 32)
    assert [site.name for site in sites_of(net, shape)] == STRANGERS_ORDER
    robust = RobustNet(GaussLaw(0.2), GaussLaw(0.1))(net, shape)
    effects = {name: layer.effect for name, layer in altered(robust)}  # type: ignore[attr-defined]
    assert sorted(effects) == sorted(STRANGERS_ORDER)
    assert effects.pop("conv1").law == GaussLaw(0.2)
    assert {effect.law for effect in effects.values()} == {GaussLaw(0.1)}
    assert list(robust.state_dict()) == list(net.state_dict())
    x = numbers(4, *shape)
    with torch.no_grad():
        assert torch.equal(RobustNet().identity()(net, shape)(x), net(x))
        one, two = (under(4, robust, x, step=step) for step in (0, 1))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("surgery", [ParamNet(sharing="own"), PNI(sharing="own"), HalfPrecision()])
def test_a_strangers_resnet_gets_the_others(surgery: Surgery) -> None:
    """Each example's own weights, although its blocks work in place."""
    net, shape = seeded(StrangersResNet), (3, 32, 32)
    module, x = surgery(net, shape), numbers(3, *shape)
    assert set(module.state_dict()) == set(net.state_dict()) | learnt_scales(module)
    with torch.no_grad():
        whole = under(3, module, x)
        with rng.bracket(rng.Stream("scoring", torch.tensor([2]))):
            last = module(x[2:])
    error = 2e-3 if isinstance(surgery, HalfPrecision) else 1e-5
    torch.testing.assert_close(last, whole[2:], rtol=0, atol=error)


# ---------------------------------------------------------------- weights of each example's own


def convolutions(kind: type[Layer]) -> list[Any]:
    grid = itertools.product((1, 2, 6), (1, 2), (1, 2), (0, 1, "same", "reflect"))
    layers = list[Any]()
    for groups, stride, dilation, padding in grid:
        if padding == "same" and stride == 2:
            continue
        how = (
            {"padding": 2, "padding_mode": "reflect"}
            if padding == "reflect"
            else {"padding": padding}
        )
        layers.append(
            kind(
                6, 12, 3, stride=stride, dilation=dilation, groups=groups, bias=padding != 0, **how
            )  # type: ignore[arg-type, call-arg]
        )
    return layers


@pytest.mark.parametrize(
    ("layers", "shapes"),
    [
        (convolutions(nn.Conv1d), [(6, 11)]),
        (convolutions(nn.Conv2d), [(6, 7, 8)]),
        ([nn.Conv2d(6, 12, (1, 5), padding=(0, 2), stride=(2, 1))], [(6, 7, 8)]),
        ([nn.Conv2d(6, 12, 3, padding=1, padding_mode=m) for m in ("circular", "replicate")], [(6, 7, 8)]),
        ([nn.Linear(6, 4), nn.Linear(6, 4, bias=False)], [(6,), (5, 6), (2, 3, 6)]),
    ],
    ids=["Conv1d", "Conv2d", "rectangle", "other paddings", "Linear"],
)  # fmt: skip
def test_own_weights_are_a_loop_over_examples(
    layers: list[nn.Module], shapes: list[tuple[int, ...]]
) -> None:
    for layer, shape in itertools.product(layers, shapes):
        net = nn.Sequential(layer)
        module = operate(net, lambda _: NoisyInput(GaussLaw(0), "always", False), shape, LAYERS)
        changed = module[0]  # type: ignore[index]
        assert isinstance(changed, AlteredConv1d | AlteredConv2d | AlteredLinear)
        x, weights = numbers(4, *shape), numbers(4, *layer.weight.shape, seed=2)  # type: ignore[misc]
        with torch.no_grad():
            got = changed.affine_each(x, weights, changed.bias)
            loop = [functional_call(layer, {"weight": w}, (x[i : i + 1],)) for i, w in enumerate(weights)]  # fmt: skip
        torch.testing.assert_close(got, torch.cat(loop), rtol=0, atol=1e-5)


def test_own_weights_of_a_channels_last_copy() -> None:
    net = nn.Sequential(nn.Conv2d(6, 12, 3, groups=2), nn.Conv2d(12, 4, 3))
    module, x = PNI(sharing="own")(net, (6, 7, 8)), numbers(4, 6, 7, 8)
    with torch.no_grad():
        want = under(4, module, x)
        last = torch.channels_last
        got = under(4, module.to(memory_format=last), x.to(memory_format=last))  # type: ignore[call-overload]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- trees of another form


class Twice(nn.Module):
    """One layer under two names, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 1, bias=False)
        self.again = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.first(x))


def test_a_layer_at_two_places() -> None:
    net = Twice()
    net.first.weight.data.fill_(1)
    assert [site.name for site in sites_of(net, (1, 4, 4))] == ["first"]
    robust = RobustNet(GaussLaw(0.3), None, learnt=True)(net, (1, 4, 4))
    assert robust.get_submodule("first") is robust.get_submodule("again")
    assert sorted(robust.state_dict()) == sorted(
        [*net.state_dict(), "first.alpha_i", "again.alpha_i"]
    )
    assert len(list(robust.parameters())) == 2
    assert learnt_scales(robust) == {"first.alpha_i"}  # as named_parameters: each once
    y = many(robust, torch.zeros(1, 4, 4), 4000)
    assert float(y.var()) == pytest.approx(2 * 0.3**2, rel=0.05)  # fresh noise at each call


class Backwards(nn.Module):
    """Registers its layers in another order than it calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(2, 2, 3)
        self.middle = nn.Conv2d(2, 2, 3)
        self.image = nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(input=self.middle(self.image(x)))


def test_positions_are_the_order_of_execution() -> None:
    sites = sites_of(Backwards(), IMAGE)
    assert [(site.name, site.position) for site in sites] == [
        ("image", 0), ("middle", 1), ("last", 2)
    ]  # fmt: skip
    assert [(site.input_shape, site.output_shape) for site in sites] == [
        ((3, 8, 8), (2, 6, 6)), ((2, 6, 6), (2, 4, 4)), ((2, 4, 4), (2, 2, 2))
    ]  # fmt: skip
    for at, name in enumerate(("image", "middle", "last")):
        robust = RobustNet(GaussLaw(0.3), UniformLaw(0.1), init_at=at)(Backwards(), IMAGE)
        laws = {n: layer.effect.law for n, layer in altered(robust)}  # type: ignore[attr-defined]
        assert laws.pop(name) == GaussLaw(0.3)
        assert set(laws.values()) == {UniformLaw(0.1)}


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(dim=1))


def test_attention_uses_its_weights_behind_the_layers_back() -> None:
    for operating in (PNI(), HalfPrecision()):
        with pytest.raises(UserError, match=r"never calls attention\.out_proj \(1 of 2 layers\)"):
            operating(Attends(), (5, 8))
    module = PNI(skip=(r"attention\.",))(Attends(), (5, 8))
    assert [name for name, _ in altered(module)] == ["head"]
    assert ParamNet()(Attends(), (5, 8))(numbers(2, 5, 8)).shape == (2, 3)


class Listed(nn.Module):
    """Keeps its layers twice: registered, and in a plain list that it calls."""

    def __init__(self, *, both: bool = False) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.steps = [self.two]
        self.both = both

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(self.one(x))
        return self.two(x) if self.both else x


class Enclosed(nn.Module):
    """Calls its layer from a closure."""

    def __init__(self) -> None:
        super().__init__()
        self.one = conv = nn.Conv2d(3, 3, 3)
        self.call = lambda x: conv(x)  # noqa: PLW0108  # the closure is the point

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def test_a_layer_that_the_parent_does_not_call_is_no_defense() -> None:
    for surgery in (RobustNet(), BandLimited(50), PNI()):
        with pytest.raises(
            UserError, match=r"^surgery: the network calls two without what was done"
        ):
            surgery(Listed(), IMAGE)
        with pytest.raises(UserError, match="the network calls two without what was done to it"):
            surgery(Listed(both=True), IMAGE)
        with pytest.raises(UserError, match=r"the network never calls one \(1 of 1 layers\)"):
            surgery(Enclosed(), IMAGE)


class Scaled(nn.Conv2d):
    """A subclass with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return 2 * super().forward(input)


def legacy() -> nn.Module:
    with pytest.warns(FutureWarning):
        return torch.nn.utils.weight_norm(nn.Conv2d(3, 3, 3))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: weight_norm(nn.Conv2d(3, 3, 3)), "its weights are parametrised; remove the param"),
        (legacy, "its weight is made by a hook"),
        (lambda: nn.Conv3d(3, 3, 3), "only Conv1d, Conv2d and Linear are known"),
        (lambda: nn.ConvTranspose2d(3, 3, 3), "only Conv1d, Conv2d and Linear are known"),
        (lambda: Scaled(3, 3, 3), "it computes otherwise than Conv2d"),
        (lambda: RobustNet()(nn.Sequential(nn.Conv2d(3, 3, 3)), IMAGE)[0], "been operated already"),  # type: ignore[index]
    ],
)  # fmt: skip
def test_layers_that_cannot_be_operated(make: Callable[[], nn.Module], sentence: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Sequential(make()))
    with pytest.raises(UserError, match=rf"cannot operate on 1\.0 \(.*{sentence}") as caught:
        RobustNet()(net, IMAGE)
    assert "\n" not in str(caught.value)


def test_skip_leaves_them_as_they_are() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), Scaled(3, 3, 3))
    assert [name for name, _ in altered(PNI(skip=("1",))(net, IMAGE))] == ["0"]


def test_refusals() -> None:
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(
        UserError, match=r"expected a network with Conv1d, Conv2d layers, found none"
    ):
        RobustNet()(mlp, (12,))
    assert [name for name, _ in altered(PNI()(mlp, (12,)))] == ["1"]
    conv = nn.Conv2d(3, 3, 3)
    with pytest.raises(UserError, match=r"got a single Conv2d; put it into an nn\.Sequential"):
        RobustNet()(conv, IMAGE)
    assert not conv._forward_hooks
    with pytest.raises(UserError, match=r"takes an example of shape \(4, 8, 8\), got: .*channels"):
        RobustNet()(nn.Sequential(conv), (4, 8, 8))
    with pytest.raises(
        UserError, match=r"expected a layer to operate, but none of 1 .* was chosen"
    ):
        operate(nn.Sequential(conv), lambda _: None, IMAGE)
    with pytest.raises(UserError, match="init and inner: expected a noise law in one of them"):
        RobustNet(None, None)
    with pytest.raises(UserError, match="init_at: expected a whole number ≥ 0, got -1"):
        RobustNet(init_at=-1)
    with pytest.raises(UserError, match=r"init_at: expected one of the 1 convolutions.* got 1"):
        RobustNet(init_at=1)(nn.Sequential(conv), IMAGE)
    with pytest.raises(UserError, match=r"exceptions: expected .* got .*stage"):
        RobustNet(exceptions=AUTHORS_FIRST_BLOCKS)(nn.Sequential(conv), IMAGE)
    with pytest.raises(UserError, match="ParamNet: expected parameters, found none in ReLU"):
        ParamNet()(nn.ReLU(), (3,))
    x, own = numbers(2, *IMAGE), ParamNet(sharing="own")
    for first, second in ((RobustNet(), own), (own, RobustNet()), (PNI(where="output"), own)):
        with pytest.raises(
            UserError, match=r"without noise for sharing='own'.* take sharing='shared'"
        ):
            under(2, second(first(nn.Sequential(conv), IMAGE), IMAGE).eval(), x)
    with pytest.raises(UserError, match="alpha: expected a finite number, got nan"):
        PNI(alpha=math.nan)
    with pytest.raises(
        UserError, match=r"PNI: expected 2 or more values in the weight of 0, .* got 1;"
    ):
        PNI()(nn.Sequential(nn.Conv2d(1, 1, 1)), (1, 4, 4))


def test_double_precision() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).double().eval()
    x = numbers(2, *IMAGE, dtype=torch.float64)
    for surgery in (
        RobustNet(learnt=True),
        PNI(),
        PNI("input"),
        ParamNet(sharing="own"),
        BandLimited(9),
    ):
        module = surgery(net, IMAGE)
        assert {p.dtype for p in module.parameters()} == {torch.float64}
        assert under(2, module, x).dtype == torch.float64
    # Not through float32: the identity is exact in 52 bits.
    assert torch.equal(RobustNet().identity()(net, IMAGE)(x), net(x))


# ---------------------------------------------------------------- RobustNet's noise


def linear_net() -> nn.Sequential:
    return seeded(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, stride=2))
    )  # type: ignore[return-value]


def gains(net: nn.Sequential, shape: tuple[int, ...]) -> list[Tensor]:
    """‖row of the map from each layer's input to the output‖², per output element."""
    found, x = list[Tensor](), torch.zeros(1, *shape)
    for at in range(len(net)):
        with torch.no_grad():
            flat = torch.autograd.functional.jacobian(net[at:], x)  # type: ignore[arg-type]
        out = net[at:](x).shape[1:]
        found.append(flat.reshape(*out, -1).square().sum(dim=-1).double())
        x = net[at](x).detach()
    return found


LAWS: list[NoiseLaw] = [GaussLaw(0.3), UniformLaw(0.4), LaplaceLaw(0.2)]


@pytest.mark.parametrize("law", LAWS, ids=repr)
@pytest.mark.parametrize("where", ["init", "inner", "both", "second"])
def test_variance_of_a_linear_network(law: NoiseLaw, where: str) -> None:
    """Σ over noisy layers of σ²·‖W‖² per output element; the mean is the plain network's."""
    shape, rows, other = (1, 5, 5), 12000, GaussLaw(0.5)
    net = linear_net()
    image, inner = gains(net, shape)
    surgery, want = {
        "init": (RobustNet(law, None), law.std**2 * image),
        "inner": (RobustNet(None, law), law.std**2 * inner),
        "both": (RobustNet(other, law), other.std**2 * image + law.std**2 * inner),
        # The authors' VGG: "init" on the second convolution, "inner" on the image (details §4).
        "second": (RobustNet(other, law, init_at=1), law.std**2 * image + other.std**2 * inner),
    }[where]
    x = numbers(*shape)
    y = many(surgery(net, shape), x, rows)
    np.testing.assert_allclose(y.var(dim=0), want, rtol=0.05)
    with torch.no_grad():
        plain = net(x[None])[0].double()
    assert ((y.mean(dim=0) - plain) / (want / rows).sqrt()).abs().max() < 4.5


def test_the_authors_first_blocks() -> None:
    def laws(surgery: RobustNet) -> dict[str, NoiseLaw]:
        module = surgery(ResNet20().build(), (3, 8, 8))
        return {n: layer.effect.law for n, layer in altered(module)}  # type: ignore[attr-defined]

    one, two = UniformLaw(0.35), UniformLaw(0.3)
    plain, theirs = laws(RobustNet(one, two)), laws(RobustNet(one, two, exceptions=AUTHORS_FIRST_BLOCKS))  # fmt: skip
    assert len(plain) == 19
    assert plain["stem"] == theirs["stem"] == one
    changed = {name for name in plain if plain[name] != theirs[name]}
    assert changed == {f"stage{s}.0.{part}" for s in (1, 2, 3) for part in ("first", "second")}
    assert {theirs[name] for name in changed} == {GaussLaw(0.1)}
    assert {plain[name] for name in plain if name != "stem"} == {two}


def test_gradient_of_a_learnt_factor() -> None:
    """∂L/∂α = ⟨∂L/∂x', ε⟩ at each layer, with x' = x + α·ε and ε a constant."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 3), nn.Tanh()).double()
    module = RobustNet(GaussLaw(0.3), LaplaceLaw(0.2), learnt=True)(net, (1, 7, 7))
    alphas = [module.get_parameter(f"{i}.alpha_i") for i in (0, 2)]
    assert [a.item() for a in alphas] == [1, 1]
    for alpha, value in zip(alphas, (0.7, -0.4), strict=True):
        alpha.data.fill_(value)
    x, g = numbers(3, 1, 7, 7, dtype=torch.float64), numbers(3, 2, 3, 3, dtype=torch.float64)
    got = torch.autograd.grad(under(3, module, x), alphas, g)
    with rng.bracket(stream(3)):
        noise = GaussLaw(0.3).sample(x)
        one = (x + 0.7 * noise).requires_grad_()
        middle = net[:2](one)
        more = LaplaceLaw(0.2).sample(middle)
        two = middle - 0.4 * more
    at_one, at_two = torch.autograd.grad(net[2:](two), (one, two), g)
    want = [(at_one * noise).sum(), (at_two * more).sum()]
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b.view(1), rtol=1e-9, atol=0)


# ---------------------------------------------------------------- noise on weights


def test_variance_of_noisy_weights() -> None:
    """PNI-W: α²·std(w)²·Σx² over each receptive field."""
    conv = seeded(lambda: nn.Conv2d(2, 3, 3, padding=1, stride=2))
    x, alpha = numbers(2, 6, 5), 0.4
    module = PNI(alpha=alpha, sharing="own")(nn.Sequential(conv), (2, 6, 5))
    y = many(module, x, 8000)
    field = functional.conv2d(x[None].double() ** 2, torch.ones(1, 2, 3, 3).double(), None, 2, 1)
    weight = conv.get_parameter("weight").detach().double()
    want = alpha**2 * weight.var() * field[0].expand(3, -1, -1)
    got = y.var(dim=0)
    np.testing.assert_allclose(got, want, rtol=0.08)  # 5 standard errors, each
    assert float((got / want).mean()) == pytest.approx(1, abs=0.03)
    with torch.no_grad():
        shift = (y.mean(dim=0) - conv(x[None])[0]) / (want / len(y)).sqrt()
    assert shift.abs().max() < 4.5


def test_identity_of_pni_is_silent_whatever_was_trained() -> None:
    """A checkpoint brings its own α: the twin at strength 0 must not have its noise back."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 3)).eval()
    noisy = PNI(alpha=0.7)(net, (1, 8, 8))
    for surgery in (PNI(), PNI("input"), PNI("output"), PNI(sharing="own")):
        calm = surgery.identity()
        assert not calm.stochastic
        assert calm.weights == "fixed"
        assert calm.identity() == calm
    twin = PNI().identity()(net, (1, 8, 8)).eval()
    twin.load_state_dict(noisy.state_dict())
    x = numbers(2, 1, 8, 8)
    assert torch.equal(twin(x), net(x))
    assert not torch.equal(noisy.eval()(x), net(x))


@pytest.mark.parametrize("granularity", ["layer", "channel", "element"])
def test_gradients_of_noisy_weights(granularity: Any) -> None:
    """∂L/∂α = Σ ∂L/∂W'·std(W)·η over what α scales, ∂L/∂W = ∂L/∂W': η and std(W) are constants."""
    net = nn.Sequential(nn.Linear(4, 3)).double()
    module = PNI(granularity=granularity)(net, (4,))
    alpha, weight = module.get_parameter("0.alpha_w"), module.get_parameter("0.weight")
    x, g = numbers(5, 4, dtype=torch.float64), numbers(5, 3, dtype=torch.float64)
    y = under(5, module, x)
    got_alpha, got_weight = torch.autograd.grad(y, (alpha, weight), g)
    noise = weight.detach().std() * under(5, rng.shared_normal, weight.detach())
    at = g.T @ x
    torch.testing.assert_close(got_weight, at)
    torch.testing.assert_close(y, x @ (weight + 0.25 * noise).T + net[0].bias)
    each = at * noise
    want = {"layer": each.sum().view(1), "channel": each.sum(dim=1, keepdim=True), "element": each}
    torch.testing.assert_close(got_alpha, want[granularity])


SHAPES = [
    ("weight", "layer", (1,), (1,)),
    ("weight", "channel", (4, 1, 1, 1), (5, 1)),
    ("weight", "element", (4, 3, 3, 3), (5, 24)),
    ("input", "layer", (1,), (1,)),
    ("input", "channel", (3, 1, 1), (24,)),
    ("input", "element", (3, 5, 4), (24,)),
    ("output", "layer", (1,), (1,)),
    ("output", "channel", (4, 1, 1), (5,)),
    ("output", "element", (4, 3, 2), (5,)),
]


@pytest.mark.parametrize(("where", "granularity", "conv", "linear"), SHAPES)
def test_shapes_of_the_factors(where: Any, granularity: Any, conv: Any, linear: Any) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(24, 5))
    module = PNI(where, granularity)(net, (3, 5, 4))
    name = {"weight": "alpha_w", "input": "alpha_i", "output": "alpha_a"}[where]
    assert learnt_scales(module) == {f"0.{name}", f"2.{name}"}
    assert tuple(module.get_parameter(f"0.{name}").shape) == conv
    assert tuple(module.get_parameter(f"2.{name}").shape) == linear
    assert all((module.get_parameter(n) == 0.25).all() for n in learnt_scales(module))
    assert under(2, module, numbers(2, 3, 5, 4)).shape == (2, 5)


@pytest.mark.parametrize("where", ["input", "output"])
def test_std_of_each_example(where: Any) -> None:
    """PNI-I, PNI-A: α·std(v)·η, the std of the example's own elements and a constant to gradients."""
    net, rows = nn.Sequential(nn.Linear(6, 5)).double(), 4000
    module = PNI(where, "channel", alpha=0.5)(net, (6,))
    alpha = module.get_parameter(f"0.alpha_{where[0].replace('o', 'a')}")
    x = numbers(3, 6, dtype=torch.float64) * torch.tensor([[1.0], [10], [0.1]])
    v = x if where == "input" else net(x).detach()
    noise = v.std(dim=1, keepdim=True) * under(3, rng.normal, v)
    y, g = under(3, module, x), numbers(3, 5, dtype=torch.float64)
    want = net(x + alpha * noise) if where == "input" else net(x) + alpha * noise
    torch.testing.assert_close(y, want)
    at = g @ net[0].weight if where == "input" else g
    torch.testing.assert_close(torch.autograd.grad(y, alpha, g)[0], (at * noise).sum(dim=0))
    for example in range(3):
        spread = many(module, x[example], rows).var(dim=0)
        gain = net[0].weight.detach().square().sum(dim=1) if where == "input" else 1
        scale = (0.5 * v[example].std()) ** 2 * gain * torch.ones(5, dtype=torch.float64)
        np.testing.assert_allclose(spread, scale, rtol=0.12)  # 5 standard errors


def test_variance_of_param_net() -> None:
    """σ²·(‖x‖² + 1) of a linear layer, its bias included; without a bias σ²·‖x‖²."""
    x, sigma = numbers(7), 0.05
    for bias in (True, False):
        net = nn.Sequential(nn.Linear(7, 4, bias=bias)).eval()
        y = many(ParamNet(sigma, sharing="own")(net, (7,)), x, 12000)
        want = sigma**2 * (float(x.square().sum()) + bias)
        np.testing.assert_allclose(y.var(dim=0), np.full(4, want), rtol=0.065)
        assert float(y.var(dim=0).mean()) == pytest.approx(want, rel=0.035)
        with torch.no_grad():
            assert (y.mean(dim=0) - net(x)).abs().max() < 4.5 * math.sqrt(want / len(y))


def test_param_net_reaches_batch_norm_but_not_its_statistics() -> None:
    """y = (w + σa)·x̂ + b + σa', with x̂ by the true running statistics: Var y = σ²(x̂² + 1)."""
    norm = nn.BatchNorm1d(5).eval()
    norm.running_mean, norm.running_var = numbers(5), numbers(5).square() + 0.5
    module, x, sigma = ParamNet(0.1, sharing="own")(norm, (5,)), numbers(5, seed=2), 0.1
    y = many(module, x, 12000)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    centred = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    np.testing.assert_allclose(y.var(dim=0), sigma**2 * (centred**2 + 1), rtol=0.065)
    shared = ParamNet(0.1)(norm, (5,))
    with torch.no_grad():
        got = under(2, shared, x.expand(2, 5))
        with rng.bracket(stream(2)):
            weight, bias = (p + sigma * rng.shared_normal(p) for p in norm.parameters())
    torch.testing.assert_close(got, (weight * centred + bias).expand(2, 5))
    assert torch.equal(shared.get_buffer("running_var"), norm.running_var)


class Drops(nn.Module):
    """Reads its own mode, not that of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.conv(x), 0.5, self.training)


def test_param_net_hands_on_its_mode() -> None:
    x = numbers(2, *IMAGE)
    module = ParamNet(0.0)(Drops(), IMAGE)
    operated = HalfPrecision()(module, IMAGE)  # its probe in eval mode must leave no trace
    for training in (True, False, True):
        for noisy in (module, operated):
            assert bool((noisy.train(training)(x) == 0).any()) is training
    for part in operated.modules():
        part.training = False  # as those do who set modes one by one
    assert not (operated(x) == 0).any()


# ---------------------------------------------------------------- whose errors are correlated


def correlations(x: Tensor, margins: Tensor, signs: Tensor, covariance: Tensor) -> tuple[Any, Any]:
    """p and the covariances of correctness where the margins are normal: orthant probabilities."""
    sd = covariance.diagonal().sqrt()
    z, r = (
        (margins / sd).numpy(),
        (covariance * signs * signs[:, None] / (sd * sd[:, None])).numpy(),
    )
    p = stats.norm.cdf(z)
    n = len(x)
    cov = np.diag(p * (1 - p))
    for i, j in itertools.combinations(range(n), 2):
        normal = stats.multivariate_normal([0, 0], [[1, r[i, j]], [r[i, j], 1]])
        cov[i, j] = cov[j, i] = normal.cdf([z[i], z[j]]) - p[i] * p[j]
    return p, cov


@pytest.mark.parametrize(
    "make", [lambda s: ParamNet(0.3, sharing=s), lambda s: PNI(alpha=0.8, sharing=s)],
    ids=["ParamNet", "PNI"],
)  # fmt: skip
def test_variance_of_a_batchs_accuracy(make: Callable[[Any], Surgery]) -> None:
    """Own draws: Var(accuracy of a batch) = Σ pᵢ(1 − pᵢ)/n²; a shared draw: 1 + (n − 1)ρ̄ times as much.

    ρ̄ = Σ_{i≠j} cov(cᵢ, cⱼ) / ((n − 1)·Σ var(cᵢ)), cᵢ ∈ {0, 1} whether example i is answered
    rightly. Of a linear network of two classes all of it is exact: its margins are jointly normal.
    """
    n, draws = 20, 2500
    x = numbers(n, 6) + 1
    net = seeded(lambda: nn.Sequential(nn.Linear(6, 2)))
    linear = net[0]  # type: ignore[index]
    with torch.no_grad():
        gap = net(x)[:, 1] - net(x)[:, 0]
    labels = (gap.mean() > 0).long().repeat(n)
    labels[:3] = (
        1 - labels[:3]
    )  # rightly answered where the others are not: negative correlations too
    signs = 2.0 * labels - 1
    surgery = make("own")
    if isinstance(surgery, ParamNet):
        covariance = 2 * surgery.sigma**2 * (x @ x.T + 1)
    else:
        assert isinstance(surgery, PNI)
        covariance = 2 * (surgery.alpha * linear.weight.detach().std()) ** 2 * (x @ x.T)
    p, cov = correlations(x, gap * signs, signs, covariance)
    of_own = (p * (1 - p)).sum() / n**2
    rho = (cov.sum() - cov.trace()) / ((n - 1) * cov.trace())
    ratio = 1 + (n - 1) * rho
    assert ratio > 2  # the test is not about nothing

    with torch.no_grad():
        said = under(n, surgery(net, (6,)), x.repeat(draws, 1), draws=range(draws))
        right = (said.argmax(dim=1).view(draws, n) == labels).double()
        shared = make("shared")(net, (6,))
        together = torch.stack(
            [
                under(n, shared, x, draws=range(d, d + 1)).argmax(dim=1) == labels
                for d in range(draws)
            ]
        ).double()
    for correct in (right, together):
        np.testing.assert_allclose(correct.mean(dim=0), p, rtol=0, atol=4.5 * 0.5 / draws**0.5)
    got_own, got_shared = (float(c.mean(dim=1).var()) for c in (right, together))
    assert got_own == pytest.approx(of_own, rel=0.1)
    assert got_shared == pytest.approx(of_own * ratio, rel=0.1)
    assert got_shared / got_own == pytest.approx(ratio, rel=0.1)
