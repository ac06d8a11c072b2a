"""VGG-16, ResNet-50 and FCN against formulas and published numbers, and weights from the hub."""

import copy
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants  # not an attribute of the package until it is imported
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from noisychannel.errors import CheckpointError, UserError
from noisychannel.networks import (
    FCN,
    NETWORKS,
    VGG16,
    Checkpoint,
    Foreign,
    ResNet18,
    ResNet20,
    ResNet50,
    SmallNet,
    hub,
    imagenet_resnet50,
    prepare,
)
from noisychannel.spec import canonical, key

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
VGG_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
Asked = list[tuple[str, str, str | None]]
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def convolved(before: int, after: int, taps: int) -> int:
    """Numbers of a convolution with bias and its batch norm."""
    return before * after * taps + after + 2 * after


def seeded(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def answers(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return module(x)


def trained_looking(module: nn.Module) -> nn.Module:
    """Batch norms with statistics and weights that are not the initial ones."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if ("bn" in name or "norm" in name) and tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return module


# ---------------------------------------------------------------- every architecture
def test_shapes_for_probes() -> None:
    found = {type(n).__name__: n.shape for n in NETWORKS}  # type: ignore[attr-defined]
    assert found == {
        "SmallNet": (1, 8, 8),
        "ResNet20": (3, 32, 32),
        "ResNet18": (3, 32, 32),
        "ResNet50": (3, 224, 224),
        "VGG16": (3, 32, 32),
        "FCN": (1, 140),
    }
    assert [n(channels=2).shape[0] for n in (SmallNet, ResNet20, ResNet18, VGG16, FCN)] == [2] * 5
    assert FCN(length=96).shape == (1, 96)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: VGG16(classes=0), "classes"),
        (lambda: VGG16(channels=0), "channels"),
        (lambda: ResNet50(classes=-1), "classes"),
        (lambda: FCN(classes=0), "classes"),
        (lambda: FCN(channels=0), "channels"),
        (lambda: FCN(length=0), "length"),
    ],
)
def test_sizes_below_one(make: Callable[[], object], name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: expected a whole number ≥ 1, got"):
        make()


@pytest.mark.parametrize("make", [VGG16, ResNet50, FCN])
def test_normalisation_that_cannot_be(make: Callable[..., FCN]) -> None:
    with pytest.raises(UserError, match="normalisation: expected as many positive stds as means"):
        make(mean=(0.5,), std=(0.0,)).build()


# ---------------------------------------------------------------- VGG-16
def test_vgg_names_and_sizes() -> None:
    module = VGG16().build()
    pairs = list(zip((3, *VGG_WIDTHS), VGG_WIDTHS, strict=False))
    wanted = sum(convolved(before, after, 9) for before, after in pairs) + 512 * 10 + 10
    assert count(module) == wanted == 14_728_266
    assert count(VGG16(classes=7, channels=1).build()) == wanted - 3 * 513 - 2 * 64 * 9
    places = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)  # torchvision's vgg16_bn
    names = [
        f"features.{place + step}.{tensor}"
        for place in places
        for step, tensors in ((0, NORM[:2]), (1, NORM))
        for tensor in tensors
    ]
    assert list(module.state_dict()) == [*names, "classifier.weight", "classifier.bias"]
    assert answers(module, seeded(2, 3, 32, 32)).shape == (2, 10)
    assert answers(module.get_submodule("features"), seeded(2, 3, 32, 32)).shape == (2, 512, 1, 1)


def test_vgg_starts_from_the_authors_normal_laws() -> None:
    """Means and standard deviations within 5 standard errors of N(0, .02²) and N(1, .02²)."""
    for name, tensor in VGG16(seed=3).build().named_parameters():
        if name.endswith("bias"):
            assert not tensor.any(), name
            continue
        centre, n = float(tensor.ndim == 1), tensor.numel()
        assert abs(tensor.mean().item() - centre) < 5 * 0.02 / math.sqrt(n), name
        assert abs(tensor.std().item() - 0.02) < 5 * 0.02 / math.sqrt(2 * n), name


# ---------------------------------------------------------------- ResNet-50
def resnet50_names() -> list[str]:
    """torchvision's and timm's names, in their order."""
    layers = [("conv1", "bn1")]
    for stage, (_, blocks) in enumerate(STAGES, start=1):
        for block in range(blocks):
            pairs = [("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")]
            pairs += [("downsample.0", "downsample.1")] if block == 0 else []
            layers += [tuple(f"layer{stage}.{block}.{n}" for n in pair) for pair in pairs]
    names = [n for conv, norm in layers for n in (f"{conv}.weight", *(f"{norm}.{t}" for t in NORM))]
    return [*names, "fc.weight", "fc.bias"]


def resnet50_by_hand(t: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network as a formula of its tensors."""

    def step(x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        weight = t[f"{conv}.weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, scale, shift = (
            t[f"{norm}.{n}"].view(-1, 1, 1) for n in (NORM[2], NORM[3], *NORM[:2])
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1).to(x)
    x = (x - mean) / std
    x = functional.max_pool2d(step(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    for stage, (_, blocks) in enumerate(STAGES, start=1):
        for block in range(blocks):
            at, stride = f"layer{stage}.{block}.", 2 if block == 0 and stage > 1 else 1
            y = step(x, f"{at}conv1", f"{at}bn1").relu()
            y = step(y, f"{at}conv2", f"{at}bn2", stride).relu()  # v1.5: the stride is here
            y = step(y, f"{at}conv3", f"{at}bn3")
            if block == 0:
                x = step(x, f"{at}downsample.0", f"{at}downsample.1", stride)
            x = (x + y).relu()
    return x.mean(dim=(2, 3)) @ t["fc.weight"].T + t["fc.bias"]


@pytest.fixture(scope="module")
def resnet50() -> nn.Module:
    """It takes a second to make; leave it as it is."""
    return trained_looking(ResNet50(seed=5).build())


def test_resnet50_names_sizes_and_formula(resnet50: nn.Module) -> None:
    assert count(resnet50) == 25_557_032  # torchvision's documentation
    names = resnet50_names()
    assert list(resnet50.state_dict()) == names
    assert len(names) == 53 * 6 + 2
    module, x = copy.deepcopy(resnet50).double(), seeded(2, 3, 64, 64).double()
    torch.testing.assert_close(answers(module, x), resnet50_by_hand(module.state_dict(), x))


def test_resnet50_halves_five_times(resnet50: nn.Module) -> None:
    seen: dict[str, tuple[int, ...]] = {}
    hooks = [
        resnet50.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.__setitem__(name, tuple(out.shape[1:]))
        )
        for name in ("conv1", "layer1", "layer2.0.conv1", "layer2.0.conv2", "layer4", "fc")
    ]
    answers(resnet50, seeded(1, *ResNet50().shape))
    for hook in hooks:
        hook.remove()
    assert seen == {
        "conv1": (64, 112, 112),
        "layer1": (256, 56, 56),
        "layer2.0.conv1": (128, 56, 56),
        "layer2.0.conv2": (128, 28, 28),
        "layer4": (2048, 7, 7),
        "fc": (1000,),
    }


# ---------------------------------------------------------------- FCN
@pytest.mark.parametrize(("channels", "classes"), [(1, 5), (3, 2)])
def test_fcn_names_and_sizes(channels: int, classes: int) -> None:
    module = FCN(classes, channels).build()
    convolutions = convolved(channels, 128, 8) + convolved(128, 256, 5) + convolved(256, 128, 3)
    assert count(module) == convolutions + 128 * classes + classes
    names = [
        f"{layer}{i}.{tensor}"
        for i in (1, 2, 3)
        for layer, tensors in (("conv", NORM[:2]), ("norm", NORM))
        for tensor in tensors
    ]
    assert list(module.state_dict()) == [*names, "classifier.weight", "classifier.bias"]


@pytest.mark.parametrize("length", [1, 2, 7, 24, 140])
def test_fcn_keeps_any_length(length: int) -> None:
    module, seen = trained_looking(FCN(channels=2).build()), []
    for name in ("norm1", "norm2", "norm3"):
        module.get_submodule(name).register_forward_hook(
            lambda _m, _i, out: seen.append(tuple(out.shape))
        )
    x = seeded(4, 2, length)
    logits = answers(module, x)
    assert logits.shape == (4, 5)
    assert seen == [(4, 128, length), (4, 256, length), (4, 128, length)]
    alone = torch.cat([answers(module, x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(alone, logits)
    torch.testing.assert_close(answers(prepare(module), x), logits, rtol=1e-4, atol=1e-4)


def test_fcn_pads_as_torch_pads_to_the_same_length() -> None:
    mean, std, x = (0.4, 0.6), (0.2, 0.3), seeded(3, 2, 20)
    module, seen = FCN(channels=2, mean=mean, std=std).build(), []
    conv = module.get_submodule("conv1")
    conv.register_forward_hook(lambda _m, _i, out: seen.append(out))
    answers(module, x)
    z = (x - torch.tensor(mean).view(2, 1)) / torch.tensor(std).view(2, 1)
    weight, bias = conv.weight, conv.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch's, once in a process: it makes a copy, which is why we pad
        wanted = functional.conv1d(z, weight, bias, padding="same")
    torch.testing.assert_close(seen[0], wanted.detach())


def test_fcn_stands_where_a_stranger_may() -> None:
    """Its probe shape is an input it takes, and none of its answers are random."""
    network = Foreign(FCN().build(), FCN().shape)
    assert not network.stochastic


# ---------------------------------------------------------------- the hub
@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """A hub in `tmp_path`; what was asked of it."""
    asked: Asked = []

    def download(repo: str, file: str, *, revision: str | None = None) -> str:
        asked.append((repo, file, revision))
        return str(tmp_path / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    hub._fetch.cache_clear()
    yield asked
    hub._fetch.cache_clear()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hub:timm/resnet50.tv_in1k", ("timm/resnet50.tv_in1k", None, "model.safetensors")),
        ("hub:me/net@v1.0", ("me/net", "v1.0", "model.safetensors")),
        ("hub:me/net/a/b.safetensors", ("me/net", None, "a/b.safetensors")),
        ("hub:me/net@0f3c/b.safetensors", ("me/net", "0f3c", "b.safetensors")),
    ],
)
def test_hub_names(name: str, parts: tuple[str, str | None, str]) -> None:
    assert hub.parse(name) == parts


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hub:me", r"expected hub:owner/repo\[@revision\]\[/file.safetensors\], got 'hub:me'; write"),
        ("hub:me/net@", r"expected hub:owner/repo.*got 'hub:me/net@'"),
        ("hub:", r"expected hub:owner/repo.*got 'hub:'"),
        ("hub:me/net/pytorch_model.bin", r"expected a .safetensors file .*got 'pytorch_model.bin' in .*; name a"),
        ("hub:me/net/model.pt", r"expected a .safetensors file .*got 'model.pt'"),
        ("hub:me/net/../x.safetensors", r"expected a .safetensors file .*got '\.\./x.safetensors'"),
    ],
)  # fmt: skip
def test_hub_names_refused(name: str, sentence: str, downloads: Asked) -> None:
    with pytest.raises(CheckpointError, match=f"checkpoint: {sentence}"):
        Checkpoint(name).path()
    assert not downloads


def test_weights_from_the_hub(tmp_path: Path, downloads: Asked) -> None:
    wanted = trained_looking(SmallNet(seed=5).build())
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(wanted.state_dict(), path)
    network = SmallNet(checkpoint=Checkpoint("hub:me/net@v1/net.safetensors"))
    x = seeded(2, *network.shape)
    assert torch.equal(answers(network.build(), x), answers(wanted, x))
    local = SmallNet(checkpoint=Checkpoint(str(path)))
    assert key(network) == key(local), "the bytes speak, wherever they came from"
    assert "hub:" not in canonical(network)
    assert downloads == [("me/net", "net.safetensors", "v1")], "one process asks once"


def test_imagenet_resnet50_reads_the_common_names(
    tmp_path: Path, downloads: Asked, resnet50: nn.Module
) -> None:
    tensors = {n: t for n, t in resnet50.state_dict().items() if not n.endswith(NORM[-1])}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    network = imagenet_resnet50()
    x = seeded(2, 3, 32, 32)
    assert torch.equal(answers(network.build(), x), answers(resnet50, x))
    assert downloads == [("timm/resnet50.tv_in1k", "model.safetensors", None)]


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # as HF_HUB_OFFLINE=1
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    sentence = (
        r"checkpoint: expected to get 'model.safetensors' of 'me/absent' at 'v1' from the Hugging Face "
        r"hub, got LocalEntryNotFoundError: .*; check the name and the network, set HF_HOME .* local file"
    )
    with pytest.raises(CheckpointError, match=sentence) as caught:
        SmallNet(checkpoint=Checkpoint("hub:me/absent@v1")).build()
    assert "\n" not in str(caught.value)
    cached = tmp_path / "models--me--kept"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    snapshot = cached / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    wanted = SmallNet(seed=5).build()
    safetensors.torch.save_file(wanted.state_dict(), snapshot / "model.safetensors")
    found = SmallNet(checkpoint=Checkpoint("hub:me/kept")).build()
    x = seeded(2, 1, 8, 8)
    assert torch.equal(answers(found, x), answers(wanted, x)), "the cache needs no network"
    hub._fetch.cache_clear()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        CheckpointError, match=r"huggingface_hub to get 'me/no', got none; pip install 'noisych"
    ):
        Checkpoint("hub:me/no").path()
