"""What a heatmap says in numbers: how much it moved, and how much of it lies where the evidence is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shows_relevance(maps: Tensor) -> Tensor:
    """(N, *spatial) -> (N,) bool: finite everywhere, and not zero everywhere."""
    flat = maps.flatten(1)
    return flat.isfinite().all(1) & (flat != 0).any(1)


def distribution(maps: Tensor) -> Tensor:
    """(N, *spatial) -> (N, cells) that sum to 1, of absolute values; a map that shows nothing is spread evenly."""
    flat = maps.flatten(1).double().abs()
    flat = torch.where(shows_relevance(maps)[:, None], flat, torch.ones_like(flat))
    return flat / flat.sum(1, keepdim=True)


def drift(maps: Tensor, previous: Tensor | None = None) -> Tensor:
    """Total variation between two readings of the same samples, each map normalised to sum 1.

    Args:
        maps: (N, *spatial); of signed ones the absolute values count, here and below.
        previous: the same shape; None compares with the even map.

    Returns:
        (N,) in [0, 1]: the share of the relevance that moved.
    """
    earlier = torch.zeros_like(maps) if previous is None else previous
    return 0.5 * (distribution(maps) - distribution(earlier)).abs().sum(1)


def mask_share(maps: Tensor, mask: Tensor) -> Tensor:
    """The share of the relevance that lies inside a mask.

    Args:
        maps: (N, h, w).
        mask: (N, H, W) bool; a cell of the map counts by the area of it that the mask covers.

    Returns:
        (N,) in [0, 1]; the covered area for a map that shows nothing.
    """
    return (distribution(maps) * _cover(mask, maps).flatten(1)).sum(1)


def mask_lift(maps: Tensor, mask: Tensor) -> Tensor:
    """`mask_share` over the share of the area that the mask covers: 1 is what a blind map has; (N,)."""
    area = mask.flatten(1).double().mean(1)
    return mask_share(maps, mask) / area.clamp_min(torch.finfo(torch.float64).tiny)


def pointing_game(maps: Tensor, mask: Tensor) -> Tensor:
    """Whether a map's largest cell touches the mask, or a neighbour of it does.

    One cell of tolerance, because a cell of a coarse map sees past its own borders. Zhang et al. 2018 count a
    hit within 15 pixels.

    Args:
        maps: (N, h, w).
        mask: (N, H, W) bool.

    Returns:
        (N,) of 0 or 1; 0 for a map that shows nothing.
    """
    near = F.max_pool2d(_cover(mask, maps), kernel_size=3, stride=1, padding=1).flatten(1) > 0
    peak = maps.nan_to_num().abs().flatten(1).argmax(1, keepdim=True)
    return (near.gather(1, peak)[:, 0] & shows_relevance(maps)).double()


def _cover(mask: Tensor, maps: Tensor) -> Tensor:
    return F.interpolate(mask.double()[:, None], size=maps.shape[-2:], mode="area")[:, 0]
