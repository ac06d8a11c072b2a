"""Questions asked of a defense; each answers rows."""

from noisychannel.measures.accuracy import MEASURES, draws, examples
from noisychannel.measures.tensors import layer_statistics

__all__ = ["MEASURES", "draws", "examples", "layer_statistics"]
