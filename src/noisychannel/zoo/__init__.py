"""The paper's networks by name: how each is made, those that come trained, and their cards."""

from noisychannel.zoo.card import Card, write_card
from noisychannel.zoo.presets import PRESETS, Preset
from noisychannel.zoo.shelf import (
    clean_measure,
    has_weights,
    network,
    preset,
    shelf,
    train,
    with_weights,
)

__all__ = [
    "PRESETS",
    "Card",
    "Preset",
    "clean_measure",
    "has_weights",
    "network",
    "preset",
    "shelf",
    "train",
    "with_weights",
    "write_card",
]
