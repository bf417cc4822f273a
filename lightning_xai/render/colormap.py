"""Values as colours: one of matplotlib's colour maps for what is positive, two hues for what has a sign."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import matplotlib
import numpy as np

Floats: TypeAlias = "np.typing.NDArray[Any]"
Pixels: TypeAlias = "np.typing.NDArray[Any]"

# Its lightness rises steadily, and every one of its hues stands apart from grey.
NAME = "inferno"
# Weak to strong. Red and blue stay apart for the colour-blind; the red is towards orange, since to those who lack the
# red cones a pure one is black.
FOR = ((255, 148, 112), (232, 52, 22))
AGAINST = ((120, 172, 255), (24, 84, 236))


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


def opacity(values: Floats, signed: bool = False) -> Floats:
    """How much of the image a value in [0, 1] hides: weak relevance looks weak."""
    # two hues alone are fainter than a map whose lightness rises, too
    most, bend = (0.86, 0.6) if signed else (0.78, 0.7)
    return np.float32(most) * values ** np.float32(bend)


def two_sided(values: Floats) -> Floats:
    """Values in [-1, 1] of any shape -> (*shape, 3) float, 0 to 255: `FOR` above zero, `AGAINST` below."""
    (weak_for, strong_for), (weak_against, strong_against) = np.array((FOR, AGAINST), np.float32)
    positive, size = values[..., None] > 0, np.abs(values)[..., None]
    weak, strong = np.where(positive, weak_for, weak_against), np.where(positive, strong_for, strong_against)
    found: Floats = weak + (strong - weak) * size
    return found


def blend(base: Floats, values: Floats, signed: bool = False) -> Pixels:
    """Values (*shape) laid over a base (*shape, 3), 0 to 255 -> (*shape, 3) uint8.

    Values are in [0, 1], signed ones in [-1, 1].
    """
    # The darkest third of the table would read as a shadow of the image.
    color = two_sided(values) if signed else colorize(np.float32(0.3) + np.float32(0.7) * values)
    return _mixed(base, color, opacity(np.abs(values), signed)[..., None])


def on_paper(base: Floats, values: Floats, signed: bool = False) -> Pixels:
    """As `blend`, for a light base without an image: the stronger, the darker."""
    color = two_sided(values) if signed else colorize(np.float32(0.88) - np.float32(0.58) * values)
    return _mixed(base, color, (np.float32(0.95) * np.abs(values) ** np.float32(0.6))[..., None])


def _mixed(base: Floats, color: Floats, alpha: Floats) -> Pixels:
    return np.clip(np.rint(base * (1 - alpha) + color * alpha), 0, 255).astype(np.uint8)
