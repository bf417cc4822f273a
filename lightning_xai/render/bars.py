"""What each column of a table counts, sample by sample."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from lightning_xai.pictures import Bars
from lightning_xai.render import text
from lightning_xai.render.canvas import CAPTION, SMALL, TITLE, below, beside, padded
from lightning_xai.render.colormap import Floats, Pixels
from lightning_xai.render.columns import BLUE, BOTH_SIDES, DPI, RED, leading, name_rows, reach
from lightning_xai.render.dispatch import draw
from lightning_xai.render.figures import colour, pixels
from lightning_xai.render.overlay import notes
from lightning_xai.render.text import FAINT, INK, PAPER

_MOST, _ACROSS = 12, 3
_WIDTH, _NAMES, _ROW, _FOOT, _MARGIN = 400, 160, 20, 24, 14
_LABEL = _NAMES - 8


@draw.register(Bars)
def draw_bars(picture: Bars) -> Pixels:
    """A panel a sample, beside and below each other, the columns that count most first: (H, W, 3) uint8."""
    values = np.asarray(picture.values, np.float32)
    said = notes(values, signed=True)
    values = np.nan_to_num(values, posinf=0, neginf=0)
    order = leading(values, _MOST)
    others = [place for place in range(values.shape[1]) if place not in order]
    rest = values[:, others].sum(1)
    panels = []
    for row, (caption, note) in enumerate(zip(picture.captions, said, strict=True)):
        names = [_named(picture, row, place) for place in order]
        bars = values[row, order]
        if others:
            names, bars = [*names, f"{len(others)} others"], np.append(bars, rest[row])
        heading = "   ".join([*caption.split("\n"), *([f"({note})"] if note else [])])
        panel = _panel(names, bars, reach(bars, picture.scale))
        panels.append(below([text.block(heading, _WIDTH, CAPTION, rows=1, ink=INK), panel], 2))
    lines = [beside(panels[start : start + _ACROSS], 16) for start in range(0, len(panels), _ACROSS)]
    wide = max(line.shape[1] for line in lines)
    scale = "each panel on its own scale" if picture.scale is None else "all panels on one scale"
    page = below(
        [
            text.block(picture.title, wide, TITLE, bold=True, ink=INK),
            text.block(f"{BOTH_SIDES}; {scale}", wide, SMALL, ink=FAINT),
            below(lines, 14),
        ],
        8,
    )
    return padded(page, page.shape[0] + 2 * _MARGIN, page.shape[1] + 2 * _MARGIN, middle=True)


def _named(picture: Bars, row: int, place: int) -> str:
    if picture.inputs is None:
        return picture.names[place]
    number = f" = {float(picture.inputs[row][place]):.3g}".replace("-", "−")
    return text.shorten(picture.names[place], _LABEL - text.measure(number, SMALL), SMALL) + number


def _panel(names: list[str], bars: Floats, limit: float) -> Pixels:
    high = _ROW * len(names) + _FOOT
    figure = Figure(figsize=(_WIDTH / DPI, high / DPI), dpi=DPI, facecolor=colour(PAPER))
    left = _NAMES / _WIDTH
    axes = figure.add_axes((left, _FOOT / high, 0.98 - left, 1 - _FOOT / high))
    name_rows(axes, names, _LABEL)
    axes.set_xlim(-1.25 * limit, 1.25 * limit)  # room for the numbers
    axes.barh(range(len(names)), bars, color=[RED if bar > 0 else BLUE for bar in bars], height=0.68, zorder=2)
    for place, bar in enumerate(bars.clip(-limit, limit).tolist()):
        side = "left" if bar >= 0 else "right"
        shift = 3 if bar >= 0 else -3
        axes.annotate(
            f"{bars[place]:+.2g}".replace("-", "−"),
            (bar, place),
            (shift, 0),
            textcoords="offset points",
            va="center_baseline",
            ha=side,
            fontsize=7.5,
            color=colour(FAINT),
        )
    return pixels(figure)
