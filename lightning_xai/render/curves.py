"""Scalars over the run, with the band that chance gives them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from lightning_xai.render import text
from lightning_xai.render.dispatch import draw
from lightning_xai.render.figures import colour, pixels
from lightning_xai.render.layout import SMALL, TITLE, below, padded
from lightning_xai.render.text import FAINT, INK, PAPER
from lightning_xai.report import Curve, Curves

_DPI, _PANEL, _HEIGHT, _MARGIN = 100, 480, 330, 14
# Okabe and Ito 2008, without the yellow that vanishes on paper: told apart by colour-blind readers
_HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKS = "osD^vPX"


@draw.register(Curves)
def draw_curves(picture: Curves) -> Tensor:
    """One panel a class, points hollow where chance explains them: (H, W, 3) uint8."""
    columns = 2 if len(picture.panels) == 4 else min(3, len(picture.panels))
    rows = -(-len(picture.panels) // columns)
    size = (columns * _PANEL / _DPI, rows * _HEIGHT / _DPI)
    figure = Figure(figsize=size, dpi=_DPI, facecolor=colour(PAPER), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).flatten()
    for axes, (name, curves) in zip(grid, picture.panels.items(), strict=False):
        _panel(axes, picture.x, curves)
        axes.set_title(name, fontsize=10, color=colour(INK), loc="left")
    for axes in grid[len(picture.panels) :]:
        axes.set_visible(False)
    figure.supxlabel(picture.x_label, fontsize=9, color=colour(FAINT))
    figure.supylabel(picture.y_label, fontsize=9, color=colour(FAINT))
    _legend(figure, picture)
    body = pixels(figure)
    width = body.shape[1]
    lines = [text.block(picture.title, width, TITLE, bold=True, ink=INK), body]
    if picture.note:
        lines.append(text.block(picture.note, width, SMALL, rows=2, ink=FAINT))
    page = below(lines, 8)
    return padded(page, page.shape[0] + 2 * _MARGIN, page.shape[1] + 2 * _MARGIN, middle=True)


def _panel(axes: Axes, x: Sequence[float], curves: Sequence[Curve]) -> None:
    axes.set_facecolor(colour(PAPER))
    axes.axhline(0, color=colour(FAINT), linewidth=0.8, zorder=1)
    for place, curve in enumerate(curves):
        hue, mark = _HUES[place % len(_HUES)], _MARKS[place % len(_MARKS)]
        if curve.lower is not None and curve.upper is not None:
            axes.fill_between(x, curve.lower, curve.upper, color=hue, alpha=0.14, linewidth=0, zorder=2)
        axes.plot(x, curve.y, color=hue, linewidth=1.4, zorder=3)
        faces = [hue if solid else colour(PAPER) for solid in curve.solid]
        axes.scatter(x, curve.y, c=faces, edgecolors=hue, marker=mark, s=26, linewidths=1.3, zorder=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=8, labelbottom=True, colors=colour(FAINT), length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(colour(FAINT))


def _legend(figure: Figure, picture: Curves) -> None:
    names = [curve.name for curve in next(iter(picture.panels.values()))]
    lines = [
        Line2D([], [], color=_HUES[place % len(_HUES)], marker=_MARKS[place % len(_MARKS)], markersize=5)
        for place in range(len(names))
    ]
    columns = min(4, len(names))
    figure.legend(lines, names, loc="outside upper left", ncols=columns, frameon=False, fontsize=9)
