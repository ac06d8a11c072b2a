"""Laws that every member of DEFENSES keeps on every network, and liars that break them."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import fakes_defenses as fakes
from noisychannel import rng
from noisychannel.defenses import (
    AUTHORS_FIRST_BLOCKS,
    DEFENSES,
    PNI,
    BandLimited,
    Defense,
    HalfPrecision,
    Operated,
    ParamNet,
    RobustNet,
    Surgery,
    altered,
    answers,
    learnt_scales,
    sites_of,
)
from noisychannel.defenses.layers import CONVOLUTIONS, LAYERS
from noisychannel.errors import UserError
from noisychannel.networks import FCN, Checkpoint, ResNet20, SmallNet, prepare
from noisychannel.noise import UniformLaw
from noisychannel.spec import key
from noisychannel.types import Batch, Network

INDEX = torch.tensor([3, 14, 15, 92, 65])
SMALL = SmallNet(channels=3, width=4)
SHAPES: dict[Network, tuple[int, ...]] = {
    SMALL: (3, 9, 8),
    ResNet20(): (3, 12, 12),
    FCN(): (1, 14),
}
EVERY = pytest.mark.parametrize("surgery", DEFENSES, ids=repr)


# ---------------------------------------------------------------- subjects


def fresh(network: Network, seed: int = 0) -> nn.Module:
    """A network in eval mode whose batch norms have seen something."""
    module = replace(network, seed=seed).build()  # type: ignore[type-var]
    stir = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low in (
                (layer.weight, 0.5), (layer.bias, -0.5),
                (layer.running_mean, -0.5), (layer.running_var, 0.5),
            ):  # fmt: skip
                assert tensor is not None
                tensor.data.copy_(torch.rand(tensor.shape, generator=stir) + low)
    return module


@lru_cache
def original(network: Network) -> nn.Module:
    return fresh(network)


@lru_cache
def operated(surgery: Surgery, network: Network) -> nn.Module:
    """After surgery; shared by the laws, which work on a copy where they change it."""
    return surgery(original(network), SHAPES[network])


def examples(network: Network, dtype: torch.dtype = torch.float32) -> Tensor:
    stream = rng.Stream("attack", INDEX, part="examples")
    return rng.uniform(torch.empty(len(INDEX), *SHAPES[network], dtype=dtype), stream)


def logits(module: nn.Module, x: Tensor, index: Tensor = INDEX, **stream: Any) -> Tensor:
    with torch.no_grad(), rng.bracket(rng.Stream("scoring", index, **stream)):
        return module(x)


def assert_close(surgery: Surgery, got: Tensor, want: Tensor) -> None:
    """But for the last bits, which differ with the batch's size: rounding to 16 bits may turn over."""
    error = 2.0**-9 if isinstance(surgery, HalfPrecision) else 1e-5
    scale = float(want.abs().max().clamp_min(1))
    torch.testing.assert_close(got, want, rtol=0, atol=error * scale)


# ---------------------------------------------------------------- laws


def keeps_names_and_values(surgery: Surgery, network: Network) -> None:
    before = original(network).state_dict()
    module = operated(surgery, network)
    after = module.state_dict()
    assert [name for name in after if name in before] == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert set(after) - set(before) == learnt_scales(module)
    assert {n for n, _ in module.named_parameters()} - learnt_scales(module) == {
        n for n, _ in original(network).named_parameters()
    }


def leaves_the_network_alone(surgery: Surgery, network: Network) -> None:
    module = fresh(network).train()
    norm = next(m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d))
    norm.eval()
    parts = {n: (m, m.training) for n, m in module.named_modules()}
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    values, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    after = surgery(module, SHAPES[network])
    assert torch.equal(torch.get_rng_state(), state)
    assert {n: m.training for n, m in after.named_modules()} == {
        n: t for n, (_, t) in parts.items()
    }
    for tensor in after.state_dict().values():
        tensor.zero_()
    assert all((m, m.training) == parts[n] for n, m in module.named_modules())
    now = dict(module.named_parameters()) | dict(module.named_buffers())
    assert all(now[n] is t for n, t in tensors.items())
    assert all(torch.equal(t, values[n]) for n, t in module.state_dict().items())
    assert not any(vars(m)["_forward_hooks"] for m in module.modules())


