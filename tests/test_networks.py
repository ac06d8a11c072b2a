"""Networks: shapes, checkpoints by mapping, the prepared copy, and strangers at the door."""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from noisychannel import rng
from noisychannel.attacks import PGD
from noisychannel.channels import Gauss
from noisychannel.defenses import (
    PNI,
    Defense,
    FixedNetwork,
    HalfPrecision,
    Operated,
    ParamNet,
    RobustNet,
    answers,
)
from noisychannel.errors import CheckpointError, UserError
from noisychannel.networks import (
    AUTHORS_NAMES,
    NETWORKS,
    Checkpoint,
    Foreign,
    Normalize,
    ResNet18,
    ResNet20,
    SmallNet,
    authors_resnet20,
    prepare,
)
from noisychannel.networks.spec import rename
from noisychannel.noise import GaussLaw
from noisychannel.objectives import CrossEntropy
from noisychannel.spec import canonical, key
from noisychannel.threats import DefenseView, adaptive
from noisychannel.types import Batch, Network

EVERY = pytest.mark.parametrize("network", NETWORKS, ids=lambda n: type(n).__name__)


def inputs(network: object, n: int = 3) -> Tensor:
    """Examples of its shape, though none longer than 32, which is enough for every network."""
    channels, *sides = network.shape  # type: ignore[attr-defined]
    shape = (n, channels, *(min(side, 32) for side in sides))
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def trained_looking(module: nn.Module) -> nn.Module:
    """Batch norms with statistics and weights that are not the initial ones."""
    generator = torch.Generator().manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias):
                with torch.no_grad():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


