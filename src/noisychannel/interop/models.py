"""Their models as our networks, our defenses as their models, and our attacks called as theirs are."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from noisychannel.defenses import Defense
from noisychannel.errors import expected
from noisychannel.interop.outside import Bounded, Outside
from noisychannel.interop.peers import estimator, installed
from noisychannel.interop.shown import Shown
from noisychannel.networks import Foreign
from noisychannel.threats import DefenseView, adaptive
from noisychannel.types import Attack, Batch

__all__ = ["as_callable", "from_art", "from_foolbox", "to_art", "to_foolbox"]


def from_foolbox(model: Any, shape: tuple[int, ...], name: str = "foolbox model") -> Foreign:
    """A foolbox model as a network of ours: pixels in [0, 1] are stretched to its bounds, then it preprocesses.

    A `PyTorchModel` is differentiated by autograd and copied as it stands. One of another framework is
    asked through NumPy and differentiated by its own `value_and_grad`; it is not copied, and has no key.

    Args:
        model: a `foolbox.Model`.
        shape: shape of one example, (c, h, w) or (c, l): a foolbox model does not tell.
        name: what reports call it.

    Raises:
        UserError: no foolbox model. (One without gradients refuses attacks that need them.)
    """
    with installed("foolbox"):
        from foolbox.models.base import Model, TransformBoundsWrapper
        from foolbox.models.pytorch import PyTorchModel
    if not isinstance(model, Model):
        raise expected("model", "a foolbox Model", f"a {type(model).__name__}")
    while isinstance(model, TransformBoundsWrapper):
        model = model._model  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # stretched once is enough
    low, high = (torch.tensor(float(bound)) for bound in model.bounds)
    if type(model) is PyTorchModel:
        inner = inspect.getclosurevars(model._model).nonlocals["model"]  # noqa: SLF001  # pyright: ignore[reportPrivateUsage, reportArgumentType]
        mean, std, flip = model._preprocess_args  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        raw = [None if number is None else number.raw for number in (mean, std)]
        return Foreign(Bounded(inner, low, high, raw[0], raw[1], flip), shape, name)
    return Foreign(Bounded(_foolbox_outside(model), low, high), shape, name)


def _foolbox_outside(model: Any) -> nn.Module:
    with installed("foolbox"):
        import eagerpy as ep

    dummy: Any = None
    inner = model
    while inner is not None and dummy is None:
        known = vars(inner)
        dummy, inner = known.get("_dummy"), known.get("_model")
        inner = None if inspect.isfunction(inner) else inner
    if dummy is None or isinstance(dummy.raw, Tensor):
        return Outside(model)

    def answer(x: np.ndarray) -> np.ndarray:
        return model(ep.from_numpy(dummy, x)).numpy()

    def pull(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
        weight = ep.from_numpy(dummy, slope)
        at = ep.from_numpy(dummy, x)
        return ep.value_and_grad(lambda t: (model(t) * weight).sum(), at)[1].numpy()

    return Outside(answer, pull)


def from_art(classifier: Any, name: str = "ART classifier") -> Foreign:
    """An ART classifier as a network of ours: pixels in [0, 1] are stretched to its `clip_values`.

    A `PyTorchClassifier` whose preprocessing is a mean and a std is differentiated by autograd and copied
    as it stands. Any other (defences before or after it, another framework) is asked by its `predict` and
    differentiated by its `class_gradient`; it is not copied, and has no key.

    Args:
        classifier: with `clip_values`, `predict` and `class_gradient`; it must answer with logits.
        name: what reports call it.

    Raises:
        UserError: no such classifier.
    """
    with installed("adversarial-robustness-toolbox"):
        from art.estimators.classification import PyTorchClassifier
        from art.estimators.classification.classifier import ClassGradientsMixin
        from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch
        from art.preprocessing.standardisation_mean_std.utils import broadcastable_mean_std
    if not isinstance(classifier, ClassGradientsMixin):
        raise expected(
            "classifier", "an ART classifier with class gradients", f"a {type(classifier).__name__}"
        )
    theirs: Any = classifier
    shape = tuple(theirs.input_shape)
    if theirs.clip_values is None:
        raise expected("clip_values", "the classifier's range of pixels", None)
    low, high = (_broadcast(bound, shape) for bound in theirs.clip_values)
    steps = theirs.preprocessing_operations
    plain = all(
        type(step) is StandardisationMeanStdPyTorch and step.apply_predict for step in steps
    )
    if (
        type(classifier) is PyTorchClassifier
        and plain
        and len(steps) <= 1
        and not theirs.postprocessing_defences
    ):
        mean = std = None
        if steps:
            both = broadcastable_mean_std(np.zeros((1, *shape)), steps[0].mean, steps[0].std)
            mean, std = (torch.as_tensor(number, dtype=torch.float32) for number in both)
        return Foreign(Bounded(theirs.model.eval(), low, high, mean, std), shape, name)

    def pull(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
        return np.einsum("nk,nk...->n...", slope, theirs.class_gradient(x))

    return Foreign(Bounded(Outside(theirs.predict, pull), low, high), shape, name)


def _broadcast(bound: Any, shape: tuple[int, ...]) -> Tensor:
    made = torch.as_tensor(bound, dtype=torch.float32)
    return made.view(shape) if made.numel() > 1 else made.view(())


def to_foolbox(defense: Defense, draws: int | None = None, device: str = "cpu") -> Any:
    """A defense as a `foolbox.PyTorchModel` with bounds (0, 1): each call has fresh draws.

    Args:
        defense: any of ours.
        draws: averaged for each answer, as an adaptive attacker does (EOT); None: as many as one decision
            of the defense takes, and the answer's largest logit is that decision.
        device: where to compute.
    """
    with installed("foolbox"):
        from foolbox.models.pytorch import PyTorchModel
    return PyTorchModel(_deployed(defense, draws, device), bounds=(0, 1), device=device)


def to_art(defense: Defense, draws: int | None = None, device: str = "cpu") -> Any:
    """A defense as an ART `PyTorchClassifier` with clip_values (0, 1); the arguments are those of `to_foolbox`."""
    module, shape = _deployed(defense, draws, device), defense.network.shape
    with torch.no_grad():
        classes = module(torch.full((1, *shape), 0.5)).shape[1]
    return estimator(module, shape, classes)


def _deployed(defense: Defense, draws: int | None, device: str) -> Shown:
    threat = adaptive(defense, defense.rule.draws if draws is None else draws)
    nobody = torch.zeros(1, dtype=torch.long, device=device)
    return Shown(DefenseView(threat, device), nobody, verdict=draws is None).eval()


def as_callable(attack: Attack, draws: int = 1) -> Callable[..., Tensor]:
    """One of our attacks as a function `(model, x, y, targets=None, targeted=False) → x_adv` (AttackBench's).

    The model is any module in eval mode from [0, 1] to logits; a random one is found by asking twice. Images are
    named in the order in which they come, call after call, so that each has draws of its own.

    Args:
        attack: any of ours.
        draws: EOT draws per gradient, if the model is random.
    """
    seen = 0

    def called(
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        targets: Tensor | None = None,
        targeted: bool = False,  # noqa: FBT001, FBT002
    ) -> Tensor:
        nonlocal seen
        if targeted and targets is None:
            raise expected("targets", "a class for each example of a targeted attack", None)
        index = torch.arange(seen, seen + len(x), device=x.device)
        seen += len(x)
        batch = Batch(x, y, index, targets if targeted else None)
        network = Foreign(model, tuple(x.shape[1:]))
        view = DefenseView(adaptive(Defense(network), draws), str(x.device))
        return attack(view, batch).x

    return called
