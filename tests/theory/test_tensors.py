"""Statistics of layers against numbers written down by hand, and the guides of the paper's section 4.6."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from noisychannel import rng
from noisychannel.defenses import DEFENSES, HalfPrecision, ParamNet, RobustNet, Surgery
from noisychannel.errors import UserError
from noisychannel.measures import layer_statistics
from noisychannel.networks import FCN, ResNet20, SmallNet, prepare
from noisychannel.noise import GaussLaw

COLUMNS = ["name", "position", "input_std", "input_count", "weight_std", "weight_count"]


class Two(nn.Module):
    """Registered in another order than called, and the later one called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.after = nn.Conv2d(2, 2, 1, bias=False)
        self.image = nn.Conv2d(1, 2, 1, bias=False)
        self.idle = nn.Conv2d(1, 1, 1)
        self.image.weight.data.copy_(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1))
        self.after.weight.data.copy_(torch.tensor([[2.0, 0], [0, 2]]).view(2, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(input=self.after(self.image(x)))


def rows(module: nn.Module, x: Tensor) -> list[dict[str, object]]:
    with rng.bracket(rng.Stream("scoring", torch.arange(len(x)))):
        return layer_statistics(module.eval(), x).to_pylist()


def test_by_hand() -> None:
    x = torch.tensor([[1.0, 5], [1, 5]]).view(2, 1, 1, 2)
    table = layer_statistics(Two().eval(), x)
    assert table.column_names == COLUMNS
    image, after = table.to_pylist()
    assert image == {
        "name": "image", "position": 0, "input_std": 2.0, "input_count": 2,
        "weight_std": 1.0, "weight_count": 2,
    }  # fmt: skip
    # Shown (1, 5, 3, 15), then twice that: mean 9, mean square (1 + 25 + 9 + 225)·(1 + 4)/8.
    assert (after["name"], after["position"]) == ("after", 1)
    assert after["input_std"] == pytest.approx((260 * 5 / 8 - 9**2) ** 0.5)
    assert after["input_count"] == 8
    assert (after["weight_std"], after["weight_count"]) == (1.0, 4)


def test_double_precision_far_from_zero() -> None:
    net = nn.Sequential(nn.Conv1d(1, 1, 1, bias=False))
    x = 4096 + torch.tensor([0.0, 1, 2, 3]).view(2, 1, 2) / 1024
    (row,) = rows(net, x)
    assert row["input_std"] == pytest.approx(1.25**0.5 / 1024, rel=1e-9)
    assert (row["weight_std"], row["weight_count"]) == (0, 1)


@pytest.mark.parametrize(
    ("network", "shape"), [(ResNet20(), (3, 12, 12)), (SmallNet(), (1, 8, 8)), (FCN(), (1, 24))]
)  # fmt: skip
def test_whole_networks(network: ResNet20 | SmallNet | FCN, shape: tuple[int, ...]) -> None:
    net, x = network.build(), torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    found = rows(net, x)
    convolutions = [n for n, m in net.named_modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    assert [row["name"] for row in found] == convolutions  # ours register as they call
    assert [row["position"] for row in found] == list(range(len(found)))
    for row in found:
        weight = net.get_parameter(f"{row['name']}.weight").detach().numpy().astype("float64")
        assert row["weight_std"] == pytest.approx(weight.std())
        assert row["weight_count"] == weight.size
    shown = x if isinstance(network, ResNet20 | SmallNet) else functional.pad(x, (0, 1))
    assert found[0]["input_std"] == pytest.approx(shown.numpy().astype("float64").std())
    assert found[0]["input_count"] == shown[0].numel()
    assert not any(vars(m)["_forward_pre_hooks"] for m in net.modules())


def test_second_layers_input_is_what_the_first_made() -> None:
    net, x = SmallNet(width=4).build(), torch.rand(5, 1, 8, 8)
    made = functional.relu(net.get_submodule("norm1")(net.get_submodule("conv1")(x)))
    row = rows(net, x)[1]
    assert row["input_std"] == pytest.approx(made.detach().double().std(correction=0).item())
    assert row["input_count"] == 4 * 8 * 8


@pytest.mark.parametrize("surgery", DEFENSES, ids=repr)
def test_after_surgery(surgery: Surgery) -> None:
    """The image and the stored weights are what they were; later inputs have passed the noise."""
    net, x = SmallNet(width=4).build(), torch.rand(6, 1, 8, 8)
    plain, noisy = rows(net, x), rows(surgery(net, (1, 8, 8)), x)
    for column in ("name", "position", "input_count", "weight_std", "weight_count"):
        assert [r[column] for r in noisy] == [r[column] for r in plain]
    stds = [[r["input_std"] for r in table] for table in (plain, noisy)]
    assert stds[0][0] == pytest.approx(stds[1][0])
    assert stds[0][1:] != stds[1][1:]
    assert rows(prepare(surgery(net, (1, 8, 8))), x)[0]["input_std"] == pytest.approx(stds[0][0])


def test_noise_adds_its_variance_to_the_next_input() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False))
    for layer in net:
        layer.get_parameter("weight").data.fill_(2)
    x = torch.rand(50, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    noisy = rows(RobustNet(GaussLaw(0.3), GaussLaw(0.7))(net, (1, 20, 20)), x)
    want = 2 * (x.double().var().item() + 0.3**2) ** 0.5
    assert noisy[1]["input_std"] == pytest.approx(want, rel=0.02)


def test_the_papers_reasons_hold_on_a_network_of_ours() -> None:
    """4.6: there are more feature elements than weights in early layers, and their stds are larger."""
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    stem, first, *_ = layer_statistics(ResNet20().build(), x).to_pylist()
    for row in (stem, first):
        assert row["input_count"] > row["weight_count"]
        assert row["input_std"] > row["weight_std"]


def test_refusals() -> None:
    x = torch.rand(2, 1, 8, 8)
    with pytest.raises(
        UserError, match="expected a network in eval mode, got one in training mode"
    ):
        layer_statistics(SmallNet().build().train(), x)
    with pytest.raises(UserError, match="calls Conv1d or Conv2d layers, but Flatten calls none"):
        layer_statistics(nn.Flatten().eval(), x)
    net = SmallNet().build()
    with pytest.raises(RuntimeError):
        layer_statistics(net, x[0, 0])
    assert not any(vars(m)["_forward_pre_hooks"] for m in net.modules())
    layer_statistics(HalfPrecision()(ParamNet(0.1)(net, (1, 8, 8)), (1, 8, 8)), x)
