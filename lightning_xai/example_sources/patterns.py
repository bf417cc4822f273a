"""Generated concept images."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_COLOURS = {
    "red": (1.0, 0.1, 0.1),
    "green": (0.1, 0.9, 0.1),
    "blue": (0.1, 0.2, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "white": (1.0, 1.0, 1.0),
    "black": (0.05, 0.05, 0.05),
}
_KINDS = ("stripes", "checks", "noise", *_COLOURS)


def drawn(kind: str, examples: int, size: tuple[int, int], *, seed: int = 0) -> Tensor:
    """Generated concept images, (examples, 3, H, W) in [0, 1], to begin without collecting anything.

    Args:
        kind: ``"stripes"`` (parallel bars, any angle, width and two colours), ``"checks"`` (a chessboard, likewise),
            ``"noise"`` (independent pixels, any two colours), or a colour: ``"red"``, ``"green"``, ``"blue"``,
            ``"yellow"``, ``"white"``, ``"black"`` (one flat hue, its brightness and grain vary).
        examples: how many.
        size: (H, W).
        seed: of a generator of its own.

    They are crude: a direction learned from them is that of clean patterns, not of their like in photographs. Apply
    the model's own normalisation to them.
    """
    if kind not in _KINDS:
        raise ValueError(f"nothing draws {kind!r}; these are drawn: {', '.join(_KINDS)}")
    random = torch.Generator().manual_seed(seed)
    plain: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    if kind in _COLOURS:
        brightness = 0.6 + 0.4 * torch.rand(examples, 1, 1, 1, generator=random, **plain)
        flat = torch.tensor(_COLOURS[kind], **plain).view(1, 3, 1, 1) * brightness
        return (flat + 0.05 * torch.randn(examples, 3, *size, generator=random, **plain)).clamp(0, 1)
    first, second = torch.rand(2, examples, 3, 1, 1, generator=random, **plain)
    if kind == "noise":
        choice = torch.rand(examples, 1, *size, generator=random, **plain)
        return torch.lerp(first, second, choice)
    y, x = torch.meshgrid(*(torch.arange(length, **plain) for length in size), indexing="ij")
    angle, width, phase = torch.rand(3, examples, 1, 1, generator=random, **plain)
    angle, width = math.pi * angle, min(size) * (0.06 + 0.12 * width)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    bars = ((along / width + 2 * phase).floor() % 2).bool()
    if kind == "checks":
        bars = bars ^ ((across / width).floor() % 2).bool()
    return torch.where(bars[:, None], first, second)
