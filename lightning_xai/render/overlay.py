"""Heatmaps over images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from lightning_xai.render import text
from lightning_xai.render.colormap import Floats, Pixels, blend
from lightning_xai.render.dispatch import draw
from lightning_xai.report import Overlay

SIDE = 224
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@draw.register(Overlay)
def draw_overlay(picture: Overlay) -> Pixels:
    """The heatmap alone, on its image in grey: (H, W, 3) uint8."""
    return overlaid(
        np.asarray(picture.image)[None], np.asarray(picture.map)[None], picture.scale, SIDE, picture.signed
    )[0]


def overlaid(images: Any, maps: Any, scale: float | None, side: int, signed: bool = False) -> Pixels:
    """Maps (N, h, w) float over images (N, H, W, 3) uint8, fitted to ``side`` -> (N, H', W', 3) uint8.

    The image turns grey, so that every hue is relevance. A map without relevance says so, and so does one
    that is not finite.
    """
    images = reduced(images, side)
    grey = (images.astype(np.float32) @ _LUMA)[..., None].repeat(3, -1)
    values = stretched(strength(maps, scale, signed), images.shape[1], images.shape[2])
    pictures = enlarged(blend(np.float32(0.72) * grey + np.float32(30), values, signed), side)
    for row, note in enumerate(notes(maps, signed)):
        if note:
            pictures[row] = text.stamp(pictures[row], note)
    return pictures


def reduced(images: Any, side: int) -> Pixels:
    """Images (N, H, W, 3) uint8 no longer than ``side``, averaged where they shrink."""
    images = np.asarray(images)
    height, width = images.shape[1:3]
    longer = max(height, width)
    if longer <= side:
        return images
    size = (max(1, round(height * side / longer)), max(1, round(width * side / longer)))
    channels = images.transpose(0, 3, 1, 2).reshape(-1, height, width).astype(np.float32)
    small = _resized(channels, *size).reshape(len(images), 3, *size).transpose(0, 2, 3, 1)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


def enlarged(images: Pixels, side: int) -> Pixels:
    """Images (N, H, W, 3) as many whole times larger as ``side`` allows: every pixel stays a square."""
    factor = max(1, side // max(images.shape[1:3]))
    return images.repeat(factor, 1).repeat(factor, 2)


def notes(maps: Any, signed: bool = False) -> list[str]:
    """What is to be said of each map (N, ...): ``"NaN"``, ``"no relevance"``, or nothing."""
    flat = _floats(maps).reshape(len(maps), -1)
    return ["NaN" if not np.isfinite(row).all() else "" if _shows(row, signed) else "no relevance" for row in flat]


def _shows(values: Floats, signed: bool) -> bool:
    return bool((values != 0).any() if signed else (values > 0).any())


def strength(maps: Any, scale: float | None, signed: bool = False) -> Floats:
    """Maps (N, ...) as values in [0, 1] of their scale, signed ones in [-1, 1], float32; what is not finite is 0.

    A scale that measures nothing (zero, negative, not finite) gives way to the largest value of the maps.
    """
    maps = _floats(maps)
    one_each = (len(maps), *[1] * (maps.ndim - 1))
    finite = np.isfinite(maps.reshape(len(maps), -1)).all(1).reshape(one_each)
    maps = np.where(finite, maps, np.float32(0))
    maps = maps if signed else maps.clip(0)
    sizes = np.abs(maps)
    if scale is None:
        tops = sizes.reshape(len(maps), -1).max(1).reshape(one_each)
    elif math.isfinite(scale) and scale > 0:
        tops = np.float32(scale)
    else:
        tops = sizes.max()
    return (maps / np.where(tops > 0, tops, np.float32(1))).clip(-1, 1)


def stretched(values: Any, height: int, width: int) -> Floats:
    """Values (N, h, w) -> (N, height, width), bilinear; averaged where they shrink."""
    return _resized(_floats(values), height, width).clip(-1, 1)


def _floats(values: Any) -> Floats:
    if hasattr(values, "detach"):  # a tensor, maybe of a precision that numpy does not have
        values = values.detach().cpu().float()
    return np.asarray(values).astype(np.float32)


def _resized(planes: Floats, height: int, width: int) -> Floats:
    # Pillow's filter widens where it shrinks
    made: Sequence[Floats] = [
        np.asarray(Image.fromarray(plane, "F").resize((width, height), Image.Resampling.BILINEAR)) for plane in planes
    ]
    return np.stack(made)
