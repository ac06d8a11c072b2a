"""Checks of an examination: each turns what was measured of a network into a finding, with a sentence that mends it."""

from collections.abc import Callable

from scipy.stats import binom

from noisychannel.audit.derivatives import Slopes
from noisychannel.audit.facts import Facts, Scaling
from noisychannel.audit.finding import Finding
from noisychannel.audit.probes import CALLS, PASSES
from noisychannel.audit.subject import ALIKE, Comparison
from noisychannel.report.stats import wilson

__all__ = ["CHECKS", "Check"]

Check = Callable[[Facts], Finding]

_SURELY = 1e-3
"""Chance of a sign test: several scales are compared, and a false alarm would slander."""

_CLEARLY = 0.05
"""Points of accuracy by which another scale must win."""

_FEW, _MOST = 0.05, 0.5
"""Shares of examples: beyond the first it is worth a remark, surely beyond the second attacks are blind."""

_BENT, _UNRELATED = 0.1, 0.5
"""Distances of a gradient from the derivative, of 1 where they have nothing to do with each other: a network with
kinks has some hundredths; a gradient at .5 leads as much astray as ahead."""


def eval_mode(f: Facts) -> Finding:
    """Nothing of it trains."""
    name = "eval-mode"
    if f.training:
        some = ", ".join(f.training[:3]) + (", …" if len(f.training) > 3 else "")
        evidence = f"{len(f.training)} parts were in training mode ({some}); examined in eval mode."
        return Finding(name, "fail", evidence, "Call .eval() on the network before it is audited.")
    if f.statistics:
        evidence = f"{f.statistics} batch norms use the statistics of the batch, in eval mode too."
        mend = "Let batch norm track running statistics and use them (training=False)."
        return Finding(name, "fail", evidence, mend)
    if f.dropouts:
        evidence = f"Dropout is active in eval mode ({', '.join(f.dropouts)})."
        mend = "If it is no part of the defense, write dropout(x, p, training=self.training), or use nn.Dropout."
        return Finding(name, "warn", evidence, mend)
    return Finding(name, "pass", "No dropout and no batch statistics are active in eval mode.")


def randomness(f: Facts) -> Finding:
    """Whether it is random is known, can be repeated, and reaches what attackers see."""
    name, d = "randomness", f.draws
    if not f.random:
        return Finding(
            name,
            "pass",
            f"The network itself is not random: {PASSES} passes agree, {d.passes.words}.",
        )
    evidence = f"Random: between two of {PASSES} passes {d.passes.words}."
    if not f.declared:
        evidence += " It is taken for deterministic, since it is not random everywhere."
        mend = "Draw the noise for every input, so that it is scored on many draws."
        return Finding(name, "fail", evidence, mend)
    if not f.reproducible:
        evidence += f" Equal seeds do not repeat it: {d.repeated.words}."
        mend = "Draw from torch's global generator, so that its answers can be repeated and its gradients checked."
        return Finding(name, "warn", evidence, mend)
    if not f.slopes.broken and f.slopes.draws < ALIKE:
        evidence += f" Gradients do not depend on the draw (they differ by {f.slopes.draws:.1g})."
        mend = "Noise that no gradient sees, as behind the last layer, hides nothing: vote, or leave it out."
        return Finding(name, "warn", evidence, mend)
    return Finding(name, "pass", evidence)


def independent(f: Facts) -> Finding:
    """Each example has a draw of its own."""
    name, copies = "independent-draws", f.draws.copies
    if not f.random:
        return Finding(name, "pass", "The network itself is not random.")
    if f.shared_by == "example":
        return Finding(name, "pass", f"Copies of an example in one batch: {copies.words}.")
    whose = "weights" if f.shared_by == "weights" else "the noise"
    evidence = f"One draw of {whose} serves all examples of a pass: {copies.moved} of {copies.n} copies differ."
    mend = (
        "Draw noise of the shape of the whole batch; where it belongs to the pass, as on weights, score on many "
        "passes, for the answers of one are not independent."
    )
    return Finding(name, "warn", evidence, mend)


