"""Training of networks."""

from noisychannel.training.loop import Progress, Recipe, fit

__all__ = ["Progress", "Recipe", "fit"]
