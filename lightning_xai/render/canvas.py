"""Tiles (h, w, 3) uint8 put beside and below each other on one neutral background."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lightning_xai.render import text
from lightning_xai.render.colormap import Floats, Pixels, blend, flat
from lightning_xai.render.text import FAINT, INK, PAPER

Paint = Callable[[Floats, Floats, bool], Pixels]
TITLE, CAPTION, SMALL = 15, 12, 11
_NARROWEST, _MARGIN = 400, 14


def blank(height: int, width: int) -> Pixels:
    """Background."""
    return np.broadcast_to(np.array(PAPER, np.uint8), (height, width, 3))


def padded(tile: Pixels, height: int, width: int, *, middle: bool = False) -> Pixels:
    """The tile in the middle of a background at least this large; at its top unless ``middle``."""
    height, width = max(height, tile.shape[0]), max(width, tile.shape[1])
    canvas = blank(height, width).copy()
    top = (height - tile.shape[0]) // 2 if middle else 0
    left = (width - tile.shape[1]) // 2
    canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return canvas


def left(tile: Pixels, width: int) -> Pixels:
    """The tile at the left of a background of at least this width."""
    return np.concatenate([tile, blank(tile.shape[0], max(0, width - tile.shape[1]))], 1)


def beside(tiles: Sequence[Pixels], gap: int, *, middle: bool = False) -> Pixels:
    """Tiles in a row, as high as the highest."""
    height = max(tile.shape[0] for tile in tiles)
    parts = [padded(tile, height, 0, middle=middle) for tile in tiles]
    spaced = [part for tile in parts for part in (tile, blank(height, gap))]
    return np.concatenate(spaced[:-1], 1)


def below(tiles: Sequence[Pixels], gap: int) -> Pixels:
    """Tiles in a column, left-aligned, as wide as the widest."""
    width = max(tile.shape[1] for tile in tiles)
    spaced = [part for tile in tiles for part in (left(tile, width), blank(gap, width))]
    return np.concatenate(spaced[:-1], 0)


def legend(scale: float | None, base: float, paint: Paint, signed: bool) -> Pixels:
    """The colours as they look over a grey of 0 to 255, with the values they begin and end at."""
    values = np.broadcast_to(np.linspace(-1 if signed else 0, 1, 120, dtype=np.float32), (12, 120))
    bar = paint(flat(base, 12, 120), values, signed)
    if scale is None:
        first, last = ("against", "for") if signed else ("0", "maximum")
        first = f"each map on its own scale:  {first}"
    else:
        first, last = (f"against  −{scale:.3g}", f"{scale:.3g}  for") if signed else ("0", f"{scale:.3g}")
    return beside([_label(first), bar, _label(last)], 8, middle=True)


def _label(line: str) -> Pixels:
    return text.block(line, text.measure(line, SMALL), SMALL, rows=1, ink=FAINT)


def framed(
    title: str,
    scale: float | None,
    body: Pixels,
    *,
    base: float = 118.0,
    paint: Paint = blend,
    signed: bool = False,
) -> Pixels:
    """A body under its title and legend, with a margin all round."""
    key = legend(scale, base, paint, signed)
    width = max(body.shape[1], _NARROWEST)
    room = width - key.shape[1] - 24
    if room >= min(text.measure(title, TITLE, bold=True), 320):
        heading = text.block(title, room, TITLE, bold=True, ink=INK)
        header = beside([heading, key], 24, middle=True)
    else:
        header = below([text.block(title, width, TITLE, bold=True, ink=INK), key], 6)
    page = below([header, body], 12)
    height, width = page.shape[:2]
    return padded(page, height + 2 * _MARGIN, width + 2 * _MARGIN, middle=True)
