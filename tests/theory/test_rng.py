"""Named randomness: a draw depends on its name alone, differs under any other name, and follows its law."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from noisychannel import rng, splitmix
from noisychannel.noise import GaussLaw, LaplaceLaw, UniformLaw

INDEX = torch.tensor([3, 14, 15, 92, 65, 35])
STREAM = rng.Stream("scoring", INDEX, step=5, part="here")
DRAW = pytest.mark.parametrize("draw", [rng.normal, rng.uniform], ids=lambda d: d.__name__)
Draw = Callable[..., Tensor]

# The second does not fit the block that stays in the cache, so that blocks of rows are cut.
SHAPES = ((3, 5, 7), (2, 200, 200))


@pytest.fixture(autouse=True)
def named_root() -> Iterator[None]:
    with rng.root("tests"):
        yield


def empty(rows: int, shape: tuple[int, ...] = SHAPES[0]) -> Tensor:
    return torch.empty(rows, *shape)


# ---------------------------------------------------------------- same name, same bits


@DRAW
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_composition_and_order_do_not_matter(draw: Draw, shape: tuple[int, ...]) -> None:
    whole = draw(empty(6, shape), STREAM)
    some = torch.tensor([4, 1, 2])
    part = draw(empty(3, shape), replace(STREAM, index=INDEX[some]))
    assert torch.equal(part, whole[some])
    for row in range(6):
        alone = draw(empty(1, shape), replace(STREAM, index=INDEX[row : row + 1]))
        assert torch.equal(alone[0], whole[row])


@DRAW
def test_chunks_of_draws_do_not_matter(draw: Draw) -> None:
    whole = draw(empty(6 * 8), replace(STREAM, draws=range(8))).view(8, 6, 3, 5, 7)
    for size in (1, 3, 5):
        for start in range(0, 8, size):
            numbers = range(start, min(start + size, 8))
            part = draw(empty(6 * len(numbers)), replace(STREAM, draws=numbers))
            assert torch.equal(part.view(-1, 6, 3, 5, 7), whole[start : start + size])


@DRAW
@pytest.mark.parametrize("draws", [range(1), range(2, 5)])
def test_steps_per_example_are_steps(draw: Draw, draws: range) -> None:
    steps = torch.tensor([0, 3, 3, 1, 700, 2**40])
    mixed = draw(empty(6 * len(draws)), replace(STREAM, step=steps, draws=draws))
    mixed = mixed.view(len(draws), 6, 3, 5, 7)
    for row, step in enumerate(steps.tolist()):
        same = draw(empty(6 * len(draws)), replace(STREAM, step=step, draws=draws))
        assert torch.equal(mixed[:, row], same.view(len(draws), 6, 3, 5, 7)[:, row])


@DRAW
def test_threads_do_not_matter(draw: Draw) -> None:
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            seen.append(draw(empty(6, SHAPES[1]), STREAM))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(noise, seen[0]) for noise in seen)


@DRAW
def test_integer_type_of_the_index_does_not_matter(draw: Draw) -> None:
    narrow = replace(STREAM, index=INDEX.int())
    assert torch.equal(draw(empty(6), narrow), draw(empty(6), STREAM))


@DRAW
def test_memory_layout_does_not_matter(draw: Draw) -> None:
    last = empty(6, (3, 4, 6)).to(memory_format=torch.channels_last)
    assert torch.equal(draw(last, STREAM), draw(empty(6, (3, 4, 6)), STREAM))


@DRAW
def test_shape_is_only_a_view(draw: Draw) -> None:
    assert torch.equal(draw(empty(6, (105,)), STREAM), draw(empty(6), STREAM).flatten(1))


@DRAW
@pytest.mark.parametrize("elements", [1, 2, 3, 7, 8, 3073])
def test_odd_counts(draw: Draw, elements: int) -> None:
    noise = draw(empty(6, (elements,)), STREAM)
    assert noise.shape == (6, elements)
    assert noise.isfinite().all()
    assert noise.unique().numel() > 0.99 * noise.numel()


@DRAW
def test_no_rows_and_no_elements(draw: Draw) -> None:
    assert draw(empty(0), replace(STREAM, index=INDEX[:0])).shape == (0, 3, 5, 7)
    assert draw(empty(6, (0,)), STREAM).shape == (6, 0)


@DRAW
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtype_rounds_the_same_draws(draw: Draw, dtype: torch.dtype) -> None:
    noise = draw(empty(6).to(dtype), STREAM)
    assert noise.dtype == dtype
    assert torch.equal(noise, draw(empty(6), STREAM).to(dtype))


@DRAW
def test_what_was_drawn_is_the_callers(draw: Draw) -> None:
    """Neither `like` nor anything remembered is written to: noise laws scale what they drew in place."""
    like = torch.zeros(6, 3, 5, 7)
    first = draw(like, STREAM).clone()
    draw(like, STREAM).mul_(0)
    assert torch.equal(draw(like, STREAM), first)
    assert not like.any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@DRAW
@pytest.mark.parametrize("shape", SHAPES)
def test_cuda_draws_the_same(draw: Draw, shape: tuple[int, ...]) -> None:
    there = replace(STREAM, index=INDEX.cuda(), draws=range(3))
    seen = draw(empty(18, shape).cuda(), there)
    assert seen.is_cuda
    here = draw(empty(18, shape), replace(STREAM, draws=range(3)))
    torch.testing.assert_close(seen.cpu(), here, rtol=0, atol=1e-6)


# ---------------------------------------------------------------- another name, other draws

WIDE = (32, 32, 32)
BASE = rng.Stream("attack", torch.tensor([7]), step=2, draws=range(1, 2), part="a")
OTHERS = {
    "role": replace(BASE, role="selection"),
    "role attacked": replace(BASE, role="attacked-defense"),
    "role scoring": replace(BASE, role="scoring"),
    "role train": replace(BASE, role="train"),
    "part": replace(BASE, part="b"),
    "named": BASE.named("a"),
    "step": replace(BASE, step=3),
    "steps": replace(BASE, step=torch.tensor([4])),
    "draw": replace(BASE, draws=range(2, 3)),
    "index": replace(BASE, index=torch.tensor([8])),
    "step and draw swapped": replace(BASE, step=1, draws=range(2, 3)),
    "index and step swapped": replace(BASE, index=torch.tensor([2]), step=7),
}


def every_stream() -> dict[str, Tensor]:
    """2^15 normals of the base and of every stream beside it, another root and other sites included."""
    found = {name: rng.normal(empty(1, WIDE), s) for name, s in {"base": BASE, **OTHERS}.items()}
    with rng.root("another"):
        found["root"] = rng.normal(empty(1, WIDE), BASE)
    with rng.bracket(BASE):
        found["site 1"] = rng.normal(empty(1, WIDE))
        found["site 2"] = rng.normal(empty(1, WIDE))
    return {name: noise.flatten() for name, noise in found.items()}


def test_streams_are_uncorrelated() -> None:
    drawn = torch.stack(list(every_stream().values())).double()
    n = drawn.shape[1]
    for lag in (0, 1, 2, 32):  # aligned, and shifted by an element, a word, a row
        across = drawn[:, : n - lag] @ drawn[:, lag:].T / (n - lag)
        if lag == 0:
            across = across - across.diag().diag()
        assert across.abs().max() < 5 / math.sqrt(n)
    halves = drawn[:, : n // 2] @ drawn[:, n // 2 :].T / (n // 2)  # the two halves of Box–Muller
    assert halves.abs().max() < 5 / math.sqrt(n // 2)


def test_streams_share_no_words() -> None:
    """46 bits are drawn at a time: no two are equal, at whatever offset (by chance: once in 500 tests)."""
    streams = [BASE, *OTHERS.values()]
    drawn = torch.cat([rng.uniform(empty(1, WIDE), s).flatten() for s in streams])
    with rng.root("another"):
        drawn = torch.cat([drawn, rng.uniform(empty(1, WIDE), BASE).flatten()])
    words = (drawn.view(-1, 2).double() * 2**23).long()
    words = words[:, 0] * 2**23 + words[:, 1]
    assert words.unique().numel() == words.numel()


def test_keys_never_meet() -> None:
    index = torch.arange(2000)
    keys = [
        replace(BASE, index=index, step=step, draws=range(8), part=part).keys(site)
        for step in range(20)
        for part in ("", "x")
        for site in (0, 1)
    ]
    assert torch.cat(keys).unique().numel() == 2000 * 8 * 80


def test_rows_of_one_stream_are_uncorrelated() -> None:
    """Neighbouring examples and draws, the worst case of a counter."""
    for stream in (
        rng.Stream("scoring", torch.arange(256)),
        rng.Stream("scoring", torch.zeros(1, dtype=torch.long), draws=range(256)),
        rng.Stream("scoring", torch.zeros(256, dtype=torch.long), step=torch.arange(256)),
    ):
        noise = rng.normal(empty(256, (4096,)), stream)
        across = noise @ noise.T / 4096
        assert (across - across.diag().diag()).abs().max() < 6 / math.sqrt(4096)


# ---------------------------------------------------------------- laws

N = 1 << 20
# Raw moments 0 … 8 of the unit laws.
MOMENTS = {
    "normal": [1, 0, 1, 0, 3, 0, 15, 0, 105],
    "uniform": [1, 0, 1 / 3, 0, 1 / 5, 0, 1 / 7, 0, 1 / 9],
    "laplace": [1, 0, 2, 0, 24, 0, 720, 0, 40320],
}


def million(law: str, index: Tensor) -> Tensor:
    like = empty(len(index), (N // len(index),))
    with rng.bracket(rng.Stream("scoring", index)):
        made = {"normal": GaussLaw(1.0), "uniform": UniformLaw(1.0), "laplace": LaplaceLaw(1.0)}
        return made[law].sample(like).flatten().double()


@pytest.mark.parametrize("law", MOMENTS)
def test_moments(law: str) -> None:
    x, known = million(law, torch.arange(1024)), MOMENTS[law]
    for k in range(1, 5):
        error = math.sqrt((known[2 * k] - known[k] ** 2) / N)
        assert abs(float(x.pow(k).mean()) - known[k]) < 4.5 * error


@pytest.mark.parametrize("law", MOMENTS)
@pytest.mark.parametrize("rows", [1, 1024])
def test_distribution(law: str, rows: int) -> None:
    x = million(law, torch.arange(rows)).numpy()
    cdf = {"normal": stats.norm.cdf, "laplace": stats.laplace.cdf, "uniform": lambda t: (t + 1) / 2}
    assert stats.kstest(x, cdf[law]).pvalue > 1e-3


def test_the_two_halves_of_a_word_are_independent() -> None:
    """256 × 256 cells of (first, second) uniform are equally full."""
    u = rng.uniform(empty(1, (1 << 21,)), replace(BASE, draws=range(1))).view(-1, 2)
    cells = (u * 256).long()
    counts = torch.bincount(cells[:, 0] * 256 + cells[:, 1], minlength=65536)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("word", [0, -1, 1, -2, 2**32, -(2**32), 2**63 - 1, -(2**63)])
def test_extreme_words_stay_inside(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever 64 bits the generator gives, uniforms are in (0, 1) and all noise is finite."""
    splitmix._counters.cache_clear()
    monkeypatch.setattr(splitmix, "mix", lambda z: z.fill_(word))
    try:
        u, z = rng.uniform(empty(6), STREAM), rng.normal(empty(6), STREAM)
        with rng.bracket(STREAM):
            noises = [
                law.sample(empty(6)) for law in (LaplaceLaw(1.0), UniformLaw(1.0), GaussLaw(1.0))
            ]
    finally:
        splitmix._counters.cache_clear()
    assert ((u > 0) & (u < 1)).all()
    assert (z.abs() < 5.8).all()
    assert all(noise.isfinite().all() for noise in noises)


