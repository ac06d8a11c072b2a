"""A copy of a network for the attack's hot loop: same function, fewer and faster operations."""

import copy
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["prepare"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def prepare(module: nn.Module) -> nn.Module:
    """A copy in eval mode with frozen parameters, channels-last weights, and batch norms folded.

    A batch norm is folded into a convolution where it is that convolution's only consumer, both
    are plain torch layers used once, without hooks, whose parameters are their own (so nothing that
    noise on weights touches). A trace only finds these pairs; the copy still runs the network's own
    `forward`. Where the trace fails nothing is folded. The original is untouched; logits agree to 1e-4.
    """
    ready = copy.deepcopy(module).eval().requires_grad_(requires_grad=False)
    for conv, norm in _pairs(ready):
        before, after = ready.get_submodule(conv), ready.get_submodule(norm)
        assert isinstance(before, _CONVOLUTIONS)
        assert isinstance(after, _NORMS)
        _replace(ready, conv, fuse_conv_bn_eval(before, after))
        _replace(ready, norm, nn.Identity())
    ready = ready.requires_grad_(requires_grad=False)
    return ready.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class _Finder(fx.Tracer):
    """Records which modules ran with parameters that are not their own (`functional_call`)."""

    def __init__(self, own: dict[nn.Module, dict[str, int]]) -> None:
        super().__init__()
        self.own = own
        self.borrowed: set[nn.Module] = set()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Modules without children run as they are."""
        return next(m.children(), None) is None or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Note the identity of the module's parameters at the time of the call."""
        if _identities(m) != self.own[m]:
            self.borrowed.add(m)
        return super().call_module(m, forward, args, kwargs)


def _identities(module: nn.Module) -> dict[str, int]:
    named = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return {name: id(tensor) for name, tensor in named}


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    """Names of (convolution, batch norm) that may be folded."""
    finder = _Finder({m: _identities(m) for m in module.modules()})
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # a network may draw while traced
        try:
            graph = finder.trace(module)
        except Exception:  # noqa: BLE001  # whatever a stranger's code raises when given a proxy
            return []
    layers = dict(module.named_modules(remove_duplicate=False))
    calls = [node for node in graph.nodes if node.op == "call_module"]
    times: dict[int, int] = {}
    for node in calls:
        identity = id(layers[node.target])
        times[identity] = times.get(identity, 0) + 1
    read = {str(n.target).rpartition(".")[0] for n in graph.nodes if n.op == "get_attr"}

    def plain(name: str, kinds: tuple[type, ...]) -> bool:
        layer = layers[name]
        return (
            type(layer) in kinds
            and times[id(layer)] == 1
            and layer not in finder.borrowed
            and name not in read
            and not _hooked(layer)
            and {"weight", "bias"} >= {n for n, _ in layer.named_parameters(recurse=False)}
        )

    found: list[tuple[str, str]] = []
    for node in calls:
        before = node.args[0] if len(node.args) == 1 else None
        if (
            isinstance(before, fx.Node)
            and before.op == "call_module"
            and len(before.users) == 1
            and plain(str(before.target), _CONVOLUTIONS)
            and plain(str(node.target), _NORMS)
            and layers[str(node.target)].track_running_stats
        ):
            found.append((str(before.target), str(node.target)))
    return found


def _hooked(layer: nn.Module) -> bool:
    return any(vars(layer)[f"_{kind}_hooks"] for kind in ("forward", "forward_pre", "backward"))


def _replace(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)