def alike(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Equal to rounding: sums of large numbers round by their own size, so deep networks are held to it."""
    size = max(1.0, float(theirs.detach().abs().max()))
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * size)


# ---------------------------------------------------------------- ours
@EVERY
def test_network(network: Network) -> None:
    assert isinstance(network, Network)
    module = network.build()
    x = inputs(network)
    logits = module(x)
    assert logits.shape == (3, network.classes)  # type: ignore[attr-defined]
    assert not any(m.training for m in module.modules())
    assert network.keyed
    assert not network.stochastic
    alike(module(x[:1]), logits[:1], 1e-5)
    assert pickle.loads(pickle.dumps(network)) == network


@EVERY
def test_initial_weights_are_named_by_the_seed(network: Network) -> None:
    torch.manual_seed(0)
    before = torch.rand(1)
    torch.manual_seed(0)
    first = network.build().state_dict()
    assert torch.equal(torch.rand(1), before), "building must leave torch's generator alone"
    with rng.root("another task"):
        second = network.build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = type(network)(seed=1).build().state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_every_number_is_in_the_key() -> None:
    specs = [
        *NETWORKS, ResNet20(classes=9), ResNet20(channels=1), ResNet20(shortcut="split"), ResNet20(seed=1),
        ResNet20(mean=(0.5,) * 3, std=(0.2,) * 3), ResNet20(mean=(0.5,) * 3, std=(0.3,) * 3), SmallNet(width=16),
    ]  # fmt: skip
    assert len({key(s) for s in specs}) == len(specs)


def test_parameter_counts() -> None:
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    assert count(ResNet20().build()) == 269_722  # He et al. 2016, table 6: 0.27 M
    assert (
        count(ResNet18().build()) == 11_173_962
    )  # torchvision's 11,689,512, less stem and 990 classes


def test_resnet18_halves_after_the_stem() -> None:
    """The stem has stride 1, then the max-pool halves: 32 → 16 at the first stage, 2 at the last."""
    module, seen = ResNet18().build(), {}
    for name in ("conv1", "layer1", "layer4"):
        module.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.__setitem__(name, tuple(out.shape[1:]))
        )
    module(torch.rand(1, 3, 32, 32))
    assert seen == {"conv1": (64, 32, 32), "layer1": (64, 16, 16), "layer4": (512, 2, 2)}


@pytest.mark.parametrize("shortcut", ["append", "split"])
def test_shortcut_pads_where_it_says(shortcut: str) -> None:
    block = ResNet20(shortcut=shortcut).build().get_submodule("stage2.0")  # type: ignore[arg-type]
    nn.init.zeros_(block.get_submodule("second_norm").weight)  # type: ignore[arg-type]
    x = torch.rand(2, 16, 8, 8)
    out = block(x)  # nothing but the shortcut is left
    start = 0 if shortcut == "append" else 8
    assert torch.equal(out[:, start : start + 16], x[:, :, ::2, ::2])
    assert int(out.ne(0).any(dim=(0, 2, 3)).sum()) == 16


def test_normalisation_is_the_first_layer() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    plain, network = ResNet20(), ResNet20(mean=mean, std=std)
    x = inputs(plain)
    normalised = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.equal(network.build()(x), plain.build()(normalised))
    assert network.build().state_dict().keys() == plain.build().state_dict().keys()
    with pytest.raises(UserError, match="normalisation: expected as many positive stds as means"):
        Normalize((0.5,), (0.0,))


@pytest.mark.parametrize(
    "make", [lambda: ResNet20(classes=0), lambda: SmallNet(width=0), lambda: ResNet18(channels=-1)]
)
def test_sizes_below_one(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match="expected a whole number ≥ 1, got"):
        make()


# ---------------------------------------------------------------- checkpoints
def authors_name(ours: str) -> str:
    """The inverse of AUTHORS_NAMES, written out by hand."""
    words = ours.split(".")
    if words[0].startswith("stage"):
        layer = {
            "first": "conv_a",
            "first_norm": "bn_a",
            "second": "conv_b",
            "second_norm": "bn_b",
        }[words[2]]
        return f"stage_{words[0][-1]}.{words[1]}.{layer}.{words[3]}"
    return ".".join(
        [{"stem": "conv_1_3x3", "stem_norm": "bn_1"}.get(words[0], words[0]), *words[1:]]
    )


def store(folder: Path, change: Callable[[dict[str, Tensor]], object] = lambda _: None) -> Path:
    """A file in the authors' format: their names, counters of shape (1,)."""
    weights = trained_looking(ResNet20(seed=5).build()).state_dict()
    theirs = {
        authors_name(n): t.view(1) if n.endswith("tracked") else t for n, t in weights.items()
    }
    change(theirs)
    safetensors.torch.save_file(theirs, folder / "net.safetensors")
    return folder / "net.safetensors"


def test_names_round_trip() -> None:
    ours = list(ResNet20().build().state_dict())
    theirs = [authors_name(name) for name in ours]
    assert len(set(theirs)) == len(ours) == 116
    assert [rename(name, AUTHORS_NAMES) for name in theirs] == ours


def test_checkpoint_with_renamed_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(tmp_path)
    x, wanted = inputs(ResNet20()), trained_looking(ResNet20(seed=5).build())
    assert torch.equal(
        ResNet20(checkpoint=Checkpoint(str(path), AUTHORS_NAMES)).build()(x), wanted(x)
    )
    monkeypatch.setenv("NOISYCHANNEL_WEIGHTS", str(tmp_path))
    assert torch.equal(authors_resnet20("net").build()(x), wanted(x))
    by_name, by_path = authors_resnet20("net"), authors_resnet20(str(path))
    assert canonical(by_name) == canonical(by_path)
    assert str(tmp_path) not in canonical(by_path)
    before = key(by_name)
    store(tmp_path, lambda t: t["classifier.bias"].add_(1))
    assert key(by_name) != before


def test_torch_checkpoint(tmp_path: Path) -> None:
    module = trained_looking(SmallNet().build())
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, tmp_path / "a.pt")
    torch.save(module, tmp_path / "whole.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    x = inputs(SmallNet())
    assert torch.equal(
        SmallNet(checkpoint=Checkpoint(str(tmp_path / "a.pt"))).build()(x), module(x)
    )
    with pytest.raises(
        CheckpointError, match=r"whole.pt holds more than tensors; store module.state_dict\(\)"
    ):
        Checkpoint(str(tmp_path / "whole.pt")).tensors()
    with pytest.raises(CheckpointError, match=r"checkpoint: cannot read .*broken"):
        Checkpoint(str(tmp_path / "broken.safetensors")).tensors()


def test_misfits_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(change: Callable[[dict[str, Tensor]], object], sentence: str) -> None:
        path = store(tmp_path, change)
        with pytest.raises(CheckpointError, match=sentence) as caught:
            authors_resnet20(str(path)).build()
        assert "\n" not in str(caught.value)

    refused(lambda t: t.pop("stage_2.0.conv_a.weight"), r"1 missing \(stage2.0.first.weight\)")
    refused(
        lambda t: t.update({"conv_1_3x3.alpha_w": torch.ones(1)}), r"1 left over \(stem.alpha_w\)"
    )
    refused(
        lambda t: t.update({"classifier.bias": torch.ones(9)}),
        r"classifier.bias \(9,\) instead of \(10,\)",
    )
    refused(
        lambda t: t.clear() or t.update(x=torch.ones(1)), r"97 missing \(.*, …\); 1 left over \(x\)"
    )
    path = store(tmp_path, lambda t: t.update({"conv_1_3x3.alpha_w": torch.ones(1)}))
    ResNet20(checkpoint=Checkpoint(str(path), AUTHORS_NAMES, ignore=(r".*alpha_w$",))).build()
    counters = store(tmp_path, lambda t: [t.pop(n) for n in list(t) if n.endswith("tracked")])
    authors_resnet20(str(counters)).build()
    monkeypatch.delenv("NOISYCHANNEL_WEIGHTS", raising=False)
    with pytest.raises(
        CheckpointError, match=r"\$NOISYCHANNEL_WEIGHTS \(not set\), got 'nowhere'; mend"
    ):
        authors_resnet20("nowhere").build()


# ---------------------------------------------------------------- the prepared copy
def norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in module.modules())