def test_words_are_those_of_splitmix64() -> None:
    """The first outputs of Vigna's reference program, seeds 0 and 1234567: mix(seed + n · golden ratio)."""
    published = {
        0: (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F),
        1234567: (6457827717110365317, 3203168211198807973, 9817491932198370423),
    }
    for seed, words in published.items():
        counters = seed + torch.arange(1, 4) * splitmix.GOLDEN
        on_a_gpu = counters.clone()
        splitmix._with_torch(on_a_gpu)
        assert tuple(w % 2**64 for w in on_a_gpu.tolist()) == words
        assert torch.equal(splitmix.mix(counters), on_a_gpu)


# ---------------------------------------------------------------- brackets and the global generator


@DRAW
def test_outside_of_a_bracket_torch_draws(draw: Draw) -> None:
    theirs = torch.randn if draw is rng.normal else torch.rand
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ours = draw(empty(6))
        torch.manual_seed(0)
        assert torch.equal(ours, theirs(6, 3, 5, 7))


@DRAW
def test_inside_of_a_bracket_torch_is_left_alone(draw: Draw) -> None:
    before = torch.get_rng_state()
    draw(empty(6), STREAM)
    with rng.bracket(STREAM):
        first, second = draw(empty(6)), draw(empty(6))
    rng.generator("train").manual_seed(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first, second)
    with rng.bracket(STREAM):
        assert torch.equal(draw(empty(6)), first)
        assert torch.equal(draw(empty(6)), second)


