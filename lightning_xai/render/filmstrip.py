"""The same samples over many readings: one row a sample, one column a reading."""

from __future__ import annotations

import numpy as np

from lightning_xai.render import text
from lightning_xai.render.canvas import CAPTION, SMALL, below, beside, blank, framed, left, padded
from lightning_xai.render.colormap import Pixels
from lightning_xai.render.dispatch import draw
from lightning_xai.render.overlay import enlarged, overlaid, reduced
from lightning_xai.report import Filmstrip

_CAPTION_WIDTH, _GAP = 140, 4


@draw.register(Filmstrip)
def draw_filmstrip(picture: Filmstrip) -> Pixels:
    """Caption, image, and the heatmaps from the first reading to the last: (H, W, 3) uint8."""
    samples, readings = picture.maps.shape[:2]
    side = 128 if readings <= 8 else 96
    small = reduced(picture.images, side)
    images = enlarged(small, side)
    maps = np.asarray(picture.maps)
    flat = maps.reshape(-1, *maps.shape[2:])
    heated = overlaid(small.repeat(readings, 0), flat, picture.scale, side, picture.signed)
    # Logged again with every reading: without its two lowest bits a strip of photographs is 40% smaller.
    heated = (heated & 0xFC).reshape(samples, readings, *heated.shape[1:])
    # Room for the headings, however narrow the images are.
    cell = max(images.shape[2], 64)

    widest = max(text.measure(line, CAPTION) for caption in picture.captions for line in caption.split("\n"))
    margin = min(widest, _CAPTION_WIDTH) + 8

    headings = [text.block(line, cell, SMALL, center=True, rows=2) for line in ["image", *picture.columns]]
    rows = [beside([blank(1, margin), *headings], _GAP)]
    for image, heats, caption in zip(images, heated, picture.captions, strict=True):
        label = left(text.block(caption, margin - 8, CAPTION), margin)
        cells = [padded(tile, 0, cell) for tile in (image, *heats)]
        rows.append(beside([label, *cells], _GAP, middle=True))
    return framed(picture.title, picture.scale, below(rows, _GAP), signed=picture.signed)
