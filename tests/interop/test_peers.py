"""Attack objects of foolbox, torchattacks, ART and AutoAttack against our defenses."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from linear import LinearNetwork
from noisychannel import rng
from noisychannel.channels import Gauss
from noisychannel.defenses import Defense
from noisychannel.errors import UserError
from noisychannel.interop import (
    Borrowed,
    art_attack,
    autoattack,
    foolbox_attack,
    from_art,
    from_foolbox,
    to_art,
    to_foolbox,
    torchattacks_attack,
)
from noisychannel.norms import L0, L2, Linf
from noisychannel.spec import key
from noisychannel.threats import DefenseView, Threat, adaptive, non_adaptive
from noisychannel.types import Adversarials, Batch, Status

# foolbox imports a name from where SciPy has deprecated it.
pytestmark = pytest.mark.filterwarnings("ignore:Please import `gaussian_filter`:DeprecationWarning")

NETWORK = LinearNetwork(gain=5.0)
BARE = non_adaptive(Defense(NETWORK))
NOISY = adaptive(Defense(NETWORK, Gauss(0.05)), draws=3)
EPSILON = 0.03
FOUND, INIT_FAILED, LOST = Status.FOUND, Status.INIT_FAILED, Status.LOST_ON_RESCORING


def batch(targeted: bool = False) -> Batch:
    made = NETWORK.batch(8)
    return replace(made, target=(made.y + 1) % NETWORK.classes) if targeted else made


def attacked(attack: Borrowed, threat: Threat = BARE, who: Batch | None = None) -> Adversarials:
    with rng.root("peers"):
        return attack(DefenseView(threat), batch() if who is None else who)


def foolbox() -> Any:
    return pytest.importorskip("foolbox", reason="pip install 'noisychannel[foolbox]'")


def torchattacks() -> Any:
    return pytest.importorskip("torchattacks", reason="pip install --no-deps torchattacks")


def evasion() -> Any:
    return pytest.importorskip("art.attacks.evasion", reason="pip install 'noisychannel[art]'")


def _foolbox(name: str, epsilon: float | None, **arguments: Any) -> Borrowed:
    return foolbox_attack(getattr(foolbox().attacks, name)(**arguments), epsilon)


def _torchattacks(name: str, norm: Any, epsilon: float | None, **arguments: Any) -> Borrowed:
    return torchattacks_attack(getattr(torchattacks(), name), norm, epsilon, arguments=arguments)


def _art(name: str, norm: Any, epsilon: float | None, **arguments: Any) -> Borrowed:
    return art_attack(getattr(evasion(), name), norm, epsilon, arguments=arguments)


MADE: dict[str, Callable[[], Borrowed]] = {
    "foolbox FGSM": lambda: _foolbox("FGSM", EPSILON),
    "foolbox PGD": lambda: _foolbox("LinfPGD", EPSILON, steps=5, abs_stepsize=0.01),
    "foolbox PGD, 2 times": lambda: foolbox_attack(
        foolbox().attacks.LinfPGD(steps=5, abs_stepsize=0.01).repeat(2), EPSILON
    ),
    "foolbox C&W": lambda: _foolbox(
        "L2CarliniWagnerAttack", None, binary_search_steps=3, steps=20, stepsize=0.05
    ),
    "foolbox DDN, within a ball": lambda: _foolbox("DDNAttack", 0.3, steps=20),
    "torchattacks FGSM": lambda: _torchattacks("FGSM", Linf(), EPSILON, eps=EPSILON),
    "torchattacks PGD": lambda: _torchattacks(
        "PGD", Linf(), EPSILON, eps=EPSILON, alpha=0.01, steps=5
    ),
    "torchattacks C&W": lambda: _torchattacks("CW", L2(), None, c=10, steps=20),
    "torchattacks AutoAttack, rand": lambda: _torchattacks(
        "AutoAttack", Linf(), EPSILON, eps=EPSILON, version="rand", n_classes=5, seed=0
    ),
    "ART FGSM": lambda: _art("FastGradientMethod", Linf(), EPSILON, eps=EPSILON),
    "ART PGD": lambda: _art(
        "ProjectedGradientDescent", Linf(), EPSILON, eps=EPSILON, eps_step=0.01, max_iter=5
    ),
    "ART C&W": lambda: _art(
        "CarliniL2Method",
        L2(),
        None,
        binary_search_steps=2,
        max_iter=4,
        initial_const=1.0,
        batch_size=8,
    ),
}
EVERY = pytest.mark.parametrize("name", MADE)


@EVERY
@pytest.mark.parametrize("threat", [BARE, NOISY], ids=["deterministic", "Gauss"])
def test_it_runs_and_is_judged(name: str, threat: Threat) -> None:
    """FOUND is wrong for an independent jury; the generators are as they were; the same name, the same bytes."""
    attack, who = MADE[name](), batch()
    before = torch.get_rng_state()
    found = attacked(attack, threat)
    assert torch.equal(torch.get_rng_state(), before)
    again = attacked(attack, threat)
    assert torch.equal(found.x, again.x)
    assert torch.equal(found.status, again.status)
    if attack.epsilon is not None:
        assert (attack.norm.distance(found.x, who.x) <= attack.epsilon * (1 + 1e-5) + 1e-7).all()
    won = found.status == FOUND
    if (
        threat is BARE or attack.epsilon is not None
    ):  # noise brings back what a smallest change has won
        assert won.float().mean() >= 0.25
    assert ((found.x != who.x).flatten(1).any(dim=1) | ~won).float().mean() >= 0.5
    with rng.root("jury"), rng.bracket(rng.Stream("scoring", who.index, draws=range(400))):
        seen = threat.assumed.channel(found.x.repeat(400, 1, 1, 1))
    wrong = NETWORK.build()(seen).argmax(dim=1).view(400, -1) != who.y
    # 8 of 16 selection draws wrong at a rate of .2 happens once in 1,400.
    assert (wrong.float().mean(dim=0)[won] > 0.2).all()
    assert (found.cost.backwards > 0).all()


def alone(name: str, who: Batch, targeted: bool = False) -> Tensor:
    """The peer called as its manual says, on torch's own copy of the network."""
    model, y = NETWORK.build(), who.y if who.target is None else who.target
    if name == "foolbox":
        fb = foolbox()
        goal = fb.TargetedMisclassification(y) if targeted else fb.Misclassification(y)
        attack = fb.attacks.L2PGD(steps=5, random_start=False)
        return attack(fb.PyTorchModel(model, bounds=(0, 1)), who.x, goal, epsilons=0.3)[1]
    if name == "torchattacks":
        attack = torchattacks().PGD(model, eps=EPSILON, alpha=0.01, steps=5, random_start=False)
        if targeted:
            attack.set_mode_targeted_by_label(quiet=True)
        return attack(who.x, y)
    evasion()
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), NETWORK.shape, NETWORK.classes, clip_values=(0.0, 1.0)
    )
    attack = evasion().ProjectedGradientDescent(
        classifier, eps=EPSILON, eps_step=0.01, max_iter=5, targeted=targeted, verbose=False
    )
    return torch.from_numpy(attack.generate(who.x.numpy(), y.numpy()))