def fresh(f: Facts) -> Finding:
    """Noise is drawn anew for every pass, from generators that it leaves going."""
    name, rough = "fresh-draws", f.roughness
    mend = "Draw fresh noise at every pass and seed nothing in forward; a seed belongs to who runs the network."
    if f.seeded_by_input:
        evidence = (
            f"Its noise is a function of its input: answers move by {rough.hair.typical:.2g} of their size where all "
            f"pixels move by a hair, by {rough.one.typical:.2g} where one moves by a grey level, and by "
            f"{rough.all.typical:.2g} where all do."
        )
        return Finding(name, "fail", evidence, mend)
    if f.seeded_fixed:
        copies = f.draws.copies
        evidence = f"Every pass repeats the same noise: {copies.moved} of {copies.n} copies in a batch differ."
        return Finding(name, "fail", evidence, mend)
    if f.clobbers_generator:
        whose = ", ".join(f.draws.reseeded)
        evidence = f"A pass sets the global generator of {whose}: whatever its state was, it is the same after."
        return Finding(name, "fail", evidence, mend)
    evidence = (
        f"Answers move by {rough.hair.typical:.1g} of their size where pixels move by a hair; "
    )
    return Finding(name, "pass", f"{evidence}no global generator is seeded.")


def logits(f: Facts) -> Finding:
    """It answers with logits of a natural scale."""
    name, o = "logits", f.outputs
    if o.probabilities:
        evidence = f"It answers with probabilities: {o.classes} numbers ≥ 0 that sum to 1."
        mend = "Remove the last softmax: gradients vanish behind it, and attacks look weak."
        return Finding(name, "warn", evidence, mend)
    lost = wilson(o.underflow, f.examples)
    evidence = (
        f"The largest logit is {o.largest:.3g}, typically; the slope of the cross-entropy underflows on "
        f"{o.underflow} of {f.examples} examples."
    )
    if lost.value <= _FEW:
        return Finding(name, "pass", evidence)
    mend = "Divide the logits by a constant: classes stay as they are, and gradients come back."
    return Finding(name, "fail" if lost.low > _MOST else "warn", evidence, mend)


def scaling(f: Facts) -> Finding:
    """No other scale of pixels suits it better than [0, 1]."""
    name = "input-scaling"
    n = f.scaled
    best = max(f.scalings, key=lambda s: s.right, default=None)
    if best is not None and _wins(best, f.right, n):
        evidence = f"{f.right} of {n} examples are right as given, and {best.right} {best.name}."
        mend = (
            "Take pixels in [0, 1] and make the scale that it was trained on the network's first layer, such as "
            "nn.Sequential(Normalize(mean, std), network)."
        )
        if f.random and 2 * f.right > n:
            # Noise of its own is smaller beside larger pixels: that is no mistake of scale.
            mend = f"If its noise is meant for pixels in [0, 1], leave it. Else: {mend[0].lower()}{mend[1:]}"
            return Finding(name, "warn", evidence, mend)
        return Finding(name, "fail", evidence, mend)
    evidence = f"{f.right} of {n} examples are right as given" + (
        f"; at best {best.right} in another scale." if best is not None else "."
    )
    if float(binom.sf(f.right - 1, n, 1 / max(2, f.outputs.classes))) > _FEW:
        mend = "It is no better than chance: check that data, labels and weights belong together."
        return Finding(name, "warn", evidence, mend)
    return Finding(name, "pass", evidence)


def _wins(s: Scaling, right: int, n: int) -> bool:
    chance = float(binom.sf(s.better - 1, s.better + s.worse, 0.5))
    return s.right - right > _CLEARLY * n and chance < _SURELY


def present(f: Facts) -> Finding:
    """A gradient reaches the input."""
    name = "gradient-reaches-input"
    if f.differentiable == "none":
        evidence = f"Autograd finds no way from its output to its input: {f.slopes.broken}."
        mend = (
            "Remove no_grad, detach, comparisons and NumPy from forward, or hand over a differentiable stand-in; "
            "attacks without gradients are left."
        )
        return Finding(name, "fail", evidence, mend)
    evidence = f"The gradient of the margin is zero or no number on {100 * f.zero_gradients:.0f} % of the examples."
    if f.zero_gradients <= _FEW:
        return Finding(name, "pass", evidence)
    mend = "Rounding, argmax and comparisons have gradient 0: hand over a differentiable stand-in for that stage."
    return Finding(name, "fail" if f.differentiable == "zero" else "warn", evidence, mend)


