"""The completeness gap: what attributions lack to the change of the score that they share out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_xai.functional.field import Baseline, backgrounds_of, baseline_of, explaining_field
from lightning_xai.functional.passes.outputs import Targets


def completeness_gap(
    model: nn.Module,
    inputs: Any,
    targets: Targets,
    attributions: Tensor,
    *,
    baseline: Baseline = None,
    background: Tensor | None = None,
    of: str | int | None = None,
    forward: Callable[[Any], Any] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """|sum of the attributions - change| / |change|, the change being that of the score from the baseline.

    Above a tenth or so more steps are needed. A small gap is necessary, not sufficient: errors may cancel.

    Args:
        model: run in eval mode, whatever its mode is.
        inputs: as the attributions were made of.
        targets: likewise.
        attributions: (N, ...), or (N, T, ...) for T targets.
        baseline: as `integrated_gradients` was given it.
        background: as `expected_gradients` was given it, in place of a baseline: the change is that from the mean
            score of the backgrounds, one forward for each of them and each sample.
        of: as the attributions were made of.
        forward: used instead of the call of `model`: inputs -> output. It has to run `model`.
        batch_size: the most samples in one forward.

    Returns:
        float32 (N,), or (N, T) for T targets: 0 where nothing is lacking, infinite where the score does not change
        and attributions are left.

    Raises:
        TypeError: nothing to differentiate by, or targets or an output of a kind that is not understood.
        ValueError: attributions, a baseline, a background, targets or `of` that do not fit.
        IndexError: a class that the model does not have.
    """
    if baseline is not None and background is not None:
        raise ValueError("both baseline= and background= say where the score changes from; give one of them")
    with explaining_field(model, inputs, targets, forward, of) as field:
        point = field.point(batch_size)
        point.check_shape(attributions)
        if background is None:
            starts = baseline_of(point, baseline)[None]
        else:
            starts = backgrounds_of(point, background)[:, None].expand(-1, *point.x.shape)
        before = torch.zeros_like(point.scores, dtype=torch.float64)
        every = torch.arange(len(starts) * len(point.x), dtype=torch.long, device=point.x.device)
        for pairs in torch.split(every, batch_size):
            start, rows = pairs // len(point.x), pairs % len(point.x)
            before.index_add_(0, rows, point.at(rows, starts[start, rows]).double() / len(starts))
        change = point.scores.double() - before
        lack = (attributions.double().to(change.device).flatten(point.scores.ndim).sum(-1) - change).abs()
        return torch.where(lack == 0, 0.0, lack / change.abs()).float()