@DRAW
def test_brackets_nest_and_close(draw: Draw) -> None:
    with rng.bracket(STREAM):
        expected = [draw(empty(6)), draw(empty(6))]
    with rng.bracket(STREAM):
        seen = [draw(empty(6))]
        with rng.bracket(replace(STREAM, role="train")):
            assert not torch.equal(draw(empty(6)), expected[1])
        with pytest.raises(KeyError), rng.bracket(replace(STREAM, role="train")):
            raise KeyError
        seen.append(draw(empty(6)))
    assert all(map(torch.equal, seen, expected))
    with pytest.raises(KeyError), rng.root("broken"):
        raise KeyError
    with rng.bracket(STREAM):
        assert torch.equal(draw(empty(6)), expected[0])


def test_the_type_of_draw_is_not_in_the_name_but_the_site_is() -> None:
    with rng.bracket(STREAM):
        rng.normal(empty(6))
        after_normal = rng.uniform(empty(6))
    with rng.bracket(STREAM):
        rng.uniform(empty(6))
        assert torch.equal(rng.uniform(empty(6)), after_normal)


@pytest.mark.parametrize("rows", [5, 7, 12])
@DRAW
def test_wrong_number_of_rows(draw: Draw, rows: int) -> None:
    with pytest.raises(ValueError, match=f"a stream of 6 rows .* noise on {rows} rows"):
        draw(empty(rows), STREAM)
    with pytest.raises(ValueError, match="a stream of 12 rows"):
        draw(empty(6), replace(STREAM, draws=range(2)))


def strangers(stream: rng.Stream) -> Tensor:
    with rng.torch_seeded(stream):
        return torch.randn(4)


def test_torch_seeded_restores_and_is_named() -> None:
    before = torch.get_rng_state()
    first = strangers(STREAM)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(strangers(STREAM), first)
    others = [
        replace(STREAM, role="selection"),
        replace(STREAM, step=6),
        replace(STREAM, draws=range(1, 2)),
        replace(STREAM, part="there"),
        replace(STREAM, index=INDEX + 1),
    ]
    seen = [first, *map(strangers, others)]
    with rng.root("another"):
        seen.append(strangers(STREAM))
    assert torch.stack(seen).unique(dim=0).shape[0] == len(seen)
    before = torch.get_rng_state()
    with pytest.raises(KeyError), rng.torch_seeded(STREAM):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_generators_are_named() -> None:
    def order(role: rng.Role, part: str = "") -> list[int]:
        return torch.randperm(50, generator=rng.generator(role, part)).tolist()

    seen = [order("train"), order("train", "x"), order("selection")]
    with rng.root("another"):
        seen.append(order("train"))
    assert len(set(map(tuple, seen))) == 4
    assert order("train") == seen[0]