@EVERY
def test_prepared_network_is_the_same_function(network: Network) -> None:
    module = trained_looking(network.build())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    ready, x = prepare(module), inputs(network, n=4).requires_grad_()
    assert norms(ready) == 0
    logits = ready(x), module(x)
    alike(*logits, 1e-4)
    ours, theirs = (torch.autograd.grad(z[:, 0].sum(), x)[0] for z in logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert not any(p.requires_grad for p in ready.parameters())
    assert all(p.requires_grad for p in module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    pickle.loads(pickle.dumps(ready))


class _Shared(nn.Module):
    """The batch norm's input is used twice, and one convolution runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.twice, self.norm2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = self.twice(self.norm(y) + y)
        return self.norm2(self.twice(y)).mean(dim=(2, 3))


class _Branching(nn.Module):
    """Cannot be traced: its path depends on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x if float(x.mean()) > 0 else -x).mean(dim=(2, 3))


class _NoisyWeights(nn.Module):
    """Runs a network with other parameters than its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

    def forward(self, x: Tensor) -> Tensor:
        noisy = {n: p + 0.1 * rng.normal(p) for n, p in self.inner.named_parameters()}
        return torch.func.functional_call(self.inner, noisy, (x,)).mean(dim=(2, 3))


class _OwnConvolution(nn.Conv2d):
    """A surgeon's convolution: folding its weights would change what its noise is added to."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * 1.5, self.bias)


def _hooked() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    module[0].register_forward_hook(lambda _m, _i, out: out.abs())
    return module


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (_Shared, 2),
        (_Branching, 1),
        (_NoisyWeights, 1),
        (_hooked, 1),
        (lambda: nn.Sequential(_OwnConvolution(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten()), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten()), 0),
        (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4),
                               nn.Flatten()), 1),
    ],
)  # fmt: skip
def test_what_must_not_be_folded_is_left_alone(make: Callable[[], nn.Module], left: int) -> None:
    module = make().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean.fill_(0.3)
    ready = prepare(module)
    assert norms(ready) == left
    x = torch.rand(2, 3, 6, 6)
    stream = rng.Stream("scoring", torch.zeros(4, dtype=torch.long))

    def answer(m: nn.Module) -> Tensor:
        with rng.torch_seeded(stream):
            return m(x)

    torch.testing.assert_close(answer(ready), answer(module), rtol=1e-4, atol=1e-4)


