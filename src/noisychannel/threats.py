"""Threat settings as values: craft against an assumed defense, measure on the true one.

The only file that knows expectation over transformation (EOT) and backward-pass substitution (BPDA).
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.channels import straight_through
from noisychannel.decision import MeanProb, Single
from noisychannel.defenses import Defense, answers, chunks_of, global_noise
from noisychannel.errors import expected
from noisychannel.networks import prepare
from noisychannel.objectives import fooled, margin
from noisychannel.types import (
    Backward,
    Batch,
    Channel,
    Cost,
    Goal,
    Images,
    Labels,
    Objective,
    Query,
    Trial,
)

__all__ = ["Averaged", "DefenseView", "Threat", "adaptive", "assumes", "non_adaptive"]

Averaged = Literal["mean_loss", "mean_prob", "mean_logit"]
"""What is averaged over EOT draws before the gradient is taken; three different objectives."""


@dataclass(frozen=True)
class Threat:
    """What an attacker believes about the defense, and how he differentiates it.

    g(x) = ∇ₓ L̄(x), L̄ the objective over `draws` draws of the assumed channel and network.

    Args:
        assumed: the defense he crafts against.
        draws: EOT draws per gradient, ≥ 1.
        averaged: `mean_loss` E[L(z)], `mean_prob` L(ln E[softmax z]), `mean_logit` L(E[z]).
        backward: through the channel (`exact`), past it (`straight_through`: gradient at C(x)), or
            `at_input`: loss from C(x), network differentiated at x; `default` is what the channel declares.
        selection_draws: fresh draws on which a random view's candidates are compared;
            0 believes the attack's own draws (so did the paper's authors).

    Raises:
        UserError: a number out of range, or a gradient that the channel does not have.

    Source: paper 4.3 to 4.5; `at_input` is what the authors' code does (one draw, gradient at x).
    """

    version: ClassVar[int] = 2
    assumed: Defense
    draws: int = 1
    averaged: Averaged = "mean_loss"
    backward: Backward = "default"
    selection_draws: int = 16

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise expected("draws", "a whole number ≥ 1", self.draws)
        if self.selection_draws < 0:
            raise expected("selection_draws", "a whole number ≥ 0", self.selection_draws)
        for name, words in (("averaged", get_args(Averaged)), ("backward", get_args(Backward))):
            if getattr(self, name) not in words:
                raise expected(name, f"one of {', '.join(words)}", repr(getattr(self, name)))
        offered = self.assumed.channel.gradients
        if self.backward in ("exact", "straight_through") and self.backward not in offered:
            raise expected(
                "backward", f"one of {', '.join(offered)} for {self.assumed.channel}", self.backward
            )


def non_adaptive(defense: Defense) -> Threat:
    """The attacker knows only the network: he crafts against it undefended."""
    return Threat(defense.undefended())


def assumes(
    defense: Defense, channel: Channel, draws: int = 1, backward: Backward = "default"
) -> Threat:
    """The attacker guesses a channel (partially adaptive; the paper recommends Laplace noise)."""
    return Threat(Defense(defense.network, channel, Single()), draws, backward=backward)


def adaptive(
    defense: Defense,
    draws: int = 1,
    averaged: Averaged | None = None,
    backward: Backward = "default",
) -> Threat:
    """The attacker knows the defense whole; by default he averages what its decision rule averages."""
    if averaged is None:
        averaged = "mean_prob" if isinstance(defense.decision, MeanProb) else "mean_loss"
    return Threat(defense, draws, averaged, backward)


class DefenseView:
    """The view of one threat: its network prepared for speed, its draws named by `rng`.

    Args:
        threat: what is assumed.
        device: where to compute.
        max_rows: examples × draws in one forward pass; more draws are accumulated in chunks.
    """

    def __init__(self, threat: Threat, device: str = "cpu", max_rows: int = 512) -> None:
        self.threat = threat
        self.plain = threat.assumed.network.build().to(device)
        self.fast = prepare(self.plain)
        self.max_rows = max_rows
        self._log: list[tuple[Tensor, int, int]] = []

    @property
    def stochastic(self) -> bool:
        """Whether the assumed defense is random."""
        return self.threat.assumed.stochastic

    @property
    def compact(self) -> bool:
        """False only for a stranger's random module, whose draws depend on the rows of the batch."""
        return self.threat.assumed.keyed or not self.stochastic

    def query(
        self,
        x: Images,
        batch: Batch,
        objective: Objective,
        step: int | Labels = 0,
        *,
        gradient: bool = True,
    ) -> Query:
        """Objective, gradient and margin at x, over the threat's draws (one, if nothing is random)."""
        draws = self.threat.draws if self.stochastic else 1
        if self.threat.assumed.network.weights == "shared":
            step = len(
                self._log
            )  # one network for all: examples with clocks of their own ask together
        stream = rng.Stream("attacked-defense", batch.index, step, range(draws))
        chunks = list(chunks_of(draws, self._draws_at_once(len(x))))
        whole = len(chunks) == 1 or self.threat.averaged == "mean_loss"
        upstream: list[Tensor | None] = [None] * len(chunks)
        if gradient and not whole:
            # The gradient of a function of the mean needs the mean first; streams replay exactly.
            upstream = self._upstream(x, batch, objective, stream, chunks)
        total: Tensor | None = None
        logits: list[Tensor] = []
        for chunk, known in zip(chunks, upstream, strict=True):
            part = replace(stream, draws=chunk)
            seen, grad = self._pass(x, batch, objective, part, gradient=gradient, upstream=known)
            logits.append(seen)
            total = grad if total is None else total + grad
        passes = draws * (1 if whole or not gradient else 2)
        if self.threat.backward == "at_input" and gradient:
            passes += draws
        self._log.append((batch.index, passes, draws if gradient else 0))
        assert total is not None
        return self._answer(torch.cat(logits), total, batch, objective)

    def trial(self, candidates: Tensor, opinion: Tensor, batch: Batch) -> Trial:
        """Share of selection draws each candidate wins on the unprepared network, and the rule's verdict."""
        rule = self.threat.assumed.rule
        draws = self.threat.selection_draws if self.stochastic else 1
        if draws == 0:
            return Trial(opinion, opinion.float(), torch.zeros_like(opinion, dtype=torch.float32))
        draws = rule.draws * math.ceil(draws / rule.draws)  # whole decisions
        won, rate, mean_margin = [], [], []
        for candidate in candidates:
            logits = answers(
                self.threat.assumed, self.plain, candidate, batch, "selection", draws, self.max_rows
            ).logits
            labels = logits.argmax(dim=2)
            share = fooled(labels, batch.goal).float().mean(dim=0)
            decided = rule.decide(
                labels.T.reshape(-1, rule.draws),
                logits.softmax(dim=2).transpose(0, 1).reshape(-1, rule.draws, logits.shape[2]),
            ).view(len(batch), -1)
            won.append(fooled(decided.T, batch.goal).float().mean(dim=0) >= 0.5)
            rate.append(share)
            mean_margin.append(_mean_margin(logits, batch.goal))
        self._log.append((batch.index, draws * len(candidates), 0))
        return Trial(torch.stack(won), torch.stack(rate), torch.stack(mean_margin))

    def cost(self, batch: Batch) -> Cost:
        """Forward and backward passes spent on these examples since the last call."""
        order = batch.index.argsort()
        place = batch.index[order]
        counts = torch.zeros(2, len(batch), dtype=torch.int64, device=batch.index.device)
        for index, forwards, backwards in self._log:
            rows = order[torch.searchsorted(place, index)]
            counts[0, rows] += forwards
            counts[1, rows] += backwards
        self._log.clear()
        return Cost(counts[0], counts[1])

    def _draws_at_once(self, rows: int) -> int:
        return 1 if not self.compact else max(1, self.max_rows // max(1, rows))

    def _channel(self, x: Tensor) -> Tensor:
        channel = self.threat.assumed.channel
        how = self.threat.backward
        if how == "default":
            how = channel.gradients[0]
        return straight_through(channel, x) if how == "straight_through" else channel(x)

    def _logits(self, leaf: Tensor, stream: rng.Stream) -> tuple[Tensor, Tensor]:
        """Logits that the loss sees, and logits that are differentiated (the same but `at_input`)."""
        with rng.bracket(stream), global_noise(stream, keyed=self.compact):
            if self.threat.backward == "at_input":
                with torch.no_grad():
                    seen = self.fast(self.threat.assumed.channel(leaf))
                return seen, self.fast(leaf) if leaf.requires_grad else seen
            logits = self.fast(self._channel(leaf))
            return logits, logits

    def _pass(
        self,
        x: Tensor,
        batch: Batch,
        objective: Objective,
        stream: rng.Stream,
        *,
        gradient: bool,
        upstream: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One chunk of draws: logits (d, n, k), and its share of the gradient."""
        draws = len(stream.draws)
        # A copy even for one draw: a stranger's network may write into its input.
        leaf = x.detach().repeat(draws, *([1] * (x.ndim - 1))).requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            seen, through = self._logits(leaf, stream)
        logits = seen.detach().view(draws, len(x), -1)
        if not gradient:
            return logits, torch.zeros_like(x)
        if upstream is None:
            upstream = self._slope(logits, batch, objective)
            if self.threat.averaged == "mean_loss" and self.stochastic:
                upstream = upstream * (draws / self.threat.draws)
        (grad,) = torch.autograd.grad(through, leaf, upstream.reshape(through.shape))
        return logits, grad.view(draws, *x.shape).sum(dim=0) if draws > 1 else grad

    def _upstream(
        self,
        x: Tensor,
        batch: Batch,
        objective: Objective,
        stream: rng.Stream,
        chunks: list[range],
    ) -> list[Tensor | None]:
        parts = [replace(stream, draws=chunk) for chunk in chunks]
        logits = torch.cat(
            [self._pass(x, batch, objective, part, gradient=False)[0] for part in parts]
        )
        return list(self._slope(logits, batch, objective).split([len(c) for c in chunks]))

    def _slope(self, logits: Tensor, batch: Batch, objective: Objective) -> Tensor:
        """∂ Σᵢ value / ∂ logits, at the logits (d, n, k) that the loss sees."""
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            value = _averaged(leaf, batch.goal, objective, self.threat.averaged)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return slope

    def _answer(self, logits: Tensor, grad: Tensor, batch: Batch, objective: Objective) -> Query:
        value = _averaged(logits, batch.goal, objective, self.threat.averaged)
        mean_margin = _mean_margin(logits, batch.goal)
        share = fooled(logits.argmax(dim=2), batch.goal).float().mean(dim=0)
        return Query(value, grad, mean_margin, share >= 0.5)


def _averaged(logits: Tensor, goal: Goal, objective: Objective, averaged: Averaged) -> Tensor:
    """The objective (n,) of logits (d, n, k), averaged where the threat says."""
    draws, rows, _ = logits.shape
    if draws == 1:
        return objective(logits[0], goal)
    if averaged == "mean_logit":
        return objective(logits.mean(dim=0), goal)
    if averaged == "mean_prob":
        least = torch.finfo(logits.dtype).tiny  # less is flushed to 0, whose logarithm has no slope
        return objective(logits.softmax(dim=2).mean(dim=0).clamp_min(least).log(), goal)
    return objective(logits.flatten(0, 1), goal.repeat(draws)).view(draws, rows).mean(dim=0)


def _mean_margin(logits: Tensor, goal: Goal) -> Tensor:
    """Mean over draws of the margin: (d, n, k) → (n,)."""
    draws, rows, _ = logits.shape
    return margin(logits.flatten(0, 1), goal.repeat(draws)).view(draws, rows).mean(dim=0)
