"""One of matplotlib's colour maps as a lookup table on tensors."""

from __future__ import annotations

from functools import cache

import matplotlib
import torch
from torch import Tensor

# Its lightness rises steadily, and every one of its hues stands apart from grey.
NAME = "inferno"


@cache
def table() -> Tensor:
    """(256, 3) float, 0 to 255."""
    colors = matplotlib.colormaps[NAME].resampled(256)(range(256))
    return torch.tensor(colors[:, :3] * 255, dtype=torch.float32, device="cpu")


def flat(value: float, *size: int) -> Tensor:
    """(*size, 3) float of one grey, 0 to 255: a base to lay values over."""
    return torch.full((*size, 3), value, dtype=torch.float32, device="cpu")


def colorize(values: Tensor) -> Tensor:
    """Values in [0, 1] of any shape -> (*shape, 3) float, 0 to 255."""
    return table()[(values * 255).round().long()]


def opacity(values: Tensor) -> Tensor:
    """How much of the image a value in [0, 1] hides: weak relevance looks weak."""
    return 0.78 * values**0.7


def blend(base: Tensor, values: Tensor) -> Tensor:
    """Values in [0, 1] (*shape) laid over a base (*shape, 3), 0 to 255 -> (*shape, 3) uint8."""
    alpha = opacity(values).unsqueeze(-1)
    # The darkest third of the table would read as a shadow of the image.
    color = colorize(0.3 + 0.7 * values)
    return (base * (1 - alpha) + color * alpha).round().clamp(0, 255).to(torch.uint8)


def on_paper(base: Tensor, values: Tensor) -> Tensor:
    """As `blend`, for a light base without an image: the stronger, the darker."""
    alpha = (0.95 * values**0.6).unsqueeze(-1)
    color = colorize(0.88 - 0.58 * values)
    return (base * (1 - alpha) + color * alpha).round().clamp(0, 255).to(torch.uint8)
