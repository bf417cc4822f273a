"""Whether a step may be repeated: what it gives a sample is of that sample alone, and has a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

EXACT, ROUGH = 1e-3, 3e-2
"""How far, of the largest value, numbers may differ between two orders of the samples; in half precision."""


def rows_of(values: Tensor, swapped: Tensor, samples: int) -> tuple[int, bool] | None:
    """How many rows a sample has, and whether they are stacked; None where some are not of one sample alone.

    Args:
        values: of the samples.
        swapped: the same once the first two samples have changed places.
        samples: how many there are.
    """
    if values.ndim == 0 or values.shape != swapped.shape or len(values) % samples or not len(values):
        return None
    rows = len(values) // samples
    for stacked in (False, True)[: 1 + (rows > 1)]:
        if _alike(exchanged(values, rows, stacked), swapped):
            return rows, stacked
    return None


def exchanged(values: Tensor, rows: int, stacked: bool) -> Tensor:
    """The rows as they should be once the first two samples have changed places."""
    samples = len(values) // rows
    order = [1, 0, *range(2, samples)]
    if stacked:
        return values.reshape(rows, samples, *values.shape[1:])[:, order].flatten(0, 1)
    return values.reshape(samples, rows, *values.shape[1:])[order].flatten(0, 1)


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """With a graph of the shadow's own parameters, to see whether a step cuts it."""
    floating = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    try:
        with torch.enable_grad():
            for parameter in floating:
                parameter.requires_grad_(True)
            yield
    finally:
        for parameter in floating:
            parameter.requires_grad_(False)


def _alike(one: Tensor, other: Tensor) -> bool:
    share = ROUGH if one.element_size() < 4 else EXACT
    one, other = one.detach().double(), other.detach().double()
    largest = float(one.nan_to_num(posinf=0.0, neginf=0.0).abs().max())
    return torch.allclose(one, other, rtol=0, atol=share * largest, equal_nan=True)
