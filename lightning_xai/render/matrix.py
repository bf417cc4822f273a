"""Attention from token to token, one panel a head."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lightning_xai.render import text
from lightning_xai.render.canvas import CAPTION, SMALL, below, beside, blank, framed, padded
from lightning_xai.render.colormap import Floats, Pixels, flat, on_paper
from lightning_xai.render.dispatch import draw
from lightning_xai.render.overlay import notes, strength
from lightning_xai.render.text import FAINT, PAPER
from lightning_xai.render.tokens import shown
from lightning_xai.report import Matrix

_WIDTH, _GAP, _SIDE, _CELL = 1200, 14, 220, 14
_NARROWEST = 720
_NAMED, _LABEL = 32, 90  # panels of more tokens have no names; a name is no longer than this
_BASE = float(PAPER[0]) - 7  # a panel stands out from the page


@draw.register(Matrix)
def draw_matrix(picture: Matrix) -> Pixels:
    """One band a sample: queries downwards, keys to the right: (H, W, 3) uint8."""
    bands = []
    for maps, rows, columns, caption in zip(
        map(np.asarray, picture.maps), picture.rows, picture.columns, picture.captions, strict=True
    ):
        named = bool(rows and columns) and max(maps.shape[1:]) <= _NAMED
        cell = _CELL if named else max(1, _SIDE // max(maps.shape[1:]))
        values = strength(maps, None)
        panels = [_cells(value, cell, note) for value, note in zip(values, notes(maps), strict=True)]
        left = _names(rows, cell) if named else blank(1, 1)
        top = np.rot90(_names(columns, cell)) if named else None
        wide = panels[0].shape[1]
        heads = []
        for head, panel in enumerate(panels):
            name = text.block(f"head {head}", max(wide, 48), SMALL, center=True, rows=1, ink=FAINT)
            tiles = [name, *([] if top is None else [top]), panel]
            heads.append(below([padded(tile, 0, max(wide, 48)) for tile in tiles], 3))
        most = max(1, (_WIDTH - left.shape[1]) // (heads[0].shape[1] + _GAP))
        many = math.ceil(len(heads) / math.ceil(len(heads) / most))
        lines = [_line(left, heads[start : start + many]) for start in range(0, len(heads), many)]
        heading = "   ".join(caption.split("\n"))
        title = [text.block(heading, lines[0].shape[1], CAPTION, bold=True)] if heading else []
        bands.append(below([*title, *lines], 10))
    axes = text.block("queries downwards, keys to the right", _NARROWEST, SMALL, ink=FAINT)
    return framed(picture.title, None, below([axes, below(bands, 24)], 10), base=_BASE, paint=on_paper)


def _line(names: Pixels, panels: Sequence[Pixels]) -> Pixels:
    """Panels beside each other, the names of the queries at the foot of their left."""
    high = panels[0].shape[0]
    column = np.concatenate([blank(max(0, high - names.shape[0]), names.shape[1]), names])[:high]
    return np.concatenate([column, blank(high, 4), beside(panels, _GAP)], 1)


def _cells(values: Floats, cell: int, note: str) -> Pixels:
    panel = on_paper(flat(_BASE, *values.shape), values)
    panel = panel.repeat(cell, 0).repeat(cell, 1)
    return text.stamp(panel, note) if note else panel


def _names(tokens: Sequence[str], cell: int) -> Pixels:
    """The tokens below each other, a cell high each, right-aligned."""
    words = [text.shorten(shown(token), _LABEL, SMALL) for token in tokens]
    width = max(text.measure(word, SMALL) for word in words) + 4
    rows = []
    for word in words:
        line = text.block(word, text.measure(word, SMALL), SMALL, rows=1, ink=FAINT)[:cell]
        line = padded(line, cell, 0, middle=True)
        rows.append(np.concatenate([blank(cell, width - line.shape[1] - 4), line, blank(cell, 4)], 1))
    return np.concatenate(rows)
