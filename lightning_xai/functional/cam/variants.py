"""The maps that are made of a layer's activations A and the scores' gradients G: (N, C, *cells) -> (N, *cells)."""

from __future__ import annotations

import torch
from torch import Tensor


def grad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Channels weighted by their mean gradient (Selvaraju et al. 2017)."""
    return _weighted(a, g.flatten(2).mean(2))


def grad_cam_plus_plus(a: Tensor, g: Tensor) -> Tensor:
    """Weights sum relu(g) * g^2 / (2 g^2 + sum(A) g^3) (Chattopadhay et al. 2018)."""
    squared = g * g
    below = 2 * squared + _over_cells(a.flatten(2).sum(2), g) * squared * g
    alpha = torch.where(below != 0, squared / torch.where(below != 0, below, 1), 0)
    return _weighted(a, (alpha * g.relu()).flatten(2).sum(2))


def xgrad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Weights sum g * A / sum(A) (Fu et al. 2020); a channel that sums to zero has weight zero."""
    total = a.flatten(2).sum(2)
    weights = torch.where(total != 0, (g * a).flatten(2).sum(2) / torch.where(total != 0, total, 1), 0)
    return _weighted(a, weights)


def hires_cam(a: Tensor, g: Tensor) -> Tensor:
    """Sum over channels of g * A, cell by cell (Draelos and Carin 2020)."""
    return (g * a).sum(1)


def layer_cam(a: Tensor, g: Tensor) -> Tensor:
    """Sum over channels of relu(g) * A (Jiang et al. 2021)."""
    return (g.relu() * a).sum(1)


def eigen_cam(a: Tensor, g: Tensor) -> Tensor:
    """Projection of A on its first principal direction over channels, not centred (Muhammad and Yeasin 2020).

    Its sign is not defined; taken so that the map's sum is positive.
    """
    return _first_component(a)


def eigen_grad_cam(a: Tensor, g: Tensor) -> Tensor:
    """Projection of g * A on its first principal direction; sign as in `eigen_cam`."""
    return _first_component(g * a)


def _weighted(a: Tensor, weights: Tensor) -> Tensor:
    return (_over_cells(weights, a) * a).sum(1)


def _over_cells(weights: Tensor, like: Tensor) -> Tensor:
    return weights[(...,) + (None,) * (like.ndim - 2)]


def _first_component(a: Tensor) -> Tensor:
    flat = a.flatten(2)  # (N, C, S)
    finite = flat.isfinite().all(2).all(1)[:, None]
    # float64, since the Gram matrix squares the condition number; MPS has none
    matrix = flat.where(finite[..., None], 0).to("cpu" if a.device.type == "mps" else a.device, torch.float64)
    if flat.shape[2] < flat.shape[1]:
        values, vectors = torch.linalg.eigh(matrix.mT @ matrix)
        projection = vectors[..., -1] * values[..., -1:].clamp_min(0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(matrix @ matrix.mT)
        projection = (vectors[..., None, :, -1] @ matrix)[:, 0]
    projection = torch.where(projection.sum(1, keepdim=True) < 0, -projection, projection).to(a)
    return projection.where(finite, torch.nan).view(len(a), *a.shape[2:])
