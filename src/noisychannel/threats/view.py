"""What an attacker can ask of the defense he assumes: gradients averaged over draws (EOT), labels, verdicts."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce

import torch
from jaxtyping import Int
from torch import Tensor

from noisychannel import rng
from noisychannel.admission import check_classes, check_role
from noisychannel.decision import Decision
from noisychannel.defenses import chunks_of, global_noise
from noisychannel.errors import expected
from noisychannel.networks import prepare
from noisychannel.objectives import fooled
from noisychannel.threats.averages import averaged, classes, mean_margin
from noisychannel.threats.bill import Bill
from noisychannel.threats.judgement import judged
from noisychannel.threats.settings import Threat
from noisychannel.types import Batch, Cost, Images, Labels, Objective, Query, Trial

__all__ = ["DefenseView"]

# Bytes of graphs, and draws, that may wait for the mean over draws that the loss is taken of: few draws pass
# once only, and many need no more memory than few.
_WAITING, _WAITING_DRAWS = 2 << 30, 16
# More draws at once cost memory and no longer save time on a CPU: a ResNet-20 is as fast on 16 rows as on 256.
_CPU_DRAWS = 16
# Graphs of 512 rows of a ResNet-20 took 1.3 times as long a row as of 128 or 256.
_CPU_ROWS = 256


class DefenseView:
    """The view of one threat: its network prepared for speed, its draws named by `rng`.

    Args:
        threat: what is assumed.
        device: where to compute.
        max_rows: examples × draws in one forward pass; more draws are accumulated in chunks, so
            that memory does not grow with draws.
        heard: told after every question how many passes it took (a gradient counts as three).
        waiting: bytes of graphs (of 16 draws at most) that may wait for a mean over draws; others are made twice.

    Raises:
        UserError: no threat, a CUDA device that is not there, or, when first asked, labels beyond the classes or
            a gradient of a network that has none.
    """

    def __init__(
        self,
        threat: Threat,
        device: str = "cpu",
        max_rows: int = 512,
        heard: Callable[[float], None] | None = None,
        *,
        waiting: int = _WAITING,
    ) -> None:
        check_role("threat", threat, Threat)
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise expected("device", "a CUDA device that torch can see, or cpu", device)
        self.threat = threat
        self.heard = heard
        self.waiting = waiting
        self.plain = threat.assumed.network.build().to(device)
        self.fast = prepare(self.plain)
        self.cuda = device.startswith("cuda")
        self.max_rows = max_rows if self.cuda else min(max_rows, _CPU_ROWS)
        self._bill = Bill()
        self._clocked = 0
        self._admitted = False

    @property
    def stochastic(self) -> bool:
        """Whether the assumed defense is random."""
        return self.threat.assumed.stochastic

    @property
    def compact(self) -> bool:
        """False only for a stranger's random module, whose draws depend on the rows of the batch."""
        return self.threat.assumed.keyed or not self.stochastic

    @property
    def certain(self) -> bool:
        """Whether each `fooled` is the defender's own verdict."""
        return not self.stochastic or self.threat.success == "rule"

    @property
    def rule(self) -> Decision:
        """How the assumed defender decides."""
        return self.threat.assumed.rule

    def query(
        self,
        x: Images,
        batch: Batch,
        objective: Objective,
        step: int | Labels = 0,
        *,
        gradient: bool = True,
        verdict: bool = True,
    ) -> Query:
        """Objective, gradient and margin at x, over the threat's draws (one, if nothing is random)."""
        if gradient:
            self.threat.check_gradient()
        draws = self.threat.draws if self.stochastic else 1
        stream = self._stream(batch, step, draws)
        chunks = list(chunks_of(draws, self.draws_at_once(len(x))))
        parts = [replace(stream, draws=chunk) for chunk in chunks]
        repeated = 0
        if gradient and len(chunks) > 1 and self.threat.averaged != "mean_loss":
            logits, total, repeated = self._mean_first(x, batch, objective, parts)
        else:
            logits, total = self._summed(x, batch, objective, parts, gradient=gradient)
        passes = draws + repeated
        if self.threat.backward == "at_input" and gradient:
            passes += draws
        answer = self._answer(logits, total, batch, objective)
        if verdict and self.stochastic and self.certain:
            answer = answer._replace(fooled=self._decided(x, batch, step))
            passes += self.rule.draws
        self._note(batch, passes, draws if gradient else 0)
        return answer

    def labels(
        self, x: Images, batch: Batch, step: int | Labels = 0, draws: int = 1
    ) -> Int[Tensor, "draws n"]:
        """Classes (d, n) of independent draws at x, −1 where the network gave no number."""
        logits = self._asked(x, batch, self._stream(batch, step, draws, "labels"))
        self._admit(batch, logits)
        self._note(batch, draws, 0)
        return classes(logits)

    def trial(
        self, candidates: Tensor, opinion: Tensor, batch: Batch, *, final: bool = False
    ) -> Trial:
        """Whether each candidate wins most of the rule's decisions on the unprepared network, on selection draws."""
        rule = self.threat.assumed.rule
        draws = self.threat.selection_draws if self.stochastic else 1
        if draws == 0:
            return Trial(opinion, opinion.float(), torch.zeros_like(opinion, dtype=torch.float32))
        draws = rule.draws * (draws if final else math.ceil(draws / rule.draws))  # whole decisions
        how = (batch, draws, self.max_rows)
        trial = judged(self.threat.assumed, self.plain, candidates, *how, step=int(final))
        self._note(batch, draws * len(candidates), 0)
        return trial

    def cost(self, batch: Batch) -> Cost:
        """Forward and backward passes spent on these examples since the last call."""
        self._clocked = 0  # draw 7 is the same weights for every batch
        self._admitted = False
        return self._bill.settled(batch)

    def draws_at_once(self, rows: int) -> int:
        """Draws that one pass over so many rows takes, so that memory does not grow with draws."""
        if not self.compact:
            return 1
        draws = max(1, self.max_rows // max(1, rows))
        return draws if self.cuda else min(draws, _CPU_DRAWS)

    def _admit(self, batch: Batch, logits: Tensor) -> None:
        """Refuse labels beyond the classes: looked at once for each batch, since it waits for the device."""
        if not self._admitted:
            check_classes(batch.goal, logits.shape[-1])
            self._admitted = True

    def _note(self, batch: Batch, forwards: int, backwards: int) -> None:
        self._bill.add(batch.index, forwards, backwards)
        if self.heard is not None:
            self.heard(float(len(batch) * (forwards + 2 * backwards)))

    def _stream(self, batch: Batch, step: int | Tensor, draws: int, part: str = "") -> rng.Stream:
        if self.threat.assumed.network.weights == "shared" and isinstance(step, Tensor):
            # One network for all: examples with clocks of their own ask together, question by question.
            step, part = self._clocked, f"{part}/clocked"
            self._clocked += 1
        return rng.Stream("attacked-defense", batch.index, step, range(draws), part)

    def _asked(self, x: Tensor, batch: Batch, stream: rng.Stream) -> Tensor:
        """Logits (d, n, k) without a gradient, chunk by chunk."""
        chunks = chunks_of(len(stream.draws), self.draws_at_once(len(x)))
        parts = [replace(stream, draws=chunk) for chunk in chunks]
        return torch.cat([self._forward(x, part) for part in parts])

    def _forward(self, x: Tensor, stream: rng.Stream) -> Tensor:
        """Logits (d, n, k) of one chunk of draws."""
        draws = len(stream.draws)
        rows = x.detach().repeat(draws, *([1] * (x.ndim - 1)))
        with torch.no_grad():
            seen, _ = self._logits(rows, stream)
        return seen.view(draws, len(x), -1)

    def _decided(self, x: Tensor, batch: Batch, step: int | Tensor) -> Tensor:
        """Whether the defender's rule, asked once on draws of its own, gives the attacker his goal."""
        stream = self._stream(batch, step, self.rule.draws, "success")
        logits = self._asked(x, batch, stream).transpose(0, 1)
        return fooled(self.rule.decide(classes(logits), logits.softmax(dim=2)), batch.goal)

    def _logits(self, leaf: Tensor, stream: rng.Stream) -> tuple[Tensor, Tensor]:
        """Logits that the loss sees, and logits that are differentiated (the same but `at_input`)."""
        with rng.bracket(stream), global_noise(stream, keyed=self.compact):
            if self.threat.backward == "at_input":
                with torch.no_grad():
                    seen = self.fast(self.threat.assumed.channel(leaf))
                return seen, self.fast(leaf) if leaf.requires_grad else seen
            logits = self.fast(self.threat.seen(leaf))
            return logits, logits

    def _graph(self, x: Tensor, stream: rng.Stream) -> tuple[Tensor, Tensor, Tensor]:
        """One chunk of draws to be differentiated: the leaf, logits (d, n, k) as seen, logits of the graph."""
        draws = len(stream.draws)
        # A copy even for one draw: a stranger's network may write into its input.
        leaf = x.detach().repeat(draws, *([1] * (x.ndim - 1))).requires_grad_()
        with torch.enable_grad():
            seen, through = self._logits(leaf, stream)
        return leaf, seen.detach().view(draws, len(x), -1), through

    def _summed(
        self,
        x: Tensor,
        batch: Batch,
        objective: Objective,
        parts: list[rng.Stream],
        *,
        gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        """Logits (d, n, k) and the gradient, chunk by chunk: the gradient of a sum over draws."""
        if not gradient:
            return torch.cat([self._forward(x, part) for part in parts]), torch.zeros_like(x)
        logits: list[Tensor] = []

        def gradients() -> Iterator[Tensor]:
            for part in parts:
                leaf, seen, through = self._graph(x, part)
                slope = self._slope(seen, batch, objective)
                if self.threat.averaged == "mean_loss" and self.stochastic:
                    slope = slope * (len(part.draws) / self.threat.draws)
                logits.append(seen)
                yield _gradient(leaf, through, slope, x)

        total = reduce(torch.add, gradients())
        return torch.cat(logits), total

    def _mean_first(
        self, x: Tensor, batch: Batch, objective: Objective, parts: list[rng.Stream]
    ) -> tuple[Tensor, Tensor, int]:
        """The gradient of a function of the mean over draws, the logits first, and the draws passed twice.

        Graphs within `waiting` wait for the mean; the others are made again, on the same draws.
        """
        graphs: list[tuple[Tensor, Tensor, Tensor]] = []
        logits: list[Tensor] = []
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        for part in parts:
            if sum(kept.values()) < self.waiting and part.draws[-1] < _WAITING_DRAWS:
                with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                    graphs.append(self._graph(x, part))
                logits.append(graphs[-1][1])
            else:
                logits.append(self._forward(x, part))
        slopes = self._slope(torch.cat(logits), batch, objective).split([len(z) for z in logits])
        repeated = sum(len(part.draws) for part in parts[len(graphs) :])

        def gradients() -> Iterator[Tensor]:
            for part, slope in zip(parts, slopes, strict=True):
                leaf, _, through = graphs.pop(0) if graphs else self._graph(x, part)
                yield _gradient(leaf, through, slope, x)

        return torch.cat(logits), reduce(torch.add, gradients()), repeated

    def _slope(self, logits: Tensor, batch: Batch, objective: Objective) -> Tensor:
        """∂ Σᵢ value / ∂ logits, at the logits (d, n, k) that the loss sees."""
        self._admit(batch, logits)
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            value = averaged(leaf, batch.goal, objective, self.threat.averaged)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return slope

    def _answer(self, logits: Tensor, grad: Tensor, batch: Batch, objective: Objective) -> Query:
        self._admit(batch, logits)
        value = averaged(logits, batch.goal, objective, self.threat.averaged)
        share = fooled(classes(logits), batch.goal).float().mean(dim=0)
        return Query(value, grad, mean_margin(logits, batch.goal), share >= 0.5)


def _gradient(leaf: Tensor, through: Tensor, slope: Tensor, x: Tensor) -> Tensor:
    """The gradient (n, …) at x of one chunk: summed over its draws."""
    (grad,) = torch.autograd.grad(through, leaf, slope.reshape(through.shape))
    return grad if len(leaf) == len(x) else grad.view(-1, *x.shape).sum(dim=0)
