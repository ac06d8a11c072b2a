"""A stranger's function as an attack of ours: held to its budget, judged on fresh draws, named, counted."""

# ruff: noqa: ARG005, NPY002 -- an attack takes (model, x, y) whether it needs them or not; strangers use old NumPy

import pickle
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from linear import LinearNetwork
from noisychannel import rng
from noisychannel.channels import CD, Gauss, Identity
from noisychannel.data import from_arrays
from noisychannel.decision import MeanProb, Vote
from noisychannel.defenses import Defense
from noisychannel.engine import Craft, Execution, Store, adversarials, run, serial, table
from noisychannel.errors import UserError
from noisychannel.interop import Borrowed
from noisychannel.interop.shown import Shown
from noisychannel.networks import Foreign, SmallNet
from noisychannel.norms import L2, Linf
from noisychannel.spec import key
from noisychannel.threats import DefenseView, Threat, adaptive, non_adaptive
from noisychannel.types import Adversarials, Attack, Batch, Status

NETWORK = LinearNetwork(gain=5.0)
BARE = non_adaptive(Defense(NETWORK))
NOISY = adaptive(Defense(NETWORK, Gauss(0.05)), draws=3)
FOUND, NOT_FOUND, INIT_FAILED, LOST, _, FAILED = Status


def batch(n: int = 6) -> Batch:
    return replace(NETWORK.batch(n), index=torch.tensor([30, 11, 52, 3, 94, 5, 7, 8])[:n])


def attacked(
    attack: Attack, threat: Threat = BARE, who: Batch | None = None, root: str = "interop"
) -> Adversarials:
    with rng.root(root):
        return attack(DefenseView(threat), batch() if who is None else who)


