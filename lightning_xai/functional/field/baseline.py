"""Where the way to a sample begins: what stands for an absent input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_xai.functional.field.field import Point
from lightning_xai.functional.layers import close_matches
from lightning_xai.functional.passes.explained import channel_dimension
from lightning_xai.tensors import replace_at

Baseline: TypeAlias = "str | int | float | Tensor | None"

NAMES = ("zero", "mean", "blur")
_CELLS = 8  # along each axis of what is blurred


def baseline_of(point: Point, baseline: Baseline) -> Tensor:
    """Of the shape, dtype and device of `point.x`.

    Args:
        point: the samples.
        baseline: `"zero"` (None), `"mean"` of the sample's own positions (of a table, of the columns), `"blur"`, a
            number, a tensor of one sample or of all; of token ids a whole number is the id of a neutral token.

    Raises:
        ValueError: an unknown name, or a tensor of another shape.
    """
    x, field = point.x, point.field
    if field.embedded and isinstance(baseline, int):
        baseline = field.embed(torch.full((1, 1), baseline, dtype=field.tensor.dtype, device=field.tensor.device))[0, 0]
        return baseline.to(x).expand_as(x)
    if isinstance(baseline, Tensor) and baseline.ndim:
        return _fitting(x, baseline)
    if baseline is None or isinstance(baseline, (int, float, Tensor)):
        return torch.full_like(x, 0 if baseline is None else float(baseline))
    if baseline == "zero":
        return torch.zeros_like(x)
    if baseline == "mean":
        return x.mean(0, keepdim=True).expand_as(x) if x.ndim == 2 else _mean(x, _channels(point))
    if baseline != "blur":
        raise ValueError(
            f"baseline={baseline!r} is unknown.{close_matches(str(baseline), NAMES)} Give "
            f"{', '.join(map(repr, NAMES))}, a number, or a tensor ({_shape('N', x)})"
        )
    if x.ndim == 2:
        raise ValueError("baseline='blur' needs neighbours, and columns have none: give 'mean' or a tensor")
    return _blurred(x, _channels(point))


def backgrounds_of(point: Point, background: Tensor) -> Tensor:
    """(M, ...), samples like those of `point.x`; of token ids what their embedding makes of (M, L) others.

    Raises:
        ValueError: backgrounds of another shape, or none.
    """
    x, field = point.x, point.field
    wanted = field.tensor if field.embedded and not background.is_floating_point() else x
    if background.shape[1:] != wanted.shape[1:] or background.ndim != wanted.ndim or not len(background):
        raise ValueError(
            f"the background has the shape {tuple(background.shape)}; expected samples like those that are explained, "
            f"({_shape('M', wanted)})"
        )
    return field.embed(background.to(wanted)).to(x) if wanted is not x else background.to(x)


def _channels(point: Point) -> int | None:
    if point.field.embedded:
        return point.x.ndim - 1
    few = point.field.some(slice(2))
    request = few.request
    return channel_dimension(
        request.model, few.tensor, forward=lambda x: request.run(replace_at(request.inputs, few.place, x))
    )


def _fitting(x: Tensor, baseline: Tensor) -> Tensor:
    sample, shape = tuple(x.shape[1:]), tuple(baseline.shape)
    if shape not in (sample, (1, *sample), tuple(x.shape)):
        raise ValueError(
            f"the baseline has the shape {shape}; expected that of a sample, {sample}, or one for each, "
            f"{tuple(x.shape)}"
        )
    return baseline.to(x).expand_as(x)


def _mean(x: Tensor, channels: int | None) -> Tensor:
    """Of each sample's own positions, channel by channel."""
    return x.mean([axis for axis in range(1, x.ndim) if axis != channels], keepdim=True).expand_as(x)


def _blurred(x: Tensor, channels: int | None) -> Tensor:
    """The means of cells with straight lines between: what is finer than a cell is gone."""
    planes = x.float().unsqueeze(1) if channels is None else x.float().movedim(channels, 1)
    size = planes.shape[2:]
    pools: dict[int, Callable[..., Tensor]]
    pools = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    cells = tuple(min(_CELLS, length) for length in size)
    smooth = F.interpolate(pools[len(size)](planes, cells), tuple(size), mode=mode, align_corners=False)
    return (smooth.squeeze(1) if channels is None else smooth.movedim(1, channels)).to(x)


def _shape(first: str, x: Tensor) -> str:
    return ", ".join([first, *map(str, x.shape[1:])])
