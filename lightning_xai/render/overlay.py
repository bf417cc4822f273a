"""Heatmaps over images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_xai.render import text
from lightning_xai.render.colormap import blend
from lightning_xai.render.dispatch import draw
from lightning_xai.report import Overlay

SIDE = 224
_LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float32, device="cpu")


@draw.register(Overlay)
def draw_overlay(picture: Overlay) -> Tensor:
    """The heatmap alone, on its image in grey: (H, W, 3) uint8."""
    return overlaid(picture.image.unsqueeze(0), picture.map.unsqueeze(0), picture.scale, SIDE)[0]


def overlaid(images: Tensor, maps: Tensor, scale: float | None, side: int) -> Tensor:
    """Maps (N, h, w) float over images (N, H, W, 3) uint8, fitted to ``side`` -> (N, H', W', 3) uint8.

    The image turns grey, so that every hue is relevance. A map without relevance says so, and so does one
    that is not finite.
    """
    images = reduced(images, side)
    grey = (images.float() @ _LUMA).unsqueeze(-1).expand(*images.shape)
    values = stretched(strength(maps, scale), images.shape[1], images.shape[2])
    pictures = enlarged(blend(0.72 * grey + 30, values), side)
    for row, note in enumerate(notes(maps)):
        if note:
            pictures[row] = text.stamp(pictures[row], note)
    return pictures


def reduced(images: Tensor, side: int) -> Tensor:
    """Images (N, H, W, 3) uint8 no longer than ``side``, averaged where they shrink."""
    height, width = images.shape[1:3]
    longer = max(height, width)
    if longer <= side:
        return images
    size = (max(1, round(height * side / longer)), max(1, round(width * side / longer)))
    channels_first = images.permute(0, 3, 1, 2).float()
    small = F.interpolate(channels_first, size, mode="bilinear", antialias=True, align_corners=False)
    return small.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8)


def enlarged(images: Tensor, side: int) -> Tensor:
    """Images (N, H, W, 3) as many whole times larger as ``side`` allows: every pixel stays a square."""
    factor = max(1, side // max(images.shape[1:3]))
    return images.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def notes(maps: Tensor) -> list[str]:
    """What is to be said of each map (N, ...): ``"NaN"``, ``"no relevance"``, or nothing."""
    flat = maps.flatten(1)
    finite = flat.isfinite().all(1).tolist()
    some = (flat > 0).any(1).tolist()
    return ["NaN" if not f else "" if s else "no relevance" for f, s in zip(finite, some, strict=True)]


def strength(maps: Tensor, scale: float | None) -> Tensor:
    """Maps (N, ...) as values in [0, 1] of their scale, float32; maps that are not finite are 0.

    A scale that measures nothing (zero, negative, not finite) gives way to the largest value of the maps.
    """
    maps = maps.detach().to("cpu", torch.float32)
    finite = maps.flatten(1).isfinite().all(1).view(-1, *[1] * (maps.dim() - 1))
    maps = torch.where(finite, maps, 0).clamp_min(0)
    if scale is None:
        tops = maps.flatten(1).amax(1).view_as(finite)
    elif math.isfinite(scale) and scale > 0:
        tops = maps.new_tensor(scale)
    else:
        tops = maps.max()
    return (maps / torch.where(tops > 0, tops, 1)).clamp_max(1)


def stretched(values: Tensor, height: int, width: int) -> Tensor:
    """Values (N, h, w) -> (N, height, width), bilinear; averaged where they shrink."""
    resized = F.interpolate(values.unsqueeze(1), (height, width), mode="bilinear", antialias=True, align_corners=False)
    return resized.squeeze(1).clamp(0, 1)