def has_the_identity_it_declares(surgery: Surgery, network: Network) -> None:
    plain, identity = logits(original(network), examples(network)), surgery.identity()
    if identity is None:
        assert not torch.equal(logits(operated(surgery, network), examples(network)), plain)
        return
    got = logits(operated(identity, network), examples(network))
    if isinstance(surgery, BandLimited):  # as its docstring says, not bit for bit
        torch.testing.assert_close(got, plain, rtol=0, atol=1e-4)
    else:
        assert torch.equal(got, plain)


def travels(surgery: Surgery, network: Network) -> None:
    module, x = operated(surgery, network), examples(network)
    want = logits(module, x)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(logits(twin, x), want)
        assert learnt_scales(twin) == learnt_scales(module)
        for tensor in twin.state_dict().values():
            tensor.zero_()
        assert not torch.equal(logits(twin, x), want)
    assert torch.equal(logits(module, x), want)


def computes_with_the_state_it_shows(surgery: Surgery, network: Network) -> None:
    other = surgery(fresh(network, seed=1), SHAPES[network])
    module = copy.deepcopy(operated(surgery, network))
    module.load_state_dict(other.state_dict())
    assert torch.equal(logits(module, examples(network)), logits(other, examples(network)))


def answers_the_stream(surgery: Surgery, network: Network) -> None:
    module, x = operated(surgery, network), examples(network)
    first = logits(module, x)
    torch.rand(1)  # what else was drawn in the process must not matter
    assert torch.equal(logits(module, x), first)


def is_as_random_as_it_says(surgery: Surgery, network: Network) -> None:
    module, x = operated(surgery, network), examples(network)
    same = torch.equal(logits(module, x), logits(module, x, step=1))
    assert same is not surgery.stochastic


def is_random_when_it_says(surgery: Surgery, network: Network) -> None:
    if not hasattr(surgery, "when"):
        return
    for when, modes in {"always": (True, False), "train": (True,), "test": (False,)}.items():
        at: Surgery = replace(surgery, when=when)  # type: ignore[type-var]
        assert at.stochastic is (False in modes)
        assert (at.weights == surgery.weights) if at.stochastic else (at.weights == "fixed")
        for training in (True, False):
            module = copy.deepcopy(operated(at, network)).train(training)
            if training and training in modes and at == ParamNet(sharing="own", when=when):
                with pytest.raises(UserError, match="expected eval mode for weight noise of each"):
                    logits(module, examples(network))
                continue
            first = logits(module, examples(network))
            same = torch.equal(first, logits(module, examples(network), step=1))
            assert same is (training not in modes), f"{when}, training: {training}"
            plain = copy.deepcopy(original(network)).train(training)
            assert torch.equal(first, logits(plain, examples(network))) is (training not in modes)


def ignores_batch_mates(surgery: Surgery, network: Network) -> None:
    """With weights shared by a pass too: one draw is one network, whatever batch it is shown."""
    module, x, some = operated(surgery, network), examples(network), torch.tensor([3, 1])
    assert_close(surgery, logits(module, x[some], INDEX[some]), logits(module, x)[some])


def numbers_its_draws(surgery: Surgery, network: Network) -> None:
    module, x = operated(surgery, network), examples(network)
    twice = x.repeat(2, *[1] * (x.ndim - 1))
    if surgery.weights == "shared":
        with pytest.raises(ValueError, match="shared by a pass was asked for 2 draws at once"):
            logits(module, twice, draws=range(2))
        return
    both = logits(module, twice, draws=range(2)).chunk(2)
    for draw in range(2):
        assert_close(surgery, logits(module, x, draws=range(draw, draw + 1)), both[draw])