ALONE: dict[str, Callable[[], Borrowed]] = {
    "foolbox": lambda: _foolbox("L2PGD", 0.3, steps=5, random_start=False),
    "torchattacks": lambda: torchattacks_attack(
        lambda model: torchattacks().PGD(
            model, eps=EPSILON, alpha=0.01, steps=5, random_start=False
        ),
        Linf(),
        EPSILON,
    ),
    "ART": lambda: art_attack(
        lambda classifier: evasion().ProjectedGradientDescent(
            classifier, eps=EPSILON, eps_step=0.01, max_iter=5
        ),
        Linf(),
        EPSILON,
    ),
}


@pytest.mark.parametrize("targeted", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("name", ALONE)
def test_it_does_what_it_does_alone(name: str, targeted: bool) -> None:
    who = batch(targeted)
    found = attacked(ALONE[name](), who=who)
    torch.testing.assert_close(found.x, alone(name, who, targeted), rtol=0, atol=1e-6)
    predicted = NETWORK.build()(found.x).argmax(dim=1)
    hit = predicted != who.y if who.target is None else predicted == who.target
    assert torch.equal(found.status == FOUND, hit)
    assert hit.any()


# ---------------------------------------------------------------- foolbox on random models


@pytest.mark.parametrize("name", ["BoundaryAttack", "HopSkipJumpAttack"])
def test_foolbox_goes_on_where_it_used_to_raise(name: str) -> None:
    """bethgelab/foolbox#541: no start for one example, and the whole batch is lost."""
    attack = _foolbox(name, None, steps=2)
    fb = foolbox()
    noisy = to_foolbox(NOISY.assumed)
    who = batch()
    with pytest.raises(ValueError, match="init_attack failed"):
        attack.call.attack(noisy, who.x, fb.Misclassification(who.y), epsilons=None)  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match=r"raised for \d of 8 examples \(ValueError: init_attack"):
        found = attacked(attack, NOISY)
    assert (found.status == INIT_FAILED).any()
    assert found.x.isfinite().all()


