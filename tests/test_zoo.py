"""The zoo: every preset is what its figure says, trains by one command, and its card tells the truth."""

import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from noisychannel import rng, zoo
from noisychannel.channels import CD, Identity
from noisychannel.cli import main
from noisychannel.data import DataSpec, series_range
from noisychannel.defenses import Defense, Operated, RobustNet, altered, answers
from noisychannel.errors import UserError
from noisychannel.networks import FCN, Checkpoint, Foreign, SmallNet
from noisychannel.noise import GaussLaw, UniformLaw
from noisychannel.spec import key
from noisychannel.training import Steps
from noisychannel.zoo import resolve

LIGHT = [p for p in zoo.PRESETS if p.name.startswith(("digits", "ecg5000", "svhn"))]
SHIPPED = [p for p in zoo.PRESETS if zoo.has_weights(p.name)]


def test_names_and_networks_are_told_apart() -> None:
    names = [p.name for p in zoo.PRESETS]
    assert len(set(names)) == len(names)
    assert all(not p.start or zoo.preset(p.start).data == p.data for p in zoo.PRESETS)
    made = [key((p.network, p.recipe, p.data, p.start)) for p in zoo.PRESETS]
    twins = [n for n, m in zip(names, made, strict=True) if made.count(m) > 1]
    assert twins == [
        "cifar10/resnet18-bandlimited-50",
        "cifar10/resnet18-fft-50",
    ]  # two figures' name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar10/robustnet", "sigma=0.2.*sigma=0.1"),
        ("svhn/robustnetadv", "sigma=0.08.*sigma=0.07"),
        ("cifar10/robustnet-uniform", "bound=0.35.*bound=0.3"),
        ("cifar10/robustnet-laplace", "scale=0.15.*scale=0.1"),
        ("cifar10/vgg16-paramnet-0.07", "VGG16.*ParamNet.sigma=0.07"),
        (
            "cifar10/vgg16-robustnet-authors-0.2-0.0",
            "init=GaussLaw.sigma=0.2.*inner=None.*init_at=1",
        ),
        ("cifar10/vgg16-bandlimited-80", "compression=80"),
        ("ecg5000/robustnet-0.06-0.05", "FCN.*sigma=0.06.*sigma=0.05"),
    ],
)
def test_strengths_are_those_of_the_figures(name: str, words: str) -> None:
    assert re.search(words, repr(zoo.preset(name).network))


def test_recipes_are_the_authors() -> None:
    plain, adversarial = zoo.preset("cifar10/plain").recipe, zoo.preset("cifar10/advtrain").recipe
    assert (plain.epochs, plain.batch_size, plain.learning_rate, plain.weight_decay) == (
        160,
        128,
        0.1,
        3e-4,
    )
    how = adversarial.adversarial
    assert how is not None
    assert (how.steps, how.epsilon, how.step_size, how.start_epoch, how.mix) == (
        7,
        0.031,
        0.01,
        5,
        0.5,
    )
    assert all(p.recipe.keep == "last" or p.recipe.validation > 0 for p in zoo.PRESETS)


def test_a_network_is_scored_behind_the_channel_it_was_trained_with() -> None:
    chosen = zoo.preset("cifar10/resnet18-cd-32")
    assert zoo.clean_measure(zoo.train(chosen), chosen).defense.channel == CD(values=32)
    plain = zoo.preset("cifar10/plain")
    assert zoo.clean_measure(zoo.train(plain), plain).defense.channel == Identity()


def test_the_ecg_network_undoes_the_map_to_the_unit_interval() -> None:
    if not (root := os.environ.get("NOISYCHANNEL_DATA")) or not (Path(root) / "ucr").is_dir():
        pytest.skip("NOISYCHANNEL_DATA has no ucr")
    network, raw = zoo.preset("ecg5000/plain").network, series_range("ucr/ECG5000")
    assert isinstance(network, FCN)
    assert network.mean == pytest.approx((-raw.low / (raw.high - raw.low),), abs=1e-5)
    assert network.std == pytest.approx((1 / (raw.high - raw.low),), abs=1e-6)


@pytest.mark.parametrize("chosen", LIGHT, ids=lambda p: p.name)
def test_networks_build_and_answer(chosen: zoo.Preset) -> None:
    module = chosen.network.build()
    with torch.no_grad():
        assert module(torch.full((2, *chosen.network.shape), 0.5)).shape[0] == 2
    if isinstance(chosen.network, Operated):
        assert list(altered(module))


@pytest.mark.slow
@pytest.mark.parametrize("chosen", zoo.PRESETS, ids=lambda p: p.name)
def test_every_network_builds(chosen: zoo.Preset) -> None:
    with torch.no_grad():
        logits = chosen.network.build()(torch.full((2, *chosen.network.shape), 0.5))
    assert bool(logits.isfinite().all())


