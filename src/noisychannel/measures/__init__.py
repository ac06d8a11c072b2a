"""Questions asked of a defense; each answers rows."""

from noisychannel.measures.accuracy import MEASURES, draws, examples

__all__ = ["MEASURES", "draws", "examples"]
