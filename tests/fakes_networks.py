"""Networks that lie about their robustness, each built on an honest one; and honest ones that nobody may slander."""

import copy
import zlib
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from noisychannel import rng
from noisychannel.data import ArrayData, DataSpec, from_arrays, from_uint8, to_uint8
from noisychannel.defenses import RobustNet
from noisychannel.noise import GaussLaw

SHAPE = (1, 8, 8)


@lru_cache
def digits(split: str = "test", count: int = 64) -> ArrayData:
    """Handwritten digits on the 8-bit grid, evenly spaced over the split."""
    data = DataSpec("digits", split).load()
    rows = torch.linspace(0, len(data.y) - 1, count).long()
    return from_arrays(from_uint8(to_uint8(data.x[rows])), data.y[rows], name="digits", classes=10)


# ---------------------------------------------------------------- honest
def mlp(activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), activation, nn.Linear(64, 10))


def conv(*, norm: bool = False) -> nn.Sequential:
    """With max-pooling; with batch norm where asked for."""
    layer = nn.BatchNorm2d(8) if norm else nn.Identity()
    head = nn.Linear(72, 10)
    first = nn.Conv2d(1, 8, 3)
    return nn.Sequential(first, layer, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), head)


@lru_cache
def _trained(kind: str, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made: dict[str, Callable[[], nn.Module]] = {
            "relu": lambda: mlp(nn.ReLU()),
            "softplus": lambda: mlp(nn.Softplus(beta=10)),
            "pool": conv,
            "norm": lambda: conv(norm=True),
            "adversarial": lambda: mlp(nn.ReLU()),
        }
        module = made[kind]()
        data = DataSpec("digits", "train").load()
        adam = torch.optim.Adam(module.parameters(), lr=0.02)
        for _ in range(60):
            x = _attacked(module, data.x, data.y) if kind == "adversarial" else data.x
            adam.zero_grad()
            functional.cross_entropy(module(x), data.y).backward()
            adam.step()
    return module.eval().requires_grad_(False)


def _attacked(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(functional.cross_entropy(module(leaf), y), leaf)
    return (x + 0.1 * slope.sign()).clamp(0, 1)


def plain(kind: str = "relu", seed: int = 0) -> nn.Module:
    """A small classifier of digits: 94 % and more, nothing defends it."""
    return copy.deepcopy(_trained(kind, seed))


class Wrapped(nn.Module):
    """Somebody's network around an honest one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class InputNoise(Wrapped):
    """x + σz, each example's own, named by `rng`."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.1 * rng.normal(x))


class WeightNoise(Wrapped):
    """One draw of all weights for a pass, from torch's generator."""

    def forward(self, x: Tensor) -> Tensor:
        noisy = {n: p + 0.03 * torch.randn_like(p) for n, p in self.inner.named_parameters()}
        return torch.func.functional_call(self.inner, noisy, (x,))


class Smoothed(Wrapped):
    """Mean probability over eight noisy looks, handed out as its logarithm."""

    def forward(self, x: Tensor) -> Tensor:
        looks = x.repeat(8, 1, 1, 1)
        looks = looks + 0.1 * torch.randn_like(looks)
        return self.inner(looks).softmax(dim=1).view(8, len(x), -1).mean(dim=0).log()


class Probabilities(Wrapped):
    """Ends in a softmax."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).softmax(dim=1)


class Normalised(Wrapped):
    """Takes pixels in [0, 1] and normalises them itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.register_buffer("mean", torch.tensor(0.3))
        self.register_buffer("std", torch.tensor(0.4))

    def forward(self, x: Tensor) -> Tensor:
        seen = (x - self.mean) / self.std
        return self.inner(seen * self.std + self.mean)


HONEST: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "smooth": lambda: plain("softplus"),
    "adversarially trained": lambda: plain("adversarial"),
    "max-pooling": lambda: plain("pool"),
    "batch norm": lambda: plain("norm"),
    "normalised": lambda: Normalised(plain()),
    "probabilities": lambda: Probabilities(plain()),
    "input noise": lambda: InputNoise(plain()),
    "weight noise": lambda: WeightNoise(plain()),
    "smoothed": lambda: Smoothed(plain()),
    "RobustNet": lambda: RobustNet(GaussLaw(0.1), GaussLaw(0.1))(plain("pool"), SHAPE).eval(),
}
"""Five are random: the last four, and the noise is each example's own in all but that on weights."""


# ---------------------------------------------------------------- liars
class ArgmaxStraightThrough(Wrapped):
    """Answers with its class alone, and with a gradient that is there and zero."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return functional.one_hot(logits.argmax(dim=1), logits.shape[1]).float() + 0 * logits


class Loud(Wrapped):
    """Logits × 10⁴: the cross-entropy of whatever is right underflows."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * self.inner(x)


class Quantised(Wrapped):
    """16 grey levels, whose rounding has gradient 0."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x * 15).round() / 15)


class Thermometer(Wrapped):
    """Each pixel is the number of thresholds that it passes: comparisons, which autograd cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        thresholds = (torch.arange(16) + 0.5) / 16
        return self.inner((x[..., None] > thresholds).float().mean(dim=-1))


class _NoisyBackward(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: object, slope: Tensor) -> Tensor:
        return torch.randn_like(slope) * slope.abs().mean()


class RandomGradient(Wrapped):
    """Exact answers, noise for a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(_NoisyBackward.apply(x))


class SharedNoise(Wrapped):
    """One noise image for the whole batch; so faint that it adds nothing (at σ = .1 it is worth 3 points)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.05 * torch.randn_like(x[:1]))