def faithful(f: Facts) -> Finding:
    """The gradient is the derivative."""
    name, s = "gradient-faithful", f.slopes
    if f.differentiable == "none":
        return Finding(name, "not run", "There is no gradient to compare.")
    if s.passes > ALIKE:
        return Finding(name, "fail", _two_passes(s), "Take the noise out of the backward pass.")
    if not f.reproducible:
        evidence = "Its noise cannot be held still, so that differences are compared with nothing."
        return Finding(name, "warn", evidence, "Draw from torch's global generator.")
    if f.fidelity is None:
        evidence = "Its answers do not move by more than rounding within 8 grey levels."
        if f.differentiable == "zero":
            return Finding(name, "not run", evidence)
        mend = "Hand out logits that move with the input: its gradient belongs to something else."
        return Finding(name, "warn", evidence, mend)
    evidence = (
        f"It differs from finite differences by {f.fidelity.error:.2g} of its size (0: the derivative, 1: unrelated), "
        f"at steps of {f.fidelity.step:.2g}, where they agree best; {f.fidelity.n} examples."
    )
    if f.fidelity.error <= _BENT:
        return Finding(name, "pass", evidence)
    mend = (
        "The gradient leads elsewhere than the answers: look for custom backward passes, straight-through stages "
        "and parts that behave otherwise when gradients are asked for."
    )
    return Finding(name, "fail" if f.fidelity.error > _UNRELATED else "warn", evidence, mend)


def _two_passes(s: Slopes) -> str:
    return f"Two backward passes of one forward pass differ by {s.passes:.2g} of their size: it is noise."


def mates(f: Facts) -> Finding:
    """An answer does not depend on the other examples of the batch."""
    mend = "Use no statistic over the batch (means, ranks, batch norm in training mode)."
    return _company("batch-mates", "In other company", f.company.mates, mend)


def size(f: Facts) -> Finding:
    """An example alone is answered as among others."""
    mend = "Remove what depends on len(x) or on an example's place: attackers ask in batches or alone as they like."
    return _company("batch-size", "Alone instead of among others", f.company.size, mend)


def mode(f: Facts) -> Finding:
    """What attackers differentiate is what defenders answer."""
    if f.company.mode is None:
        return Finding("no-grad", "not run", "It raises where gradients are asked for.")
    mend = "Remove what depends on torch.is_grad_enabled() or x.requires_grad."
    return _company("no-grad", "With gradients instead of without", f.company.mode, mend)


def calls(f: Facts) -> Finding:
    """The thousandth question is answered as the first."""
    mend = "Keep nothing between calls: no counters, caches or running statistics in forward."
    found = _company("number-of-calls", f"After {CALLS} calls", f.calls, mend)
    if found.status == "pass" and f.counters:
        evidence = f"{found.evidence} But what it keeps changes as it is called: {', '.join(f.counters[:3])}."
        return Finding(found.name, "warn", evidence, mend)
    return found


def _company(name: str, how: str, found: Comparison, mend: str) -> Finding:
    evidence = f"{how}: {found.words}."
    return (
        Finding(name, "fail", evidence, mend) if found.differs else Finding(name, "pass", evidence)
    )


def eight_bit(f: Facts) -> Finding:
    """Beside the 8-bit grid it answers as on it."""
    worst = max(f.grid, key=lambda g: g.on.typical / max(g.off.typical, 1e-12))
    evidence = (
        f"Moved off the 8-bit grid by less than 1/512, answers move by {worst.on.typical:.2g} of their size; between "
        f"two such points by {worst.off.typical:.2g}."
    )
    if not f.off_grid:
        return Finding("eight-bit-grid", "pass", evidence)
    mend = "Treat images that no camera makes as any other: attackers round theirs to 8 bits."
    return Finding("eight-bit-grid", "fail", evidence, mend)


CHECKS: tuple[Check, ...] = (
    eval_mode,
    randomness,
    independent,
    fresh,
    logits,
    scaling,
    present,
    faithful,
    mates,
    size,
    mode,
    calls,
    eight_bit,
)
