"""Matplotlib figures as pixels, without pyplot and its global state."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor


def pixels(figure: Figure) -> Tensor:
    """(H, W, 3) uint8."""
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    held = torch.frombuffer(bytearray(canvas.buffer_rgba()), dtype=torch.uint8)
    return held.view(height, width, 4)[..., :3]


def colour(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """0 to 255 as matplotlib takes it."""
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255
