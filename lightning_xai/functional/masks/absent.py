"""What stands in the place of what is taken away."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_xai.functional.layers import close_matches
from lightning_xai.functional.masks.features import Features

Baseline: TypeAlias = "str | float | Tensor | None"

NAMES = ("zero", "mean", "blur")


def absent(x: Tensor, features: Features, baseline: Baseline, background: Tensor | None) -> Tensor:
    """(B, N or 1, ...) for samples x (N, ...): B backgrounds, one where there is a baseline. Raises as `occlusion`."""
    if background is not None:
        if baseline is not None:
            raise ValueError("both baseline= and background= say what stands for an absent feature; give one of them")
        if background.ndim != x.ndim or background.shape[1:] != x.shape[1:] or not len(background):
            raise ValueError(
                f"the background has the shape {tuple(background.shape)}; expected samples like those that are "
                f"explained, {_shape('M', x)}"
            )
        return background.to(x)[:, None]
    return baseline_of(x, features, baseline)[None]


def baseline_of(x: Tensor, features: Features, baseline: Baseline) -> Tensor:
    """(N or 1, ...), of the dtype and device of x (N, ...)."""
    if isinstance(baseline, Tensor) and baseline.ndim:
        return _fitting(x, baseline)
    if baseline is None or isinstance(baseline, (int, float, Tensor)):
        return torch.full_like(x[:1], 0 if baseline is None else float(baseline))
    if baseline == "zero":
        return torch.zeros_like(x[:1])
    table = features.channels is None and x.ndim == 2
    if baseline == "mean":
        return x.mean(0, keepdim=True) if table else _mean(x, features)
    if baseline != "blur":
        raise ValueError(
            f"baseline={baseline!r} is unknown.{close_matches(str(baseline), NAMES)} Give "
            f"{', '.join(map(repr, NAMES))}, a number, or a tensor {_shape('N', x)}"
        )
    if table:
        raise ValueError("baseline='blur' needs neighbours, and columns have none: give 'mean' or a background")
    return _blurred(x, features)


def _fitting(x: Tensor, baseline: Tensor) -> Tensor:
    sample, shape = tuple(x.shape[1:]), tuple(baseline.shape)
    if shape not in (sample, (1, *sample), tuple(x.shape)):
        raise ValueError(
            f"the baseline has the shape {shape}; expected that of a sample, {sample}, or one for each, "
            f"{tuple(x.shape)}"
        )
    return baseline.to(x).view(-1, *sample)


def _mean(x: Tensor, features: Features) -> Tensor:
    """Of each sample's own positions, channel by channel."""
    keep = {0} if features.channels is None else {0, x.ndim + features.channels}
    return x.mean([axis for axis in range(x.ndim) if axis not in keep], keepdim=True).expand_as(x)


def _blurred(x: Tensor, features: Features) -> Tensor:
    """The means of the cells with straight lines between: what is finer than a cell is gone."""
    planes = x.float()[:, None] if features.channels is None else x.float().movedim(features.channels, 1)
    size = planes.shape[2:]
    pool: Any = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(size)]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    smooth = F.interpolate(pool(planes, features.grid), tuple(size), mode=mode, align_corners=False)
    return (smooth[:, 0] if features.channels is None else smooth.movedim(1, features.channels)).to(x)


def _shape(first: str, x: Tensor) -> str:
    return f"({', '.join([first, *map(str, x.shape[1:])])})"
