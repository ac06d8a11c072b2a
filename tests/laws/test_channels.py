"""Laws that every member of CHANNELS keeps, and one experiment's own channel; liars that break them."""

import pickle
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

import fakes_channels as fakes
from noisychannel import rng
from noisychannel.channels import (
    CD,
    CHANNELS,
    FC,
    SVD,
    Chain,
    Clip,
    Gauss,
    Identity,
    Uniform,
    parse_channel,
    straight_through,
)
from noisychannel.errors import UserError
from noisychannel.experiments.high_pass import HighPass
from noisychannel.spec import key
from noisychannel.types import Channel

INDEX = torch.tensor([3, 14, 15, 92, 65, 35])
# HighPass is no member of CHANNELS, which the command line lists as defenses of its own: it is Figure 18's remark, and
# its keys say `experiments`, so that stored rows keep it there. The laws are the same for it.
MEMBERS = (*CHANNELS, HighPass())
EVERY = pytest.mark.parametrize("channel", MEMBERS, ids=repr)


def images(dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (3, 12, 10)) -> Tensor:
    stream = rng.Stream("attack", INDEX, part="images")
    return rng.uniform(torch.empty(len(INDEX), *shape, dtype=dtype), stream)


def seen(channel: Channel, x: Tensor, index: Tensor = INDEX, step: int = 0) -> Tensor:
    with rng.bracket(rng.Stream("scoring", index, step=step)):
        return channel(x)


def keeps_shape_and_dtype(channel: Channel) -> None:
    for dtype in (torch.float32, torch.float64):
        out = seen(channel, images(dtype))
        assert (out.shape, out.dtype) == (images().shape, dtype)


def leaves_input(channel: Channel) -> None:
    x = images()
    seen(channel, x)
    assert torch.equal(x, images())


def answers_the_stream(channel: Channel) -> None:
    first = seen(channel, images())
    torch.rand(1)  # what else was drawn in the process must not matter
    assert torch.equal(first, seen(channel, images()))


def is_as_random_as_it_says(channel: Channel) -> None:
    same = torch.equal(seen(channel, images()), seen(channel, images(), step=1))
    assert same is not channel.stochastic


def ignores_batch_mates(channel: Channel) -> None:
    some = torch.tensor([4, 1, 2])
    whole, part = seen(channel, images()), seen(channel, images()[some], INDEX[some])
    assert torch.equal(whole[some], part)


def numbers_its_draws(channel: Channel) -> None:
    with rng.bracket(rng.Stream("scoring", INDEX, draws=range(2))):
        both = channel(images().repeat(2, 1, 1, 1))
    for draw in range(2):
        with rng.bracket(rng.Stream("scoring", INDEX, draws=range(draw, draw + 1))):
            assert torch.equal(channel(images()), both.chunk(2)[draw])


def has_the_identity_it_declares(channel: Channel) -> None:
    identity = channel.identity()
    if identity is not None:
        assert torch.equal(seen(identity, images()), images())
    else:
        assert not torch.equal(seen(channel, images()), images())


def ignores_memory_layout(channel: Channel) -> None:
    last = images().to(memory_format=torch.channels_last)
    torch.testing.assert_close(seen(channel, last), seen(channel, images()), rtol=0, atol=1e-6)


def passes_gradients_straight_through(channel: Channel) -> None:
    x, weight = images().requires_grad_(), images().flip(0)
    out = seen(lambda y: straight_through(channel, y), x)  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    assert torch.equal(gradient, weight)
    assert torch.equal(out, seen(channel, images()))


def has_the_gradient_it_offers(channel: Channel) -> None:
    if "exact" in channel.gradients:
        x = images(torch.float64, (1, 5, 4)).mul(0.9).add(0.05)[:2].requires_grad_()
        torch.manual_seed(0)
        assert torch.autograd.gradcheck(
            lambda y: seen(channel, y, INDEX[:2]), x, raise_exception=False
        )


LAWS = (
    keeps_shape_and_dtype,
    leaves_input,
    answers_the_stream,
    is_as_random_as_it_says,
    ignores_batch_mates,
    numbers_its_draws,
    has_the_identity_it_declares,
    ignores_memory_layout,
    passes_gradients_straight_through,
    has_the_gradient_it_offers,
)


@EVERY
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(channel: Channel, law: Callable[[Channel], None]) -> None:
    law(channel)


