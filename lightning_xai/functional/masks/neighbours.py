"""The masks of LIME, and the straight line through their scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_xai.functional.masks.bank import Bank, combined, scored
from lightning_xai.functional.masks.masked import Masked

_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Neighbours(Bank):
    """Masks near the sample, and how near.

    Args:
        weights: (1 + P,) float64, the first that of the sample as it is.
    """

    weights: Tensor


@dataclass(frozen=True, eq=False)
class Fit:
    """A linear model of the scores around each sample.

    Args:
        values: (N, [T,] features) float64, its coefficients.
        r2: (N, [T]) float64, the share of the weighted variance of the scores that it follows; NaN where they do not
            vary.
    """

    values: Tensor
    r2: Tensor


def neighbours(features: int, masks: int, kernel_width: float, ridge: float, seed: int) -> Neighbours:
    """As the lime package has them for images and texts: each feature stays with probability one half; masks count by
    exp(-d^2 / (2 width^2)), d their cosine distance to the whole; ridge regression that leaves the intercept free.

    Raises:
        ValueError: no more masks than features, or a width or ridge that is not positive.
    """
    if masks <= features:
        raise ValueError(
            f"{masks} masks are too few for a linear model of {features} features, which would pass through every "
            f"score: give masks= above {features}, or fewer features, by cells= of an image or a signal"
        )
    for name, value in (("kernel_width", kernel_width), ("ridge", ridge)):
        if not value > 0:
            raise ValueError(f"{name}={value} has to be positive")
    generator = torch.Generator("cpu").manual_seed(seed)
    rows = torch.rand(masks, features, generator=generator, dtype=torch.float64, device="cpu").lt(0.5).double()
    rows[0] = 1
    distance = 1 - (rows.sum(1) / features).sqrt()
    weights = (-((distance / kernel_width) ** 2) / 2).exp()
    share = weights / weights.sum()
    centred = rows - share @ rows  # leaves the intercept free, and scores need no centring
    penalty = ridge * torch.eye(features, dtype=torch.float64, device="cpu")
    slope = torch.linalg.solve(centred.T @ (weights[:, None] * centred) + penalty, centred.T * weights)
    return Neighbours(rows[1:], slope, weights)


def fitted(masked: Masked, bank: Neighbours) -> Fit:
    """The linear model of each sample's scores."""
    scores = scored(masked, bank)
    values = combined(bank, scores)
    whole = torch.ones_like(bank.masks[:1])
    lines = torch.einsum("pf,n...f->pn...", torch.cat([whole, bank.masks]), values)
    unexplained, variance = _variance(scores - lines, bank.weights), _variance(scores, bank.weights)
    # below it, scores in float32 vary by rounding alone
    varies = variance > (_ROUNDING * scores.abs().amax(0)) ** 2
    return Fit(values, torch.where(varies, 1 - unexplained / variance, torch.nan))


def _variance(values: Tensor, weights: Tensor) -> Tensor:
    """(1 + P, ...) -> (...), weighted."""
    share = (weights / weights.sum()).view(-1, *[1] * (values.ndim - 1))
    return ((values - (share * values).sum(0)) ** 2 * share).sum(0)
