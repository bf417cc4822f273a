"""The masks and the matrix of KernelSHAP."""

from __future__ import annotations

from itertools import combinations
from math import comb

import torch
from torch import Tensor

from lightning_xai.functional.masks.bank import Bank


def coalitions(features: int, masks: int | None, seed: int) -> Bank:
    """Shapley values by weighted least squares that sum to the whole difference (Lundberg and Lee 2017).

    Sizes of coalitions from the outside in, complete while they fit; of the others pairs of a coalition and its
    complement at random (Covert and Lee 2021), which share the weight that is left. Complete where 2^features - 2
    masks fit: the values are then exact. At the least, two masks a feature, they are exact where features meet in
    pairs, and closer than with a few masks more, since those carry most of the weight.

    Raises:
        ValueError: fewer masks than that.
    """
    least = fewest(features)
    masks = least if masks is None else masks
    if masks < least:
        raise ValueError(
            f"{masks} masks are too few for the Shapley values of {features} features: give {least} or more (two a "
            "feature), or take fewer features, by cells= of an image or a signal"
        )
    rows, weights = _outside_in(features, masks, seed)
    none = torch.zeros(1, features, dtype=torch.float64, device="cpu")
    return Bank(torch.cat([rows, none]), _operator(rows, weights))


def fewest(features: int) -> int:
    """Below it the least squares have no one solution."""
    return int(min(2 * features, 2**features - 2))


def _outside_in(features: int, masks: int, seed: int) -> tuple[Tensor, Tensor]:
    """Masks (P, features) and their weights (P,)."""
    # the kernel's weight of all coalitions of one size together
    weight = {size: (features - 1) / (size * (features - size)) for size in range(1, features)}
    left = [sorted({size, features - size}) for size in range(1, features // 2 + 1)]
    rows, weights = [_float([])[:, None].expand(0, features)], [_float([])]
    while left:
        number = [sum(comb(features, size) for size in pair) for pair in left]
        share = [sum(weight[size] for size in pair) for pair in left]
        # by their weight the masks that are left would hold less than one of each: the outermost size always is run
        rare = len(rows) > 1 and masks * share[0] < number[0] * sum(share)
        if number[0] > masks or rare:
            break
        for size in left.pop(0):
            every = _every(features, size)
            rows.append(every)
            weights.append(torch.full_like(every[:, 0], weight[size] / len(every)))
        masks -= number[0]
    if left and masks >= 2:
        share = [sum(weight[size] for size in pair) for pair in left]
        drawn = _pairs(features, [pair[0] for pair in left], share, masks // 2, seed)
        rows.append(drawn)
        weights.append(torch.full_like(drawn[:, 0], sum(share) / len(drawn)))
    return torch.cat(rows), torch.cat(weights)


def _every(features: int, size: int) -> Tensor:
    """All coalitions of a size."""
    index = torch.tensor(list(combinations(range(features), size)), dtype=torch.long, device="cpu")
    return torch.zeros(len(index), features, dtype=torch.float64, device="cpu").scatter_(1, index, 1.0)


def _pairs(features: int, sizes: list[int], share: list[float], number: int, seed: int) -> Tensor:
    """Random coalitions of these sizes, each followed by its complement: (2 number, features)."""
    generator = torch.Generator("cpu").manual_seed(seed)
    place = torch.multinomial(_float(share), number, replacement=True, generator=generator)
    draw = torch.rand(number, features, generator=generator, dtype=torch.float64, device="cpu")
    rank = draw.argsort(1).argsort(1)
    coalition = (rank < torch.tensor(sizes, dtype=torch.long, device="cpu")[place][:, None]).double()
    return torch.stack([coalition, 1 - coalition], 1).flatten(0, 1)


def _operator(masks: Tensor, weights: Tensor) -> Tensor:
    """(features, 1 + P + 1) for the scores of the whole, of the masks, and of nothing: weighted least squares on the
    hyperplane where the values sum to whole - nothing."""
    if masks.shape[1] == 1:
        return _float([[1.0, -1.0]])
    inverse = torch.linalg.inv(masks.T @ (weights[:, None] * masks))
    owed = inverse.sum(1, keepdim=True) / inverse.sum()  # what each is given of what the sum lacks
    free = inverse @ (masks.T * weights)
    project = free - owed * free.sum(0)
    return torch.cat([owed, project, -project.sum(1, keepdim=True) - owed], 1)


def _float(values: list[float] | list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")
