"""How alike two models explain the same samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_xai.render.colormap import Floats
from lightning_xai.render.overlay import stretched


def spearman(first: Any, second: Any) -> Floats:
    """Spearman's rank correlation of two explanations of the same samples.

    Args:
        first: (N, cells).
        second: (N, cells).

    Returns:
        (N,) float64 in [-1, 1], equal cells sharing their mean rank; NaN where a map is the same everywhere or not
        finite: it puts its cells in no order.

    Example:
        >>> spearman([[1.0, 2.0, 9.0]], [[0.1, 0.3, 0.2]]).tolist()
        [0.5]
    """
    first, second = np.asarray(first), np.asarray(second)
    finite = (np.isfinite(first) & np.isfinite(second)).all(1)
    a, b = (_centred_ranks(np.nan_to_num(maps)) for maps in (first, second))
    spread = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    ordered = finite & (spread > 0)
    return np.where(ordered, (a * b).sum(1) / np.where(ordered, spread, 1), np.nan)


def agreement(first: Any, second: Any) -> Floats:
    """`spearman` of maps (N, h, w) and (N, h', w'), the smaller stretched to the larger; (N,)."""
    height, width = (max(sizes) for sizes in zip(first.shape[1:], second.shape[1:], strict=True))
    fitted = (_fitted(np.asarray(maps, np.float32), height, width) for maps in (first, second))
    return spearman(*(maps.reshape(len(maps), -1) for maps in fitted))


def _fitted(maps: Floats, height: int, width: int) -> Floats:
    if maps.shape[1:] == (height, width):
        return maps
    tops = np.abs(maps).max((1, 2), keepdims=True).clip(np.finfo(np.float32).tiny)
    return stretched(maps / tops, height, width)


def _centred_ranks(maps: Floats) -> Floats:
    ordered = np.sort(maps, 1)
    pairs = list(zip(ordered, maps, strict=True))
    below, up_to = (np.stack([np.searchsorted(row, of, side) for row, of in pairs]) for side in ("left", "right"))
    ranks = (below + up_to) / 2
    return ranks - ranks.mean(1, keepdims=True)
