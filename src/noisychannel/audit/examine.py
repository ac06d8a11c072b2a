"""A network as it was handed over, before any attack: what it is, and what of it would fool an evaluation."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from noisychannel import rng
from noisychannel.admission import check_classes
from noisychannel.audit import derivatives, probes
from noisychannel.audit.diagnosis import CHECKS
from noisychannel.audit.facts import Facts, Outputs, Scaling
from noisychannel.audit.finding import Finding
from noisychannel.audit.subject import Subject
from noisychannel.data import ArrayData, Dataset, DataSpec
from noisychannel.errors import UserError, reason
from noisychannel.networks import Foreign
from noisychannel.networks.logits import are_probabilities, check_logits
from noisychannel.types import Batch, Network

__all__ = ["EXAMPLES", "Examination", "examine"]

EXAMPLES = 64
"""Examples shown in every scale; in all other respects half as many are asked about."""

UNDERFLOW = 1e-12
"""Slope of the cross-entropy below which an attack that follows it stands still, whatever its step rule."""

_PIECES = 8


@dataclass(frozen=True)
class Examination:
    """What was found out about a network before any attack."""

    facts: Facts

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """One of each check, in a fixed order."""
        return tuple(check(self.facts) for check in CHECKS)


def examine(
    network: Network | nn.Module | Callable[[Tensor], Tensor],
    data: Dataset | Batch,
    name: str = "network",
) -> Examination:
    """Ask a network some hundreds of questions about examples of the data, without attacking it.

    A module that was left in training mode is examined in eval mode, and that is a finding.

    Args:
        network: a part, a module, or a function, from pixels in [0, 1] to logits; it is copied.
        data: labelled examples, of which at most 64 are used.
        name: what findings and messages call it.

    Raises:
        UserError: what no audit can go on with: it raises, writes into its input, or answers with NaN or
            something else than one number for each class and example.

    Source: Croce & Hein 2020, code (randomness, zero gradients, range of outputs); Carlini et al. 2019, §4.
    """
    batch = _spread(data)
    nobody = rng.Stream("selection", batch.index[:1])
    try:
        with rng.stranger_seeded(
            nobody
        ):  # whatever it seeds, the user's generators stay as they are
            training, part = _admitted(network, tuple(batch.x.shape[1:]), name)
            every = 2 if len(batch) > EXAMPLES // 2 else 1
            subject = Subject(part.build(), batch.x[::every], batch.y[::every])
            outputs = _outputs(subject.fresh(), name)
            declared = part.stochastic
            return Examination(_facts(name, subject, batch, outputs, training, declared=declared))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"network {name!r}: expected an answer to any examples of shape {tuple(batch.x.shape[1:])} in "
            f"[0, 1], got: {reason(error)}; run it on the data alone to see where"
        ) from error


def _facts(
    name: str,
    s: Subject,
    batch: Batch,
    outputs: Outputs,
    training: tuple[str, ...],
    *,
    declared: bool,
) -> Facts:
    """Each probe asks a fresh copy, so that none sees what another did to the network."""
    draws = probes.draws_of(s.fresh())
    random = draws.random
    # Early: a function's counter starts anew for nobody.
    calls, counters = probes.patience(s.fresh(), random=random)
    dropouts, statistics = probes.active(s.fresh())
    right = probes.accuracies(Subject(s.module, batch.x, batch.y).fresh())
    given = right.pop(probes.AS_GIVEN)
    slopes = derivatives.slopes(s.fresh(), random=random)
    comparable = not slopes.broken and draws.reproducible
    return Facts(
        name=name,
        examples=len(s.x),
        scaled=len(batch),
        declared=declared,
        training=training,
        dropouts=dropouts,
        statistics=statistics,
        outputs=outputs,
        right=int(given.sum()),
        scalings=tuple(
            Scaling(scale, int(r.sum()), int((r & ~given).sum()), int((given & ~r).sum()))
            for scale, r in right.items()
        ),
        draws=draws,
        roughness=probes.roughness(s.fresh()),
        grid=probes.grid(s.fresh()),
        slopes=slopes,
        fidelity=derivatives.fidelity(s.fresh(), random=random) if comparable else None,
        company=probes.company(s.fresh(), random=random),
        calls=calls,
        counters=counters,
    )


def _admitted(
    network: Network | nn.Module | Callable[[Tensor], Tensor], shape: tuple[int, ...], name: str
) -> tuple[tuple[str, ...], Network]:
    """Names of what was left in training mode, and the network as a part, in eval mode."""
    training: tuple[str, ...] = ()
    if isinstance(network, Network):
        return training, network
    if isinstance(network, nn.Module):
        training = tuple(n or "the network" for n, m in network.named_modules() if m.training)
        if training:
            network = copy.deepcopy(network).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it warns of is found here, with numbers
        return training, Foreign(network, shape, name)


def _outputs(s: Subject, name: str) -> Outputs:
    logits = s.ask(s.x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        check_logits(name, logits, len(s.x))
    check_classes((s.y,), logits.shape[1])
    # As attacks compute it: in float32, of all classes but the label.
    others = logits.float().softmax(dim=1).scatter(1, s.y[:, None], 0).sum(dim=1)
    return Outputs(
        logits.shape[1],
        are_probabilities(logits),
        float(logits.abs().amax(dim=1).median()),
        int((others < UNDERFLOW).sum()),
    )


def _spread(data: Dataset | Batch) -> Batch:
    """At most 64 examples from all over the data, which may be sorted by class."""
    if isinstance(data, DataSpec | ArrayData):
        if data.size <= EXAMPLES:
            return data.load()
        length = EXAMPLES // _PIECES
        starts = torch.linspace(0, data.size - length, _PIECES).long().tolist()
        parts = [data.slice(start, start + length).load() for start in starts]
        x, y, index = (torch.cat([getattr(p, n) for p in parts]) for n in ("x", "y", "index"))
        return Batch(x, y, index)
    return data.rows(torch.linspace(0, len(data) - 1, min(EXAMPLES, len(data))).long())
