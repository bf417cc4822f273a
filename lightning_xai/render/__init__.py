"""Described pictures in, (H, W, 3) uint8 tensors out. Never sees a model."""

from lightning_xai.render import curves, filmstrip, grid, matrix, overlay, tokens, traces
from lightning_xai.render.dispatch import draw

__all__ = ["curves", "draw", "filmstrip", "grid", "matrix", "overlay", "tokens", "traces"]
