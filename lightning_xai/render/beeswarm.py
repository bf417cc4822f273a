"""What each column of a table counts, over all samples."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lightning_xai.pictures import Beeswarm
from lightning_xai.render import text
from lightning_xai.render.canvas import SMALL, TITLE, below, beside, padded
from lightning_xai.render.colormap import Floats, Pixels
from lightning_xai.render.columns import DPI, POINTS, leading, name_rows, reach
from lightning_xai.render.dispatch import draw
from lightning_xai.render.figures import colour, pixels
from lightning_xai.render.text import FAINT, INK, PAPER

_MOST = 20
_WIDTH, _NAMES, _NUMBERS, _ROW, _FOOT, _MARGIN = 760, 170, 60, 34, 40, 14
_BINS, _APART, _HALF = 90, 0.09, 0.4  # of a row: from dot to dot, and as far as a swarm spreads
_COLOURS = "viridis"
_PALEST = 0.88  # what is lighter vanishes on paper


@draw.register(Beeswarm)
def draw_beeswarm(picture: Beeswarm) -> Pixels:
    """A row a column, those that count most first, a dot a sample: (H, W, 3) uint8."""
    values = np.asarray(picture.values, np.float32)
    finite = np.isfinite(values).all(1)
    values = values[finite]
    inputs = None if picture.inputs is None else np.asarray(picture.inputs, np.float32)[finite]
    order = leading(values, _MOST) if len(values) else list(range(min(_MOST, len(picture.names))))
    high = _ROW * len(order) + _FOOT
    figure = Figure(figsize=(_WIDTH / DPI, high / DPI), dpi=DPI, facecolor=colour(PAPER))
    left, right = _NAMES / _WIDTH, 1 - _NUMBERS / _WIDTH
    axes = figure.add_axes((left, _FOOT / high, right - left, 1 - _FOOT / high))
    name_rows(axes, [picture.names[place] for place in order], _NAMES - 12)
    limit = 1.05 * reach(values, picture.scale)
    axes.set_xlim(-limit, limit)
    axes.set_xlabel("against   ←   what the column adds to the score   →   for", fontsize=8.5, color=colour(FAINT))
    for row, place in enumerate(order):
        axes.axhline(row, color=colour(FAINT), linewidth=0.4, alpha=0.4, zorder=1)
        across = values[:, place].clip(-limit, limit)
        shades = "#5c6066" if inputs is None else _shades(inputs[:, place])
        axes.scatter(across, row + _spread(across, limit), c=shades, s=11, linewidths=0, zorder=3, clip_on=False)
        size = float(np.abs(values[:, place]).mean()) if len(values) else 0.0
        axes.annotate(
            f"{size:.2g}",
            (1, row),
            (8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=POINTS,
            color=colour(INK),
        )
    title = text.block(picture.title, _WIDTH, TITLE, bold=True, ink=INK)
    page = below([title, _key(picture, len(order), int((~finite).sum())), pixels(figure)], 8)
    return padded(page, page.shape[0] + 2 * _MARGIN, page.shape[1] + 2 * _MARGIN, middle=True)


def _spread(across: Floats, limit: float) -> Floats:
    """How far above or below its row each dot lies, so that those at one place stand beside each other."""
    bins = np.rint((across + limit) / (2 * limit) * _BINS).astype(np.int64)
    up = np.zeros(len(across), np.float32)
    for each in np.unique(bins):
        inside = np.flatnonzero(bins == each)
        steps = (np.arange(len(inside)) + 1) // 2 * np.where(np.arange(len(inside)) % 2, 1, -1)
        up[inside] = steps * min(_APART, 2 * _HALF / max(len(inside), 1))
    return up


def _shades(inputs: Floats) -> Floats:
    """From a column's low values to its high ones; the outermost twentieths do not count."""
    low, high = np.nanpercentile(inputs, (5, 95)) if np.isfinite(inputs).any() else (0.0, 1.0)
    share = np.nan_to_num((inputs - low) / (high - low if high > low else 1), nan=0.5).clip(0, 1)
    return matplotlib.colormaps[_COLOURS](_PALEST * share)[:, :3]


def _key(picture: Beeswarm, rows: int, broken: int) -> Pixels:
    notes = ["a dot a sample; on the right the mean absolute value"]
    if rows < len(picture.names):
        notes.append(f"the first {rows} of {len(picture.names)} columns")
    if broken:
        notes.append(f"without {broken} samples that are not finite")
    line = "; ".join(notes)
    said = text.block(line, text.measure(line, SMALL), SMALL, rows=1, ink=FAINT)
    if picture.inputs is None:
        return said
    bar = matplotlib.colormaps[_COLOURS](_PALEST * np.linspace(0, 1, 80))[:, :3]
    shades = np.broadcast_to((bar * 255).astype(np.uint8), (12, 80, 3))
    ends = [text.block(end, text.measure(end, SMALL), SMALL, rows=1, ink=FAINT) for end in ("low", "high values")]
    return beside([said, beside([ends[0], shades, ends[1]], 8, middle=True)], 24, middle=True)
