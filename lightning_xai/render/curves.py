"""Scalars over the run, with the band that chance gives them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from lightning_xai.render import text
from lightning_xai.render.canvas import SMALL, TITLE, below, padded
from lightning_xai.render.colormap import Pixels
from lightning_xai.render.dispatch import draw
from lightning_xai.render.figures import colour, pixels
from lightning_xai.render.text import FAINT, INK, PAPER
from lightning_xai.report import Curve, Curves

_DPI, _MARGIN = 100, 14
_SIZES = {1: (620, 380), 4: (450, 310), 100: (360, 250)}  # of a panel, by how many there are at most
# Okabe and Ito 2008, without the yellow that vanishes on paper: told apart by colour-blind readers
_HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKS = "osD^vPX"
_BAND = "#9A9DA3"
_FAINTLY = 0.4


@draw.register(Curves)
def draw_curves(picture: Curves) -> Pixels:
    """One panel a class on one scale, points hollow where chance explains them: (H, W, 3) uint8."""
    number = len(picture.panels)
    columns = 2 if number == 4 else min(number, 3 if number <= 6 else 4)
    rows = -(-number // columns)
    width, height = next(size for most, size in _SIZES.items() if number <= most)
    inches = (columns * width / _DPI, rows * height / _DPI)
    figure = Figure(figsize=inches, dpi=_DPI, facecolor=colour(PAPER), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axes, (name, curves) in zip(grid, picture.panels.items(), strict=False):
        _panel(axes, picture.x, curves)
        axes.set_title(name, fontsize=10, color=colour(INK), loc="left")
    for axes in grid[number:]:
        axes.set_visible(False)
    figure.supxlabel(picture.x_label, fontsize=9, color=colour(FAINT))
    figure.supylabel(picture.y_label, fontsize=9, color=colour(FAINT))
    body = pixels(figure)
    wide = body.shape[1]
    key = _legend([curve.name for curve in next(iter(picture.panels.values()))], picture.band, wide)
    lines = [text.block(picture.title, wide, TITLE, bold=True, ink=INK), key, body]
    if picture.note:
        lines.append(text.block(picture.note, wide, SMALL, rows=4, ink=FAINT))
    page = below(lines, 8)
    return padded(page, page.shape[0] + 2 * _MARGIN, page.shape[1] + 2 * _MARGIN, middle=True)


def _panel(axes: Axes, x: Sequence[float], curves: Sequence[Curve]) -> None:
    axes.set_facecolor(colour(PAPER))
    axes.axhline(0, color=colour(FAINT), linewidth=0.8, zorder=1)
    # curves of one panel often have one band: drawn once, or it would darken with their number
    bands = {(*curve.lower, *curve.upper): curve for curve in curves if curve.lower and curve.upper}
    for curve in bands.values():
        _band(axes, x, curve)
    size = max(8, min(30, 700 / len(x)))
    for place, curve in enumerate(curves):
        hue, mark = _look(place)
        axes.plot(x, curve.y, color=hue, linewidth=1.5, zorder=3)
        faces = [hue if solid else colour(PAPER) for solid in curve.solid]
        axes.scatter(
            x, curve.y, c=faces, edgecolors=hue, marker=mark, s=size, linewidths=1.4 if size > 15 else 0.9, zorder=4
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.tick_params(labelsize=8, colors=colour(FAINT), length=3, labelleft=True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(colour(FAINT))


def _band(axes: Axes, x: Sequence[float], curve: Curve) -> None:
    if curve.lower is None or curve.upper is None:
        return
    places, lower, upper = list(x), list(curve.lower), list(curve.upper)
    if len(places) == 1:  # an area needs a width
        places, lower, upper = [places[0] - 0.5, places[0] + 0.5], lower * 2, upper * 2
    axes.fill_between(places, lower, upper, color=_BAND, alpha=_FAINTLY, linewidth=0, zorder=2)


def _legend(names: Sequence[str], band: str, width: int) -> Pixels:
    """The marks of the curves and of the band, in as many lines as the names need."""
    figure = Figure(figsize=(width / _DPI, 0.3), dpi=_DPI, facecolor=colour(PAPER))
    handles: list[Artist] = []
    for place in range(len(names)):
        hue, mark = _look(place)
        handles.append(Line2D([], [], color=hue, marker=mark, markersize=5, linewidth=1.5))
    shown = [text.shorten(name, width // 3, SMALL) for name in names]
    if band:
        handles.append(Patch(facecolor=_BAND, alpha=_FAINTLY))
        shown.append(band)
    most = max(text.measure(name, SMALL) for name in shown) + 60
    columns = max(1, min(len(handles), width // most))
    rows = -(-len(handles) // columns)
    columns = -(-len(handles) // rows)
    figure.set_size_inches(width / _DPI, (6 + 20 * rows) / _DPI)
    figure.legend(handles, shown, loc="center left", ncols=columns, frameon=False, fontsize=8.5)
    return pixels(figure)


def _look(place: int) -> tuple[str, str]:
    # after seven the hues come again with other marks: 42 curves look different
    return _HUES[place % len(_HUES)], _MARKS[(place + place // len(_HUES)) % len(_MARKS)]