def test_preparing_draws_nothing() -> None:
    module = _NoisyWeights().eval()
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    prepare(module)
    assert torch.equal(torch.rand(1), first)


def test_series_network_is_folded() -> None:
    module = trained_looking(
        nn.Sequential(nn.Conv1d(1, 4, 5), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten())
    ).eval()
    x = torch.rand(2, 1, 20)
    assert norms(prepare(module)) == 0
    torch.testing.assert_close(prepare(module)(x), module(x), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- strangers
class Stranger(nn.Module):
    """Somebody's network, with whatever somebody gives it."""

    def __init__(self, **attributes: object) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 5)
        nn.init.constant_(self.linear.weight, 0.1)
        nn.init.zeros_(self.linear.bias)
        for name, value in attributes.items():
            setattr(self, name, value)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class RandomStranger(Stranger):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


class KeyedStranger(Stranger):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(Gauss(0.1)(x))


class Answering(Stranger):
    """Answers what a function makes of its logits."""

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(super().forward(x))


@dataclass(frozen=True)
class Casts:
    """To another dtype."""

    dtype: torch.dtype

    def __call__(self, z: Tensor) -> Tensor:
        return z.to(self.dtype)


SHAPE = (3, 2, 2)


def test_stranger() -> None:
    module = Stranger()
    network = Foreign(module, SHAPE, name="mine")
    x = torch.rand(4, *SHAPE)
    assert isinstance(network, Network)
    assert torch.equal(network.build()(x), module(x))
    assert (network.stochastic, network.keyed) == (False, True)
    module.linear.weight.data.zero_()  # later training of the original is not this part's business
    assert not torch.equal(network.build()(x), module(x))
    network.build().linear.weight.data.zero_()
    assert not torch.equal(network.build()(x), module(x))


def test_stranger_says_whether_it_is_random() -> None:
    assert (
        Foreign(RandomStranger(), SHAPE).stochastic,
        Foreign(RandomStranger(), SHAPE).keyed,
    ) == (True, False)
    assert (Foreign(KeyedStranger(), SHAPE).stochastic, Foreign(KeyedStranger(), SHAPE).keyed) == (
        True,
        True,
    )


class NoisyWeightsStranger(Stranger):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.linear.weight + 0.1 * torch.randn_like(self.linear.weight)
        return nn.functional.linear(x.flatten(1), weight)


@pytest.mark.parametrize(
    ("module", "weights"),
    [
        (Stranger(), "fixed"),
        (RandomStranger(), "fixed"),
        (KeyedStranger(), "fixed"),
        (NoisyWeightsStranger(), "shared"),
        (ParamNet(0.1)(Stranger(), SHAPE), "shared"),
        (PNI()(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), SHAPE), "shared"),
        (ParamNet(0.1, sharing="own")(Stranger(), SHAPE), "fixed"),
    ],
)
def test_a_stranger_s_weights_are_shared_where_a_pass_has_one_draw(
    module: nn.Module, weights: str
) -> None:
    network = Foreign(module.eval(), SHAPE)
    assert network.weights == weights
    # Each can be asked for several draws; those of shared weights pass by pass.
    batch = Batch(torch.rand(3, *SHAPE), torch.zeros(3).long(), torch.arange(3))
    with rng.root("several draws"):
        said = answers(Defense(network), network.build(), batch.x, batch, "scoring", 4).logits
        view = DefenseView(adaptive(Defense(network), draws=3))
        view.query(batch.x, batch, CrossEntropy(), torch.arange(3))
    assert len(said.unique(dim=0)) == (4 if network.stochastic else 1)


def changed_weight() -> Stranger:
    module = Stranger()
    module.linear.bias.data[0] += 1e-6
    return module


