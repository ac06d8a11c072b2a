"""The probe: how a network answers a grey example, and proof that nothing done to its layers is lost."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from noisychannel import rng
from noisychannel.defenses.layers import Altered, Site
from noisychannel.defenses.passes import one_pass
from noisychannel.errors import UserError, reason

__all__ = ["firing_order", "prove", "prove_replaceable", "show"]

_ROWS = 2
"""Examples of the proof: with one, a layer that is shown a single row whatever the batch would look right."""


def show(
    module: nn.Module,
    shape: tuple[int, ...],
    ask: Callable[[Tensor], Any],
    rows: int = 1,
    *,
    who: str = "surgery",
    gradients: bool = False,
) -> Any:
    """What `ask` says of grey examples, the module in eval mode, under a stream of as many rows."""
    tensors = [*module.parameters(), *module.buffers(), torch.zeros(())]
    tensor = next(t for t in tensors if not is_lazy(t) and t.is_floating_point())
    stream = rng.Stream("selection", torch.arange(rows, device=tensor.device))
    x = torch.full((rows, *shape), 0.5, device=tensor.device, dtype=tensor.dtype)
    with ExitStack() as open_:
        open_.enter_context(_eval_mode(module))
        open_.enter_context(torch.set_grad_enabled(gradients))
        open_.enter_context(rng.torch_seeded(stream))
        open_.enter_context(rng.bracket(stream))
        open_.enter_context(one_pass())
        try:
            return ask(x)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{who}: expected a network that takes an example of shape {shape}, "
                f"got: {reason(error)[:200]}"
            ) from error


def firing_order(
    module: nn.Module, layers: dict[str, nn.Module], shape: tuple[int, ...]
) -> list[Site]:
    """The layers in the order in which they fire. Raises: UserError where one never does."""
    fired: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(
            _: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], made: Tensor
        ) -> None:
            given = args[0] if args else named["input"]
            fired.setdefault(name, (tuple(given.shape[1:]), tuple(made.shape[1:])))

        return hook

    handles = [
        layer.register_forward_hook(note(name), with_kwargs=True) for name, layer in layers.items()
    ]
    try:
        show(module, shape, module)
    finally:
        for handle in handles:
            handle.remove()
    _check_fired(list(layers), fired)
    return [
        Site(name, layers[name], position, *shapes)
        for position, (name, shapes) in enumerate(fired.items())
    ]


def prove(module: nn.Module, names: list[str], shape: tuple[int, ...], original: nn.Module) -> None:
    """Refuse a copy of `original` where something that was done to these layers would be lost.

    It is shown examples in eval mode, without gradients and with them, and no hook of the probe is
    there: torch's fused paths are taken without hooks and without gradients alone. With gradients
    the layers, and only they, are in training mode, so that noise of training alone is drawn once too.
    """
    layers = {name: module.get_submodule(name) for name in names}
    for gradients in (False, True):
        watch = _Watch(layers)

        def ask(x: Tensor, *, training: bool = gradients) -> Any:
            for layer in layers.values():
                layer.training = training
            return module(x)

        weights = _own_weights(module, layers)
        try:
            for layer in layers.values():
                vars(layer)["probed"] = watch
            with _requiring_gradients(weights):
                read = _leaves(show(module, shape, ask, _ROWS, gradients=gradients))
        finally:
            for layer in layers.values():
                vars(layer).pop("probed", None)
        _check_fired(names, watch.fired)
        _check_read(read, weights, original)


def prove_replaceable(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Refuse a network that computes with parameters other than those that it is called with (ParamNet)."""
    own = dict(module.named_parameters())
    apart = {name: p.detach() for name, p in own.items()}

    def ask(x: Tensor) -> Any:
        return functional_call(module, apart, (x,))

    with _requiring_gradients(dict.fromkeys(own.values())):
        missed = _leaves(show(module, shape, ask, who="ParamNet", gradients=True))
    if missed:
        name = next((name for name, p in own.items() if p is missed[0]), "one held elsewhere")
        raise UserError(
            "ParamNet: expected a network that reads its parameters where they are registered, but "
            f"noise would not reach {name} {tuple(missed[0].shape)}, which it keeps in a list, a "
            "closure or a replaced forward; let it call the registered layer"
        )