def test_success_on_foolboxs_own_draws_is_not_success() -> None:
    """Noise that errs seldom, asked 60 times about all but the clean image: one draw errs, and foolbox stops."""
    network = LinearNetwork(gain=5.0, classes=2)
    who = network.batch(24)
    optimum = network.optimum(who, 2.0)
    sigma = float(optimum.median()) / 1.5
    who = who.rows(optimum > 1.2 * sigma)
    attack = foolbox_attack(
        foolbox().attacks.L2RepeatedAdditiveGaussianNoiseAttack(repeats=60), 1e-6
    )
    found = attacked(attack, adaptive(Defense(network, Gauss(sigma))), who)
    assert (found.status != FOUND).all()
    assert (found.status == LOST).any()


def test_foolbox_objects_tell_their_norm() -> None:
    attacks = foolbox().attacks
    assert foolbox_attack(attacks.L2PGD(), 0.5).norm == L2()
    assert foolbox_attack(attacks.SaltAndPepperNoiseAttack(), 5.0).norm == L2()
    assert foolbox_attack(attacks.L0FMNAttack()).norm == L0()
    assert (
        foolbox_attack(attacks.LinfPGD().repeat(3), 0.1).name
        == "foolbox LinfProjectedGradientDescentAttack"
    )
    with pytest.raises(UserError, match=r"epsilon: expected a number ≥ 0 for LinfProj.*got None"):
        foolbox_attack(attacks.LinfPGD())
    with pytest.raises(
        UserError, match=r"norm: expected a norm of ours for L1FMNAttack, got L1 dist"
    ):
        foolbox_attack(attacks.L1FMNAttack())


def test_keys_of_objects_know_their_numbers() -> None:
    attacks = foolbox().attacks
    made = [
        foolbox_attack(attacks.LinfPGD(steps=5), 0.1),
        foolbox_attack(attacks.LinfPGD(steps=6), 0.1),
        foolbox_attack(attacks.LinfPGD(steps=5), 0.2),
        foolbox_attack(attacks.LinfBasicIterativeAttack(steps=5), 0.1),
        _torchattacks("PGD", Linf(), 0.1, eps=0.1),
        _torchattacks("PGD", Linf(), 0.1, eps=0.2),
        _torchattacks("FGSM", Linf(), 0.1, eps=0.1),
    ]
    assert len({key(a) for a in made}) == len(made)
    assert key(made[0]) == key(foolbox_attack(attacks.LinfPGD(steps=5), 0.1))


def test_an_object_that_holds_its_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"torchattacks: expected a class, .* got a PGD that holds"):
        torchattacks_attack(torchattacks().PGD(NETWORK.build()), Linf(), 0.1)


def test_one_that_cannot_be_targeted_is_refused() -> None:
    with pytest.raises(UserError, match="torchattacks: expected an attack that can be targeted"):
        attacked(_torchattacks("GN", Linf(), 0.1), who=batch(targeted=True))
    with pytest.raises(
        UserError, match="ART: expected an attack that can be targeted, got DeepFool"
    ):
        attacked(_art("DeepFool", L2(), None), who=batch(targeted=True))


# ---------------------------------------------------------------- AutoAttack, which is on no package index