def test_fingerprint_is_stable_and_sees_every_change() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = {Foreign(Stranger(), SHAPE, name).fingerprint() for name in ("a", "b")}
        assert len(same) == 1
        others = [
            Foreign(changed_weight(), SHAPE),
            Foreign(Stranger(sigma=0.1), SHAPE),
            Foreign(Stranger(sigma=0.2), SHAPE),
            Foreign(Stranger(when="always", sizes=(1, [2, 3]), limits={"low": None}), SHAPE),
            Foreign(Stranger(table=torch.ones(3)), SHAPE),
            Foreign(Stranger(act=functional.relu), SHAPE),
            Foreign(RandomStranger(), SHAPE),
        ]
        found = {network.fingerprint() for network in others} | same
    assert len(found) == len(others) + 1
    twin = Foreign(Stranger(), SHAPE)
    assert key(pickle.loads(pickle.dumps(twin))) == key(twin)
    assert key(Foreign(Stranger(), SHAPE, "other name")) != key(twin)


def test_fingerprint_reads_what_our_own_surgery_did() -> None:
    def made(sigma: float) -> str:
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 5)).eval()
        altered = RobustNet(GaussLaw(sigma), GaussLaw(sigma))(plain, SHAPE).eval()
        return Foreign(altered, SHAPE).fingerprint()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(0.1) == made(0.1) != made(0.2)


@dataclass(frozen=True)
class Adds:
    """A hook of either kind that adds to what it is shown last."""

    amount: float

    def __call__(self, _layer: nn.Module, *given: object) -> object:
        last = given[-1]
        return (last[0] + self.amount,) if isinstance(last, tuple) else last + self.amount  # type: ignore[operator]


def test_fingerprint_reads_hooks_that_are_what_their_fields_are() -> None:
    def made(amount: float, *, before: bool = False) -> str:
        module = Stranger()
        hang = module.register_forward_pre_hook if before else module.register_forward_hook
        hang(Adds(amount))
        return Foreign(module, SHAPE).fingerprint()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(0.0) == made(0.0)
        # Nothing is added, so that no logit tells them apart.
        assert (
            len({made(0.0), made(0.0, before=True), Foreign(Stranger(), SHAPE).fingerprint()}) == 3
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_logits_of_any_precision_are_attacked_in_single(dtype: torch.dtype) -> None:
    network = Foreign(Answering(answer=Casts(dtype)), SHAPE)
    batch = Batch(torch.rand(4, *SHAPE), torch.zeros(4, dtype=torch.long), torch.arange(4))
    found = PGD(epsilon=0.5, steps=3)(DefenseView(adaptive(Defense(network))), batch)
    assert network.build()(batch.x).dtype == torch.float32
    assert found.x.dtype == torch.float32
    assert not torch.equal(found.x, batch.x)


def test_classes_handed_out_as_whole_numbers_are_logits_without_a_slope() -> None:
    network = Foreign(Answering(answer=Casts(torch.int64)), SHAPE)
    assert network.build()(torch.rand(4, *SHAPE)).dtype == torch.float32
    assert not network.differentiable


def test_fingerprint_does_not_depend_on_threads() -> None:
    threads = torch.get_num_threads()
    first = Foreign(Stranger(), SHAPE).fingerprint()
    try:
        torch.set_num_threads(threads + 1)
        assert Foreign(Stranger(), SHAPE).fingerprint() == first
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


def unreadable() -> Callable[[Tensor], Tensor]:
    factor = torch.tensor(2.0)
    return lambda x: factor * x.flatten(1)[:, :5]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Stranger(engine=object()), r"engine \(object\)"),
        (unreadable, r"function \(function\)"),
        (type("Typed", (Stranger,), {"__module__": "nowhere"}), "the source of Typed"),
        (lambda: _with_hook(Stranger()), "the hooks of linear"),
    ],
    ids=["object", "closure", "no source", "hook"],
)
def test_unreadable_strangers_get_a_nonce(make: Callable[[], nn.Module], what: str) -> None:
    network = Foreign(make(), SHAPE, "odd")
    with pytest.warns(
        UserWarning, match=f"network 'odd': cannot read {what}; its results are not reused"
    ):
        first = network.fingerprint()
    assert network.fingerprint() == first, "one part, one key"
    with pytest.warns(UserWarning, match="cannot read"):
        assert Foreign(make(), SHAPE, "odd").fingerprint() != first