def slope(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(functional.cross_entropy(model(x), y, reduction="sum"), x)[0]


def fgsm(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return (x + 0.05 * slope(model, x, y).sign()).clamp(0, 1)


def fgsm_either(
    model: nn.Module, x: Tensor, y: Tensor, targets: Tensor | None = None, targeted: bool = False
) -> Tensor:
    if not targeted or targets is None:
        return fgsm(model, x, y)
    return (x - 0.05 * slope(model, x, targets).sign()).clamp(0, 1)


def draws_everywhere(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    torch.manual_seed(int(torch.randint(1000, ())))  # as AutoAttack seeds: our draws do not care
    noise = torch.rand_like(x) + torch.from_numpy(np.random.rand(*x.shape)).float()
    return fgsm(model, x + 0.01 * noise * random.random(), y)


# ---------------------------------------------------------------- on a deterministic network


def test_it_does_what_it_does_alone() -> None:
    who = batch()
    found = attacked(Borrowed(fgsm, Linf(), 0.05), who=who)
    assert torch.equal(found.x, fgsm(NETWORK.build(), who.x, who.y))
    wrong = NETWORK.build()(found.x).argmax(dim=1) != who.y
    assert wrong.any()
    assert torch.equal(found.status == FOUND, wrong)
    assert set(found.status.tolist()) <= {FOUND, NOT_FOUND}


def test_it_is_one_of_ours() -> None:
    budget, minimal = Borrowed(fgsm, L2(), 0.5), Borrowed(fgsm, L2())
    assert isinstance(budget, Attack)
    assert (budget.kind, minimal.kind) == ("budget", "minimal")
    assert key(budget) != key(minimal)


def test_a_target_is_handed_on() -> None:
    who = batch()
    aimed = replace(who, target=(who.y + 1) % NETWORK.classes)
    assert aimed.target is not None
    found = attacked(Borrowed(fgsm_either, Linf(), 0.05), who=aimed)
    assert torch.equal(
        found.x, fgsm_either(NETWORK.build(), who.x, who.y, aimed.target, targeted=True)
    )
    hit = NETWORK.build()(found.x).argmax(dim=1) == aimed.target
    assert torch.equal(found.status == FOUND, hit)
    with pytest.raises(
        UserError, match=r"expected a function of \(model, x, y, targets=, targeted"
    ):
        attacked(Borrowed(fgsm, Linf(), 0.05), who=aimed)


def test_no_examples() -> None:
    found = attacked(Borrowed(fgsm, Linf(), 0.05), who=batch().rows(slice(0, 0)))
    assert (found.x.shape, found.status.shape) == ((0, 3, 8, 8), (0,))


def test_it_cannot_spoil_what_it_is_given() -> None:
    def vandal(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        out = fgsm(model, x, y)
        model.train()
        for parameter in model.parameters():
            parameter.data.fill_(9)
        x.zero_()
        y.zero_()
        return out

    who, view = batch(), DefenseView(BARE)
    before = {name: t.clone() for name, t in view.fast.state_dict().items()}
    found = Borrowed(vandal, Linf(), 0.05)(view, who)
    assert torch.equal(found.x, fgsm(NETWORK.build(), batch().x, batch().y))
    assert torch.equal(who.x, batch().x)
    assert torch.equal(who.y, batch().y)
    assert not view.fast.training
    assert all(torch.equal(t, before[name]) for name, t in view.fast.state_dict().items())


# ---------------------------------------------------------------- what it returns


def test_outside_of_its_ball_it_is_put_back() -> None:
    def far(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return x + 0.4 * slope(model, x, y).sign()

    who = batch()
    for norm in (Linf(), L2()):
        with pytest.warns(UserWarning, match=r"returned pixels up to 0.\d+ outside of \[0, 1\]"):
            found = attacked(Borrowed(far, norm, 0.05), who=who)
        assert (norm.distance(found.x, who.x) <= 0.05 * (1 + 1e-5) + 1e-7).all()
        assert found.x.min() >= 0
        assert found.x.max() <= 1
        wrong = NETWORK.build()(found.x).argmax(dim=1) != who.y
        assert torch.equal(found.status == FOUND, wrong)  # judged where it now is


def test_nan_fails_its_example_only() -> None:
    def holed(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        out = fgsm(model, x, y)
        out[2, 0, 0, 0] = torch.nan
        return out

    healthy, found = (attacked(Borrowed(f, Linf(), 0.05)) for f in (fgsm, holed))
    assert found.status[2] == FAILED
    assert found.x.isfinite().all()
    others = torch.tensor([0, 1, 3, 4, 5])
    assert torch.equal(found.x[others], healthy.x[others])
    assert torch.equal(found.status[others], healthy.status[others])


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda model, x, y: None, "NoneType"),
        (lambda model, x, y: x[:3], r"torch.float32 \(3, 3, 8, 8\)"),
        (lambda model, x, y: (255 * x).byte(), r"torch.uint8 \(6, 3, 8, 8\)"),
        (lambda model, x, y: [x], "list"),
    ],
)
def test_what_is_no_examples_is_refused(answer: Callable[..., Any], got: str) -> None:
    with pytest.raises(UserError, match=rf"^attack 'borrowed': expected examples .* got {got};.*$"):
        attacked(Borrowed(answer, Linf(), 0.05))


def test_numpy_and_double_precision_are_taken() -> None:
    alone = attacked(Borrowed(fgsm, Linf(), 0.05))
    for convert in (lambda x: x.double(), lambda x: x.numpy()):
        found = attacked(Borrowed(lambda m, x, y, to=convert: to(fgsm(m, x, y)), Linf(), 0.05))
        assert torch.equal(found.x, alone.x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Borrowed(fgsm, epsilon=-1.0),
        lambda: Borrowed(fgsm, epsilon=float("nan")),
        lambda: Borrowed(fgsm, gradients=-1),
        lambda: Borrowed(lambda model: model),
    ],
)
def test_bad_numbers_are_refused(make: Callable[[], Attack]) -> None:
    with pytest.raises(UserError, match=r"expected .*, got ") as caught:
        make()
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- one that raises


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("init_attack failed for 1 of 6 inputs"), INIT_FAILED),  # foolbox's words
        (RuntimeError("NaN"), FAILED),
        (AssertionError(), FAILED),
    ],
    ids=["start", "runtime", "assert"],
)
@pytest.mark.parametrize("threat", [BARE, NOISY], ids=["deterministic", "Gauss"])
def test_who_raises_is_told_from_the_rest(error: Exception, status: Status, threat: Threat) -> None:
    def picky(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        out = fgsm(model, x, y)
        if (x.flatten(1)[:, 0] == batch().x[3, 0, 0, 0]).any():
            raise error
        return out

    with pytest.warns(UserWarning, match=rf"raised for 1 of 6 examples \({type(error).__name__}"):
        found = attacked(Borrowed(picky, Linf(), 0.05, "picky"), threat)
    assert found.status[3] == status
    assert torch.equal(found.x[3], batch().x[3])
    for i in (0, 1, 2, 4, 5):
        alone = attacked(Borrowed(fgsm, Linf(), 0.05), threat, batch().rows(slice(i, i + 1)))
        torch.testing.assert_close(found.x[i], alone.x[0], rtol=0, atol=1e-6)
        assert found.status[i] == alone.status[0]
    # One forward and one backward together, which were for nothing, and the same again alone.
    draws = threat.draws if threat is NOISY else 1
    assert found.cost.backwards.tolist() == [2 * draws] * 6


def test_our_own_sentences_are_not_swallowed() -> None:
    def refuses(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        raise UserError("mend this")

    with pytest.raises(UserError, match="mend this"):
        attacked(Borrowed(refuses, Linf(), 0.05))


# ---------------------------------------------------------------- luck


def lucky(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The clean image, as soon as one of 100 draws errs: what foolbox, AutoAttack and torchattacks count."""
    ever = torch.zeros(len(x), dtype=torch.bool)
    for _ in range(100):
        ever |= model(x).argmax(dim=1) != y
    return x.clone(), ever


def noisy_and_safe() -> tuple[Threat, Batch]:
    """Margins of 1 σ and more in two classes: a draw errs with p < .16, 8 of 16 once in 2,000, 1 of 100 mostly."""
    network = LinearNetwork(gain=5.0, classes=2)
    who = network.batch(24)
    optimum = network.optimum(who, 2.0)
    sigma = float(optimum.median()) / 1.5
    return adaptive(Defense(network, Gauss(sigma))), who.rows(optimum > 1.2 * sigma)


def test_luck_is_refused() -> None:
    threat, who = noisy_and_safe()
    found = attacked(Borrowed(lucky, L2()), threat, who)
    assert (found.status == LOST).float().mean() > 0.5  # claimed by luck
    assert set(found.status.tolist()) <= {LOST, NOT_FOUND}
    believed = attacked(Borrowed(lucky, L2()), replace(threat, selection_draws=0), who)
    assert torch.equal(believed.status == FOUND, found.status == LOST)


def test_without_a_claim_its_own_next_draw_is_what_it_took() -> None:
    threat, who = noisy_and_safe()
    found = attacked(Borrowed(lambda model, x, y: x.clone(), L2()), threat, who)
    assert set(found.status.tolist()) <= {LOST, NOT_FOUND}
    assert (found.status == NOT_FOUND).float().mean() > 0.5


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("threat", [BARE, NOISY], ids=["deterministic", "Gauss"])
def test_the_same_name_gives_the_same_bytes(threat: Threat) -> None:
    attack = Borrowed(draws_everywhere, Linf(), 0.08)
    torch.manual_seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    first = attacked(attack, threat)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # type: ignore[index]
    torch.rand(3), np.random.rand(3), random.random()
    again, other = attacked(attack, threat), attacked(attack, threat, root="other")
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.status, again.status)
    assert not torch.equal(first.x, other.x)


def test_all_three_generators_are_named_and_restored() -> None:
    """Python's apart from an attack: beartype, which checks our calls under pytest, draws from it too."""

    def drawn() -> tuple[float, float, float]:
        return float(torch.rand(())), np.random.rand(), random.random()

    def named(root: str) -> tuple[float, float, float]:
        with rng.root(root), rng.stranger_seeded(rng.Stream("attack", torch.arange(3))):
            return drawn()

    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    first = drawn()
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    a, b, c = named("a"), named("a"), named("b")
    assert drawn() == first
    assert a == b
    assert all(one != other for one, other in zip(a, c, strict=True))
    after = random.getstate()
    with pytest.raises(KeyError), rng.stranger_seeded(rng.Stream("attack", torch.arange(3))):
        raise KeyError
    assert random.getstate() == after


def test_every_call_and_every_row_has_draws_of_its_own() -> None:
    threat = adaptive(Defense(NETWORK, Gauss(0.05)))
    who = batch(1)
    shown = Shown(DefenseView(threat), who.index)
    x = who.x.repeat(4, 1, 1, 1)
    with rng.root("rows"):
        first, second = shown(x), shown(x)
        replay = Shown(DefenseView(threat), who.index)(x)
    every = torch.cat([first, second])
    assert len(every.unique(dim=0)) == 8
    assert torch.equal(first, replay)


def test_it_remembers_nothing() -> None:
    class Grows:
        steps = 0

        def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            self.steps += 1
            return x + 0.01 * self.steps

    attack = Borrowed(Grows(), Linf(), 0.5)
    assert torch.equal(attacked(attack).x, attacked(attack).x)


# ---------------------------------------------------------------- logits


def curved() -> Foreign:
    """A network whose slope depends on what it is shown, so that other draws in a replay show."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 5)
    return Foreign(nn.Sequential(*layers).eval(), (3, 8, 8), "curved")


@pytest.mark.parametrize("averaged", ["mean_loss", "mean_prob", "mean_logit"])
def test_chunks_change_nothing(averaged: Any) -> None:
    """The replay of a chunk draws what its first run drew: else the gradient would be of another network."""
    threat = adaptive(Defense(curved(), Gauss(0.05)), draws=7, averaged=averaged)
    who = batch()
    whole, parts = (Shown(DefenseView(threat, max_rows=m), who.index) for m in (512, 12))
    with rng.root("chunks"):
        torch.testing.assert_close(whole(who.x), parts(who.x))
        a, b = slope(whole, who.x, who.y), slope(parts, who.x, who.y)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert (whole.forwards, whole.backwards) == (2 * 7 * 6, 7 * 6)
    assert parts.backwards == 7 * 6
    assert parts.forwards == 3 * 7 * 6  # two calls, and the chunks of the second once more


def test_chunks_are_replayed_in_another_thread() -> None:
    """As on a GPU, whose backward passes run in threads that know no root of ours."""
    threat = adaptive(Defense(curved(), Gauss(0.05)), draws=7, averaged="mean_prob")
    who = batch()
    slopes = []
    with rng.root("threads"):
        for inside in (True, False):
            x = who.x.clone().requires_grad_()
            value = Shown(DefenseView(threat, max_rows=12), who.index)(x)[:, 0].sum()
            if inside:
                value.backward()
            else:
                thread = threading.Thread(target=value.backward)
                thread.start()
                thread.join()
            slopes.append(x.grad)
    assert torch.equal(slopes[0], slopes[1])


def test_what_is_averaged() -> None:
    """Against the formulas, on the draws themselves: those of a threat with one draw per question."""
    who = batch()
    made = {}
    for averaged in ("mean_loss", "mean_prob", "mean_logit"):
        threat = adaptive(Defense(NETWORK, Gauss(0.05)), draws=5, averaged=averaged)
        with rng.root("averages"):
            made[averaged] = Shown(DefenseView(threat), who.index)(who.x)
    stream = rng.Stream("attacked-defense", who.index, 1, range(5), "shown")
    with rng.root("averages"), rng.bracket(stream):
        draws = NETWORK.build()(Gauss(0.05)(who.x.repeat(5, 1, 1, 1))).view(5, 6, -1)
    torch.testing.assert_close(made["mean_logit"], draws.mean(dim=0))
    torch.testing.assert_close(made["mean_prob"].exp(), draws.softmax(dim=2).mean(dim=0))
    torch.testing.assert_close(made["mean_loss"], draws.log_softmax(dim=2).mean(dim=0))
    # Mean log-probabilities are mean logits but for one number per example: no loss of classes sees it.
    gap = made["mean_loss"] - made["mean_logit"]
    torch.testing.assert_close(gap, gap[:, :1].expand_as(gap))


def test_the_channel_is_differentiated_as_the_threat_says() -> None:
    """CD is a staircase. Straight through: slope at C(x); at input: slope at x; substitute: its own."""
    who, bent = batch(), nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Softplus()).eval()
    channel = CD(values=8)
    assumed = adaptive(Defense(Foreign(bent, (3, 8, 8), "bent"), channel))
    threats = {
        "through": (assumed, channel(who.x), 1.0),
        "input": (replace(assumed, backward="at_input"), who.x, 1.0),
        "substitute": (replace(assumed, substitute=Half()), channel(who.x), 0.5),
    }
    for threat, at, factor in threats.values():
        shown = Shown(DefenseView(threat), who.index)
        torch.testing.assert_close(shown(who.x), bent(channel(who.x)))
        x, there = who.x.clone().requires_grad_(), at.clone().requires_grad_()
        got = torch.autograd.grad(shown(x)[:, 0].sum(), x)[0]
        wanted = factor * torch.autograd.grad(bent(there)[:, 0].sum(), there)[0]
        torch.testing.assert_close(got, wanted)


@dataclass(frozen=True)
class Half(Identity):
    """x / 2."""

    def __call__(self, x: Tensor) -> Tensor:
        return x / 2


@pytest.mark.parametrize("rule", [Vote(9), MeanProb(9)], ids=repr)
def test_the_verdict_is_the_rules(rule: Any) -> None:
    """Its largest logit is what the rule decides on the same draws."""
    defense = Defense(NETWORK, Gauss(0.3), rule)
    who = NETWORK.batch(64)
    shown = Shown(DefenseView(adaptive(defense, rule.draws)), who.index, verdict=True)
    stream = rng.Stream("attacked-defense", who.index, 1, range(9), "shown")
    with rng.root("verdict"):
        got = shown(who.x.requires_grad_())
        with rng.bracket(stream), torch.no_grad():
            draws = NETWORK.build()(Gauss(0.3)(who.x.repeat(9, 1, 1, 1))).view(9, 64, -1)
    draws = draws.transpose(0, 1)
    assert torch.equal(got.argmax(dim=1), rule.decide(draws.argmax(dim=2), draws.softmax(dim=2)))
    assert torch.autograd.grad(got.logsumexp(1).sum(), who.x)[0].isfinite().all()


# ---------------------------------------------------------------- cost


def test_every_row_is_counted() -> None:
    """3 gradients and 2 questions, on 4 draws: (3 + 2 + 1 of its opinion) · 4 forwards, and the jury's 16."""

    def known(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        for _ in range(3):
            slope(model, x, y)
        with torch.no_grad():
            model(x), model(x)
        return x.clone()

    threat = adaptive(Defense(NETWORK, Gauss(0.05)), draws=4)
    found = attacked(Borrowed(known, Linf(), 0.05), threat)
    again = 16 * (found.status == int(Status.FOUND))  # whom the jury believes, it asks once more
    assert found.cost.forwards.tolist() == (6 * 4 + 16 + again).tolist()
    assert found.cost.backwards.tolist() == [3 * 4] * 6


def test_a_subset_of_the_rows_is_shared_by_all() -> None:
    def half(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        model(x[:3])
        return x.clone(), y != y

    found = attacked(Borrowed(half, Linf(), 0.05))
    assert (
        found.cost.forwards.tolist() == [1 + 1] * 6
    )  # half a row each, rounded up; and the judge's


# ---------------------------------------------------------------- keys


def test_what_decides_it_is_in_its_key() -> None:
    def made(step: float) -> Callable[..., Tensor]:
        return lambda model, x, y: x + step

    attacks = [
        Borrowed(fgsm, Linf(), 0.05),
        Borrowed(fgsm, Linf(), 0.06),
        Borrowed(fgsm, L2(), 0.05),
        Borrowed(fgsm_either, Linf(), 0.05),
        Borrowed(lambda model, x, y: x + 0.1, Linf(), 0.05),
        Borrowed(lambda model, x, y: x + 0.2, Linf(), 0.05),
        Borrowed(made(0.1), Linf(), 0.05),
        Borrowed(made(0.2), Linf(), 0.05),
    ]
    assert len({key(a) for a in attacks}) == len(attacks)
    assert key(Borrowed(made(0.1), Linf(), 0.05)) == key(attacks[6])  # and nothing else is


def test_one_that_cannot_be_read_has_a_key_of_its_own() -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def typed(model, x, y):\n    return x", space)
    first, second = (Borrowed(space["typed"], Linf(), 0.05, "typed") for _ in range(2))
    with pytest.warns(
        UserWarning, match="attack 'typed': cannot read the source of typed; its res"
    ):
        assert len({key(first), key(first), key(second)}) == 2


def test_it_travels() -> None:
    attack = Borrowed(fgsm, Linf(), 0.05)
    twin = pickle.loads(pickle.dumps(attack))
    assert twin == attack
    assert key(twin) == key(attack)
    assert torch.equal(attacked(twin).x, attacked(attack).x)


def test_a_task_may_hold_one(tmp_path: Path) -> None:
    who = batch()
    data = from_arrays(who.x.numpy(), who.y.numpy())
    attack = Borrowed(draws_everywhere, Linf(), 0.08)
    made = []
    for folder in ("a", "b"):
        craft = Craft(data, NOISY, attack, execution=Execution(threads=1, micro_batch=4))
        store = Store(tmp_path / folder)
        run([craft], store, serial, lambda whole, todo: lambda passes: None)
        made.append(adversarials(store, craft))
        assert table(store, craft).num_rows == 6
    assert torch.equal(made[0], made[1])


def test_images_are_handed_over_as_strangers_view_them() -> None:
    """Decoded PNGs are channels_last; torchattacks' FAB takes the strides of its gradients from its images."""

    def views(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        model(leaf).sum().backward()
        assert leaf.grad is not None
        moved = leaf + 0.01 * leaf.grad.view(len(x), -1).sign().view(x.shape)
        return moved.detach().clamp(0, 1)

    threat, who = adaptive(Defense(SmallNet(channels=3))), torch.rand(3, 3, 8, 8)
    images = who.contiguous(memory_format=torch.channels_last)
    batch = Batch(images, torch.zeros(3, dtype=torch.long), torch.arange(3))
    found = Borrowed(views, Linf(), 0.05)(DefenseView(threat), batch)
    assert (found.status != int(Status.FAILED)).all()
    assert not torch.equal(found.x, images)


def test_gradients_have_the_strides_of_the_images_that_were_asked_about() -> None:
    """Prepared networks are channels_last; torchattacks' AutoAttack calls `.view` on what comes back."""
    images = torch.rand(3, 3, 8, 8)
    who = Batch(images, torch.zeros(3, dtype=torch.long), torch.arange(3))
    shown = Shown(DefenseView(adaptive(Defense(SmallNet(channels=3)))), who.index)
    x = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(shown(x).sum(), x)
    assert slope.is_contiguous()
    assert slope.view(3, -1).abs().amax() > 0
    (inside,) = torch.autograd.grad(shown(2 * x).sum(), x)  # of images that are no leaf
    assert inside.is_contiguous()
