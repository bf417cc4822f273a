"""Linear classifiers in the dual: many small problems, each on a block of one Gram matrix, solved together.

Of P problems with up to N examples: blocks K (P, N, N), labels y (P, N) of 1 and -1, and costs (P, N), what an
example's loss counts, 0 where a problem has fewer examples. Each minimises |w|^2 / 2 + sum(cost * loss(f, y)) with
f = x . w + b and w = sum(a * x); the intercept b is not penalised, so that K may be about any mean.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(f, y) -> the loss, its slope and its curvature in f."""

_STEPS = 100


class Solution(NamedTuple):
    """Coefficients a (P, N) and decision values f (P, N)."""

    a: Tensor
    f: Tensor


def logistic(f: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log(1 + exp(-y f)): scikit-learn's LogisticRegression with the same C."""
    wrong = torch.sigmoid(-y * f)
    return softplus(-y * f), -y * wrong, wrong * (1 - wrong)


def squared(f: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(f - y)^2 / 2: scikit-learn's RidgeClassifier with alpha = 1 / C."""
    return (f - y).square() / 2, f - y, torch.ones_like(f)


def squared_hinge(f: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """max(0, 1 - y f)^2: scikit-learn's LinearSVC, but for its penalised intercept."""
    gap = (1 - y * f).clamp_min(0)
    return gap.square(), -2 * y * gap, 2 * (gap > 0).to(gap)


def minimise(k: Tensor, y: Tensor, cost: Tensor, loss: Loss, *, start: Tensor, tolerance: float = 1e-9) -> Solution:
    """Newton's method from the decision values `start`, steps halved where the objective would rise."""
    a, image, f = torch.zeros_like(y), torch.zeros_like(y), start
    at_start = True  # where f is no function of a yet
    objective = torch.full_like(y[:, :1], torch.inf)
    for _ in range(_STEPS):
        _, slope, curvature = loss(f, y)
        residual = (a + cost * slope).abs().amax() / cost.amax()
        if not at_start and residual <= tolerance:
            break
        root = (cost * curvature).sqrt()
        target = root * f - torch.where(root > 0, cost * slope / root, 0)
        new_a, intercept = _weighted_least_squares(k, root, target)
        new_image = (k @ new_a[..., None])[..., 0]
        new_f = new_image + intercept
        step = torch.ones_like(objective)
        for _ in range(1 if at_start else 20):
            trial = (a + step * (new_a - a), image + step * (new_image - image), f + step * (new_f - f))
            value = (trial[0] * trial[1] / 2 + cost * loss(trial[2], y)[0]).sum(1, keepdim=True)
            rises = value > objective + 1e-12 * objective.abs()
            if at_start or not rises.any():
                break
            step = torch.where(rises, step / 2, step)
        (a, image, f), objective, at_start = trial, value, False
    else:
        if residual > 1e-4:
            warnings.warn(
                f"a classifier did not converge in {_STEPS} steps (residual {float(residual):.1g}); take a smaller C",
                stacklevel=2,
            )
    return Solution(a, f)


def without_one(k: Tensor, y: Tensor, cost: Tensor, loss: Loss, solution: Solution) -> Tensor:
    """Each example's decision value under the fit without it, (P, N): one Newton step from the full fit.

    Exact for the squared loss. For the others the approximate leave-one-out of Rad and Maleki 2020.
    """
    a, f = solution
    root = (cost * loss(f, y)[2]).sqrt()
    inverse = torch.cholesky_inverse(_factor(k, root))
    ones = (inverse @ root[..., None])[..., 0]
    kept = inverse.diagonal(dim1=1, dim2=2) - ones.square() / (root * ones).sum(1, keepdim=True)
    return f - torch.where(root > 0, a * (1 / kept - 1) / root.square(), 0)


def mean_difference(k: Tensor, y: Tensor, cost: Tensor) -> Solution:
    """From the mean of one class to the mean of the other, decided half way."""
    positive, negative = _class_weights(y, cost)
    a = positive - negative
    f = (k @ a[..., None])[..., 0]
    return Solution(a, f - (f * (positive + negative)).sum(1, keepdim=True) / 2)


def mean_without_one(k: Tensor, y: Tensor, cost: Tensor) -> Tensor:
    """Each example's decision value where its class's mean is taken without it: exact, (P, N)."""
    own, other = _class_weights(y, cost)
    images = (k @ torch.stack([own, other], -1)).unbind(-1)
    norms = [(image * weight).sum(1, keepdim=True) for image, weight in zip(images, (own, other), strict=True)]
    diagonal = k.diagonal(dim1=1, dim2=2)
    values = []
    for this, that, weight in ((0, 1, own), (1, 0, other)):
        rest = 1 - weight
        near = (images[this] - weight * diagonal) / rest
        norm = (norms[this] - 2 * weight * images[this] + weight.square() * diagonal) / rest.square()
        values.append(near - images[that] - (norm - norms[that]) / 2)
    return torch.where(y > 0, values[0], -values[1])


def _class_weights(y: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
    positive, negative = cost * (y > 0), cost * (y < 0)
    return positive / positive.sum(1, keepdim=True), negative / negative.sum(1, keepdim=True)


def _factor(k: Tensor, root: Tensor) -> Tensor:
    matrix = k * root[:, :, None] * root[:, None, :]
    matrix.diagonal(dim1=1, dim2=2).add_(1)
    factor: Tensor = torch.linalg.cholesky_ex(matrix)[0]
    return factor


def _weighted_least_squares(k: Tensor, root: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """a and b (P, 1) that minimise a'Ka / 2 + |target - root * (Ka + b)|^2 / 2."""
    sides = torch.cholesky_solve(torch.stack([target, root], -1), _factor(k, root)) * root[..., None]
    free, ones = sides.unbind(-1)
    total = ones.sum(1, keepdim=True)
    intercept = torch.where(total > 0, free.sum(1, keepdim=True) / total, 0)
    return free - intercept * ones, intercept
