"""One number a layer for its attention: how spread it is, how far it looks, what it spends on given tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attention_entropy(maps: Tensor) -> float:
    """The mean entropy of the rows of (N, heads, queries, keys), over log(keys): 1 uniform, 0 a single key.

    Rows that are all masked do not count; NaN where there are no others. A collapse towards 0 is a known sign of
    unstable training (Zhai et al. 2023).
    """
    return mean_of(entropy_sums(maps))


def attention_distance(maps: Tensor, grid: tuple[int, int]) -> float:
    """The mean distance from a cell to the cells it looks at, over the grid's diagonal (Dosovitskiy et al. 2021).

    Args:
        maps: (N, heads, L, L), whose last rows * columns tokens are the cells, row by row; class tokens go before.
        grid: rows and columns.

    Raises:
        ValueError: maps that do not hold every cell as a query and as a key.
    """
    return mean_of(distance_sums(maps, grid))


def attention_share(maps: Tensor, tokens: Tensor) -> float:
    """The mean share of a row of (N, heads, queries, keys) on `tokens`, bool (keys,) or (N, keys); [SEP], say.

    Rows that are all masked do not count; NaN where there are no others.
    """
    return mean_of(share_sums(maps, tokens))


def mean_of(sums: Tensor) -> float:
    """Of (N, 2) sums over each sample's rows of attention, and their numbers, the mean over all; NaN of no rows."""
    total, number = sums.sum(0).tolist()
    return total / number if number else math.nan


def entropy_sums(maps: Tensor) -> Tensor:
    """(N, 2) for `attention_entropy`: samples can be cut and joined."""
    if maps.shape[-1] == 1:
        return _sums(torch.zeros_like(maps[..., 0]), maps.sum(-1) > 0)
    return _sums(-torch.xlogy(maps, maps).sum(-1) / math.log(maps.shape[-1]), maps.sum(-1) > 0)


def distance_sums(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """(N, 2) for `attention_distance`; raises as it does."""
    rows, columns = grid
    cells = rows * columns
    if min(maps.shape[-2:]) < cells:
        raise ValueError(
            f"maps {tuple(maps.shape)} have fewer tokens than the {cells} cells of a {rows} x {columns} grid"
        )
    index = torch.arange(cells, device=maps.device)
    places = torch.stack([index // columns, index % columns], 1).float()
    distances = torch.cdist(places, places)
    among = maps[..., -cells:, -cells:].float()
    share = among.sum(-1)
    diagonal = max(math.hypot(rows - 1, columns - 1), 1.0)
    return _sums((among * distances).sum(-1) / share / diagonal, share > 0)


def share_sums(maps: Tensor, tokens: Tensor) -> Tensor:
    """(N, 2) for `attention_share`."""
    total = maps.sum(-1)
    return _sums((maps * tokens.reshape(-1, 1, 1, maps.shape[-1])).sum(-1) / total, total > 0)


def _sums(values: Tensor, counted: Tensor) -> Tensor:
    """(N, heads, queries) -> (N, 2): the sum over those that count, and their number."""
    values = torch.where(counted, values, torch.zeros_like(values)).double()
    return torch.stack([values.flatten(1).sum(1), counted.flatten(1).sum(1).double()], 1)
