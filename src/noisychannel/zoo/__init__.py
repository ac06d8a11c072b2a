"""The paper's networks by name: how each is made, those that come trained, and their cards."""

from noisychannel.zoo.card import Card, check_place, with_weights, write_card
from noisychannel.zoo.presets import PRESETS, Preset
from noisychannel.zoo.resolve import (
    clean_measure,
    defense,
    has_weights,
    network,
    preset,
    shelf,
    shorter,
    train,
)

__all__ = [
    "PRESETS",
    "Card",
    "Preset",
    "check_place",
    "clean_measure",
    "defense",
    "has_weights",
    "network",
    "preset",
    "shelf",
    "shorter",
    "train",
    "with_weights",
    "write_card",
]