def shares_its_noise_as_it_says(surgery: Surgery, network: Network) -> None:
    """Equal examples have equal answers where their noise is one and the same, and only there."""
    module = operated(surgery, network)
    equal = examples(network)[:1].repeat(len(INDEX), *[1] * (len(SHAPES[network])))
    said = logits(module, equal)
    spread = (said[1:] - said[:1]).abs().amax(dim=1)
    if surgery.weights == "shared" or not surgery.stochastic:
        assert_close(surgery, said, said[:1].expand_as(said))
        assert_close(surgery, logits(module, equal, INDEX + 7), said)
    else:
        assert spread.min() > 1e-4


def leaves_input(surgery: Surgery, network: Network) -> None:
    x = examples(network)
    logits(operated(surgery, network), x)
    assert torch.equal(x, examples(network))


def works_frozen_and_prepared(surgery: Surgery, network: Network) -> None:
    module, x = operated(surgery, network), examples(network)
    want = logits(module, x)
    frozen = copy.deepcopy(module).requires_grad_(False)
    assert torch.equal(logits(frozen, x), want)
    # A batch norm folded into its convolution sums in another order.
    error = 2.0**-8 if isinstance(surgery, HalfPrecision) else 1e-4
    scale = float(want.abs().max().clamp_min(1))
    torch.testing.assert_close(logits(prepare(module), x), want, rtol=0, atol=error * scale)


def keeps_dtype(surgery: Surgery, network: Network) -> None:
    want, x = logits(operated(surgery, network), examples(network)), examples(network).double()
    before = surgery(copy.deepcopy(original(network)).double(), SHAPES[network])
    for module in (before, copy.deepcopy(operated(surgery, network)).double()):
        assert {p.dtype for p in module.parameters()} == {torch.float64}
        got = logits(module, x)
        assert got.dtype == torch.float64
        assert_close(surgery, got.float(), want)


def reaches_every_layer(surgery: Surgery, network: Network) -> None:
    """No convolution gives what the same convolution without surgery gives of the same input."""
    module = copy.deepcopy(operated(surgery, network))
    kinds = LAYERS if isinstance(surgery, ParamNet | PNI | HalfPrecision) else CONVOLUTIONS
    sites = sites_of(original(network), SHAPES[network], kinds)
    changed: list[str] = []

    def compare(site: Any, given: tuple[Tensor, ...], made: Tensor) -> None:
        # Of one example, so that what `vmap` wraps has the same elements in the same order.
        x, y = (torch.func.debug_unwrap(t).reshape(1, *s)
                for t, s in ((given[0], site.input_shape), (made, site.output_shape)))  # fmt: skip
        with torch.no_grad():
            plain = site.layer(x)
        if not torch.allclose(plain, y, rtol=0, atol=1e-5 * float(plain.abs().max())):
            changed.append(site.name)

    for site in sites:
        module.get_submodule(site.name).register_forward_hook(
            lambda _, given, made, site=site: compare(site, given, made)
        )
    logits(module, examples(network)[:1], INDEX[:1])
    assert changed == [site.name for site in sites]


