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
    if maps.shape[-1] == 1:
        return 0.0
    entropy = -torch.xlogy(maps, maps).sum(-1)
    return float(entropy[maps.sum(-1) > 0].mean()) / math.log(maps.shape[-1])


def attention_distance(maps: Tensor, grid: tuple[int, int]) -> float:
    """The mean distance from a cell to the cells it looks at, over the grid's diagonal (Dosovitskiy et al. 2021).

    Args:
        maps: (N, heads, L, L), whose last rows * columns tokens are the cells, row by row; class tokens go before.
        grid: rows and columns.

    Raises:
        ValueError: maps that do not hold every cell as a query and as a key.
    """
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
    mean = (among * distances).sum(-1)[share > 0] / share[share > 0]
    return float(mean.mean()) / max(math.hypot(rows - 1, columns - 1), 1.0)


def attention_share(maps: Tensor, tokens: Tensor) -> float:
    """The mean share of a row of (N, heads, queries, keys) on `tokens`, bool (keys,) or (N, keys); [SEP], say.

    Rows that are all masked do not count; NaN where there are no others.
    """
    on = (maps * tokens.reshape(-1, 1, 1, maps.shape[-1])).sum(-1)
    total = maps.sum(-1)
    return float((on[total > 0] / total[total > 0]).mean())
