"""How alike two models explain the same samples."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_xai.render.overlay import stretched


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's rank correlation of two explanations of the same samples.

    Args:
        first: (N, cells).
        second: (N, cells).

    Returns:
        (N,) float64 in [-1, 1], equal cells sharing their mean rank; NaN where a map is the same everywhere or not
        finite: it puts its cells in no order.

    Example:
        >>> spearman(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[0.1, 0.3, 0.2]]))
        tensor([0.5000], dtype=torch.float64)
    """
    finite = (first.isfinite() & second.isfinite()).all(1)
    a, b = (_centred_ranks(maps.nan_to_num()) for maps in (first, second))
    spread = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(finite & (spread > 0), (a * b).sum(1) / spread, torch.nan)


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """`spearman` of maps (N, h, w) and (N, h', w'), the smaller stretched to the larger; (N,)."""
    height, width = (max(sizes) for sizes in zip(first.shape[1:], second.shape[1:], strict=True))
    return spearman(*(_fitted(maps.float(), height, width).flatten(1) for maps in (first, second)))


def _fitted(maps: Tensor, height: int, width: int) -> Tensor:
    if maps.shape[1:] == (height, width):
        return maps
    tops = maps.flatten(1).amax(1).clamp_min(torch.finfo(maps.dtype).tiny)[:, None, None]
    return stretched(maps / tops, height, width)


def _centred_ranks(maps: Tensor) -> Tensor:
    ordered = maps.sort(1).values
    below = torch.searchsorted(ordered, maps)
    up_to = torch.searchsorted(ordered, maps, right=True)
    ranks = (below + up_to).double() / 2
    return ranks - ranks.mean(1, keepdim=True)
