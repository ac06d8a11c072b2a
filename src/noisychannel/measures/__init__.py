"""Questions asked of a defense; each answers rows."""

from noisychannel.measures.accuracy import MEASURES, draws, examples
from noisychannel.measures.binarization import Binarized, Planted, Planting, Readouts
from noisychannel.measures.certify import (
    ABSTAIN,
    Certified,
    certified,
    check_smoothing,
    predicted,
)
from noisychannel.measures.curvature import AUTHORS_POWER, Curvature
from noisychannel.measures.jacobian import (
    Jacobian,
    Loss,
    eigenvalues,
    gradient_norms,
    is_piecewise_linear,
)
from noisychannel.measures.question import Asked, Look, Question
from noisychannel.measures.recovery import Deltas, Pictures, Recovery
from noisychannel.measures.taylor import TaylorTerms
from noisychannel.measures.tensors import LayerStatistics, layer_statistics

__all__ = [
    "ABSTAIN",
    "AUTHORS_POWER",
    "MEASURES",
    "QUESTIONS",
    "Asked",
    "Binarized",
    "Certified",
    "Curvature",
    "Deltas",
    "Jacobian",
    "LayerStatistics",
    "Look",
    "Loss",
    "Pictures",
    "Planted",
    "Planting",
    "Question",
    "Readouts",
    "Recovery",
    "TaylorTerms",
    "certified",
    "check_smoothing",
    "draws",
    "eigenvalues",
    "examples",
    "gradient_norms",
    "is_piecewise_linear",
    "layer_statistics",
    "predicted",
]

QUESTIONS: tuple[Question, ...] = (
    Jacobian(),
    Jacobian(draws=2, scale=(0.5,)),
    Curvature(steps=8),
    Curvature("confidence", steps=8),
    AUTHORS_POWER,
    Recovery(draws=3),
    Deltas(),
    Pictures(),
    TaylorTerms(draws=2),
    LayerStatistics(),
)
"""The questions that tests go through."""
