"""The paper authors' ten networks, loaded through our surgery: their recorded accuracies, over whole test sets.

SVHN: only a derived grayscale test set is at hand (26,032 digits, here its 6,139 test ones), not the official one.
"""

import os

import pytest
import torch

from noisychannel.data import DataSpec
from noisychannel.decision import Single
from noisychannel.defenses import Defense, altered
from noisychannel.engine import Execution, Measure, Store, run, serial, table
from noisychannel.interop.authors import authors_network
from noisychannel.report.stats import Estimate, accuracy

pytestmark = pytest.mark.skipif(
    not {"NOISYCHANNEL_DATA", "NOISYCHANNEL_WEIGHTS"} <= set(os.environ),
    reason="needs $NOISYCHANNEL_DATA (cifar10, svhn_gray) and $NOISYCHANNEL_WEIGHTS (the authors' networks)",
)

FIVE = ("plain", "advtrain", "pni-w-adv")
CIFAR = [f"cifar10-resnet20-{n}" for n in (*FIVE, "robustnet-0.2-0.1", "robustnetadv-0.1-0.1")]
SVHN = [f"svhn-resnet20-{n}" for n in (*FIVE, "robustnet-0.08-0.07", "robustnetadv-0.08-0.07")]


def measured(name: str, data: DataSpec, draws: int, store: Store) -> Estimate:
    how = Execution(threads=1, micro_batch=250)
    task = Measure(data, Defense(authors_network(name)), draws=draws, execution=how)
    run([task], store, serial, lambda _whole, _todo: lambda _passes: None)
    return accuracy(table(store, task), Single())


@pytest.mark.parametrize("name", [*CIFAR, *SVHN])
def test_every_tensor_finds_its_place(name: str) -> None:
    network = authors_network(name)
    module = network.build()  # refuses tensors that are missing or left over
    learnt = [p for n, p in module.named_parameters() if n.endswith("alpha_w")]
    assert len(learnt) == (20 if "pni" in name else 0)
    assert (
        len(list(altered(module)))
        == {True: 20, False: 19 if "robust" in name else 0}["pni" in name]
    )
    assert network.stochastic == ("pni" in name or "robust" in name)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("cifar10-resnet20-robustnet-0.2-0.1", 80.45),
        ("cifar10-resnet20-robustnetadv-0.1-0.1", 84.14),
        ("cifar10-resnet20-pni-w-adv", 83.84),
    ],
)
def test_random_networks_over_all_of_cifar10(
    name: str,
    recorded: float,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = measured(name, DataSpec("cifar10"), 10, Store(tmp_path_factory.mktemp("runs")))
    with capsys.disabled():
        print(f"\n{name}: {found.percent} over 10 draws of 10,000 images, recorded {recorded}")
    assert abs(100 * found.value - recorded) <= 0.6


# Measured 2026-11-22: 89.2, 89.6 and 89.7 %. Grey digits cut anew are another set than the official one.
_BELOW = pytest.mark.xfail(strict=True, reason="below 90 % on derived digits: docs/reproduction.md")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "name", [n if "adv" not in n else pytest.param(n, marks=_BELOW) for n in SVHN]
)
def test_svhn_networks_on_derived_digits(
    name: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    draws = 3 if authors_network(name).stochastic else 1
    data = DataSpec("svhn_gray", "test")
    found = measured(name, data, draws, Store(tmp_path_factory.mktemp("runs")))
    with capsys.disabled():
        print(f"\n{name}: {found.percent} over {draws} draws of {found.n} derived digits")
    assert 0.90 <= found.value <= 0.94


def test_a_random_network_s_draws_are_its_own() -> None:
    batch = DataSpec("cifar10", subset="first:8").load()
    module = authors_network("cifar10-resnet20-robustnet-0.2-0.1").build()
    with torch.no_grad():
        assert not torch.equal(module(batch.x), module(batch.x))
