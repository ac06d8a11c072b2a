"""What the peers are asked to do: each function takes (module, batch) and returns their adversarial examples."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from noisychannel.types import Batch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import foolbox

__all__ = [
    "EPSILON",
    "STEP",
    "Noisy",
    "Run",
    "art_cw",
    "art_pgd",
    "foolbox_boundary",
    "foolbox_cw",
    "foolbox_ddn",
    "foolbox_eot",
    "foolbox_pgd",
    "missing",
    "torchattacks_eot",
    "torchattacks_pgd",
]  # fmt: skip

EPSILON, STEP = 8 / 255, 2 / 255
Run = Callable[[nn.Module, Batch], Tensor]


class Noisy(nn.Module):
    """Gauss noise before the network, as a user of a peer would write it."""

    def __init__(self, module: nn.Module, sigma: float) -> None:
        super().__init__()
        self.module, self.sigma = module, sigma
        # torchattacks gives a model back in the mode it came in, its parts included: batch norms would learn.
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x + self.sigma * torch.randn_like(x))


class _FixedStart(foolbox.attacks.LinfProjectedGradientDescentAttack):
    """foolbox's PGD from given starting points."""

    def __init__(self, start: Tensor, **numbers: Any) -> None:
        super().__init__(**numbers)
        self.start = start

    def get_random_start(self, x0: Any, epsilon: float) -> Any:
        return foolbox.models.base.ep.astensor(self.start)


@cache
def missing(name: str) -> bool:
    """Whether an optional peer cannot be imported; said once."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            __import__(name)
    except ImportError as error:
        print(f"{name} is not here, its rows are left out ({error})", flush=True)
        return True
    return False


def _foolbox(module: nn.Module, batch: Batch) -> Any:
    return foolbox.PyTorchModel(module, bounds=(0, 1), device=batch.x.device)


def foolbox_pgd(start: Tensor, steps: int = 40) -> Run:
    def run(module: nn.Module, b: Batch) -> Tensor:
        attack = _FixedStart(start, steps=steps, abs_stepsize=STEP)
        return attack(_foolbox(module, b), b.x, b.y, epsilons=EPSILON)[1]

    return run


def foolbox_eot(start: Tensor, sigma: float, draws: int, steps: int) -> Run:
    def run(module: nn.Module, b: Batch) -> Tensor:
        model = foolbox.models.ExpectationOverTransformationWrapper(
            _foolbox(Noisy(module, sigma), b), n_steps=draws
        )
        attack = _FixedStart(start, steps=steps, abs_stepsize=STEP)
        return attack(model, b.x, b.y, epsilons=EPSILON)[1]

    return run


def foolbox_ddn(module: nn.Module, b: Batch) -> Tensor:
    return foolbox.attacks.DDNAttack(steps=100)(_foolbox(module, b), b.x, b.y, epsilons=None)[1]


def foolbox_cw(module: nn.Module, b: Batch) -> Tensor:
    attack = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=5, steps=100, stepsize=0.01, initial_const=0.01
    )
    return attack(_foolbox(module, b), b.x, b.y, epsilons=None)[1]


def foolbox_boundary(start: Tensor, steps: int) -> Run:
    def run(module: nn.Module, b: Batch) -> Tensor:
        # foolbox writes TensorBoard logs unless told not to.
        attack = foolbox.attacks.BoundaryAttack(steps=steps, tensorboard=False)
        with torch.no_grad():
            found = attack(_foolbox(module, b), b.x, b.y, starting_points=start, epsilons=None)
        return found[1]

    return run


def torchattacks_pgd(module: nn.Module, b: Batch) -> Tensor:
    import torchattacks  # pyright: ignore[reportMissingImports]

    attack = torchattacks.PGD(module, eps=EPSILON, alpha=STEP, steps=40, random_start=True)
    return attack(b.x, b.y)


def torchattacks_eot(sigma: float, draws: int, steps: int) -> Run:
    def run(module: nn.Module, b: Batch) -> Tensor:
        import torchattacks  # pyright: ignore[reportMissingImports]

        noisy = Noisy(module, sigma)
        attack = torchattacks.EOTPGD(noisy, eps=EPSILON, alpha=STEP, steps=steps, eot_iter=draws)
        return attack(b.x, b.y)

    return run


def _art(module: nn.Module, b: Batch) -> Any:
    from art.estimators.classification import PyTorchClassifier  # pyright: ignore[reportMissingImports]

    return PyTorchClassifier(
        module,
        nn.CrossEntropyLoss(),
        tuple(b.x.shape[1:]),
        10,
        clip_values=(0.0, 1.0),
        device_type="gpu" if b.x.is_cuda else "cpu",
    )


def art_pgd(module: nn.Module, b: Batch) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch  # pyright: ignore[reportMissingImports]

    attack = ProjectedGradientDescentPyTorch(
        _art(module, b), eps=EPSILON, eps_step=STEP, max_iter=40, num_random_init=1,
        batch_size=len(b), verbose=False,
    )  # fmt: skip
    return torch.from_numpy(np.asarray(attack.generate(b.x.cpu().numpy(), b.y.cpu().numpy())))


def art_cw(module: nn.Module, b: Batch) -> Tensor:
    from art.attacks.evasion import CarliniL2Method  # pyright: ignore[reportMissingImports]

    attack = CarliniL2Method(
        _art(module, b), binary_search_steps=5, max_iter=100, learning_rate=0.01,
        initial_const=0.01, batch_size=len(b), verbose=False,
    )  # fmt: skip
    return torch.from_numpy(np.asarray(attack.generate(b.x.cpu().numpy(), b.y.cpu().numpy())))