class AutoAttack:
    """A stand-in with the interface of fra31/auto-attack: one FGSM step, its success from a single draw."""

    made: list[dict[str, Any]]

    def __init__(
        self, model: Any, norm: str = "Linf", eps: float = 0.3, seed: int | None = None,
        verbose: bool = True, attacks_to_run: Any = (), version: str = "standard",
        is_tf_model: bool = False, device: str = "cuda", log_path: str | None = None,
    ) -> None:  # fmt: skip
        self.model, self.eps = model, eps
        AutoAttack.made.append({"norm": norm, "seed": seed, "version": version, "device": device})

    def run_standard_evaluation(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False,
        state_path: Any = None,
    ) -> Tensor:  # fmt: skip
        x = x_orig.clone().requires_grad_()
        loss = nn.functional.cross_entropy(self.model(x), y_orig, reduction="sum")
        step = self.eps * torch.autograd.grad(loss, x)[0].sign()
        moved = (x_orig + step).clamp(0, 1)
        lucky = self.model(moved).argmax(dim=1) != y_orig
        return torch.where(lucky[:, None, None, None], moved, x_orig)


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> type[AutoAttack]:
    module = ModuleType("autoattack")
    vars(module)["AutoAttack"] = AutoAttack
    monkeypatch.setitem(sys.modules, "autoattack", module)
    AutoAttack.made = []
    return AutoAttack


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_autoattack_through_its_interface(version: Any, standin: type[AutoAttack]) -> None:
    attack = autoattack(Linf(), EPSILON, version)
    found, again = attacked(attack, NOISY), attacked(attack, NOISY)
    assert (found.status == FOUND).any()
    assert torch.equal(found.x, again.x)
    first, second = standin.made
    assert first == second  # its seed is named, not the clock's
    assert (first["norm"], first["version"], first["device"]) == ("Linf", version, "cpu")
    autoattack(L2(), 0.5, "rand", seed=7)(DefenseView(BARE), batch())
    assert (standin.made[-1]["norm"], standin.made[-1]["seed"]) == ("L2", 7)


def test_autoattack_refuses(standin: type[AutoAttack]) -> None:
    with pytest.raises(UserError, match="norm: expected Linf"):
        autoattack(L0(), 3.0)
    with pytest.raises(UserError, match="version: expected standard, plus or rand"):
        autoattack(Linf(), 0.1, "fast")
    with pytest.raises(UserError, match="expected a function of"):  # it is untargeted
        attacked(autoattack(Linf(), EPSILON), who=batch(targeted=True))


# ---------------------------------------------------------------- absent

ABSENT: dict[str, tuple[Callable[[], Any], str]] = {
    "foolbox": (lambda: to_foolbox(BARE.assumed), r"foolbox: .*pip install 'noisychannel\[foolbox\]'"),
    "foolbox (attack)": (lambda: foolbox_attack(object(), 0.1), "foolbox: expected the package"),
    "foolbox (model)": (lambda: from_foolbox(object(), (1,)), "foolbox: expected the package"),
    "art": (lambda: to_art(BARE.assumed), r"adversarial-robustness-toolbox: .*'noisychannel\[art\]'"),
    "art (model)": (lambda: from_art(object()), "adversarial-robustness-toolbox: expected the pack"),
    "autoattack": (lambda: attacked(autoattack(Linf(), 0.1)), r"autoattack: .*pip install git\+https"),
    "torchattacks": (
        lambda: attacked(torchattacks_attack(_imports_torchattacks, Linf(), 0.1)),
        "torchattacks: .*pip install --no-deps torchattacks",
    ),
}  # fmt: skip


def _imports_torchattacks(model: nn.Module) -> Any:
    import torchattacks

    return torchattacks.FGSM(model)


@pytest.mark.parametrize("name", ABSENT)
def test_a_missing_peer_names_its_install_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = name.partition(" ")[0]
    for loaded in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, package, None)
    use, sentence = ABSENT[name]
    with pytest.raises(UserError, match=sentence) as caught:
        use()
    assert "\n" not in str(caught.value)


def test_importing_the_room_imports_no_peer() -> None:
    code = (
        "import sys, noisychannel.interop\n"
        "print(sorted({'foolbox', 'eagerpy', 'torchattacks', 'art', 'autoattack'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