def test_train_makes_weights_and_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(store: str, output: str) -> None:
        words = f"train --preset digits/robustnet --epochs 2 --threads 1 --output {output} --store {store}"
        monkeypatch.setattr("sys.argv", ["noisychannel", *words.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, capsys.readouterr().err

    monkeypatch.chdir(tmp_path)
    call("one", "zoo")
    assert re.search(r"digits/robustnet: clean accuracy \d+\.\d %", capsys.readouterr().out)
    folder = tmp_path / "zoo/digits/robustnet"
    facts = json.loads((folder / "card.json").read_text("utf-8"))
    weights = (folder / "weights.safetensors").read_bytes()
    assert facts["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert (facts["recipe"]["epochs"], facts["seed"], len(facts["history"])) == (2, 0, 2)
    assert facts["machine"]["torch"] == torch.__version__
    page = (folder / "README.md").read_text("utf-8")
    assert f"{100 * facts['clean_accuracy']['value']:.1f} %" in page
    assert "--epochs 2" in page
    assert list((tmp_path / "one/logs").rglob("events.out.tfevents*"))

    with pytest.raises(
        UserError, match=r"output: expected an empty folder .* holds another training"
    ):
        zoo.check_place(folder, zoo.train(zoo.preset("digits/plain")))

    call("two", "again")  # from nothing: the same bytes
    assert (tmp_path / "again/digits/robustnet/weights.safetensors").read_bytes() == weights

    monkeypatch.setattr(resolve, "shelf", lambda: tmp_path / "zoo")
    network = zoo.network("digits/robustnet")
    assert key(zoo.network("again/digits/robustnet")) == key(network)  # a folder, by its path
    assert _rate(Defense(network), DataSpec("digits", "test"), 10) == pytest.approx(
        facts["clean_accuracy"]["value"], abs=0.02
    )

    (folder / "weights.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(
        UserError, match=r"expected the weights that .*card.json speaks of, got oth"
    ):
        zoo.network("digits/robustnet")
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "card.json").write_text(
        json.dumps(facts | {"network": {"type": "networks.vgg.VGG16"}})
    )
    with pytest.raises(
        UserError, match=r"the network of preset digits/robustnet as it is now, got an"
    ):
        zoo.network("digits/robustnet")
    for text in ("", "[1]", '{"name": "digits/plain"}'):
        (folder / "card.json").write_text(text)
        with pytest.raises(
            UserError, match="expected a model card with name, network and weights_sha"
        ):
            zoo.network("digits/robustnet")
    (folder / "card.json").unlink()
    task = zoo.train(zoo.preset("digits/robustnet"))
    with pytest.raises(UserError, match=r"output: expected an empty .* \(weights without a card\)"):
        zoo.check_place(folder, task)
    (folder / "weights.safetensors").unlink()
    zoo.check_place(folder, task)
    (folder / "weights.safetensors").mkdir()
    with pytest.raises(UserError, match=r"output: expected no folder at .*weights.safetensors"):
        zoo.check_place(folder, task)


def test_a_shorter_trial_keeps_the_proportions() -> None:
    shorter = zoo.shorter(zoo.preset("cifar10/advtrain"), 16).recipe
    whole = zoo.preset("cifar10/advtrain").recipe
    assert whole.adversarial is not None
    assert shorter == replace(
        whole,
        epochs=16,
        schedule=Steps((8, 12)),
        adversarial=replace(whole.adversarial, start_epoch=0),
    )
    assert (whole.schedule, whole.adversarial.start_epoch) == (Steps((80, 120)), 5)
    for preset in zoo.PRESETS:  # none is refused, however short
        assert zoo.shorter(preset, 1).recipe.epochs == 1
        assert zoo.shorter(preset, preset.recipe.epochs) == preset


def test_weights_only_for_networks_of_ours(tmp_path: Path) -> None:
    assert zoo.with_weights(SmallNet(), tmp_path / "w") == replace(
        SmallNet(), checkpoint=Checkpoint(str(tmp_path / "w"))
    )
    stranger = Foreign(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), (1, 8, 8))
    with pytest.raises(UserError, match="weights: expected a network of ours, got Foreign"):
        zoo.with_weights(stranger, tmp_path)


@pytest.mark.parametrize("chosen", SHIPPED, ids=lambda p: p.name)
def test_what_comes_trained_is_what_its_card_says(chosen: zoo.Preset) -> None:
    folder = zoo.shelf() / chosen.name
    facts = json.loads((folder / "card.json").read_text("utf-8"))
    weights = (folder / "weights.safetensors").read_bytes()
    assert facts["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert facts["recipe"]["epochs"] == chosen.recipe.epochs
    if not (root := os.environ.get("NOISYCHANNEL_DATA")):
        pytest.skip("NOISYCHANNEL_DATA is not set: no data to ask it about")
    if not (Path(root) / chosen.data.partition("/")[0]).is_dir():
        pytest.skip(f"no {chosen.data} in NOISYCHANNEL_DATA")
    rate = _rate(Defense(zoo.network(chosen.name)), DataSpec(chosen.data, "test", "first:400"), 1)
    # Four standard errors of 400 examples around what the card says of all.
    assert rate == pytest.approx(facts["clean_accuracy"]["value"], abs=4 * 0.5 / 20)


def test_the_shelf_fits_the_promise() -> None:
    files = list(zoo.shelf().rglob("*")) if zoo.shelf().is_dir() else []
    assert sum(f.stat().st_size for f in files if f.is_file()) <= 20e6


def test_noise_laws_of_the_two_figure_11_networks_are_not_the_authors_quirk() -> None:
    ours, theirs = (
        zoo.preset(f"cifar10/robustnet-uniform{tail}").network for tail in ("", "-authors")
    )
    assert isinstance(ours, Operated)
    assert isinstance(theirs, Operated)
    assert ours.surgery == RobustNet(UniformLaw(0.35), UniformLaw(0.3))
    laws = [str(layer.effect) for _, layer in altered(theirs.build())]
    assert sum(str(GaussLaw(0.1)) in law for law in laws) == 6


def _rate(defense: Defense, data: DataSpec, draws: int) -> float:
    batch = data.load()
    network = defense.network.build()
    with rng.root("test of the zoo"):
        logits = answers(defense, network, batch.x, batch, "scoring", draws).logits
    return float((logits.argmax(dim=2) == batch.y).float().mean())
