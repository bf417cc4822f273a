"""One of matplotlib's colour maps as a lookup table on arrays."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import matplotlib
import numpy as np

Floats: TypeAlias = "np.typing.NDArray[Any]"
Pixels: TypeAlias = "np.typing.NDArray[Any]"

# Its lightness rises steadily, and every one of its hues stands apart from grey.
NAME = "inferno"


@cache
def table() -> Floats:
    """(256, 3) float, 0 to 255."""
    colors = matplotlib.colormaps[NAME].resampled(256)(range(256))
    return (colors[:, :3] * 255).astype(np.float32)


def flat(value: float, *size: int) -> Floats:
    """(*size, 3) float of one grey, 0 to 255: a base to lay values over."""
    return np.full((*size, 3), value, np.float32)


def colorize(values: Floats) -> Floats:
    """Values in [0, 1] of any shape -> (*shape, 3) float, 0 to 255."""
    found: Floats = table()[np.rint(values * 255).astype(np.int64)]
    return found


def opacity(values: Floats) -> Floats:
    """How much of the image a value in [0, 1] hides: weak relevance looks weak."""
    return np.float32(0.78) * values ** np.float32(0.7)


def blend(base: Floats, values: Floats) -> Pixels:
    """Values in [0, 1] (*shape) laid over a base (*shape, 3), 0 to 255 -> (*shape, 3) uint8."""
    alpha = opacity(values)[..., None]
    # The darkest third of the table would read as a shadow of the image.
    return _mixed(base, colorize(np.float32(0.3) + np.float32(0.7) * values), alpha)


def on_paper(base: Floats, values: Floats) -> Pixels:
    """As `blend`, for a light base without an image: the stronger, the darker."""
    alpha = (np.float32(0.95) * values ** np.float32(0.6))[..., None]
    return _mixed(base, colorize(np.float32(0.88) - np.float32(0.58) * values), alpha)


def _mixed(base: Floats, color: Floats, alpha: Floats) -> Pixels:
    return np.clip(np.rint(base * (1 - alpha) + color * alpha), 0, 255).astype(np.uint8)
