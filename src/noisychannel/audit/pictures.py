"""What the attacker did to the images, and what the defense makes of it."""

import math

import numpy as np
import torch
from torch import Tensor

from noisychannel import rng
from noisychannel.audit.conduct import Judged
from noisychannel.audit.levels import worst_images
from noisychannel.audit.side import CLEAN, Side
from noisychannel.audit.words import norm_words
from noisychannel.channels import Identity
from noisychannel.data import to_uint8
from noisychannel.report.draws import arrange
from noisychannel.report.figure import Cell, Grid, Picture
from noisychannel.report.html import Part
from noisychannel.report.worst import worst_draws
from noisychannel.types import Images

__all__ = ["images"]

MOST = 8
_EDGE = 64  # pixels, at least, that an image is shown with


def images(judged: Judged) -> tuple[Part, ...]:
    """A strip of images with what the defense answers to each; series have no pictures."""
    side, r = judged.evidence.mine, judged.evidence.request
    if len(r.data.shape) != 3:
        return ("The examples are series, of which there are no pictures.",)
    if not judged.evidence.attacked:
        return ("Nothing was attacked.",)
    plain, attacked = _rates(side)
    shown = _chosen(plain, attacked)
    batch = side.batch.rows(shown)
    found = worst_images(side)
    moved = found.x[shown]
    delta = moved - batch.x
    gain = 0.5 / max(float(delta.abs().max()), 1e-6)
    rows = [batch.x, moved, (delta * gain + 0.5).clamp(0, 1)]
    words = [
        "clean",
        "under the worst attack of each",
        f"their difference × {gain:.3g} around grey",
    ]
    if r.defense.channel != Identity():
        rows.append(_passed(side, moved, batch.index))
        words.append("the attacked image as the defense's channel hands it on, one draw")
    caption = f"From top to bottom: {'; '.join(words)}."
    picture = Picture(caption, np.concatenate([_tiled(row) for row in rows]))
    distance = r.norm.distance(moved, batch.x).tolist()
    cells: list[tuple[Cell, ...]] = [
        (
            str(int(batch.index[k])),
            str(int(batch.y[k])),
            _share(plain[i]),
            _share(attacked[i]),
            found.attack[i],
            f"{distance[k]:.3g}",
        )
        for k, i in enumerate(shown.tolist())
    ]
    header = (
        "image",
        "label",
        "right, clean",
        "right, attacked",
        "worst attack",
        norm_words(r.norm),
    )
    return picture, Grid("The images above, from left to right", header, tuple(cells), _WHICH)


_WHICH = (
    "Images that the attack turns come first. Right: the share of draws that answer with the label, on draws that did "
    "not choose the attack; none: no attack was chosen, and the clean image stands."
)


def _rates(side: Side) -> tuple[Tensor, Tensor]:
    """Share of right draws of each example in the order of the data, clean and under its worst attack."""
    found: list[Tensor] = []
    order = torch.from_numpy(side.index.copy()).argsort().argsort()
    names = side.named("non-adaptive", "partially adaptive", "adaptive")
    for rows in (side.answers(CLEAN), worst_draws(side.tables(names), side.rule)):
        d = arrange(rows)
        found.append((d.predicted == d.label[:, None]).double().mean(dim=1)[order])
    return found[0], found[1]


def _chosen(plain: Tensor, attacked: Tensor) -> Tensor:
    """Places of the images to show, ascending."""
    turned = (plain > 0.5) & (attacked < 0.5)
    first = torch.cat([turned.nonzero()[:, 0], (~turned).nonzero()[:, 0]])
    return first[:MOST]


def _passed(side: Side, x: Images, index: Tensor) -> Images:
    """C(x), drawn as for no score: pictures are no evidence."""
    stream = rng.Stream("scoring", index, part="picture")
    with rng.root("picture"), rng.bracket(stream), rng.torch_seeded(stream):
        return side.defense.channel(x).clamp(0, 1)


def _share(rate: Tensor) -> str:
    return f"{100 * float(rate):.0f} %"


def _tiled(x: Images) -> np.ndarray:
    """Images (n, c, h, w) in a row."""
    pixels = to_uint8(x).permute(0, 2, 3, 1).numpy()
    if pixels.shape[3] not in (1, 3):
        pixels = pixels[..., :1]
    zoom = max(1, math.ceil(_EDGE / pixels.shape[1]))
    big = pixels.repeat(zoom, axis=1).repeat(zoom, axis=2)
    big = np.pad(big, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=255)
    row = np.concatenate(list(big), axis=1)
    return row[..., 0] if row.shape[2] == 1 else row