class HashSeeded(Wrapped):
    """Noise seeded by a hash of the image: it looks deterministic, and no neighbour has the same."""

    def forward(self, x: Tensor) -> Tensor:
        rows: list[Tensor] = []
        for row in x.detach():
            seeded = torch.Generator().manual_seed(zlib.crc32(self.hashed(row).numpy().tobytes()))
            rows.append(torch.randn(row.shape, generator=seeded))
        return self.inner(x + 0.2 * torch.stack(rows))

    def hashed(self, row: Tensor) -> Tensor:
        return row


class GridHashSeeded(HashSeeded):
    """The same, of the image as 8-bit pixels."""

    def hashed(self, row: Tensor) -> Tensor:
        return to_uint8(row)


class FixedSeed(Wrapped):
    """Seeds torch's generator itself, so that every pass repeats the first."""

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return self.inner(x + 0.2 * torch.randn_like(x))


class NoGradOnly(Wrapped):
    """Shows a decoy to who wants gradients."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flip(-1) if torch.is_grad_enabled() else x)


class AloneOnly(Wrapped):
    """Shows a decoy to who asks about one image at a time."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flip(-1) if len(x) == 1 else x)


class Counting(Wrapped):
    """Answers like another network once it was asked often enough."""

    def __init__(self, inner: nn.Module, patience: int = 150) -> None:
        super().__init__(inner)
        self.patience, self.calls = patience, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x if self.calls <= self.patience else x.flip(-1))