class _Watch:
    """In the place of the effects: notes who fires, and computes with copies of the layer's parameters.

    Whatever the answer still depends on was then read elsewhere.
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        self.names: dict[object, str] = {layer: name for name, layer in layers.items()}
        self.fired: dict[str, None] = {}

    def __call__(self, layer: Altered, x: Tensor) -> Tensor:
        name = self.names[layer]
        self.fired[name] = None
        own: dict[str, Tensor | None] = vars(layer)["_parameters"]
        kept = dict(own)
        own.update({n: _apart(p) for n, p in kept.items() if p is not None})
        try:
            return layer.effect(layer, x)
        except UserError:
            raise
        except ValueError as error:
            if len(x) == _ROWS:
                raise
            raise UserError(
                f"surgery: expected {name} to be shown one row per example, since each has noise of "
                f"its own, got {len(x)} rows for {_ROWS} examples; a network that joins or splits "
                "examples cannot have it there: name it in skip (RobustNet: exceptions)"
            ) from error
        finally:
            own.update(kept)


def _apart(tensor: Tensor) -> Tensor:
    bare = tensor.detach()
    # Under ParamNet it is not a Parameter.
    return nn.Parameter(bare, requires_grad=False) if isinstance(tensor, nn.Parameter) else bare


def _own_weights(module: nn.Module, layers: Mapping[str, nn.Module]) -> dict[Tensor, str]:
    """The weights of these layers that no other layer shares."""
    ours = set(layers.values())
    others = {id(p) for m in module.modules() if m not in ours for p in m.parameters(recurse=False)}
    weights = {layer.get_parameter("weight"): name for name, layer in layers.items()}
    return {w: name for w, name in weights.items() if id(w) not in others}


def _check_fired(names: list[str], fired: Mapping[str, object]) -> None:
    silent = [name for name in names if name not in fired]
    if silent:
        raise UserError(
            f"surgery: the network never calls {', '.join(silent[:3])} "
            f"({len(silent)} of {len(names)} layers), so nothing done there would count; "
            "its parent uses the weights directly, or does not use the layer; name it in skip (RobustNet: exceptions)"
        )


def _check_read(read: list[Tensor], weights: Mapping[Tensor, str], original: nn.Module) -> None:
    theirs = {id(p): name for name, p in original.named_parameters()}
    for leaf in read:
        if leaf in weights:
            raise UserError(
                f"surgery: expected the weight of {weights[leaf]} to be read by its layer alone, but "
                "the network also reads it itself, where nothing done to the layer counts; "
                "name it in skip (RobustNet: exceptions)"
            )
        if id(leaf) in theirs:
            raise UserError(
                "surgery: expected a network whose copy stands alone, but the copy computes with "
                f"{theirs[id(leaf)]} of the original, where nothing done to the copy counts; a closure "
                "or a replaced forward holds its layer: let it call the registered one"
            )


@contextmanager
def _requiring_gradients(tensors: Mapping[Tensor, object]) -> Generator[None]:
    """Frozen ones too, for a while: what does not require gradients leaves no trace in an answer."""
    frozen = [t for t in tensors if not t.requires_grad]
    try:
        for t in frozen:
            t.requires_grad_(True)
        yield
    finally:
        for t in frozen:
            t.requires_grad_(False)


def _leaves(answer: object) -> list[Tensor]:
    """The tensors requiring gradients that an answer was computed from."""
    todo: list[Any] = [
        torch.autograd.graph.get_gradient_edge(t).node for t in _tensors(answer) if t.requires_grad
    ]
    seen: set[Any] = set()
    found: list[Tensor] = []
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        todo.extend(following for following, _ in node.next_functions)
    return found


def _tensors(answer: object) -> Iterator[Tensor]:
    if isinstance(answer, Tensor):
        yield answer
    elif isinstance(answer, Mapping):
        for value in answer.values():  # pyright: ignore[reportUnknownVariableType]
            yield from _tensors(value)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(answer, list | tuple):
        for value in answer:  # pyright: ignore[reportUnknownVariableType]
            yield from _tensors(value)  # pyright: ignore[reportUnknownArgumentType]


@contextmanager
def _eval_mode(module: nn.Module) -> Generator[None]:
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training