def passes_gradients(surgery: Surgery, network: Network) -> None:
    module, x = copy.deepcopy(operated(surgery, network)), examples(network).requires_grad_()
    with rng.bracket(rng.Stream("scoring", INDEX)):
        module(x).square().sum().backward()
    for tensor in (x, *module.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().max() > 0


LAWS = (
    keeps_names_and_values,
    leaves_the_network_alone,
    has_the_identity_it_declares,
    travels,
    computes_with_the_state_it_shows,
    answers_the_stream,
    is_as_random_as_it_says,
    is_random_when_it_says,
    ignores_batch_mates,
    numbers_its_draws,
    shares_its_noise_as_it_says,
    leaves_input,
    works_frozen_and_prepared,
    keeps_dtype,
    reaches_every_layer,
    passes_gradients,
)
DEEP_LAWS = (
    keeps_names_and_values,
    has_the_identity_it_declares,
    ignores_batch_mates,
    works_frozen_and_prepared,
    reaches_every_layer,
)
SERIES_LAWS = (*DEEP_LAWS, numbers_its_draws)
"""Those that an architecture could break. The others look at one layer at a time: on the small network alone."""
DEEP = {(type(surgery), surgery.weights): surgery for surgery in reversed(DEFENSES)}
"""One of each kind, for the network that takes longest."""
CASES = [
    *((surgery, SMALL, law) for surgery in DEFENSES for law in LAWS),
    *((surgery, ResNet20(), law) for surgery in DEEP.values() for law in DEEP_LAWS),
    *((surgery, FCN(), law) for surgery in DEFENSES for law in SERIES_LAWS),
]
Law = Callable[[Surgery, Network], None]


def words(part: object) -> str:
    return getattr(part, "__name__", repr(part) if part in DEFENSES else type(part).__name__)


@pytest.mark.parametrize(("surgery", "network", "law"), CASES, ids=words)
def test_law(surgery: Surgery, network: Network, law: Law) -> None:
    law(surgery, network)


@pytest.mark.parametrize(
    ("liar", "law"),
    [
        (fakes.OnlyInTraining(), is_as_random_as_it_says),
        (fakes.OnlyInTraining(), is_random_when_it_says),
        (fakes.InPlace(), leaves_input),
        (fakes.BatchCoupled(), ignores_batch_mates),
        (fakes.OneNoiseForAll(), shares_its_noise_as_it_says),
        (fakes.OneNoiseForAll(), numbers_its_draws),
        (fakes.GlobalRandomness(), answers_the_stream),
        (fakes.SecretlyRandom(), is_as_random_as_it_says),
        (fakes.WrongIdentity(), has_the_identity_it_declares),
        (fakes.SecretlySingle(), keeps_dtype),
        (fakes.Prefixed(), keeps_names_and_values),
        (fakes.Forgetful(), reaches_every_layer),
        (fakes.OnTheOriginal(), leaves_the_network_alone),
        (fakes.Draws(), leaves_the_network_alone),
        (fakes.Stale(), computes_with_the_state_it_shows),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_liar_breaks_its_law(liar: Surgery, law: Law) -> None:
    with pytest.raises(AssertionError):
        law(liar, SMALL)


@pytest.mark.parametrize("law", [x for x in LAWS if x is not is_random_when_it_says])
def test_a_liar_without_its_lie_keeps_the_laws(law: Law) -> None:
    law(fakes._Base(), SMALL)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EVERY
def test_same_on_cuda(surgery: Surgery) -> None:
    want = logits(operated(surgery, SMALL), examples(SMALL))
    moved = copy.deepcopy(operated(surgery, SMALL)).cuda()
    for module in (moved, surgery(copy.deepcopy(original(SMALL)).cuda(), SHAPES[SMALL])):
        got = logits(module, examples(SMALL).cuda(), INDEX.cuda())
        assert got.is_cuda
        torch.testing.assert_close(got.cpu(), want, rtol=2**-8, atol=2e-3)


# ---------------------------------------------------------------- as specs

OTHERS: dict[type, dict[str, Any]] = {
    RobustNet: {
        "init": None, "inner": UniformLaw(0.1), "when": "test", "learnt": True, "init_at": 1,
        "exceptions": AUTHORS_FIRST_BLOCKS,
    },
    ParamNet: {"sigma": 0.03, "when": "test", "sharing": "own"},
    PNI: {
        "where": "input", "granularity": "element", "alpha": 0.5, "when": "train", "sharing": "own",
        "skip": ("classifier",),
    },
    BandLimited: {"compression": 60, "size": "authors", "skip": ("stem",)},
    HalfPrecision: {"dtype": "bfloat16", "skip": ("stem",)},
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_every_number_is_in_the_key(kind: type) -> None:
    assert set(OTHERS[kind]) == {f.name for f in fields(kind)}
    one = kind()
    every = [one, *(replace(one, **{name: other}) for name, other in OTHERS[kind].items())]
    assert len({key(surgery) for surgery in every}) == len(every)
    assert len({key(Operated(SMALL, surgery)) for surgery in every}) == len(every)


@EVERY
def test_keeps_the_protocol_and_travels(surgery: Surgery) -> None:
    assert isinstance(surgery, Surgery)
    assert surgery.version >= 1
    assert surgery.weights in ("fixed", "shared", "own")
    twin = pickle.loads(pickle.dumps(surgery))
    assert twin == surgery
    assert (hash(twin), key(twin)) == (hash(surgery), key(surgery))
    assert type(surgery) in OTHERS


def test_keys_of_all_members_differ() -> None:
    assert len({key(surgery) for surgery in DEFENSES}) == len(DEFENSES)
    assert key(BandLimited(50)) == key(BandLimited(50.0))


@EVERY
def test_operated(surgery: Surgery) -> None:
    network = Operated(SMALL, surgery)
    assert isinstance(network, Network)
    assert (network.stochastic, network.weights) == (surgery.stochastic, surgery.weights)
    assert network.keyed is (surgery.weights != "shared")
    assert network.shape == SMALL.shape
    module = network.build()
    assert not any(m.training for m in module.modules())
    x = examples(SMALL)[..., :8, :]
    assert torch.equal(logits(module, x), logits(surgery(SMALL.build(), SMALL.shape).eval(), x))
    assert len({key(SMALL), key(network), key(Operated(ResNet20(), surgery))}) == 3


@pytest.mark.parametrize(
    ("first", "second", "weights", "keyed"),
    [
        (ParamNet(), RobustNet(), "shared", False),
        (ParamNet(), PNI(sharing="own"), "shared", False),
        (ParamNet(sharing="own"), HalfPrecision(), "own", True),
        (PNI(sharing="own"), ParamNet(), "shared", False),
        (ParamNet(sharing="own"), BandLimited(0), "own", True),
        (RobustNet(learnt=True), ParamNet(), "shared", False),
        (ParamNet(when="train"), RobustNet(), "fixed", True),
    ],
)
def test_operated_twice(first: Surgery, second: Surgery, weights: str, keyed: bool) -> None:
    network = Operated(Operated(SMALL, first), second)
    assert (network.weights, network.keyed) == (weights, keyed)
    assert network.stochastic
    x = examples(SMALL)[..., :8, :]
    assert_close(second, logits(network.build(), x[:1], INDEX[:1]), logits(network.build(), x)[:1])


def test_operated_fills_its_checkpoint(tmp_path: Path) -> None:
    surgery = PNI()
    trained = surgery(fresh(SMALL, seed=3), SMALL.shape)
    for _, layer in altered(trained):
        layer.get_parameter("alpha_w").data.fill_(0.5)
    safetensors.torch.save_file(trained.state_dict(), tmp_path / "pni.safetensors")
    network = Operated(SMALL, surgery, Checkpoint(str(tmp_path / "pni.safetensors")))
    x = examples(SMALL)
    assert torch.equal(logits(network.build(), x), logits(trained, x))
    with pytest.raises(UserError, match=r"expected the .* tensors .* left over .*alpha_w"):
        replace(network, surgery=HalfPrecision()).build()


@EVERY
def test_answers_of_a_defense(surgery: Surgery) -> None:
    """Draw d is the same however many are asked for; those of shared weights take a pass each."""
    defense = Defense(Operated(SMALL, surgery))
    module, x = operated(surgery, SMALL), examples(SMALL)
    batch = Batch(x, torch.zeros(len(INDEX), dtype=torch.long), INDEX)
    said = answers(defense, module, x, batch, "scoring", draws=3).logits
    for draw in range(3):
        assert_close(surgery, logits(module, x, draws=range(draw, draw + 1)), said[draw])
    alone = answers(defense, module, x[2:3], batch.rows(slice(2, 3)), "scoring", draws=2).logits
    assert_close(surgery, alone, said[:2, 2:3])