def _with_hook(module: Stranger) -> Stranger:
    module.linear.register_forward_hook(_double)
    return module


def _double(_module: nn.Module, _inputs: object, out: Tensor) -> Tensor:
    return 2 * out


def plain_function(x: Tensor) -> Tensor:
    return x.flatten(1)[:, :5]


def test_a_function_is_a_network() -> None:
    network = Foreign(plain_function, SHAPE)
    x = torch.rand(2, *SHAPE)
    assert torch.equal(network.build()(x), plain_function(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert network.fingerprint() == Foreign(plain_function, SHAPE).fingerprint()


def _half_training() -> nn.Module:
    module = Stranger()
    module.linear.train()
    return module


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Stranger().train(),
            r"expected eval mode, got training mode in the network; call .eval\(\)",
        ),
        (_half_training, "got training mode in linear"),
        (lambda: Answering(answer=lambda z: z * torch.nan), "expected finite logits, got NaN"),
        (
            lambda: Answering(answer=lambda z: z[:, 0]),
            r"expected logits \(16, k\) for 16 examples, got \(16,\)",
        ),
        (lambda: Answering(answer=lambda z: z[:3]), r"got \(3, 5\)"),
        (lambda: Answering(answer=lambda z: {"logits": z}), "got dict"),
    ],
)
def test_the_door(make: Callable[[], nn.Module], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Foreign(make(), SHAPE)


class Averaging(Stranger):
    """Cannot take one example: a variance over the batch has none."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            raise ValueError("expected more than 1 value per channel")
        return super().forward((x - x.mean(dim=0)) / x.std(dim=0))


def test_who_cannot_take_one_example_is_refused() -> None:
    with pytest.raises(
        UserError, match="to take one example alone, got: ValueError: expected more"
    ):
        Foreign(Averaging(), SHAPE)


def _detached(z: Tensor) -> Tensor:
    return z.detach()


def _sign(z: Tensor) -> Tensor:
    return z.sign()


class Refusing(Stranger):
    """Raises, of a kind of its own, where gradients are asked for."""

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            raise NotImplementedError("no gradients here")
        return super().forward(x)


@pytest.mark.parametrize(
    "module", [Answering(answer=_detached), Answering(answer=_sign), Refusing()]
)
@pytest.mark.parametrize(
    "made_of", [lambda n: n, FixedNetwork, lambda n: Operated(n, HalfPrecision())]
)
def test_without_gradients_it_is_let_in_and_refuses_attacks_that_need_them(
    module: nn.Module, made_of: Callable[[Network], Network]
) -> None:
    network = Foreign(module, SHAPE, "blunt")
    has = not isinstance(module, Refusing) and module.answer is _sign  # of gradient 0, but there
    assert network.differentiable == has
    assert Foreign(Stranger(), SHAPE).differentiable
    assert key(network) == key(Foreign(module, SHAPE, "blunt"))
    batch = Batch(torch.rand(3, *SHAPE), torch.zeros(3).long(), torch.arange(3))
    view = DefenseView(adaptive(Defense(made_of(network))))
    assert view.query(batch.x, batch, CrossEntropy(), gradient=False).value.isfinite().all()
    if has:
        assert not view.query(batch.x, batch, CrossEntropy()).gradient.any()
        return
    with pytest.raises(UserError, match=r"network 'blunt': expected gradients .* got none; remove"):
        view.query(batch.x, batch, CrossEntropy())


def test_probabilities_are_warned_about() -> None:
    with pytest.warns(UserWarning, match="expected logits, got what looks like probabilities"):
        Foreign(Answering(answer=_softmax), SHAPE)


def _softmax(z: Tensor) -> Tensor:
    return z.softmax(dim=1)
