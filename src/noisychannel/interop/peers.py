"""Attack objects of foolbox, torchattacks, ART and AutoAttack as ours, and the packages that they come from."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from noisychannel.errors import UserError, expected
from noisychannel.interop.borrowed import Borrowed
from noisychannel.norms import L0, L2, Linf, Norm

__all__ = ["art_attack", "autoattack", "foolbox_attack", "installed", "torchattacks_attack"]

_INSTALL = {
    "foolbox": "pip install 'noisychannel[foolbox]'",
    "torchattacks": "pip install --no-deps torchattacks",
    "adversarial-robustness-toolbox": "pip install 'noisychannel[art]'",
    "robustbench": "pip install git+https://github.com/RobustBench/robustbench",
    "autoattack": "pip install git+https://github.com/fra31/auto-attack",
}


@contextmanager
def installed(package: str) -> Generator[None]:
    """An import inside that fails becomes one sentence with the line that installs the package.

    Raises:
        UserError: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"{package}: expected the package, got no module {error.name!r}; {_INSTALL[package]}"
        ) from None


def foolbox_attack(
    attack: Any, epsilon: float | None = None, norm: Norm | None = None, name: str | None = None
) -> Borrowed:
    """An attack object of foolbox 3.

    Args:
        attack: e.g. `foolbox.attacks.LinfPGD(steps=40)`.
        epsilon: radius of its ball, pixels in [0, 1]; None for its minimisation attacks.
        norm: of distances; None: the attack's own (L0, L2 or L∞).
        name: what reports call it; None: its class's.

    Raises:
        UserError: a fixed-epsilon attack without its epsilon, or a distance that is none of ours.
    """
    with installed("foolbox"):
        from foolbox.attacks.base import FixedEpsilonAttack, Repeated
    inner = attack.attack if isinstance(attack, Repeated) else attack
    name = type(inner).__name__ if name is None else name
    if epsilon is None and isinstance(inner, FixedEpsilonAttack):
        raise expected("epsilon", f"a number ≥ 0 for {name}, which needs its budget", None)
    if norm is None:
        distance = getattr(inner, "distance", None)
        own = {0: L0(), 2: L2(), math.inf: Linf()}.get(getattr(distance, "p", None))  # pyright: ignore[reportArgumentType, reportCallIssue]
        if own is None:
            raise expected("norm", f"a norm of ours for {name}", distance)
        norm = own
    return Borrowed(_Foolbox(attack, epsilon), norm, epsilon, f"foolbox {name}")


def torchattacks_attack(
    make: Callable[..., Any],
    norm: Norm,
    epsilon: float | None = None,
    name: str | None = None,
    arguments: dict[str, Any] | None = None,
) -> Borrowed:
    """An attack of torchattacks, whose objects hold their model: so its class, or a function that makes one.

    Args:
        make: model → attack, e.g. `lambda model: torchattacks.PGD(model, eps=8/255)`, or `torchattacks.PGD`.
        norm: of distances, which its objects do not tell.
        epsilon: radius of its ball, pixels in [0, 1]; None if it looks for the smallest perturbation.
        name: what reports call it; None: its class's.
        arguments: handed to `make` after the model, e.g. `{"eps": 8 / 255}`.

    Raises:
        UserError: an attack that holds its model already.
    """
    _check_class("torchattacks", make)
    call = _Torchattacks(make, arguments or {})
    return Borrowed(call, norm, epsilon, f"torchattacks {_name(make, name)}")


def art_attack(
    make: Callable[..., Any],
    norm: Norm,
    epsilon: float | None = None,
    name: str | None = None,
    arguments: dict[str, Any] | None = None,
) -> Borrowed:
    """An evasion attack of ART, whose objects hold their estimator: so its class, or a function that makes one.

    Args:
        make: estimator → attack, e.g. `art.attacks.evasion.ProjectedGradientDescent`.
        norm: of distances.
        epsilon: radius of its ball, pixels in [0, 1]; None if it looks for the smallest perturbation.
        name: what reports call it; None: its class's.
        arguments: handed to `make` after the estimator, e.g. `{"eps": 8 / 255}`.

    Raises:
        UserError: an attack that holds its estimator already.
    """
    _check_class("ART", make)
    return Borrowed(_ART(make, arguments or {}), norm, epsilon, f"ART {_name(make, name)}")


