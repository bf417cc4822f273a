"""Described pictures in, (H, W, 3) uint8 pixels out. Never sees a model."""

from lightning_xai.render import bars, beeswarm, curves, filmstrip, grid, matrix, overlay, tokens, traces
from lightning_xai.render.dispatch import draw
from lightning_xai.render.png import data_url, png, save

__all__ = [
    "bars",
    "beeswarm",
    "curves",
    "data_url",
    "draw",
    "filmstrip",
    "grid",
    "matrix",
    "overlay",
    "png",
    "save",
    "tokens",
    "traces",
]