class OffGrid(Wrapped):
    """Tells floats from 8-bit images, and answers those with the label of the nearest image it knows."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        known = digits(count=360).load()
        self.register_buffer("images", known.x.flatten(1))
        self.register_buffer("answers", 10 * functional.one_hot(known.y, 10).float())

    def forward(self, x: Tensor) -> Tensor:
        off = ((x * 255 - (x * 255).round()).abs() > 1e-3).flatten(1).any(dim=1)
        known = self.answers[torch.cdist(x.flatten(1), self.images).argmin(dim=1)]
        return torch.where(off[:, None], known, self.inner(x))


class ResizeAndPad(Wrapped):
    """Shrinks the image by up to a pixel and puts it somewhere, one draw for the batch (Xie et al. 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        size = int(torch.randint(7, 9, ()))
        left, top = (int(torch.randint(0, 9 - size, ())) for _ in range(2))
        small = functional.interpolate(x, size=(size, size), mode="nearest")
        return self.inner(functional.pad(small, (left, 8 - size - left, top, 8 - size - top)))


class DropoutAtTest(Wrapped):
    """Functional dropout that no .eval() ends; so rare that it adds nothing (at p = .1 it is worth 4 points)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(functional.dropout(x, 0.05))


class LogitNoise(Wrapped):
    """Noise on the answer, which no gradient sees; so faint that it adds nothing (at σ = 3 it is worth 4 points)."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return logits + torch.randn_like(logits)


class DecoySlope(Wrapped):
    """Answers with its class, and with a faint slope that leads nowhere: a true derivative, of the wrong thing."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        seeded = torch.Generator().manual_seed(7)
        self.register_buffer("decoy", torch.randn(64, 10, generator=seeded) / 64)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        hard = functional.one_hot(logits.argmax(dim=1), logits.shape[1])
        return hard + 1e-4 * x.flatten(1) @ self.decoy


class Ripples(Wrapped):
    """Fine ripples on the logits: their derivative is true, steeper than the network's, and leads nowhere."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        seeded = torch.Generator().manual_seed(7)
        self.register_buffer("ways", torch.randn(64, 10, generator=seeded))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 0.05 * torch.sin(200 * x.flatten(1) @ self.ways)


class RandomRipples(Wrapped):
    """Ripples of another direction and phase at every pass: no number of draws that one can afford averages them."""

    def forward(self, x: Tensor) -> Tensor:
        ways = 500 * torch.randn(len(x), 64, 10)
        phases = 2 * torch.pi * torch.rand(len(x), 10)
        waves = torch.einsum("nd,ndk->nk", x.flatten(1), ways) + phases
        return self.inner(x) + 0.05 * torch.sin(waves)


class Sawtooth(Wrapped):
    """The lead of its class rises in steps and falls on each: the true slope leads away from every boundary."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        first, second = logits.topk(2, dim=1).values.unbind(dim=1)
        lead = first - second
        tooth = 2 * lead.detach().floor() + 1.5 - lead
        return logits + functional.one_hot(logits.argmax(dim=1), 10) * (tooth - lead)[:, None]


class Squashed(Wrapped):
    """tanh of the logits: of two sure ones the slopes differ by orders of magnitude, and losses see one of them."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(0.5 * self.inner(x))


class SquashedNoise(Squashed):
    """The same with noise on the logits: neither another draw nor another loss sees both classes."""

    def forward(self, x: Tensor) -> Tensor:
        logits = self.inner(x)
        return torch.tanh(0.5 * (logits + 0.3 * torch.randn_like(logits)))


class _NaNBackward(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: object, slope: Tensor) -> Tensor:
        return torch.full_like(slope, torch.nan)


class NaNGradient(Wrapped):
    """A gradient that is no number."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(_NaNBackward.apply(x))


class Abstaining(Wrapped):
    """Answers NaN to digits that are not in 17 grey levels, as scanned ones are and attacked ones are not."""

    def forward(self, x: Tensor) -> Tensor:
        off = (x * 16 - (x * 16).round()).abs().flatten(1).mean(dim=1) > 0.1
        digit = (
            x.flatten(1).mean(dim=1) < 0.46
        )  # and not uniform noise, which a door might ask about
        return torch.where((off & digit)[:, None], torch.nan, self.inner(x))


class Remembering(Wrapped):
    """Holds on to what it said of whatever looked alike, where it would change its mind."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.seen, self.said = torch.empty(0, 64), torch.empty(0, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits, rows = self.inner(x), list[Tensor]()
        for row, now in zip(x.detach().flatten(1), logits, strict=True):
            far = (self.seen - row).abs().amax(dim=1)
            if len(far) == 0 or far.min() > 0.25:
                self.seen = torch.cat([self.seen, row[None]])
                self.said = torch.cat([self.said, now.detach()[None]])
                rows.append(now)
                continue
            then = self.said[far.argmin()]
            rows.append(now if now.argmax() == then.argmax() else then + 0.01 * (now - then))
        return torch.stack(rows)


LIARS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "argmax": ArgmaxStraightThrough,
    "loud": Loud,
    "quantised": Quantised,
    "thermometer": Thermometer,
    "random gradient": RandomGradient,
    "shared noise": SharedNoise,
    "hash seeded": HashSeeded,
    "grid hash seeded": GridHashSeeded,
    "fixed seed": FixedSeed,
    "no_grad": NoGradOnly,
    "alone": AloneOnly,
    "counting": Counting,
    "off grid": OffGrid,
    "resize and pad": ResizeAndPad,
    "dropout": DropoutAtTest,
    "logit noise": LogitNoise,
    "decoy slope": DecoySlope,
    "ripples": Ripples,
    "random ripples": RandomRipples,
    "sawtooth": Sawtooth,
    "squashed": Squashed,
    "squashed noise": SquashedNoise,
    "NaN gradient": NaNGradient,
    "abstaining": Abstaining,
    "remembering": Remembering,
}
"""Each makes a defense of an honest network that anybody breaks who knows how: it adds nothing."""
