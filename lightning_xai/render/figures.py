"""Matplotlib figures as pixels, without pyplot and its global state."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_xai.render.colormap import Pixels


def pixels(figure: Figure) -> Pixels:
    """(H, W, 3) uint8."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def colour(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """0 to 255 as matplotlib takes it."""
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255
