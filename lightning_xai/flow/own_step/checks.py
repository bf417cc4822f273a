"""Whether a step may be repeated: what it gives a sample is of that sample alone, and has a gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

EXACT, ROUGH = 1e-5, 1e-2
"""How far, of the largest value, numbers may differ between two runs; in half precision."""


def other_samples(samples: int) -> list[int]:
    """Which samples a step is run on once more: the first has become the second's copy."""
    return [1, *range(1, samples)]


def rows_of(values: Tensor, others: Tensor, samples: int) -> tuple[int, bool] | None:
    """How many rows a sample has, and whether they are stacked; None where some are not of one sample alone.

    The others' rows tell: that of a copy is the copied one's, and no other has changed. Two samples that change places
    would tell less: what is taken from the mean of the batch changes places as well.

    Args:
        values: of the samples.
        others: of `other_samples`.
        samples: how many there are.
    """
    if values.ndim == 0 or values.shape != others.shape or len(values) % samples or not len(values):
        return None
    rows = len(values) // samples
    # of rows that hardly differ either would do: what fits best is taken
    gaps = {stacked: _gap(_expected(values, rows, stacked), others) for stacked in (False, True)[: 1 + (rows > 1)]}
    stacked = min(gaps, key=gaps.__getitem__)
    return (rows, stacked) if gaps[stacked] <= (ROUGH if values.element_size() < 4 else EXACT) else None


def _expected(values: Tensor, rows: int, stacked: bool) -> Tensor:
    samples = len(values) // rows
    order = other_samples(samples)
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


def _gap(one: Tensor, other: Tensor) -> float:
    """The largest difference, over the largest value; values that are not finite have to be the same."""
    one, other = one.detach().cpu().double(), other.detach().cpu().double()
    finite = one.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return math.inf
    largest = one[finite].abs().max() if finite.any() else one.new_ones(())
    return float((one - other)[finite].abs().max() / largest.clamp_min(1e-30)) if finite.any() else 0.0
