"""The probe at one reading: one column a sample."""

from __future__ import annotations

import math

from lightning_xai.render import text
from lightning_xai.render.canvas import CAPTION, below, beside, framed, padded
from lightning_xai.render.colormap import Pixels
from lightning_xai.render.dispatch import draw
from lightning_xai.render.overlay import enlarged, overlaid, reduced
from lightning_xai.report import Grid

_SIDE, _CAPTION_WIDTH, _GAP, _WIDTH = 192, 128, 8, 1600


@draw.register(Grid)
def draw_grid(picture: Grid) -> Pixels:
    """Image, heatmap and caption of each sample; wraps into several rows of columns: (H, W, 3) uint8."""
    small = reduced(picture.images, _SIDE)
    images = enlarged(small, _SIDE)
    heated = overlaid(small, picture.maps, picture.scale, _SIDE, picture.signed)
    width = max(images.shape[2], _CAPTION_WIDTH)
    columns = []
    for image, heat, caption in zip(images, heated, picture.captions, strict=True):
        pair = padded(below([image, heat], 3), 0, width)
        columns.append(below([pair, text.block(caption, width, CAPTION, center=True)], 6))
    bands = math.ceil(len(columns) * (width + _GAP) / _WIDTH)
    size = math.ceil(len(columns) / bands)
    body = below([beside(columns[start : start + size], _GAP) for start in range(0, len(columns), size)], 16)
    return framed(picture.title, picture.scale, body, signed=picture.signed)
