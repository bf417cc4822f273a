"""Columns of a table in the order of what they count, and their names on an axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from lightning_xai.render import text
from lightning_xai.render.canvas import SMALL
from lightning_xai.render.colormap import AGAINST, FOR, Floats
from lightning_xai.render.figures import colour
from lightning_xai.render.text import FAINT, INK, PAPER

RED, BLUE = colour(FOR[1]), colour(AGAINST[1])
DPI = 100
POINTS = SMALL * 72 / DPI  # as large as text of this size elsewhere
BOTH_SIDES = "red, right of zero: for; blue, left of it: against"


def leading(values: Floats, most: int) -> list[int]:
    """The places of the columns of (N, F) with the largest mean absolute values, the largest first."""
    order = np.argsort(-np.abs(values).mean(0), kind="stable")
    return [int(place) for place in order[:most]]


def reach(values: Floats, scale: float | None) -> float:
    """What an axis has to reach on both sides, something where there is nothing."""
    largest = scale if scale is not None and np.isfinite(scale) and scale > 0 else float(np.abs(values).max(initial=0))
    return largest or 1.0


def name_rows(axes: Axes, names: Sequence[str], width: int) -> None:
    """One row a name, the first at the top, names no wider than so many pixels; a line at zero."""
    axes.set_facecolor(colour(PAPER))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [text.shorten(name, width, SMALL) for name in names])
    axes.tick_params(axis="x", labelsize=8, colors=colour(FAINT), length=3)
    axes.tick_params(axis="y", labelsize=POINTS, colors=colour(INK), length=0)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a name with two dollar signs is no formula
    axes.axvline(0, color=colour(FAINT), linewidth=0.8, zorder=1)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(colour(FAINT))
