"""A view as strangers' attacks want it: a module from [0, 1] inputs to differentiable logits, which counts."""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from noisychannel import rng
from noisychannel.channels import substituted
from noisychannel.decision import Vote
from noisychannel.defenses import chunks_of, global_noise
from noisychannel.threats import Averaged, DefenseView, log_mean_prob
from noisychannel.types import Cost

__all__ = ["Shown"]


class Shown(nn.Module):
    """Logits of what the attacker assumes, averaged over the threat's draws; each call has draws of its own.

    One draw, or nothing random: its logits. Else `mean_prob`: ln of the mean probabilities; `mean_logit`:
    the mean logits; `mean_loss` has no logits form, and becomes the mean log-probabilities (the mean
    logits but for one number per example, which no loss of classes sees).

    Args:
        view: what is assumed; its channel is differentiated as its threat says.
        index: identity (m,) of the examples. Row r of a call draws as example r mod m, a repeated one
            with draws of its own: who a stranger's rows are, nobody can know.
        verdict: answer with the defender's rule: where he votes, the logs of the shares of his votes,
            differentiated as the ln of the mean probabilities.
    """

    def __init__(self, view: DefenseView, index: Tensor, *, verdict: bool = False) -> None:
        super().__init__()
        self.view, self.index, self.verdict = view, index, verdict
        self.calls = self.forwards = self.backwards = 0
        # Strangers ask the first parameter for the device, and may switch training on: not in our network.
        self.anchor = nn.Parameter(torch.zeros((), device=index.device), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.anchor)
        x = x.view_as(x)
        if x.requires_grad:
            # Our prepared networks hand back channels_last gradients, which strangers' `.view` refuses.
            x.register_hook(lambda slope: slope.contiguous())
        draws = self.view.threat.draws if self.view.stochastic else 1
        self.calls += 1
        row = torch.arange(len(x), device=x.device)
        index = self.index[row % len(self.index)] + row // len(self.index) * rng.COPIES
        chunks = list(chunks_of(draws, self.view.draws_at_once(len(x))))
        differentiated = torch.is_grad_enabled() and x.requires_grad
        parts: list[Tensor] = []
        for chunk in chunks:
            stream = rng.Stream("attacked-defense", index, self.calls, chunk, "shown")
            if differentiated and len(chunks) > 1:
                # One chunk's graph in memory at a time: streams replay exactly.
                part = checkpoint(self._ask, x, stream, rng.root_name(), use_reentrant=False)
            else:
                part = self._ask(x, stream, rng.root_name())
            assert isinstance(part, Tensor)
            if part.requires_grad:
                part.register_hook(self._differentiated)
            parts.append(part)
        logits = torch.cat(parts) if len(parts) > 1 else parts[0]
        return self._one(logits.view(draws, len(x), logits.shape[1]))

    def cost(self, examples: int) -> Cost:
        """Rows asked and differentiated since the last call, an equal share for each example, rounded up."""
        counts = (self.forwards, self.backwards)
        self.forwards = self.backwards = 0
        share = [math.ceil(count / max(1, examples)) for count in counts]
        made = [torch.full((examples,), n, device=self.anchor.device) for n in share]
        return Cost.passes(made[0], made[1])

    def _ask(self, x: Tensor, stream: rng.Stream, root: str) -> Tensor:
        """Logits (d · n, k) of one chunk of draws. On a GPU a chunk is replayed in a thread that knows no root."""
        view, threat = self.view, self.view.threat
        rows = x.repeat(
            len(stream.draws), *([1] * (x.ndim - 1))
        )  # a network may write into its input
        self.forwards += len(rows)
        with rng.root(root), rng.bracket(stream), global_noise(stream, keyed=view.compact):
            if threat.backward != "at_input":
                return view.fast(threat.seen(rows))
            if not rows.requires_grad:
                return view.fast(threat.assumed.channel(rows))
            self.forwards += len(rows)
            return substituted(lambda x: view.fast(threat.assumed.channel(x)), view.fast, rows)

    def _differentiated(self, grad: Tensor) -> None:
        self.backwards += len(grad)

    def _one(self, logits: Tensor) -> Tensor:
        """(d, n, k) → (n, k)."""
        rule = self.view.threat.assumed.rule
        if not self.verdict or not isinstance(rule, Vote):
            return _averaged(logits, self.view.threat.averaged)
        smooth = _averaged(logits, "mean_prob")
        votes = nn.functional.one_hot(logits.argmax(dim=2), logits.shape[2]).sum(dim=0)
        # As the rule: a mean probability is below 1, so it can only order classes of equal count.
        score = (votes + 0.5 * smooth.detach().exp()) / len(logits)
        value = score.clamp_min(torch.finfo(smooth.dtype).tiny).log()
        return substituted(lambda _: value, lambda _: smooth, logits)


def _averaged(logits: Tensor, averaged: Averaged) -> Tensor:
    if len(logits) == 1:
        return logits[0]
    if averaged == "mean_logit":
        return logits.mean(dim=0)
    if averaged == "mean_prob":
        return log_mean_prob(logits)
    return logits.log_softmax(dim=2).mean(dim=0)
