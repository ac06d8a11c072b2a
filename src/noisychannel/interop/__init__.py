"""Others' conventions in, ours out: their attacks on our defenses, our attacks on their models."""

from noisychannel.interop.borrowed import Borrowed
from noisychannel.interop.models import as_callable, from_art, from_foolbox, to_art, to_foolbox
from noisychannel.interop.peers import art_attack, autoattack, foolbox_attack, torchattacks_attack
from noisychannel.interop.robustbench import robustbench_network

__all__ = [
    "Borrowed",
    "art_attack",
    "as_callable",
    "autoattack",
    "foolbox_attack",
    "from_art",
    "from_foolbox",
    "robustbench_network",
    "to_art",
    "to_foolbox",
    "torchattacks_attack",
]
