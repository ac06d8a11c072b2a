"""PNI: does the gain of parametric noise injection over adversarial training survive EOT?

He, Rakin and Fan report PNI's gain under PGD of 7 steps and FGSM, with one draw per gradient. Here the paper authors'
PNI-W-Adv ResNet-20, its own weights with the noise off, and AdvTrain meet, on the same images and within L∞ ≤ 8/255:
that protocol; PGD on the margin with gradients averaged over 1, 4, 16 and 64 draws; APGD with cross-entropy and towards
targets, averaged over as many as PGD at most. PNI meets the images made for the other two as well: an attacker who
leaves the noise out. What survives is (gain in the worst case) / (gain under PGD-7).

Differs:
    1. PNI's numbers are of its authors' own networks, not published; ours are of the paper authors', trained by the
       same method (PNI-W, one α per layer, PGD-7).
    2. ε is 8/255 (theirs .031), a single answer is scored on 40 draws of the weights (theirs on one), fewer images
       and draws below `paper` scale.
    3. The worst attack of each image is chosen on 20 draws of the weights and scored on the other 20. AdvTrain and the
       network without its noise are not random: one answer each, and no averaging.
    4. Draws of the weights are shared by all images of a pass: intervals cross images with draws. Those of the share
       that survives, and of the comparison with half of the gain, resample images only.
    5. On digits the noise is turned off by a training of one epoch whose steps are too small to change a weight.
"""

from dataclasses import replace
from typing import NamedTuple

from noisychannel.attacks import APGD, FGSM, PGD, TargetedAPGD
from noisychannel.defenses import Defense, Operated
from noisychannel.engine import Craft, Measure, Train, Trained
from noisychannel.experiments.defended import WORDS, network
from noisychannel.experiments.pni_claims import NETWORKS, OFF, ON, TRAINED, Rows, Spot, claims
from noisychannel.experiments.pni_shown import PUBLISHED, answer, beside, figure, gains, ladder
from noisychannel.experiments.setting import Cell, Experiment, Result, Scale, Setting
from noisychannel.norms import Linf
from noisychannel.objectives import Margin
from noisychannel.report.html import Section
from noisychannel.threats import Threat, adaptive
from noisychannel.training import Recipe
from noisychannel.types import Attack, Network

__all__ = ["DRAWS", "PNI_QUESTION", "SUBSETS", "silent"]

SUBSETS: dict[Scale, str] = {"smoke": "first:20", "desk": "first:100", "paper": "first:1000"}

DRAWS = 40
"""Of the noisy weights: 20 choose the worst attack of each image, and fewer than 20 would be too few to score it."""


class _Strength(NamedTuple):
    """How hard it is tried: radius, draws per gradient, steps of PGD and of each run of APGD, classes aimed at."""

    epsilon: float
    rungs: tuple[int, ...]
    pgd: int
    apgd: int
    targets: int


# Small networks on 8 × 8 digits stand more than 8/255.
_STRENGTH: dict[Scale, _Strength] = {
    "smoke": _Strength(0.2, (1, 4), pgd=10, apgd=10, targets=2),
    "desk": _Strength(8 / 255, (1, 4, 16), pgd=20, apgd=20, targets=3),
    "paper": _Strength(8 / 255, (1, 4, 16, 64), pgd=40, apgd=100, targets=9),
}


def silent(trained: Network) -> Network:
    """The same weights with PNI's noise off, in eval mode the plain network.

    Args:
        trained: after PNI, with stored weights or with those of a training.
    """
    if isinstance(trained, Trained):
        done = trained.train
        assert isinstance(done.network, Operated)
        # A store hands weights on to trainings only: one that goes on from them, and moves them by less than a float.
        still = Recipe(
            epochs=1, learning_rate=1e-30, weight_decay=0.0, momentum=0.0, freeze_norm=True
        )
        calm = silent(done.network)
        return Trained(Train(calm, done.data, still, start=done, execution=done.execution))
    assert isinstance(trained, Operated)
    identity = trained.surgery.identity()
    assert identity is not None
    return replace(trained, surgery=identity)