def autoattack(
    norm: Norm,
    epsilon: float,
    version: str = "standard",
    **arguments: Any,
) -> Borrowed:
    """Croce & Hein's AutoAttack; `rand` is theirs for random defenses, judged by us on fresh draws all the same.

    Args:
        norm: L∞ or L2.
        epsilon: radius of the ball, pixels in [0, 1].
        version: which attacks it runs: standard, plus or rand.
        arguments: handed to its constructor, e.g. `seed=0, attacks_to_run=[…]`.

    Raises:
        UserError: a norm or a version that it has not.

    Source: Croce & Hein 2020; fra31/auto-attack.
    """
    if norm not in (Linf(), L2()):
        raise expected("norm", "Linf() or L2()", norm)
    if version not in ("standard", "plus", "rand"):
        raise expected("version", "standard, plus or rand", repr(version))
    theirs = "Linf" if norm == Linf() else "L2"
    call = _AutoAttack(theirs, epsilon, version, arguments)
    return Borrowed(call, norm, epsilon, f"AutoAttack {version}")


@dataclass(frozen=True)
class _Foolbox:
    attack: Any
    epsilon: float | None

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, targets: Any = None, targeted: bool = False
    ) -> tuple[Tensor, Tensor]:
        from foolbox.criteria import Misclassification, TargetedMisclassification
        from foolbox.models.pytorch import PyTorchModel

        theirs = PyTorchModel(model.eval(), bounds=(0, 1), device=x.device)
        goal = TargetedMisclassification(targets) if targeted else Misclassification(y)
        _, clipped, success = self.attack(theirs, x, goal, epsilons=self.epsilon)
        return clipped, success


@dataclass(frozen=True)
class _Torchattacks:
    make: Callable[..., Any]
    arguments: dict[str, Any] = field(hash=False)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, targets: Any = None, targeted: bool = False
    ) -> Any:
        with installed("torchattacks"):
            attack = self.make(model.eval(), **self.arguments)
        if not targeted:
            return attack(x, y)
        try:
            attack.set_mode_targeted_by_label(quiet=True)
        except ValueError as error:
            raise UserError(
                f"torchattacks: expected an attack that can be targeted, got {type(attack).__name__} ({error})"
            ) from error
        return attack(x, targets)


@dataclass(frozen=True)
class _ART:
    make: Callable[..., Any]
    arguments: dict[str, Any] = field(hash=False)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, targets: Any = None, targeted: bool = False
    ) -> Any:
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        attack = self.make(estimator(model.eval(), tuple(x.shape[1:]), classes), **self.arguments)
        known = attack.attack_params
        if targeted and "targeted" not in known:
            raise UserError(
                f"ART: expected an attack that can be targeted, got {type(attack).__name__}"
            )
        settings = {"verbose": False, "targeted": targeted}
        attack.set_params(**{key: value for key, value in settings.items() if key in known})
        wanted = nn.functional.one_hot(targets if targeted else y, classes)
        return attack.generate(x=x.cpu().numpy(), y=wanted.float().cpu().numpy())


def estimator(model: nn.Module, shape: tuple[int, ...], classes: int) -> Any:
    """An ART classifier of a module of ours: logits of pixels in [0, 1]."""
    with installed("adversarial-robustness-toolbox"):
        from art.estimators.classification import PyTorchClassifier
    device = next(model.parameters()).device
    return PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=shape,
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if device.type == "cuda" else "cpu",
    )


@dataclass(frozen=True)
class _AutoAttack:
    norm: str
    epsilon: float
    version: str
    arguments: dict[str, Any] = field(hash=False)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Any:
        with installed("autoattack"):
            from autoattack import AutoAttack  # pyright: ignore[reportMissingImports]
        # Without a seed it takes the clock's; this one is named, since the generator is.
        seed = int(torch.randint(2**31, ()))
        settings = {"seed": seed, "verbose": False, "device": str(x.device), **self.arguments}
        attack = AutoAttack(
            model.eval(), norm=self.norm, eps=self.epsilon, version=self.version, **settings
        )
        return attack.run_standard_evaluation(x, y, bs=len(x))


def _check_class(peer: str, make: Callable[..., Any]) -> None:
    if isinstance(make, type) or not {"generate", "set_model"} & set(dir(make)):
        return
    raise UserError(
        f"{peer}: expected a class, or a function that makes the attack for a model, got a "
        f"{type(make).__name__} that holds one already; write lambda model: {type(make).__name__}(model, …)"
    )


def _name(make: Callable[..., Any], name: str | None) -> str:
    made = getattr(make, "__name__", type(make).__name__) if name is None else name
    return "attack" if made == "<lambda>" else made