@pytest.mark.parametrize(
    ("liar", "law"),
    [
        (fakes.InPlace(), leaves_input),
        (fakes.GlobalRandomness(), answers_the_stream),
        (fakes.BatchCoupled(), ignores_batch_mates),
        (fakes.WrongIdentity(), has_the_identity_it_declares),
        (fakes.SecretlyRandom(), is_as_random_as_it_says),
        (fakes.SecretlyDouble(), keeps_shape_and_dtype),
        (fakes.WrongGradient(), has_the_gradient_it_offers),
        (fakes.LayoutDependent(), ignores_memory_layout),
        (fakes.OneNoiseForAllDraws(), numbers_its_draws),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_liar_breaks_its_law(liar: Channel, law: Callable[[Channel], None]) -> None:
    with pytest.raises(AssertionError):
        law(liar)


@EVERY
def test_keeps_the_channel_protocol(channel: Channel) -> None:
    assert isinstance(channel, Channel)
    assert channel.version >= 1
    assert set(channel.gradients) <= {"exact", "straight_through"}
    assert len(channel.gradients) == len(set(channel.gradients)) > 0
    length = channel.expected_l2((3, 32, 32))
    assert length is None or length >= 0


@EVERY
def test_travels(channel: Channel) -> None:
    twin = pickle.loads(pickle.dumps(channel))
    assert twin == channel
    assert hash(twin) == hash(channel)
    assert key(twin) == key(channel)
    assert (twin.stochastic, twin.gradients) == (channel.stochastic, channel.gradients)


@EVERY
def test_every_number_is_in_the_key(channel: Channel) -> None:
    if isinstance(channel, Chain):
        others = [Chain(Gauss(0.2), Clip()), Chain(Clip(), Gauss(0.1)), Chain(Gauss(0.1))]
    else:
        numbers = [
            f.name for f in fields(channel) if isinstance(getattr(channel, f.name), int | float)
        ]
        others = [replace(channel, **{n: getattr(channel, n) / 2 or -0.5}) if not isinstance(channel, CD)
                  else CD(5) for n in numbers]  # fmt: skip
    assert len({key(c) for c in [channel, *others]}) == len(others) + 1


def test_keys_of_all_members_differ() -> None:
    assert len({key(c) for c in MEMBERS}) == len(MEMBERS)
    assert key(FC(30.0)) != key(FC(30.0, mask="authors"))
    assert key(SVD(30.0)) != key(SVD(30.0, (0.5, 0.5, 0.5)))
    assert key(Gauss(1)) == key(Gauss(1.0))


@EVERY
def test_series(channel: Channel) -> None:
    x = images(shape=(2, 140))
    if isinstance(channel, SVD):
        with pytest.raises(UserError, match=r"expected images \(n, c, h, w\), got shape"):
            channel(x)
    else:
        out = seen(channel, x)
        assert (out.shape, out.dtype) == (x.shape, x.dtype)
        assert torch.equal(out, x) is isinstance(channel, Identity | Clip)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@EVERY
def test_same_on_cuda(channel: Channel) -> None:
    there = seen(channel, images().cuda(), INDEX.cuda())
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), seen(channel, images()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "channel"),
    [
        ("identity", Identity()),
        ("clip", Clip()),
        ("gauss:0.1", Gauss(0.1)),
        ("Uniform:1e-2", Uniform(0.01)),
        ("fc:60", FC(60.0)),
        ("cd:4", CD(4)),
        ("svd:50", SVD(50.0)),
        ("gauss:0.1+clip", Chain(Gauss(0.1), Clip())),
        ("gauss:0.1 + cd:3 + clip", Chain(Gauss(0.1), CD(3), Clip())),
    ],
)
def test_parse(text: str, channel: Channel) -> None:
    assert parse_channel(text) == channel


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gaus:0.1", "channel: expected one of gauss:SIGMA.*got 'gaus:0.1'"),
        ("gauss", "channel: expected a number after 'gauss:', as in gauss:0.1, got 'gauss'"),
        ("gauss:x", "channel: expected a number after 'gauss:'"),
        ("gauss:-1", "sigma: expected a finite number ≥ 0, got -1.0"),
        ("uniform:nan", "bound: expected a finite number ≥ 0, got nan"),
        ("laplace:inf", "scale: expected a finite number ≥ 0, got inf"),
        ("cd:0", "bits: expected a whole number, 1 … 8, got 0"),
        ("cd:9", "bits: expected a whole number, 1 … 8, got 9"),
        ("cd:2.5", "channel: expected a whole number after 'cd:', as in cd:4"),
        ("fc:120", "compression: expected 0 … 100 percent, got 120.0"),
        ("svd:-3", "compression: expected 0 … 100 percent, got -3.0"),
        ("clip:3", "channel: expected clip without a number, got 'clip:3'"),
        ("gauss:0.1+", "channel: expected one of .* got 'gauss:0.1\\+'"),
    ],
)
def test_bad_text_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        parse_channel(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        CD,
        lambda: CD(bits=4, values=16),
        lambda: CD(values=1),
        lambda: CD(values=257),
        lambda: Clip(1.0, 0.0),
        lambda: with_mask("square").__post_init__(),
        Chain,
        lambda: SVD(50.0, (0.5,))(torch.rand(2, 3, 8, 8)),
        lambda: FC(10.0, mask="authors")(torch.rand(2, 3, 8, 9)),
    ],
)
def test_bad_numbers_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UserError, match=r"expected .*, got "):
        make()


def with_mask(mask: str) -> FC:
    """Past beartype, which users do not have."""
    channel = FC(10.0)
    object.__setattr__(channel, "mask", mask)
    return channel


def test_chain_follows_from_its_parts() -> None:
    assert not Chain(FC(50.0), CD(4)).stochastic
    assert Chain(FC(50.0), Gauss(0.1)).stochastic
    assert Chain(FC(50.0), Gauss(0.1)).gradients == ("exact", "straight_through")
    assert Chain(SVD(50.0), Gauss(0.1)).gradients == ("straight_through", "exact")
    assert Chain(CD(4), Gauss(0.1)).gradients == ("straight_through",)
    assert Chain(CD(4), Gauss(0.1)).identity() is None
    assert Chain(Gauss(0.3), Gauss(0.4)).expected_l2((3, 32, 32)) == pytest.approx(
        Gauss(0.5).expected_l2((3, 32, 32))
    )
    assert Chain(Gauss(0.3), Clip()).expected_l2((3, 32, 32)) is None
    assert repr(Chain(CD(4), Clip())) == "Chain(CD(bits=4, values=None), Clip(low=0.0, high=1.0))"


def test_two_noises_of_a_chain_differ() -> None:
    x = images()
    twice = seen(Chain(Gauss(0.1), Gauss(0.1)), x) - x
    assert not torch.allclose(twice, 2 * (seen(Gauss(0.1), x) - x), atol=1e-3)