def _networks(setting: Setting) -> dict[str, Defense]:
    """Those at hand."""
    trained, noisy = (network(setting, name) for name in (TRAINED, ON))
    found = {TRAINED: trained, ON: noisy, OFF: None if noisy is None else silent(noisy)}
    return {name: Defense(one) for name, one in found.items() if one is not None}


def _attack(attack: str, how: _Strength) -> Attack:
    ball = Linf()
    match attack:
        case "FGSM":
            return FGSM(ball, how.epsilon)
        case "PGD-7":  # theirs: steps of .01 within 8/255, the last iterate
            size = 0.01 * how.epsilon / (8 / 255)
            return PGD(ball, how.epsilon, steps=7, step_size=size, keep="last")
        case "PGD":
            return PGD(ball, how.epsilon, steps=how.pgd, loss=Margin())
        case "APGD-CE":
            return APGD(ball, how.epsilon, steps=how.apgd)
        case _:
            return TargetedAPGD(ball, how.epsilon, steps=how.apgd, targets=how.targets)


def _threat(attack: str, defense: Defense, eot: int) -> Threat:
    """One draw per gradient, and its luck believed, under the published protocol; else adaptive with EOT."""
    if attack in PUBLISHED:
        return Threat(defense, selection_draws=0)
    return adaptive(defense, draws=eot)


def _spots(scale: Scale) -> tuple[Spot, ...]:
    rungs = _STRENGTH[scale].rungs
    out: list[Spot] = []
    for name in NETWORKS:
        asked, top = (rungs, rungs[-1]) if name == ON else ((1,), 1)
        out += [Spot(name, attack, 1) for attack in PUBLISHED]
        out += [Spot(name, "PGD", k) for k in asked]
        out += [Spot(name, attack, top) for attack in ("APGD-CE", "APGD-T")]
    return (*out, *(Spot(ON, f"from {name}", 1) for name in (TRAINED, OFF)))


def _cells(setting: Setting) -> tuple[Cell, ...]:
    at_hand, how = _networks(setting), setting.execution
    out: list[Cell] = []
    for spot in _spots(setting.scale):
        source, attack = spot.network, spot.attack
        if attack.startswith("from "):
            source, attack = attack.removeprefix("from "), "PGD"
        if not {spot.network, source} <= at_hand.keys():
            continue
        defense = at_hand[spot.network]
        threat = _threat(attack, at_hand[source], spot.eot)
        made = _attack(attack, _STRENGTH[setting.scale])
        measures = tuple(
            Measure(
                part,
                defense,
                None if attack == "clean" else Craft(part, threat, made, execution=how),
                draws=DRAWS if defense.stochastic else 1,
                execution=how,
            )
            for part in setting.parts()
        )
        out.append(Cell(tuple(spot._asdict().items()), measures))
    return tuple(out)


def _sections(setting: Setting, results: tuple[Result, ...]) -> tuple[Section, ...]:
    rows, how = Rows(results), _STRENGTH[setting.scale]
    spots = tuple(s for s in _spots(setting.scale) if s.network == ON)
    tried = f"PGD on the margin: {how.pgd} steps; APGD: {how.apgd} steps, towards {how.targets} classes where targeted"
    words = f"{setting.data.size} images; {WORDS[setting.scale]}; L∞ ≤ {how.epsilon:.3g}"
    shown = (
        answer(rows),
        figure(rows, words),
        beside(rows, WORDS[setting.scale]),
        ladder(rows, spots, tried),
        gains(rows),
    )
    return (Section("Does the gain of PNI survive EOT?", shown),)


PNI_QUESTION = Experiment(
    "pni", "Does the gain of PNI survive EOT?", SUBSETS, _cells, _sections, claims, words=WORDS
)
